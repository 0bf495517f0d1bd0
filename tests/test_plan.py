"""A plan answers by step: boundaries, mixture, learning rate, exposure."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import curriculum_sampler as cs

from .strategies import cases

SPECIFICATION = cs.StageSchedule(
    [
        cs.Stage("easy", {"easy": 1.0}, steps=10_000, lr=1e-5),
        cs.Stage("medium", {"easy": 0.30, "medium": 0.70}, steps=15_000, lr=5e-6),
        cs.Stage("hard", {"easy": 0.25, "medium": 0.25, "hard": 0.50}, steps=15_000, lr=2e-6),
    ]
)
SIZES = {"easy": 5_000, "medium": 4_000, "hard": 3_000}


def test_a_boundary_step_belongs_to_the_stage_that_begins_there():
    plan = SPECIFICATION.plan(SIZES, batch_size=64)
    assert plan.boundaries == (0, 10_000, 25_000, 40_000)
    assert (plan.total_steps, plan.total_draws) == (40_000, 2_560_000)
    for step, stage, stage_step, lr in (
        (0, "easy", 0, 1e-5),
        (9_999, "easy", 9_999, 1e-5),
        (10_000, "medium", 0, 5e-6),
        (12_000, "medium", 2_000, 5e-6),
        (25_000, "hard", 0, 2e-6),
        (39_999, "hard", 14_999, 2e-6),
    ):
        at = plan.at(step=step)
        assert (at.stage, at.stage_step, at.lr) == (stage, stage_step, lr)
    assert plan.at(step=12_000).mixture == {"easy": 0.3, "medium": 0.7}
    for step in (-1, 40_000):
        with pytest.raises(cs.ArgumentError, match=f"step: got {step}"):
            plan.at(step=step)


def test_epochs_are_draws_of_the_stage_of_all_or_a_number():
    stages = [cs.Stage("a", {"x": 1, "z": 0}, epochs=2), cs.Stage("b", {"x": 1, "y": 1}, epochs=0.5)]
    sizes = {"x": 10, "y": 21, "z": 100}
    assert cs.StageSchedule(stages).plan(sizes, 4).boundaries == (0, 5, 9)
    assert cs.StageSchedule(stages, epoch_size="all").plan(sizes, 4).boundaries == (0, 66, 83)
    assert cs.StageSchedule(stages, epoch_size=8).plan(sizes, 4).boundaries == (0, 4, 5)


@given(st.integers(1, 10_000), st.integers(1, 100))
def test_samples_are_rounded_up_to_whole_steps(samples, batch_size):
    schedule = cs.StageSchedule([cs.Stage("a", {"x": 1}, samples=samples)])
    assert schedule.plan({"x": 7}, batch_size).total_steps == math.ceil(samples / batch_size)


def test_an_epoch_never_vanishes():
    schedule = cs.StageSchedule([cs.Stage("a", {"x": 1}, epochs=1e-6)])
    assert schedule.plan({"x": 7}, 4).total_steps == 1


@pytest.mark.parametrize(
    ("unit", "length", "ramp"), [("steps", 10, 4), ("samples", 80, 32), ("epochs", 4, 1.6)]
)
def test_a_ramp_moves_mixture_and_learning_rate_linearly_in_the_unit_of_its_stage(unit, length, ramp):
    schedule = cs.StageSchedule(
        [
            cs.Stage("a", {"x": 1}, steps=3, lr=1.0),
            cs.Stage("b", {"x": 1, "y": 3}, **{unit: length}, ramp=ramp, ramp_lr=True, lr=2.0),
        ]
    )
    plan = schedule.plan({"x": 10, "y": 10}, batch_size=8)
    for stage_step in range(10):
        at, done = plan.at(step=3 + stage_step), min(1, stage_step / 4)
        assert at.mixture == pytest.approx({"x": 1 - 0.75 * done, "y": 0.75 * done})
        assert at.lr == pytest.approx(1 + done)


def test_a_rate_stays_constant_through_a_ramp_unless_told():
    schedule = cs.StageSchedule(
        [cs.Stage("a", {"x": 1}, steps=3, lr=1.0), cs.Stage("b", {"y": 1}, steps=9, ramp=4, lr=2.0)]
    )
    assert schedule.plan({"x": 10, "y": 10}, 8).at(step=3).lr == 2.0


@given(cases())
def test_exposure_is_what_will_be_drawn(case):
    plan, sampler = case.plan, case.sampler()
    for planned in plan.stages:
        drawn: dict[str, int] = {}
        for step in range(planned.first_step, planned.end_step):
            for bucket, count in sampler.draws(step=step).counts().items():
                drawn[bucket] = drawn.get(bucket, 0) + count
        told = plan.exposure()[planned.stage.name]
        assert {name: row.draws for name, row in told.items() if row.draws} == drawn
        for name, row in told.items():
            assert row.passes == row.draws / plan.bucket_sizes[name]
            assert (row.warning is not None) == (row.passes > 4)


def test_many_passes_are_a_warning_as_data_and_an_error_only_when_asked():
    plan = SPECIFICATION.plan(SIZES, batch_size=64)
    assert plan.exposure()["easy"]["easy"].passes == 128
    assert "'easy' is repeated 128.0 times in stage 'easy'" in plan.exposure().warnings
    with pytest.raises(
        cs.ArgumentError,
        match=r"passes 128\.0 times over bucket 'easy' \(5,000 samples\), more than max_passes=100",
    ):
        SPECIFICATION.plan(SIZES, batch_size=64, max_passes=100)


@given(cases())
def test_the_mixture_sums_to_one_and_names_the_buckets_of_the_stage(case):
    for step in range(case.plan.total_steps):
        at = case.plan.at(step=step)
        assert sum(at.mixture.values()) == pytest.approx(1)
        assert set(case.plan.stages[at.stage_index].stage.mixture) <= set(at.mixture)


def test_the_fingerprint_covers_all_that_decides_the_order():
    schedule = SPECIFICATION
    plain = schedule.plan(SIZES, 64)
    assert plain.fingerprint == schedule.plan(dict(reversed(SIZES.items())), 64).fingerprint
    others = [
        schedule.plan(SIZES, 32),
        schedule.plan(SIZES | {"easy": 5_001}, 64),
        schedule.plan(SIZES, 64, window=32),
        schedule.plan(SIZES, 64, run_sizes=10),
        schedule.plan(SIZES, 64, run_sizes={"hard": 10}),
        schedule.plan(SIZES, 64, block_runs=8),
        schedule.scaled(0.5).plan(SIZES, 64),
    ]
    assert len({plan.fingerprint for plan in [plain, *others]}) == 1 + len(others)


@pytest.mark.parametrize(
    ("sizes", "batch_size", "options", "message"),
    [
        (
            {"easy": 1, "medium": 1},
            4,
            {},
            r"draws from bucket 'hard', which is absent. The data has: easy \(1\)",
        ),
        ({"easy": 1, "medium": 1, "hard": 0}, 4, {}, "'hard', which is empty"),
        (SIZES, 0, {}, "batch_size: got 0"),
        (SIZES, 2.0, {}, "batch_size: got 2.0"),
        (SIZES | {"hard": -1}, 4, {}, "size of bucket 'hard': got -1"),
        (SIZES, 4, {"window": 0}, "window: got 0"),
        (SIZES, 4, {"block_runs": 0}, "block_runs: got 0"),
        (SIZES, 4, {"run_sizes": 0}, "run_sizes: got 0"),
        (SIZES, 4, {"run_sizes": {"esy": 3}}, "run_sizes names bucket 'esy'"),
        (SIZES, 4, {"max_passes": math.nan}, "max_passes: got nan"),
        (SIZES, 4, {"max_passes": "x"}, "max_passes: got 'x'"),
        ([10], 4, {}, "maps bucket names to numbers of samples"),
        (SIZES | {3: 5}, 4, {}, "maps bucket names to numbers of samples"),
        (SIZES | {str(n): 1 for n in range(70_000)}, 4, {}, "65,536 are the most"),
    ],
)
def test_bad_numbers_are_refused_early(sizes, batch_size, options, message):
    with pytest.raises(ValueError, match=message):
        SPECIFICATION.plan(sizes, batch_size, **options)


def test_a_bucket_of_weight_zero_need_not_exist():
    schedule = cs.StageSchedule([cs.Stage("a", {"x": 1, "absent": 0}, steps=3)])
    assert schedule.plan({"x": 5}, 2).at(step=0).mixture == {"x": 1.0, "absent": 0.0}


def test_exact_shares_survive_to_the_plan():
    plan = cs.StageSchedule([cs.Stage("a", {"x": 0.1, "y": 0.2}, steps=3)]).plan({"x": 5, "y": 5}, 3)
    assert plan.segment_at(0).shares_at(0) == {"x": Fraction(1, 3), "y": Fraction(2, 3)}
