"""The promises about order, each a law of the public surface by its name in the README."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import curriculum_sampler as cs
from curriculum_sampler.testing import check_exact, check_rank_free, check_resume

from .strategies import BUCKETS, Case, all_draws, cases, mixtures, schedules, seeds, sizes


@given(cases())
def test_exact_mixture(case):
    """Every window of every segment, and every prefix of one that ends at a window's edge; ramps as a whole."""
    check_exact((case.sampler().draws(step=step) for step in range(case.plan.total_steps)), case.plan)


@given(cases(default_window=True, ramps=False))
def test_exact_mixture_in_every_global_batch(case):
    sampler = case.sampler()
    for step in range(case.plan.total_steps):
        shares = case.plan.segment_at(step * case.plan.batch_size).shares_at(step * case.plan.batch_size)
        counts = sampler.draws(step=step).counts()
        for name, share in shares.items():
            bound = (len(shares) - 1).bit_length()
            assert abs(counts.get(name, 0) - share * case.plan.batch_size) <= max(0, bound)


@given(cases())
def test_each_sample_once_per_pass(case):
    streams: dict[str, list[int]] = defaultdict(list)
    for draw in all_draws(case.sampler()):
        streams[draw.bucket].append(draw.index)
    for bucket, stream in streams.items():
        size = case.plan.bucket_sizes[bucket]
        for start in range(0, len(stream), size):
            one_pass = stream[start : start + size]
            assert len(set(one_pass)) == len(one_pass)
            assert all(0 <= index < size for index in one_pass)


@given(st.integers(1, 3000), st.integers(1, 64), st.integers(1, 9), seeds)
def test_each_sample_once_per_pass_with_runs(size, run_size, block_runs, seed):
    schedule = cs.StageSchedule([cs.Stage("only", {"a": 1}, epochs=2)])
    plan = schedule.plan({"a": size}, batch_size=size, run_sizes=run_size, block_runs=block_runs)
    sampler = cs.MixtureSampler(plan, seed)
    first, second = (sampler.draws(step=step) for step in (0, 1))
    assert sorted(first.indices) == sorted(second.indices) == list(range(size))
    assert set(first.passes) == {0}
    assert set(second.passes) == {1}


@given(st.integers(20, 5000), st.none() | st.integers(1, 9), seeds)
def test_every_pass_has_an_order_of_its_own(size, run_size, seed):
    plan = cs.StageSchedule([cs.Stage("only", {"a": 1}, epochs=3)]).plan(
        {"a": size}, size, run_sizes=run_size
    )
    passes = [cs.MixtureSampler(plan, seed).draws(step=step).indices for step in range(3)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (passes[one] == passes[other]).mean() < 0.5


@given(st.integers(2, 4000), st.integers(2, 64), st.integers(1, 9), seeds)
def test_a_block_holds_few_runs_so_that_reads_stay_local(size, run_size, block_runs, seed):
    plan = cs.StageSchedule([cs.Stage("only", {"a": 1}, epochs=1)]).plan(
        {"a": size}, size, run_sizes=run_size, block_runs=block_runs, window=1
    )
    indices = cs.MixtureSampler(plan, seed).draws(step=0).indices
    for start in range(0, size, run_size):
        # Consecutive draws worth one run touch at most the runs of two neighbouring blocks.
        assert len(set(indices[start : start + run_size] // run_size)) <= 2 * block_runs


@given(cases(), st.data())
def test_zero_lag_switch(case, data):
    assume(len(case.plan.stages) > 1)
    sampler = case.sampler()
    boundary = data.draw(st.sampled_from(case.plan.boundaries[1:-1]))
    before, after = case.plan.at(step=boundary - 1), case.plan.at(step=boundary)
    assert after.stage != before.stage
    allowed = {name for name, share in after.mixture.items() if share}
    assert set(sampler.draws(step=boundary).counts()) <= allowed


class Ranks:
    """All ranks of a run together: its batches are those of every rank, one after the other."""

    def __init__(self, case: Case) -> None:
        self.samplers = [case.sampler(rank) for rank in range(case.world_size)]

    def __iter__(self):
        ranks = [iter(sampler) for sampler in self.samplers]
        for _ in range(len(self.samplers[0]) // self.samplers[0].grad_accumulation):
            yield [
                draw
                for _ in range(self.samplers[0].grad_accumulation)
                for rank in ranks
                for draw in next(rank)
            ]
        assert all(next(rank, None) is None for rank in ranks)

    def state_dict(self):
        states = [sampler.state_dict() for sampler in self.samplers]
        assert all(state == states[0] for state in states)
        return states[0]

    def load_state_dict(self, state):
        for sampler in self.samplers:
            sampler.load_state_dict(state)


@given(cases(), st.integers(0, 50), st.integers(0, 50), st.data())
def test_exact_resume(case, stop, stop_again, data):
    """Also with another world size and accumulation: the parts of a step are put together again."""
    parts = [n for n in range(1, case.plan.batch_size + 1) if case.plan.batch_size % n == 0]
    world_size = data.draw(st.sampled_from(parts))
    accumulation = data.draw(
        st.sampled_from([n for n in parts if (case.plan.batch_size // world_size) % n == 0])
    )
    other = replace(case, world_size=world_size, grad_accumulation=accumulation)
    check_resume(
        lambda: Ranks(case),
        make_resumed=lambda: Ranks(other),
        stops=[min(number, case.plan.total_steps) for number in (stop, stop_again)],
        saved=lambda state: json.loads(json.dumps(state)),
    )


@given(cases(), mixtures(), st.integers(1, 30), st.data())
def test_no_look_ahead(case, mixture, steps, data):
    """Another end of the current stage, and other stages after it, change no draw before the earlier end."""
    stages = case.plan.schedule.stages
    kept = data.draw(st.integers(0, len(stages) - 1))
    current = cs.Stage.from_dict(stages[kept].to_dict() | {"steps": max(steps, int(stages[kept].ramp))})
    other = cs.StageSchedule([*stages[:kept], current, cs.Stage("new", mixture, steps=3)])
    changed = other.plan(case.plan.bucket_sizes, **_options(case.plan))
    end = min(case.plan.boundaries[kept + 1], changed.boundaries[kept + 1]) * case.plan.batch_size
    # With a window that does not divide the batch, a stage's last, partial window keeps the raw order.
    settled = min(plan.segment_at(end - 1).raw_from(plan.window) for plan in (case.plan, changed))
    settled = min(settled, end) // case.plan.batch_size
    assert case.plan.batch_size % case.plan.window or settled * case.plan.batch_size == end
    one, two = case.sampler(), cs.MixtureSampler(changed, case.seed)
    for step in range(settled):
        assert one.draws(step=step) == two.draws(step=step)


@given(cases())
def test_rank_free(case):
    check_rank_free(
        lambda rank, world_size: cs.MixtureSampler(
            case.plan, case.seed, rank, world_size, case.grad_accumulation
        ),
        world_sizes=[case.world_size],
        grad_accumulation=case.grad_accumulation,
    )


@given(cases())
def test_the_ranks_parts_lie_in_the_global_batch_as_is_documented(case):
    ranks = [iter(case.sampler(rank)) for rank in range(case.world_size)]
    for step in range(case.plan.total_steps):
        parts = [next(rank) for _ in range(case.grad_accumulation) for rank in ranks]
        assert [draw for part in parts for draw in part] == list(case.sampler().draws(step=step))


@pytest.mark.parametrize("size", [10**6, 10**12])
def test_o1_position(size):
    schedule = cs.StageSchedule(
        [cs.Stage("easy", {"easy": 1}, steps=10**6), cs.Stage("hard", {"easy": 1, "hard": 2}, steps=10**10)]
    )
    plan = schedule.plan({"easy": size, "hard": size}, batch_size=256)
    sampler = cs.MixtureSampler(plan, 17)
    early, late = sampler.state_dict(step=1), sampler.state_dict(step=10**10)
    assert len(str(late)) - len(str(early)) < 20
    assert len(str(late)) < 1000
    sampler.load_state_dict(late)
    assert next(iter(sampler)) == sampler.draws(step=10**10)


@given(schedules(), sizes, st.integers(1, 9), seeds)
def test_zero_means_never(schedule, bucket_sizes, batch_size, seed):
    sampler = cs.MixtureSampler(schedule.plan(bucket_sizes, batch_size), seed)
    for step in range(sampler.plan.total_steps):
        mixture = sampler.plan.at(step=step).mixture
        assert all(mixture[bucket] > 0 for bucket in sampler.draws(step=step).counts())


@given(cases(), st.integers(1, 30))
def test_adding_a_bucket_leaves_the_others_in_order(case, size):
    """Beside the golden files: a bucket unknown to the past changes none of its draws."""
    plan = case.plan
    grown = plan.schedule.plan(plan.bucket_sizes | {"aa": size}, **_options(plan))
    one, two = case.sampler(), cs.MixtureSampler(grown, case.seed)
    for step in range(plan.total_steps):
        assert one.draws(step=step) == two.draws(step=step)


@given(mixtures(min_size=2), st.integers(1, 9), seeds)
def test_a_buckets_own_order_does_not_depend_on_who_else_is_drawn(mixture, batch_size, seed):
    def stream(weights: dict[str, float]) -> list[int]:
        schedule = cs.StageSchedule([cs.Stage("only", weights, steps=20)])
        sampler = cs.MixtureSampler(schedule.plan(dict.fromkeys(BUCKETS, 13), batch_size), seed)
        return [draw.index for draw in all_draws(sampler) if draw.bucket == name]

    name = next(bucket for bucket, weight in mixture.items() if weight)
    alone, mixed = stream({name: 1}), stream(mixture)
    assert alone[: len(mixed)] == mixed[: len(alone)]


@given(cases())
def test_no_hidden_randomness(case):
    random.seed(1)
    np.random.seed(1)
    before = (random.getstate(), np.random.get_state()[1].tolist())
    first = all_draws(case.sampler())
    list(case.sampler())
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    random.seed(2)
    np.random.seed(2)
    assert all_draws(case.sampler()) == first


@given(cases(), st.randoms(use_true_random=False))
def test_steps_may_be_asked_in_any_order(case, random_source):
    forward = [list(case.sampler().draws(step=step)) for step in range(case.plan.total_steps)]
    steps = list(range(case.plan.total_steps))
    random_source.shuffle(steps)
    sampler = case.sampler()
    assert all(list(sampler.draws(step=step)) == forward[step] for step in steps)


@given(st.integers(0, 10**6))
def test_seeds_do_not_collide_with_passes(seed):
    plan = cs.StageSchedule([cs.Stage("only", {"a": 1}, epochs=2)]).plan({"a": 50}, batch_size=50)
    one, two = cs.MixtureSampler(plan, seed), cs.MixtureSampler(plan, seed + 1)
    assert list(one.draws(step=1)) != list(two.draws(step=0))


def test_no_place_in_the_batch_is_married_to_a_bucket():
    plan = cs.StageSchedule([cs.Stage("only", {"a": 1, "b": 1, "c": 2}, steps=4000)]).plan(
        {"a": 50, "b": 50, "c": 50}, batch_size=8
    )
    sampler = cs.MixtureSampler(plan, 17)
    places = Counter((place, draw.bucket) for batch in sampler for place, draw in enumerate(batch))
    for place in range(8):
        for bucket, share in (("a", 0.25), ("b", 0.25), ("c", 0.5)):
            expected = 4000 * share
            assert abs(places[place, bucket] - expected) < 5 * (expected * (1 - share)) ** 0.5


def _options(plan: cs.Plan) -> dict[str, object]:
    return {
        "batch_size": plan.batch_size,
        "window": plan.window,
        "run_sizes": plan.run_sizes,
        "block_runs": plan.block_runs,
    }
