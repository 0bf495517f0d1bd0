"""Pictures of plans and trainings: true to the numbers, whatever the names, and readable without colours."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curriculum_sampler as cs
from curriculum_sampler.metrics_rows import drawn_of, read_rows, timeline_of, training_rows
from curriculum_sampler.mixture_plot import mixture_figure
from curriculum_sampler.palette import bucket_colours
from curriculum_sampler.stage_labels import stage_labels
from curriculum_sampler.timeline import Drawn, StageSpan, Timeline

from .command_fixtures import Commands, command, write_cluttered
from .strategies import Case, cases, schedules

SCHEDULE = cs.StageSchedule(
    [
        cs.Stage("$warm$_up\n<b>", {"_first": 1, "$x^2$": 0}, steps=10, lr=1e-3),
        cs.Stage("b", {"_first": 1, "$x^2$": 1, "&": 2}, steps=30, ramp=15, lr=1e-5, ramp_lr=True),
    ]
)
BEGINS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF", "html": b"<!doctype html>"}


def plan_of(schedule: cs.StageSchedule) -> cs.Plan:
    return schedule.plan(dict.fromkeys(schedule.buckets, 20), batch_size=8)


@pytest.mark.parametrize("kind", BEGINS)
def test_equal_plans_give_equal_files_of_every_kind(kind: str, tmp_path: Path) -> None:
    plan = plan_of(SCHEDULE)
    for name in ("one", "two"):
        cs.plot_plan(
            plan,
            tmp_path / f"{name}.{kind}",
            simulation=cs.simulate(plan, 17),
            title="<Plan> $1$",
            notes="a < b",
        )
    one, two = ((tmp_path / f"{name}.{kind}").read_bytes() for name in ("one", "two"))
    assert one.startswith(BEGINS[kind])
    assert one == two


def test_a_page_needs_nothing_else_and_takes_names_as_text(tmp_path: Path) -> None:
    cs.plot_plan(SCHEDULE, tmp_path / "plan.html", title="<Plan> & more", notes="a < b")
    page = (tmp_path / "plan.html").read_text()
    assert "<h1>&lt;Plan&gt; &amp; more</h1>" in page
    assert "<pre>a &lt; b</pre>" in page
    assert "<b>" not in page
    addresses = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert all(address.startswith("#") for address in addresses)
    assert "url(http" not in page
    assert "@import" not in page


def test_names_stand_as_they_are_written() -> None:
    figure, _ = mixture_figure(Timeline.of(SCHEDULE), [Drawn(0, 10, {"_first": 80})])
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["&", r"\$x^2\$", "_first", "drawn"], "from the top area to the bottom one"
    (names,) = figure.axes[0].child_axes
    assert [label.get_text() for label in names.get_xticklabels()] == [r"\$warm\$_up <b>", "b"]


@settings(max_examples=15)
@given(schedules(), st.data())
def test_areas_are_as_high_as_the_mixture(schedule: cs.StageSchedule, data: st.DataObject) -> None:
    timeline = Timeline.of(schedule)
    figure, _ = mixture_figure(timeline)
    time = data.draw(st.integers(0, int(timeline.end) - 1)) + 0.5
    mixture = timeline.at(time).mixture(time)
    height = 0.0
    for name, area in zip(timeline.buckets, figure.axes[0].collections, strict=True):
        share = mixture.get(name, 0.0)
        (path,) = area.get_paths()
        if share > 1e-3:
            assert path.contains_point((time, height + share / 2))
        height += share
    assert height == pytest.approx(1)


@settings(max_examples=15)
@given(cases())
def test_dots_are_on_the_edges_where_the_draws_are_as_planned(case: Case) -> None:
    timeline = Timeline.of(case.plan)
    windows = cs.simulate(case.plan, case.seed).windows
    figure, _ = mixture_figure(timeline, windows)
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    heights = {
        (
            (window.start + window.end) / 2,
            round(sum(window.counts.get(name, 0) for name in timeline.buckets[:n]) / window.total, 9),
        )
        for window in windows
        for n in range(1, len(timeline.buckets))
    }
    drawn = {(x, round(y, 9)) for line in dots for x, y in zip(*line.get_data(), strict=True)}
    assert drawn <= heights
    assert {(x, y) for x, y in heights if 0 < y < 1} <= drawn


def test_the_learning_rate_is_drawn_where_there_is_one() -> None:
    figure, _ = mixture_figure(Timeline.of(SCHEDULE))
    line = figure.axes[1].lines[0]
    assert list(zip(*line.get_data(), strict=True)) == [
        (0, 1e-3),
        (10, 1e-3),
        (10, 1e-3),
        (25, 1e-5),
        (25, 1e-5),
        (40, 1e-5),
    ]
    without = cs.StageSchedule([cs.Stage("a", {"x": 1}, epochs=3)])
    figure, _ = mixture_figure(Timeline.of(without))
    assert len(figure.axes) == 1
    assert figure.axes[0].get_xlabel() == "epoch"


def test_panels_below_share_the_time() -> None:
    figure, below = mixture_figure(Timeline.of(SCHEDULE), panels_below=(1.0, 2.0))
    assert below == figure.axes[2:4]
    assert {axes.get_xlim() for axes in figure.axes[:4]} == {(0.0, 40.0)}


def luminance(colour: str) -> float:
    linear = [(int(colour[at : at + 2], 16) / 255) ** 2.2 for at in (1, 3, 5)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) ** (
        1 / 2.2
    )


@given(st.integers(2, 40), st.sampled_from([1.0, 0.84]))
def test_each_bucket_is_darker_than_the_one_before(count: int, darkest: float) -> None:
    greys = [luminance(colour) for colour in bucket_colours(count, darkest=darkest)]
    steps = [light - dark for light, dark in itertools.pairwise(greys)]
    assert min(steps) > 0
    if count <= 6:
        assert min(steps) > 0.08, "told apart in grey-scale print"


@given(
    st.lists(
        st.tuples(st.text("ab m", min_size=1, max_size=30), st.floats(0.01, 1000)), min_size=1, max_size=50
    )
)
def test_no_stages_name_covers_another(stages: list[tuple[str, float]]) -> None:
    spans, at = [], 0.0
    for name, length in stages:
        spans.append(StageSpan(name, at, at + length))
        at += length
    width, height = 500.0, 11.0
    labels = stage_labels(spans, width, height, lambda text: 5.0 * len(text))
    places = [time / at * width for time in labels.times]
    assert len(labels.names) == len(places) >= 1
    if labels.is_slanted:
        gaps = [right - left for left, right in itertools.pairwise(places)]
        # Lines of text at 45 degrees are apart by 1/sqrt(2) of their distance along the axis.
        assert all(gap / 2**0.5 >= height for gap in gaps)
    else:
        assert len(labels.names) == len(spans)
        for name, place, span in zip(labels.names, places, spans, strict=True):
            half = 5.0 * len(name) / 2
            assert span.start / at * width <= place - half
            assert place + half <= span.end / at * width


def training(plan: cs.Plan, every: int = 3, until: int | None = None) -> list[dict[str, Any]]:
    """The rows of a training: one every so many steps, and at the end of each stage."""
    rows: list[dict[str, Any]] = [{"kind": "stage", "step": 0}]
    for step in range(1, (until or plan.total_steps) + 1):
        if step % every == 0 or step in plan.boundaries:
            at = plan.at(step - 1)
            rows.append(
                {
                    "kind": "train",
                    "step": step,
                    "stage": at.stage,
                    "lr": at.lr,
                    "target_mixture": at.mixture,
                    "samples_by_bucket": plan.counts_before(step * plan.batch_size),
                }
            )
    return rows


@given(schedules(ramps=False), st.integers(1, 7))
def test_the_rows_of_a_training_draw_the_picture_of_its_plan(schedule: cs.StageSchedule, every: int) -> None:
    plan = plan_of(schedule)
    found, planned = timeline_of(training_rows(training(plan, every))), Timeline.of(plan)
    assert found.stages == planned.stages
    for step in range(plan.total_steps):
        assert found.at(step).mixture(step) == planned.at(step).mixture(step)
        assert found.at(step).rate(step) == planned.at(step).rate(step)


@settings(max_examples=20)
@given(schedules(max_steps=400), st.integers(1, 3))
def test_what_was_drawn_is_counted_once_and_never_over_two_stages(
    schedule: cs.StageSchedule, every: int
) -> None:
    plan = plan_of(schedule)
    rows = training_rows(training(plan, every))
    drawn = drawn_of(rows)
    assert sum(window.total for window in drawn) == rows[-1]["step"] * plan.batch_size
    assert len(drawn) <= 2 * 150 + len(schedule.stages)
    for window in drawn:
        assert plan.at(int(window.start)).stage == plan.at(int(window.end) - 1).stage


def written(path: Path, rows: list[dict[str, Any]], end: str = "") -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + end)
    return path


def test_what_the_library_reports_is_what_it_draws(tmp_path: Path) -> None:
    stages = [
        cs.Stage("easy", {"easy": 1}, steps=4, lr=0.1),
        cs.Stage("hard", {"easy": 1, "hard": 3}, steps=5, lr=0.05),
    ]
    loader = cs.CurriculumLoader(
        cs.CurriculumDataset(write_cluttered("memory://reported")),
        cs.StageSchedule(stages),
        batch_size=4,
        seed=17,
    )
    report = cs.TrainingReport(loader, [cs.JsonlReporter(tmp_path / "metrics.jsonl")], every=2)
    for _ in loader:
        report.add()
    rows = training_rows(read_rows(tmp_path / "metrics.jsonl"))
    assert timeline_of(rows).stages == (StageSpan("easy", 0, 4), StageSpan("hard", 4, 9))
    assert sum(window.total for window in drawn_of(rows)) == 36
    cs.plot_metrics(tmp_path / "metrics.jsonl", tmp_path / "mixture.svg")
    assert "<!-- drawn -->" in (tmp_path / "mixture.svg").read_text()


def test_a_running_job_is_drawn_although_its_last_line_is_half_written(
    command: Commands, tmp_path: Path
) -> None:
    rows = training(plan_of(SCHEDULE), until=7)
    metrics = written(tmp_path / "metrics.jsonl", rows, '{"kind": "tra')
    ran = command("plot", metrics, tmp_path / "now.html", "--title", "run 7")
    assert (ran.exit_code, ran.out) == (0, f"Picture: {tmp_path / 'now.html'}\n")
    assert "<h1>run 7</h1>" in (tmp_path / "now.html").read_text()


def test_a_training_that_has_not_done_a_step_is_drawn_as_it_will_begin(tmp_path: Path) -> None:
    (row, *_) = training_rows(training(plan_of(SCHEDULE)))
    first = {**row, "step": 0, "samples_by_bucket": {}}
    cs.plot_metrics(written(tmp_path / "metrics.jsonl", [first]), tmp_path / "now.svg")
    assert timeline_of([first]).stages == (StageSpan("$warm$_up\n<b>", 0, 1),)


def test_a_restart_that_wrote_steps_again_counts_them_once(tmp_path: Path) -> None:
    rows = training(plan_of(SCHEDULE))
    again = training_rows([*rows[:6], *rows[3:]])
    assert again == training_rows(rows)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('{"kind": "validation", "step": 1}\n', "No row is of kind 'train'"),
        (
            '{"kind": "train", "step": 1, "stage": "a", "target_mixture": {"x": 1}}\n',
            "has samples_by_bucket=None",
        ),
        ('nonsense\n{"kind": "train"}\n', "line 1 is not a JSON object"),
        ("[1]\n[2]\n", "line 1 is not a JSON object"),
        ("", "No row is of kind 'train'"),
    ],
)
def test_metrics_that_tell_nothing_are_one_clear_line(
    lines: str, told: str, command: Commands, tmp_path: Path
) -> None:
    (tmp_path / "metrics.jsonl").write_text(lines)
    ran = command("plot", tmp_path / "metrics.jsonl", tmp_path / "out.png")
    assert (ran.exit_code, ran.out) == (2, "")
    assert told in ran.err
    assert ran.err.count("\n") == 1
    assert not (tmp_path / "out.png").exists()


def test_what_cannot_be_written_is_said(command: Commands, tmp_path: Path) -> None:
    metrics = written(tmp_path / "metrics.jsonl", training(plan_of(SCHEDULE)))
    for picture, told in (
        (tmp_path / "x" / "out.png", "No such file"),
        ("out.jpeg", "ends in .png, .svg, .pdf or .html"),
    ):
        ran = command("plot", metrics, picture)
        assert ran.exit_code == 2
        assert told in ran.err
    assert command("plot", tmp_path / "none.jsonl", tmp_path / "out.png").exit_code == 2
