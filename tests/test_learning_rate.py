"""The scheduler gives every update the plan's rate of its global step, whatever was loaded, advanced or repeated."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import curriculum_sampler as cs

from .strategies import schedules

SIZES = dict.fromkeys("abcde", 50)
SCHEDULE = cs.StageSchedule(
    [
        cs.Stage("easy", {"a": 1}, steps=4, lr=0.3),
        cs.Stage("medium", {"a": 1, "b": 1}, steps=6, lr=0.1, ramp=3, ramp_lr=True),
        cs.Stage("hard", {"b": 1}, steps=5, lr=0.07),
    ]
)


def optimizer_of(*rates: float, kind: type[torch.optim.Optimizer] = torch.optim.SGD) -> torch.optim.Optimizer:
    groups = [{"params": [torch.ones(1, requires_grad=True)], "lr": rate} for rate in rates or (1.0,)]
    return kind(groups, lr=0.5)


class RatesUsed:
    """What an update finds as its rates, seen after every other hook."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.rates: list[list[float]] = []
        self._optimizer = optimizer
        optimizer.register_step_post_hook(self._note)

    def _note(self, *_: object) -> None:
        self.rates.append([group["lr"] for group in self._optimizer.param_groups])

    @property
    def of_first_group(self) -> list[float]:
        return [rates[0] for rates in self.rates]


def train(optimizer, scheduler, steps: int) -> list[float]:
    used = RatesUsed(optimizer)
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    return used.of_first_group


@given(schedules())
def test_the_update_of_every_step_has_the_plans_rate_to_the_last_bit(schedule):
    plan = schedule.plan(SIZES, batch_size=2)
    optimizer = optimizer_of(0.123)
    wanted = [plan.at(step).lr for step in range(plan.total_steps)]
    assert train(optimizer, cs.CurriculumLR(optimizer, plan), plan.total_steps) == wanted
    assert wanted[0] == schedule.stages[0].lr


@given(schedules(), st.data())
def test_a_fresh_scheduler_continues_at_any_step_whatever_is_loaded_first(schedule, data):
    plan = schedule.plan(SIZES, batch_size=2)
    stop = data.draw(st.integers(0, plan.total_steps))
    one = optimizer_of(kind=torch.optim.AdamW)
    scheduler = cs.CurriculumLR(one, plan)
    train(one, scheduler, stop)
    states = {"optimizer": one.state_dict(), "scheduler": json.loads(json.dumps(scheduler.state_dict()))}
    two = optimizer_of(0.123, kind=torch.optim.AdamW)
    loaded = {"optimizer": two, "scheduler": cs.CurriculumLR(two, plan)}
    for name in data.draw(st.permutations(["optimizer", "scheduler"])):
        loaded[name].load_state_dict(states[name])
    rest = [plan.at(step).lr for step in range(stop, plan.total_steps)]
    assert train(two, loaded["scheduler"], len(rest)) == rest


def test_the_scheduler_may_be_made_after_the_optimizer_was_loaded():
    plan = SCHEDULE.plan(SIZES, batch_size=2)
    one = optimizer_of(0.5, 0.05)
    first = cs.CurriculumLR(one, plan)
    train(one, first, 12)
    two = optimizer_of(0.5, 0.05)
    two.load_state_dict(one.state_dict())
    second = cs.CurriculumLR(two, plan)
    second.load_state_dict(first.state_dict())
    assert second.get_last_lr() == first.get_last_lr() == [0.07, pytest.approx(0.007)]
    assert [group["lr"] for group in two.param_groups] == second.get_last_lr()


def test_after_the_last_update_the_last_rate_stays():
    plan = SCHEDULE.plan(SIZES, batch_size=2)
    optimizer = optimizer_of()
    scheduler = cs.CurriculumLR(optimizer, plan)
    assert train(optimizer, scheduler, plan.total_steps + 3)[-4:] == [0.07] * 4


def test_other_groups_keep_their_ratio_to_the_first():
    plan = SCHEDULE.plan(SIZES, batch_size=2)
    optimizer = optimizer_of(1e-3, 1e-4, 1e-3, 0.0)
    scheduler = cs.CurriculumLR(optimizer, plan)
    used = RatesUsed(optimizer)
    for step in range(plan.total_steps):
        optimizer.step()
        rate = plan.at(step).lr
        assert used.rates[step] == [rate, pytest.approx(rate / 10), rate, 0.0]
        scheduler.step()


def test_a_rate_that_is_a_tensor_stays_that_tensor():
    optimizer = optimizer_of()
    rate = torch.tensor(1.0)
    optimizer.param_groups[0]["lr"] = rate
    scheduler = cs.CurriculumLR(optimizer, SCHEDULE.plan(SIZES, batch_size=2))
    train(optimizer, scheduler, 4)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.3)  # the ramp of the second stage begins at the first one's rate
    assert scheduler.get_last_lr()[0] is not rate


@pytest.mark.parametrize("when", ["before the scheduler steps", "after it has stepped"])
def test_a_stage_that_ends_early_takes_its_rate_along(when):
    """After the scheduler has stepped the group holds the old stage's rate: the update itself must know better."""
    hard = cs.StageSchedule(
        [cs.Stage("easy", {"a": 1}, steps=4, lr=0.3), cs.Stage("hard", {"b": 1}, steps=3, lr=0.1)]
    )
    sampler = cs.MixtureSampler(hard.plan(SIZES, batch_size=2), 17)
    optimizer = optimizer_of()
    scheduler = cs.CurriculumLR(optimizer, sampler)
    used = RatesUsed(optimizer)
    for step, _batch in enumerate(sampler):
        optimizer.step()
        if step == 1 and when.startswith("before"):
            assert sampler.advance("plateau") == 2
        scheduler.step()
        if step == 1 and when.startswith("after"):
            assert sampler.advance("plateau") == 2
    assert used.of_first_group == [0.3, 0.3, 0.1, 0.1, 0.1]


def test_the_loaders_rate_and_the_groups_are_one(tmp_path):
    buckets = {name: [{"__key__": f"{name}{n}", "cls": n} for n in range(9)] for name in "ab"}
    dataset = cs.CurriculumDataset(cs.write_shards(str(tmp_path), buckets))
    loader = cs.CurriculumLoader(dataset, SCHEDULE, batch_size=4, seed=17, num_workers=1)
    optimizer = optimizer_of()
    scheduler = cs.CurriculumLR(optimizer, loader)
    used = RatesUsed(optimizer)
    for step, _batch in enumerate(loader):
        optimizer.step()
        assert used.rates[step] == [loader.lr]
        scheduler.step()
        if step == 4:
            loader.advance("plateau")
    assert [loader.plan.at(step).lr for step in range(loader.plan.total_steps)] == used.of_first_group
    assert loader.plan.total_steps < SCHEDULE.plan({"a": 9, "b": 9}, 4).total_steps


def test_a_scheduler_that_is_gone_sets_nothing():
    optimizer = optimizer_of()
    cs.CurriculumLR(optimizer, SCHEDULE.plan(SIZES, batch_size=2))
    optimizer.param_groups[0]["lr"] = 0.9
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 0.9


def test_it_is_a_scheduler_of_torch():
    optimizer = optimizer_of()
    scheduler = cs.CurriculumLR(optimizer, SCHEDULE.plan(SIZES, batch_size=2))
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert scheduler.state_dict() == {"last_epoch": 0, "_step_count": 1}


def test_a_stage_without_a_rate_is_refused():
    bare = cs.StageSchedule(
        [cs.Stage("easy", {"a": 1}, steps=4, lr=0.3), cs.Stage("hard", {"b": 1}, steps=5)]
    )
    with pytest.raises(cs.ArgumentError, match=r"Stage 'hard' has no lr.*Give every stage an lr"):
        cs.CurriculumLR(optimizer_of(), bare.plan(SIZES, batch_size=2))


def test_proportions_to_zero_are_refused():
    with pytest.raises(cs.ArgumentError, match=r"made with lr=0.*Give it a rate above 0"):
        cs.CurriculumLR(optimizer_of(0.0, 1.0), SCHEDULE.plan(SIZES, batch_size=2))


def test_what_has_no_plan_is_refused():
    with pytest.raises(cs.ArgumentError, match=r"Pass schedule.plan\(...\) or the loader"):
        cs.CurriculumLR(optimizer_of(), SCHEDULE)


@pytest.mark.parametrize("state", [{}, None, {"base_lrs": [1.0]}])
def test_what_is_no_state_is_refused(state):
    scheduler = cs.CurriculumLR(optimizer_of(), SCHEDULE.plan(SIZES, batch_size=2))
    with pytest.raises(cs.StateMismatchError, match="Not a state of CurriculumLR"):
        scheduler.load_state_dict(state)
