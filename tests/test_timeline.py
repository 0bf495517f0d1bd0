"""A timeline is the plan, drawn out: what it says at a step is what the plan says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import curriculum_sampler as cs
from curriculum_sampler.timeline import Timeline
from curriculum_sampler.timeline_chart import timeline_chart

from .strategies import Case, cases, schedules


def nothing_missing(mixture: dict[str, float]) -> dict[str, float]:
    return {name: share for name, share in mixture.items() if share}


@given(cases())
def test_a_timeline_says_what_the_plan_says_at_every_step(case: Case) -> None:
    timeline = Timeline.of(case.plan)
    assert timeline.end == case.plan.total_steps
    for step in range(case.plan.total_steps):
        at, stretch = case.plan.at(step), timeline.at(step)
        assert stretch.stage == at.stage
        assert nothing_missing(stretch.mixture(step)) == pytest.approx(nothing_missing(at.mixture))
        assert stretch.rate(step) == pytest.approx(at.lr)


@given(schedules())
def test_a_schedule_in_steps_has_the_timeline_of_its_plan(schedule: cs.StageSchedule) -> None:
    plan = schedule.plan(dict.fromkeys("abcde", 10), batch_size=2)
    one, other = Timeline.of(schedule), Timeline.of(plan)
    assert one.stages == other.stages
    assert one.buckets == other.buckets
    for stretch, same in zip(one.stretches, other.stretches, strict=True):
        assert stretch[:3] == same[:3]
        for time in (stretch.start, (stretch.start + stretch.end) / 2):
            assert nothing_missing(stretch.mixture(time)) == pytest.approx(
                nothing_missing(same.mixture(time))
            )
            assert stretch.rate(time) == pytest.approx(same.rate(time))


def with_moving_rates(schedule: cs.StageSchedule) -> cs.StageSchedule:
    told = [stage.to_dict() for stage in schedule.stages]
    return cs.StageSchedule([cs.Stage.from_dict(one | {"ramp_lr": bool(one.get("ramp"))}) for one in told])


@given(schedules())
def test_the_learning_rate_mass_is_the_sum_over_all_steps(schedule: cs.StageSchedule) -> None:
    plan = with_moving_rates(schedule).plan(dict.fromkeys("abcde", 10), batch_size=2)
    found = Timeline.of(plan).rate_mass()
    assert found is not None
    mass: dict[tuple[str, str], float] = {}
    for step in range(plan.total_steps):
        at = plan.at(step)
        for name, share in nothing_missing(at.mixture).items():
            mass[at.stage, name] = mass.get((at.stage, name), 0.0) + share * (at.lr or 0.0)
    total = sum(mass.values())
    told = {(stage, name): share for stage, buckets in found.items() for name, share in buckets.items()}
    assert told == pytest.approx({place: share / total for place, share in mass.items()})


def test_epochs_of_their_stages_own_size_carry_no_mass() -> None:
    stages = [cs.Stage("a", {"x": 1}, epochs=2, lr=0.1), cs.Stage("b", {"y": 1}, epochs=2, lr=0.1)]
    assert Timeline.of(cs.StageSchedule(stages)).rate_mass() is None
    even = Timeline.of(cs.StageSchedule(stages, epoch_size="all")).rate_mass()
    assert even == {"a": {"x": pytest.approx(0.5)}, "b": {"y": pytest.approx(0.5)}}


def test_a_stage_without_a_rate_leaves_no_mass_to_share() -> None:
    schedule = cs.StageSchedule([cs.Stage("a", {"x": 1}, steps=2, lr=0.1), cs.Stage("b", {"x": 1}, steps=2)])
    assert Timeline.of(schedule).rate_mass() is None


def test_changes_made_in_a_run_are_in_its_timeline() -> None:
    stages = [
        cs.Stage("a", {"x": 1}, steps=10, lr=1.0),
        cs.Stage("b", {"y": 1}, steps=10, lr=0.5, ramp=8, ramp_lr=True),
    ]
    sampler = cs.MixtureSampler(cs.StageSchedule(stages).plan({"x": 9, "y": 9}, batch_size=2), seed=1)
    sampler.seek(4)
    sampler.advance("converged")
    sampler.seek(7)
    sampler.change_mixture({"x": 1, "y": 1}, "both, rather")
    timeline = Timeline.of(sampler.plan)
    for step in range(sampler.plan.total_steps):
        at, stretch = sampler.plan.at(step), timeline.at(step)
        assert (stretch.stage, nothing_missing(stretch.mixture(step))) == (
            at.stage,
            pytest.approx(nothing_missing(at.mixture)),
        )
        assert stretch.rate(step) == pytest.approx(at.lr)


@given(schedules(), st.integers(30, 120))
def test_a_chart_is_as_wide_as_asked_and_has_a_row_for_every_bucket(
    schedule: cs.StageSchedule, width: int
) -> None:
    timeline = Timeline.of(schedule)
    lines = timeline_chart(timeline, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines[1:]] == [*timeline.buckets, "lr", "step"]
    assert lines[-1].endswith(f"{timeline.end:,.0f}")
