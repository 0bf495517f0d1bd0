"""A plain DataLoader over our sampler: what it delivers, how to keep an exact state with it, and its traps."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import curriculum_sampler as cs

from .strategies import cases

SCHEDULE = cs.StageSchedule(
    [cs.Stage("easy", {"easy": 1}, steps=4), cs.Stage("hard", {"easy": 1, "hard": 2}, steps=6)]
)


class Named:
    """A map-style dataset that says what it was asked for."""

    def __getitem__(self, draw):
        return draw.bucket, draw.index


def sampler_of(**options):
    return cs.MixtureSampler(SCHEDULE.plan({"easy": 9, "hard": 7}, batch_size=6), 17, **options)


def loader_of(sampler, num_workers=0):
    return DataLoader(Named(), batch_sampler=sampler, num_workers=num_workers, collate_fn=list)


@given(cases(), st.integers(0, 60))
def test_any_batch_is_a_place_to_stop(case, stop):
    """Without workers the sampler is where the loop is."""
    whole = [list(batch) for batch in case.sampler()]
    stop = min(stop, case.plan.total_steps) * case.grad_accumulation
    sampler, other = case.sampler(), case.sampler()
    found = list(itertools.islice(loader_of(sampler), stop))
    other.load_state_dict(json.loads(json.dumps(sampler.state_dict())))
    assert found + list(loader_of(other)) == whole


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 4, 5, 10])
def test_with_the_steps_done_the_state_is_exact_for_any_workers(num_workers, stop):
    sampler, other = sampler_of(), sampler_of()
    found = list(itertools.islice(loader_of(sampler, num_workers), stop))
    other.load_state_dict(sampler.state_dict(step=stop))
    assert found + list(loader_of(other, 2 - num_workers)) == [list(batch) for batch in sampler_of()]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_accumulation_counts_in_steps(num_workers):
    sampler, other = sampler_of(grad_accumulation=3), sampler_of(grad_accumulation=2)
    found = list(itertools.islice(loader_of(sampler, num_workers), 3 * 5))
    other.load_state_dict(sampler.state_dict(step=5))
    whole = [draw for batch in sampler_of() for draw in batch]
    assert list(itertools.chain(*found, *loader_of(other, num_workers))) == whole


def test_trap_with_workers_the_sampler_is_ahead_of_the_loop():
    sampler = sampler_of()
    next(iter(loader_of(sampler, 2)))
    assert sampler.step > 1
    assert sampler.state_dict()["draws"] > sampler.state_dict(step=1)["draws"] == 6


def test_trap_a_loop_that_was_left_wants_seek_before_the_next():
    whole = [list(batch) for batch in sampler_of()]
    sampler = sampler_of()
    loader = loader_of(sampler, 2)
    found = list(itertools.islice(loader, 3))
    assert next(iter(loader)) != whole[3]
    sampler.seek(3)
    assert found + list(loader) == whole


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_change_takes_effect_at_the_step_that_it_returns(num_workers):
    sampler = sampler_of()
    found = []
    for batch in loader_of(sampler, num_workers):
        found.append(batch)
        if len(found) == 2:
            boundary = sampler.advance("plateau", stage="easy")
            state = sampler.state_dict(step=2)
    assert boundary == (2 if num_workers == 0 else 4)
    other = sampler_of()
    other.load_state_dict(state)
    assert list(loader_of(other, num_workers)) == found[2:]
    assert len(found) == boundary + 6


def test_trap_options_that_belong_to_the_sampler_are_refused_by_torch():
    for name in ("batch_size", "shuffle", "drop_last"):
        with pytest.raises(ValueError, match="batch_sampler option is mutually exclusive"):
            DataLoader(Named(), batch_sampler=sampler_of(), **{name: 2})
