"""``plan`` tells what a run will do and cost, and what to mind, before it does."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import curriculum_sampler as cs
from curriculum_sampler.outlook import outlook_of_plan, times_over
from curriculum_sampler.terminal import Terminal

from .command_fixtures import Commands, Screen, command, data
from .strategies import Case, cases

SIZES = ("--sizes", "easy=5000,medium=4000,hard=3000", "--batch-size", 64)
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_presets_are_the_curricula_of_the_specification() -> None:
    assert cs.StageSchedule.presets() == ("catvton", "dit", "vtongan")
    ends = {"catvton": (10_000, 25_000, 40_000), "dit": (100, 250, 400), "vtongan": (8_000, 20_000, 35_000)}
    for name, told in ends.items():
        stages = cs.StageSchedule.load(name).stages
        assert tuple(sum(stage.length for stage in stages[:n]) for n in (1, 2, 3)) == told
        assert [dict(stage.mixture) for stage in stages] == [
            {"easy": 1.0},
            {"easy": 0.3, "medium": 0.7},
            {"easy": 0.25, "medium": 0.25, "hard": 0.5},
        ]


def test_presets_are_planned_with_numpy_alone(tmp_path: Path) -> None:
    code = """
import sys
for name in ("torch", "boto3", "PIL", "xxhash", "safetensors", "matplotlib", "rich", "tqdm"):
    sys.modules[name] = None
from curriculum_sampler.command_line import main
met = ["--sizes", "easy=5000,medium=4000,hard=3000", "--batch-size", "64"]
for name in ("catvton", "dit", "vtongan"):
    assert main(["plan", name]) == main(["plan", name, *met]) == main(["simulate", name, *met, "--most-draws", "99"]) == 0
assert main(["compare", "catvton", "dit"]) == 0
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "catvton: 3 stages, 40,000 steps of 64" in ran.stdout


def test_without_sizes_it_speaks_in_the_schedules_own_units(command: Commands) -> None:
    out = command("plan", "dit").out
    assert ["stage", "from", "epochs", "learning", "rate"] in rows(out)
    assert ["medium", "100", "150", "5e-5"] in rows(out)
    assert ["all", "400"] in rows(out)
    assert "draws" not in out
    assert ["hard", "50%", "7.3%"] in rows(out)


def test_stages_in_several_units_have_no_timeline_but_a_table(command: Commands, tmp_path: Path) -> None:
    stages = [
        cs.Stage("a", {"x": 1}, steps=10, lr=0.1),
        cs.Stage("b", {"x": 1}, epochs=1.5, ramp=0.5, lr=0.1),
    ]
    cs.StageSchedule(stages).save(tmp_path / "both.toml")
    ran = command("plan", tmp_path / "both.toml")
    assert ran.exit_code == 0
    assert ["b", "1.5", "epochs", "0.5", "0.1"] in rows(ran.out)
    assert command("plan", tmp_path / "both.toml", "--plot", tmp_path / "a.svg").exit_code == 2
    assert command("plan", tmp_path / "both.toml", "--sizes", "x=30", "--batch-size", 3).exit_code == 0


def test_with_sizes_it_tells_draws_passes_and_hours(command: Commands) -> None:
    out = command("plan", "catvton", *SIZES, "--seconds-per-step", 0.9).out
    assert ["medium", "10,000", "15,000", "960,000", "5e-6", "3.8"] in rows(out)
    assert ["all", "40,000", "2,560,000", "10.0"] in rows(out)
    assert ["hard", "50%", "480,000", "160.0", "7.3%"] in rows(out)
    assert ["all", "easy", "45.6%", "1,168,000", "233.6", "63.4%"] in rows(out)
    assert "warning: 'hard' is repeated 160.0 times in stage 'hard'\n" in out
    assert "warning: 'hard' is 18.8% of the draws, but sees 7.3% of the learning-rate mass" in out


@given(cases())
def test_the_outlook_adds_up_to_the_plan(case: Case) -> None:
    plan, outlook = case.plan, outlook_of_plan(case.plan, seconds_per_step=2.0)
    assert sum(bucket.draws or 0 for bucket in outlook.buckets) == plan.total_draws
    assert sum(bucket.share or 0 for bucket in outlook.buckets) == pytest.approx(1)
    assert sum(bucket.rate_mass or 0 for bucket in outlook.buckets) == pytest.approx(1)
    assert outlook.seconds == 2.0 * plan.total_steps
    for row in plan.exposure():
        stage = next(stage for stage in outlook.stages if stage.stage == row.stage)
        told = next(bucket for bucket in stage.buckets if bucket.bucket == row.bucket)
        assert (told.draws, told.passes) == (row.draws, row.passes)
    for stage in outlook.stages:
        assert (
            stage.length * plan.batch_size
            == stage.draws
            == sum(bucket.draws or 0 for bucket in stage.buckets)
        )


def test_many_warnings_are_cut_short_but_not_in_json(command: Commands, tmp_path: Path) -> None:
    stages = [cs.Stage(f"s{n}", {"easy": 1}, steps=50) for n in range(20)]
    words = ("plan", saved(tmp_path, *stages), "--sizes", "easy=9", "--batch-size", 2)
    out = command(*words).out
    assert out.count("warning:") == 12
    assert out.endswith("and 8 more warnings; --json has all\n")
    assert len(command(*words, "--json").told["warnings"]) == 20


def test_json_is_complete(command: Commands) -> None:
    told = command("plan", "catvton", *SIZES, "--json").told
    schedule = cs.StageSchedule.from_dict(told["schedule"])
    assert schedule == cs.StageSchedule.load("catvton")
    plan = schedule.plan(told["plan"]["bucket_sizes"], told["plan"]["batch_size"])
    assert told["plan"]["fingerprint"] == plan.fingerprint
    assert told["plan"]["boundaries"] == [0, 10_000, 25_000, 40_000]
    medium = told["stages"][1]
    assert (medium["stage"], medium["start"], medium["length"], medium["unit"]) == (
        "medium",
        10_000,
        15_000,
        "steps",
    )
    assert medium["rates"] == [5e-6, 5e-6]
    assert medium["buckets"][1]["share"] == 0.7
    assert medium["buckets"][1]["draws"] == 672_000
    assert len(told["warnings"]) == 7
    assert command("plan", "dit", "--json").told["plan"] is None


def saved(tmp_path: Path, *stages: cs.Stage) -> Path:
    cs.StageSchedule(stages).save(tmp_path / "schedule.toml")
    return tmp_path / "schedule.toml"


def test_what_is_read_is_the_draws_times_the_bytes_of_a_sample(
    command: Commands, data: Path, tmp_path: Path
) -> None:
    manifest = cs.Manifest.load(str(data))
    path = saved(tmp_path, cs.Stage("all", {"easy": 1, "hard": 1}, steps=6))
    told = command("plan", path, "--data", data, "--batch-size", 8, "--json").told
    # 24 draws of each bucket of 12 are two passes; nothing is read of 'medium'.
    both = sum(manifest.mean_sample_bytes(name) * 12 for name in ("easy", "hard"))
    assert told["num_bytes"] == pytest.approx(2 * both)
    assert told["distinct_bytes"] == pytest.approx(both)
    assert told["warnings"] == ["'medium' is never drawn (12 samples)"]
    assert told["plan"]["run_sizes"] == manifest.run_sizes()
    out = command("plan", path, "--data", data, "--batch-size", 8, "--nodes", 3).out
    assert "over all passes" in out
    assert "3 nodes fetch it 3.0 times over" in out


def test_a_bucket_that_is_not_seen_in_full_is_told(command: Commands, tmp_path: Path) -> None:
    path = saved(tmp_path, cs.Stage("all", {"easy": 1, "hard": 3}, steps=10))
    out = command("plan", path, "--sizes", "easy=25,hard=30", "--batch-size", 4).out
    assert "warning: only 40% of 'easy' is ever drawn" in out
    assert "'hard' is" not in out


@pytest.mark.parametrize(("nodes", "run_size"), [(2, 3), (4, 8), (3, 64), (4, 1)])
def test_nodes_fetch_as_many_times_over_as_told(nodes: int, run_size: int) -> None:
    size, slots = 1920, 12
    schedule = cs.StageSchedule([cs.Stage("all", {"x": 1}, samples=size)])
    plan = schedule.plan({"x": size}, batch_size=nodes * slots, run_sizes=run_size)
    fetched: set[tuple[int, int]] = set()
    for step in range(plan.total_steps):
        for slot, draw in enumerate(cs.MixtureSampler(plan, seed=7).draws(step)):
            fetched.add((slot // slots, draw.index // run_size))
    measured = len(fetched) / (size // run_size)
    assert measured == pytest.approx(times_over(nodes, run_size), rel=0.04)


@given(st.integers(1, 64), st.integers(1, 1000))
def test_the_cluster_fetches_the_data_at_least_once_and_at_most_once_per_node(
    nodes: int, run_size: int
) -> None:
    assert 1 - 1e-9 <= times_over(nodes, run_size) <= nodes + 1e-9


def test_nodes_without_data_are_a_bound(command: Commands) -> None:
    assert (
        "4 nodes fetch the data up to 4 times over; --data tells."
        in command("plan", "catvton", *SIZES, "--nodes", 4).out
    )


def on_a_screen(monkeypatch: pytest.MonkeyPatch, *words: object) -> str:
    from curriculum_sampler.command_line import _parser
    from curriculum_sampler.commands import plan

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Screen()
    terminal = Terminal(out=screen)
    terminal.show(plan.run(_parser(["plan"]).parse_args(["plan", *map(str, words)]), terminal))
    return screen.getvalue()


def test_a_terminal_shows_areas_in_colour_within_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_a_screen(monkeypatch, "catvton", *SIZES)
    assert "\x1b[" in shown
    plain = ESCAPE.sub("", shown)
    assert max(map(len, plain.splitlines())) <= 80
    assert "100% ▄▄▄▄" in plain
    assert "██ easy   ██ medium   ██ hard" in plain


def test_without_rich_or_colours_a_terminal_shows_the_same_in_characters(
    monkeypatch: pytest.MonkeyPatch, command: Commands
) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.delitem(sys.modules, "curriculum_sampler.timeline_colours", raising=False)
    assert (
        ESCAPE.sub("", on_a_screen(monkeypatch, "catvton", *SIZES)) == command("plan", "catvton", *SIZES).out
    )


@pytest.mark.parametrize(
    "words", [["catvton"], ["dit"], ["catvton", *SIZES, "--nodes", 4, "--seconds-per-step", 1]]
)
def test_it_fits_80_columns(words: list[Any], command: Commands) -> None:
    out = command("plan", *words).out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out


def test_a_page_holds_picture_and_tables(command: Commands, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    ran = command("plan", "catvton", *SIZES, "--plot", page)
    assert ran.exit_code == 0
    assert ran.out.endswith(f"Picture: {page}\n")
    assert "<h1>catvton</h1>" in page.read_text()
    assert "640,000" in page.read_text()


BROKEN = {
    "toml": ("stages = [", "is not valid TOML"),
    "zero": ('[[stages]]\nname = "a"\nmixture = { easy = 0 }\nsteps = 3', "sum to zero"),
    "typo": ('[[stages]]\nname = "a"\nmixtures = { easy = 1 }\nsteps = 3', "Did you mean 'mixture'?"),
    "empty": ("", "has no stages"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_schedule_is_one_clear_line(name: str, command: Commands, tmp_path: Path) -> None:
    text, told = BROKEN[name]
    (tmp_path / "broken.toml").write_text(text)
    ran = command("plan", tmp_path / "broken.toml")
    assert (ran.exit_code, ran.out) == (2, "")
    assert re.fullmatch(r"error: .*broken\.toml: .*\n", ran.err)
    assert told in ran.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["catvto"], "neither a preset (catvton, dit, vtongan) nor a file"),
        (["nowhere.toml"], "no such file. Correct the name, or take a preset: catvton, dit, vtongan."),
        (["catvton", "--batch-size", 8], "Give --sizes easy=1000,hard=1000,medium=1000 (or --data URL)"),
        (["catvton", "--sizes", "easy=1"], "and --batch-size 64"),
        (["catvton", "--sizes", "easy=9,medium=9", *SIZES[2:]], "draws from bucket 'hard', which is absent"),
        (
            ["catvton", "--sizes", "easy=9,medium=9,hard=9,hrad=9", *SIZES[2:]],
            "names bucket 'hrad', but the schedule has",
        ),
        (["catvton", "--sizes", "easy:9", *SIZES[2:]], "got 'easy:9'"),
        (["catvton", "--sizes", "easy=9,easy=9", *SIZES[2:]], "NAME=SAMPLES for every bucket, once"),
        (["catvton", *SIZES[:2], "--batch-size", 0], "--batch-size: got 0"),
        (["catvton", "--data", "nowhere", *SIZES[2:]], "There is no manifest.json at"),
        (["catvton", "--plot", "plan.gif"], "ends in .png, .svg, .pdf or .html"),
        (["catvton", "--plot", "no/such/folder/plan.svg"], "No such file or directory"),
        (["catvton", "--nodes", 4], "need steps"),
        (["catvton", *SIZES, "--nodes", 0], "--nodes: got 0"),
        (["catvton", *SIZES, "--seconds-per-step", "nan"], "--seconds-per-step: got nan"),
    ],
)
def test_a_mistake_is_one_clear_line(
    words: list[Any], told: str, command: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = command("plan", *words)
    assert (ran.exit_code, ran.out) == (2, "")
    assert told in ran.err
    assert re.fullmatch(r"error: .*\n", ran.err)
    assert list(tmp_path.iterdir()) == []


def test_data_that_lack_a_bucket_are_one_clear_line(command: Commands, data: Path, tmp_path: Path) -> None:
    path = saved(tmp_path, cs.Stage("all", {"easy": 1, "extreme": 1}, steps=6))
    ran = command("plan", path, "--data", data, "--batch-size", 8)
    assert (ran.exit_code, ran.out) == (2, "")
    assert "bucket 'extreme', which is absent. The data has: easy (12), hard (12), medium (12)." in ran.err


def test_without_matplotlib_a_picture_names_the_extra(tmp_path: Path) -> None:
    code = "import sys; sys.modules['matplotlib'] = None\nfrom curriculum_sampler.command_line import main\nsys.exit(main())"
    ran = subprocess.run(
        [sys.executable, "-c", code, "plan", "catvton", "--plot", str(tmp_path / "plan.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert (
        ran.stderr
        == 'error: This needs matplotlib, which is not installed. Run: pip install "curriculum-sampler[plot]"\n'
    )
