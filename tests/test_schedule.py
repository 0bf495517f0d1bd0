"""A schedule is a value: checked when made, equal when it means the same, readable back from every form."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import curriculum_sampler as cs

from .strategies import schedules


@given(schedules())
def test_every_written_form_reads_back_as_the_same_schedule(schedule):
    assert cs.StageSchedule.from_dict(schedule.to_dict()) == schedule
    assert cs.StageSchedule.from_json(schedule.to_json()) == schedule
    assert cs.StageSchedule.from_toml(schedule.to_toml()) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert eval(repr(schedule), {"StageSchedule": cs.StageSchedule, "Stage": cs.Stage}) == schedule


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_files_are_read_and_written_by_suffix(tmp_path, suffix):
    schedule = cs.StageSchedule(
        [cs.Stage('odd "name"\n', {"b.c d": 1, "é": 2}, epochs=1.5, lr=1e-5)], epoch_size="all"
    )
    schedule.save(tmp_path / f"curriculum{suffix}")
    assert cs.StageSchedule.load(tmp_path / f"curriculum{suffix}") == schedule
    with pytest.raises(cs.ArgumentError, match=r"ends in \.toml or \.json"):
        cs.StageSchedule.load(tmp_path / "curriculum.yaml")


def test_an_error_in_a_file_names_the_file(tmp_path):
    (tmp_path / "mine.toml").write_text("stages = []")
    with pytest.raises(cs.ArgumentError, match=r"mine\.toml: The schedule has no stages"):
        cs.StageSchedule.load(tmp_path / "mine.toml")


def test_stages_are_equal_when_they_mean_the_same():
    assert cs.Stage("a", {"x": 30, "y": 70}, steps=5) == cs.Stage("a", {"y": 0.7, "x": 0.3, "z": 0}, steps=5)
    assert cs.Stage("a", {"x": 1}, steps=5) != cs.Stage("a", {"x": 1}, samples=5)
    assert hash(cs.Stage("a", {"x": 2}, steps=5)) == hash(cs.Stage("a", {"x": 1}, steps=5))


def test_a_stage_cannot_be_changed():
    stage = cs.Stage("a", {"x": 1}, steps=5)
    with pytest.raises(AttributeError):
        stage.steps = 6
    with pytest.raises(TypeError):
        stage.mixture["x"] = 2


def test_numpy_numbers_are_taken():
    stage = cs.Stage(
        "a", {"x": np.float64(0.3), "y": np.float32(0.7)}, steps=np.int64(5), lr=np.float64(1e-4)
    )
    assert stage == cs.Stage("a", {"x": 0.3, "y": 0.7}, steps=5, lr=1e-4)


@given(schedules(max_steps=5000), st.floats(1e-4, 1.0))
def test_scaling_keeps_every_stage(schedule, factor):
    small = schedule.scaled(factor)
    assert [stage.name for stage in small.stages] == [stage.name for stage in schedule.stages]
    for stage, whole in zip(small.stages, schedule.stages, strict=True):
        assert (
            stage.steps == max(1, round(whole.steps * factor)) or abs(stage.steps - whole.steps * factor) <= 1
        )
        assert stage.shares == whole.shares
        assert stage.lr == whole.lr
        assert 0 < stage.ramp <= stage.steps if whole.ramp else stage.ramp == 0


def test_scaling_works_in_every_unit():
    schedule = cs.StageSchedule(
        [
            cs.Stage("a", {"x": 1}, epochs=100),
            cs.Stage("b", {"x": 1}, samples=30, ramp=20),
            cs.Stage("c", {"x": 1}, steps=7),
        ]
    )
    assert [stage.length for stage in schedule.scaled(0.01).stages] == [1.0, 1, 1]


BAD_STAGES = [
    ({"mixture": {}}, "a mixture maps bucket names to weights"),
    ({"mixture": {"x": 0}}, "sum to zero"),
    ({"mixture": {"x": -1}}, r"weight -1 for bucket 'x'.*0 or more"),
    ({"mixture": {"x": math.nan}}, "finite number"),
    ({"mixture": {"x": math.inf}}, "finite number"),
    ({"mixture": {"x": "1"}}, "finite number"),
    ({"mixture": {"x": True}}, "finite number"),
    ({"mixture": {1: 1}}, "names are non-empty strings"),
    ({"name": ""}, "Give the stage a name"),
    ({"steps": None}, "got no duration, but a stage has one duration"),
    ({"epochs": 2}, "steps=5 and epochs=2, but a stage has one duration"),
    ({"steps": 0}, "steps=0, but it is a whole number above 0"),
    ({"steps": 2.5}, "steps=2.5, but it is a whole number above 0"),
    ({"steps": None, "epochs": -1}, "epochs=-1, but it is a finite number above 0"),
    ({"lr": -1e-3}, "learning rate is a finite number"),
    ({"lr": math.nan}, "learning rate is a finite number"),
    ({"ramp": 6}, "ramp=6, longer than the stage"),
    ({"ramp": -1}, "ramp=-1"),
    ({"ramp_lr": True}, "without a ramp"),
    ({"ramp_lr": "no"}, "ramp_lr='no', but it is True or False"),
]


@pytest.mark.parametrize(("change", "message"), BAD_STAGES)
def test_a_bad_stage_is_refused_with_value_rule_and_next_move(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        cs.Stage(**({"name": "main", "mixture": {"x": 1}, "steps": 5} | change))
    assert isinstance(caught.value, cs.CurriculumError)


def test_a_bad_schedule_is_refused():
    stage = cs.Stage("a", {"x": 1}, steps=5)
    for stages, message in (
        ([], "no stages"),
        ([stage, stage], "'a' occurs 2 times"),
        ([cs.Stage("a", {"x": 1}, steps=5, ramp=2)], "first stage has no mixture to come from"),
        ([{"name": "a"}], "made of Stage objects"),
        ([stage, cs.Stage("b", {"x": 1}, steps=5, lr=0.1, ramp=2, ramp_lr=True)], "Give both stages an lr"),
    ):
        with pytest.raises(cs.ArgumentError, match=message):
            cs.StageSchedule(stages)
    for epoch_size in ("some", 0, -1, 2.5, True):
        with pytest.raises(cs.ArgumentError, match="epoch_size"):
            cs.StageSchedule([stage], epoch_size=epoch_size)
    for factor in (0, -1, math.nan, "1"):
        with pytest.raises(cs.ArgumentError, match="factor"):
            cs.StageSchedule([stage]).scaled(factor)


def test_an_unknown_key_suggests_the_near_miss():
    with pytest.raises(
        cs.ArgumentError, match=r"Unknown key 'mixtures' in stage 'a'\. Did you mean 'mixture'\?"
    ):
        cs.StageSchedule.from_dict({"stages": [{"name": "a", "mixtures": {"x": 1}, "steps": 5}]})
    with pytest.raises(cs.ArgumentError, match=r"Did you mean 'epoch_size'\?"):
        cs.StageSchedule.from_dict({"epochsize": "all", "stages": []})
    with pytest.raises(cs.ArgumentError, match="Known keys"):
        cs.StageSchedule.from_dict({"zzz": 1})
    with pytest.raises(cs.ArgumentError, match=r"Unknown key 'weights'.* Did you mean 'mixture'\?"):
        cs.StageSchedule.from_dict({"stages": [{"name": "a", "weights": {"x": 1}, "steps": 5}]})
    with pytest.raises(cs.ArgumentError, match="has 'steps' twice in one object"):
        cs.StageSchedule.from_json('{"stages": [{"name": "a", "mixture": {"x": 1}, "steps": 5, "steps": 6}]}')
    with pytest.raises(cs.ArgumentError, match="lacks 'mixture'"):
        cs.StageSchedule.from_dict({"stages": [{"name": "a", "steps": 5}]})
    with pytest.raises(cs.ArgumentError, match="not valid TOML"):
        cs.StageSchedule.from_toml("stages = [")
    with pytest.raises(cs.ArgumentError, match="not valid JSON"):
        cs.StageSchedule.from_json("{")
    with pytest.raises(cs.ArgumentError, match=r"write|Write \[\[stages\]\]"):
        cs.StageSchedule.from_dict({"stages": "easy"})
