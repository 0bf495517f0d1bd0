"""Laws of the schedule that a call trains."""

from __future__ import annotations

import pytest
from common.stages import plan_of_checkpoint, schedule_of_run
from hypothesis import given
from hypothesis import strategies as st

import curriculum_sampler as cs

SIZES = {"easy": 50, "medium": 40, "hard": 30}
DECLARED = cs.StageSchedule(
    [
        cs.Stage("easy", {"easy": 1}, steps=10, lr=1e-5),
        cs.Stage("medium", {"easy": 0.3, "medium": 0.7}, steps=15, lr=5e-6),
        cs.Stage("hard", {"easy": 0.25, "medium": 0.25, "hard": 0.5}, steps=15, lr=2e-6),
    ]
)
ENDS = {"easy": 10, "medium": 25, "hard": 40}


def after(
    schedule: cs.StageSchedule | None,
    steps: int,
    difficulty: str | None,
    total: int | None = None,
    rate: float | None = None,
) -> cs.StageSchedule | None:
    """The schedule of a call that resumes a run of ``schedule`` at ``steps``."""
    past = schedule.plan(SIZES, 4) if schedule else None
    return schedule_of_run(
        DECLARED, difficulty=difficulty, total_steps=total, learning_rate=rate, past=past, steps_done=steps
    )


def test_calls_for_each_stage_add_up_to_the_declared_curriculum() -> None:
    schedule, done = None, 0
    for name, end in ENDS.items():
        schedule = after(schedule, done, name, end)
        done = end
    assert schedule == DECLARED


@given(st.sampled_from(list(ENDS)), st.integers(1, 9))
def test_a_stage_cut_by_a_crash_goes_on_where_it_began(name: str, missing: int) -> None:
    stopped = ENDS[name] - missing
    schedule = after(DECLARED, stopped, name, ENDS[name])
    assert schedule is not None
    assert schedule.plan(SIZES, 4).boundaries[-1] == ENDS[name]
    assert schedule == cs.StageSchedule(DECLARED.stages[: list(ENDS).index(name) + 1])


@given(st.integers(1, 40), st.integers(1, 40))
def test_a_total_that_is_reached_is_no_work(done: int, total: int) -> None:
    schedule = after(DECLARED, done, DECLARED.plan(SIZES, 4).at(done - 1).stage, total)
    assert (schedule is None) == (total <= done)


@given(st.integers(1, 9), st.integers(1, 30))
def test_the_next_stage_may_begin_early(done: int, length: int) -> None:
    schedule = after(DECLARED, done, "medium", done + length)
    assert schedule is not None
    assert [stage.steps for stage in schedule.stages] == [done, length]


def test_a_longer_stage_and_another_rate_are_taken_from_the_call() -> None:
    schedule = after(None, 0, "easy", 15, 8e-6)
    assert schedule is not None
    assert (schedule.stages[0].steps, schedule.stages[0].lr) == (15, 8e-6)


def test_without_a_total_the_stage_has_its_declared_length() -> None:
    schedule = after(DECLARED, 10, "medium")
    assert schedule == cs.StageSchedule(DECLARED.stages[:2])


def test_an_unknown_stage_lists_the_known_ones() -> None:
    with pytest.raises(cs.ArgumentError, match=r"very_easy is no stage.*easy, medium, hard.*\[\[stages\]\]"):
        after(None, 0, "very_easy", 5)


def test_a_stage_that_later_ones_followed_cannot_grow() -> None:
    with pytest.raises(cs.ArgumentError, match="at step 12, already in stage 'medium'"):
        after(DECLARED, 12, "easy", 15)


def test_a_rate_without_a_stage_is_refused() -> None:
    with pytest.raises(cs.ArgumentError, match="rates belong to stages"):
        after(None, 0, None, None, 1e-5)


def test_the_plan_of_a_checkpoint_knows_what_was_changed_at_run_time() -> None:
    sampler = cs.MixtureSampler(DECLARED.plan(SIZES, 4), seed=1)
    batches = iter(sampler)
    for _ in range(3):
        next(batches)
    sampler.advance("converged")
    assert plan_of_checkpoint(sampler.state_dict()).boundaries == sampler.plan.boundaries == (0, 3, 18, 33)
