"""``compare`` finds what differs between two schedules, and the first step at which it shows."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings

import curriculum_sampler as cs
from curriculum_sampler.comparison import mixtures_part, rates_part, stage_differences
from curriculum_sampler.timeline import Timeline

from .command_fixtures import Commands, command, data
from .strategies import schedules

SIZES = ("--sizes", "easy=5000,medium=4000,hard=3000", "--batch-size", 64)


def parting(one: cs.StageSchedule, other: cs.StageSchedule, what: str) -> int | None:
    """Find it step by step."""
    plans = [schedule.plan(dict.fromkeys("abcde", 10), batch_size=1) for schedule in (one, other)]
    for step in range(max(plan.total_steps for plan in plans)):
        if step == min(plan.total_steps for plan in plans):
            return step
        values = [getattr(plan.at(step), what) for plan in plans]
        if what == "mixture":
            values = [{name: share for name, share in value.items() if share} for value in values]
        if values[0] != pytest.approx(values[1], rel=1e-9, abs=1e-9 if what == "mixture" else 0):
            return step
    return None


@settings(max_examples=30)
@given(schedules(), schedules())
def test_runs_part_at_the_first_step_that_differs(one: cs.StageSchedule, other: cs.StageSchedule) -> None:
    both = [Timeline.of(one), Timeline.of(other)]
    assert mixtures_part(*both) == mixtures_part(*both[::-1]) == parting(one, other, "mixture")
    assert rates_part(*both) == rates_part(*both[::-1]) == parting(one, other, "lr")


@given(schedules(), schedules(max_stages=1))
def test_a_longer_schedule_parts_where_the_shorter_one_ends(
    one: cs.StageSchedule, more: cs.StageSchedule
) -> None:
    added = cs.Stage.from_dict(more.stages[0].to_dict() | {"name": "more"})
    longer = cs.StageSchedule([*one.stages, added])
    assert mixtures_part(Timeline.of(one), Timeline.of(longer)) == Timeline.of(one).end
    assert [(found.stage, found.what) for found in stage_differences(one, longer)] == [("more", "stage")]


@given(schedules())
def test_nothing_differs_from_itself(schedule: cs.StageSchedule) -> None:
    same = cs.StageSchedule.from_toml(schedule.to_toml())
    assert list(stage_differences(schedule, same)) == []
    assert mixtures_part(Timeline.of(schedule), Timeline.of(same)) is None
    assert rates_part(Timeline.of(schedule), Timeline.of(same)) is None


def test_epochs_part_where_a_ramp_begins() -> None:
    def schedule(ramp: float) -> cs.StageSchedule:
        stages = [cs.Stage("a", {"x": 1}, epochs=2), cs.Stage("b", {"y": 1}, epochs=2, ramp=ramp)]
        return cs.StageSchedule(stages)

    assert mixtures_part(Timeline.of(schedule(0.5)), Timeline.of(schedule(1.5))) == 2.0


def edited(tmp_path: Path) -> Path:
    stages = [stage.to_dict() for stage in cs.StageSchedule.load("catvton").stages]
    stages[0]["steps"] = 8_000
    stages[1] |= {"steps": 17_000, "ramp": 1_000, "ramp_lr": True}
    stages[2]["name"] = "final"
    path = tmp_path / "edited.toml"
    cs.StageSchedule(map(cs.Stage.from_dict, stages)).save(path)
    return path


def test_the_command_says_what_differs_and_when_it_shows(command: Commands, tmp_path: Path) -> None:
    ran = command("compare", "catvton", edited(tmp_path), *SIZES)
    assert ran.exit_code == 0
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["easy", "length", "10,000", "steps", "8,000", "steps"] in rows
    assert ["hard", "stage", "stage", "3,", "15,000", "steps", "absent"] in rows
    assert ["passes", "over", "hard", "160.0", "160.0"] in rows
    assert ["lr", "mass", "of", "hard", "7.3%", "7.6%"] in rows
    # At step 8,000 the ramp is still where it comes from.
    assert (
        "The mixtures part at step 8,001: easy 100% in the first, easy 99.9%, medium 0.1% in the second."
        in ran.out
    )
    assert "The learning rates part at step 8,001." in ran.out


def test_json_has_both_outlooks(command: Commands, tmp_path: Path) -> None:
    told = command("compare", "catvton", edited(tmp_path), *SIZES, "--json").told
    assert told["equal"] is False
    assert (told["unit"], told["mixtures_part"], told["rates_part"]) == ("steps", 8001, 8001)
    assert [sum(bucket["draws"] for bucket in one["buckets"]) for one in told["outlooks"]] == [2_560_000] * 2
    assert {
        "stage": "medium",
        "what": "ramp",
        "first": "none",
        "second": "1,000 steps, learning rate too",
    } in told["differences"]


def test_a_schedule_and_itself(command: Commands) -> None:
    ran = command("compare", "catvton", "catvton")
    assert ran.exit_code == 0
    for sentence in (
        "The stages are the same.",
        "The mixtures are the same throughout.",
        "The learning rates are the same",
    ):
        assert sentence in ran.out


def test_other_units_meet_in_steps_once_sizes_are_known(command: Commands) -> None:
    ran = command("compare", "dit", "vtongan")
    assert "400 epochs  35,000 steps" in ran.out
    assert "Epochs are of other sizes: epoch_size is 'all' and 'stage'." in ran.out
    assert "Give --sizes and --batch-size, and they are compared in steps." in ran.out
    assert (
        "The mixtures part at step 8,000: easy 100% in the first"
        in command("compare", "dit", "vtongan", *SIZES).out
    )


def test_a_schedule_that_has_ended_is_said_to_have(command: Commands, tmp_path: Path) -> None:
    cs.StageSchedule(cs.StageSchedule.load("catvton").stages[:2]).save(tmp_path / "shorter.toml")
    ran = command("compare", tmp_path / "shorter.toml", "catvton")
    assert (
        "The mixtures part at step 25,000: ended in the first, easy 25%, medium 25%, hard 50% in the second."
        in ran.out
    )


def test_sizes_are_of_the_buckets_of_either(command: Commands, tmp_path: Path) -> None:
    cs.StageSchedule([cs.Stage("all", {"web": 1}, steps=10)]).save(tmp_path / "web.toml")
    sizes = "easy=5000,medium=4000,hard=3000,web=10"
    assert (
        command("compare", "catvton", tmp_path / "web.toml", "--sizes", sizes, "--batch-size", 8).exit_code
        == 0
    )
    ran = command("compare", "catvton", tmp_path / "web.toml", *SIZES)
    assert ran.exit_code == 2
    assert "draws from bucket 'web', which is absent" in ran.err


def test_bytes_are_compared_where_the_data_are_known(command: Commands, data: Path, tmp_path: Path) -> None:
    half = cs.StageSchedule.load("catvton").scaled(0.5)
    half.save(tmp_path / "half.toml")
    told = command(
        "compare", "catvton", tmp_path / "half.toml", "--data", data, "--batch-size", 4, "--json"
    ).told
    first, second = (outlook["num_bytes"] for outlook in told["outlooks"])
    assert first == pytest.approx(2 * second)
