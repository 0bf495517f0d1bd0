"""``simulate`` counts what the sampler really draws; what it promises is what a count by hand finds."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curriculum_sampler as cs
from curriculum_sampler.draws import Draws
from curriculum_sampler.order import Order

from .command_fixtures import Commands, command, data
from .strategies import Case, cases

SIZES = ("--sizes", "easy=50,medium=40,hard=30", "--batch-size", 8)


@settings(max_examples=30)
@given(cases(), st.none() | st.integers(1, 30))
def test_a_simulation_counts_every_draw_of_the_sampler_once(case: Case, window_steps: int | None) -> None:
    found = cs.simulate(case.plan, case.seed, window_steps=window_steps)
    sampler = case.sampler()
    at = 0
    for window, off in zip(found.windows, found.deviations, strict=True):
        assert window.start == at < window.end
        at = int(window.end)
        steps = range(int(window.start), at)
        drawn = Counter(draw.bucket for step in steps for draw in sampler.draws(step))
        assert {name: count for name, count in window.counts.items() if count} == drawn
        due: Counter[str] = Counter()
        for step in steps:
            due.update(
                {name: share * case.plan.batch_size for name, share in case.plan.at(step).mixture.items()}
            )  # type: ignore[misc]
        assert off == pytest.approx({name: window.counts[name] - due[name] for name in off}, abs=1e-6)
    assert at == case.plan.total_steps
    assert found.is_whole
    assert found.keeps_its_promise
    seen = {draw for step in range(at) for draw in sampler.draws(step)}
    assert found.distinct is not None
    assert {name: n for name, n in found.distinct.items() if n} == Counter(draw.bucket for draw in seen)


@settings(max_examples=30)
@given(cases(default_window=True))
def test_no_single_batch_is_further_off_than_told(case: Case) -> None:
    told = cs.simulate(case.plan, case.seed).largest_in_batch
    furthest = 0.0
    for step in range(case.plan.total_steps):
        counts = case.sampler().draws(step).counts()
        for name, share in case.plan.at(step).mixture.items():
            furthest = max(furthest, abs(counts.get(name, 0) - share * case.plan.batch_size))
    assert told == pytest.approx(furthest, abs=1e-6)


@settings(max_examples=30)
@given(cases(default_window=True), st.integers(1, 60))
def test_a_part_of_a_simulation_is_the_beginning_of_every_window(case: Case, most_draws: int) -> None:
    whole = cs.simulate(case.plan, case.seed)
    part = cs.simulate(case.plan, case.seed, most_draws=most_draws)
    assert [window.start for window in part.windows] == [window.start for window in whole.windows]
    assert all(one.end <= other.end for one, other in zip(part.windows, whole.windows, strict=True))
    assert part.is_whole == (case.plan.total_draws <= most_draws)
    assert part.keeps_its_promise
    if not part.is_whole:
        assert part.distinct is None
        assert sum(part.draws.values()) <= most_draws + len(part.windows) * case.plan.batch_size


def test_equal_windows_fill_every_stage(command: Commands) -> None:
    found = command("simulate", "catvton", *SIZES, "--json").told
    assert 10 <= len(found["windows"]) <= 20
    assert {window["end"] - window["start"] for window in found["windows"]} == {2500}
    assert [window["stage"] for window in found["windows"]] == ["easy"] * 4 + ["medium"] * 6 + ["hard"] * 6


def test_the_command_tells_what_was_drawn(command: Commands) -> None:
    ran = command("simulate", "catvton", *SIZES, "--window-steps", 5000, "--seed", 5)
    assert ran.exit_code == 0
    assert max(map(len, ran.out.splitlines())) <= 80
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["10,000", "to", "15,000", "medium", "30.00%", "70.00%", "-", "0.00", "draws"] in lines
    assert ["hard", "30", "60,000", "2,000.0", "30", "(100%)"] in lines
    assert "Promised: less than 2. Kept." in ran.out


def test_another_seed_draws_other_samples_of_the_same_mixture(command: Commands) -> None:
    one, other = (
        command(
            "simulate",
            "catvton",
            "--sizes",
            "easy=900000,medium=9000000,hard=9000000",
            *SIZES[2:],
            "--seed",
            seed,
            "--json",
        ).told
        for seed in (1, 2)
    )
    assert [window["counts"] for window in one["windows"]] == [
        window["counts"] for window in other["windows"]
    ]
    assert one["distinct"] == other["distinct"] == one["draws"]


def test_a_larger_plan_is_looked_at_in_part_and_says_so(command: Commands) -> None:
    ran = command("simulate", "catvton", *SIZES, "--most-draws", 4000)
    assert ran.exit_code == 0
    assert "Looked at 3,968 of 320,000 draws" in ran.out
    assert "All of them: --most-draws 320000." in ran.out
    assert "not counted" in ran.out


def test_buckets_that_do_not_fit_the_terminal_leave_the_largest_deviation(
    command: Commands, tmp_path: Path
) -> None:
    names = [f"bucket-number-{n}" for n in range(9)]
    cs.StageSchedule([cs.Stage("all", dict.fromkeys(names, 1), steps=64)]).save(tmp_path / "many.toml")
    sizes = ",".join(f"{name}=9" for name in names)
    ran = command("simulate", tmp_path / "many.toml", "--sizes", sizes, "--batch-size", 4)
    assert ran.exit_code == 0
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "off by" in ran.out


def test_a_sampler_that_breaks_its_promise_is_found_out(
    command: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Order.draws

    def partial_to_one(self: Order, start: int, stop: int) -> Draws:
        draws = honest(self, start, stop)
        ids = np.where(draws.indices == 0, 0, draws.bucket_ids).astype(np.uint16)
        return Draws(draws.names, ids, draws.indices, draws.passes, draws.seed)

    monkeypatch.setattr(Order, "draws", partial_to_one)
    ran = command("simulate", "catvton", *SIZES)
    assert ran.exit_code == 1
    assert "NOT kept" in ran.out


def test_data_are_drawn_as_a_loader_draws_them(data: Path, command: Commands, tmp_path: Path) -> None:
    schedule = cs.StageSchedule([cs.Stage("all", {"easy": 1, "hard": 3}, steps=6)])
    schedule.save(tmp_path / "schedule.toml")
    ran = command("simulate", tmp_path / "schedule.toml", "--data", data, "--batch-size", 4, "--json")
    loader = cs.CurriculumLoader(
        cs.CurriculumDataset(cs.Manifest.load(str(data))), schedule, batch_size=4, seed=0
    )
    assert ran.told["fingerprint"] == loader.plan.fingerprint
    assert ran.told["draws"] == {"easy": 6, "hard": 18}


def test_a_picture_has_dots(command: Commands, tmp_path: Path) -> None:
    ran = command("simulate", "catvton", *SIZES, "--plot", tmp_path / "drawn.html")
    assert ran.out.endswith(f"Picture: {tmp_path / 'drawn.html'}\n")
    page = (tmp_path / "drawn.html").read_text()
    assert "<!-- drawn -->" in page
    assert "Promised: less than 2. Kept." in page


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "Give --sizes easy=1000,hard=1000,medium=1000 (or --data URL) and --batch-size 64."),
        ([*SIZES, "--window-steps", 0], "--window-steps: got 0"),
        ([*SIZES, "--window-steps", 1], "Give 4 or more."),
        ([*SIZES, "--most-draws", 0], "--most-draws: got 0"),
    ],
)
def test_what_cannot_be_simulated_is_refused(words: list[Any], told: str, command: Commands) -> None:
    ran = command("simulate", "catvton", *words)
    assert (ran.exit_code, ran.out) == (2, "")
    assert told in ran.err
    assert ran.err.count("\n") == 1
