"""One picture of a curriculum: the planned mixture as areas, the learning rate, and what was drawn as dots."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .extras import missing
from .metrics_rows import drawn_of, read_rows, timeline_of, training_rows
from .palette import bucket_colours
from .picture_file import save_figure
from .picture_kind import picture_kind
from .readable import UNITS, readable_rate
from .stage_labels import shortened, stage_labels
from .timeline import Drawn, Timeline

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.textpath import TextPath
except ImportError as error:
    raise missing("matplotlib", "plot") from error

if TYPE_CHECKING:
    from .plan import Plan
    from .schedule import StageSchedule
    from .simulation import Simulation

_INK = "#222222"
_WIDTH = 9  # inches
_NAME_SIZE = 9
_MOST_NAMES = 24  # buckets in the legend
_LONGEST_NAME = 24
_MOST_PLAIN = 6  # so many colours differ enough by themselves
_MOST_RATES = 5
_LEAST_APART = 0.006  # of the width, between boundaries that are drawn


def plot_plan(
    plan: Plan | StageSchedule,
    path: str | os.PathLike[str],
    *,
    simulation: Simulation | None = None,
    title: str = "",
    notes: str = "",
) -> None:
    """Draw a plan, or a schedule in its own unit, into a file.

    The mixture is stacked areas, the first bucket at the bottom and lightest, each later one darker; below it is the learning
    rate, where there is one. Stages are named on top.

    Args:
        plan: What to draw.
        path: A ``.png``, ``.svg``, ``.pdf``, or a page in ``.html`` that needs no other file. It is replaced.
        simulation: What the sampler drew (``simulate``), as dots on the edges of the areas.
        title: Stands above the picture.
        notes: Stand below it, on a page.

    Raises:
        ArgumentError: Another kind of file, or a schedule whose stages are in several units.
        MissingExtraError: matplotlib is absent.

    >>> import tempfile
    >>> from curriculum_sampler import StageSchedule
    >>> schedule = StageSchedule.load(StageSchedule.presets()[0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot_plan(schedule, f"{folder}/plan.svg")
    """
    picture_kind(path)
    timeline = Timeline.of(plan)
    figure, _ = mixture_figure(
        timeline, () if simulation is None else simulation.windows, title=_above(title, path)
    )
    save_figure(figure, path, title=title or "Curriculum", notes=notes)


def plot_metrics(
    metrics: str | os.PathLike[str], path: str | os.PathLike[str], *, title: str = "", notes: str = ""
) -> None:
    """Draw what a training was to draw and what it has drawn so far, from its ``metrics.jsonl``.

    Rows of ``"kind": "train"`` tell ``step``, ``stage``, ``target_mixture``, ``samples_by_bucket`` and ``lr``. A last line that is
    still being written is passed over, so the file of a running job can be drawn. See ``plot_plan`` for the picture.

    Raises:
        ArgumentError: A line that is no JSON object, a row that lacks something, or no row of training.
        MissingExtraError: matplotlib is absent.

    >>> import json, tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> row = {"kind": "train", "stage": "easy", "target_mixture": {"easy": 1.0}, "lr": 0.1}
    >>> rows = [row | {"step": step, "samples_by_bucket": {"easy": 8 * step}} for step in (2, 4)]
    >>> _ = (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\\n" for row in rows))
    >>> plot_metrics(folder / "metrics.jsonl", folder / "so_far.svg")
    >>> (folder / "so_far.svg").read_text().startswith("<?xml")
    True
    """
    picture_kind(path)
    training = training_rows(read_rows(Path(metrics)))
    figure, _ = mixture_figure(timeline_of(training), drawn_of(training), title=_above(title, path))
    save_figure(figure, path, title=title or "Training", notes=notes)


def mixture_figure(
    timeline: Timeline, drawn: Sequence[Drawn] = (), *, title: str = "", panels_below: Sequence[float] = ()
) -> tuple[Figure, list[Axes]]:
    """Return the picture, and empty axes below it for whatever else there is to show over the same time.

    ``panels_below`` are their heights; the mixture's is 3.
    """
    has_rates = any(stretch.rates for stretch in timeline.stretches)
    heights = [3.0, *([1.0] if has_rates else []), *panels_below]
    figure = Figure(figsize=(_WIDTH, 1.2 + 1.05 * sum(heights)), layout="constrained")
    panels: list[Axes] = list(
        figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    )
    _draw_mixture(panels[0], timeline)
    _draw_dots(panels[0], timeline, drawn)
    if has_rates:
        _draw_rates(panels[1], timeline)
    for axes in panels:
        _draw_boundaries(axes, timeline, is_filled=axes is panels[0])
    unit = UNITS[timeline.unit]
    panels[-1].set_xlabel("global step" if unit == "step" else unit)
    panels[-1].xaxis.set_major_formatter("{x:,.0f}" if timeline.end >= 8 else "{x:,.10g}")
    _name_stages(panels[0], timeline)
    _name_buckets(figure, timeline, bool(drawn))
    if title:
        figure.suptitle(_verbatim(title), fontsize=12, color=_INK)
    return figure, panels[2 if has_rates else 1 :]


def _draw_mixture(axes: Axes, timeline: Timeline) -> None:
    times = [time for stretch in timeline.stretches for time in (stretch.start, stretch.end)]
    lower = [0.0] * len(times)
    for place, (name, colour) in enumerate(
        zip(timeline.buckets, bucket_colours(len(timeline.buckets)), strict=True)
    ):
        shares = [each.get(name, 0.0) for stretch in timeline.stretches for each in stretch.mixtures]
        upper = [below + share for below, share in zip(lower, shares, strict=True)]
        axes.fill_between(
            times,
            lower,
            upper,
            facecolor=colour,
            linewidth=0,
            hatch=_hatch(place, timeline),
            edgecolor="white",
        )
        if place:
            axes.plot(times, lower, color="white", linewidth=0.8)
        lower = upper
    axes.set(xlim=(0, timeline.end), ylim=(0, 1), ylabel="share of the global batch")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")


def _hatch(place: int, timeline: Timeline) -> str | None:
    return "////" if place % 2 and len(timeline.buckets) > _MOST_PLAIN else None


def _draw_dots(axes: Axes, timeline: Timeline, drawn: Sequence[Drawn]) -> None:
    """Dots on the upper edge of each bucket's area: where what was drawn is what was planned they lie on the edge."""
    dots = []
    for seen in drawn:
        middle = (seen.start + seen.end) / 2
        share = planned = 0.0
        mixture = timeline.at(middle).mixture(middle)
        for name in timeline.buckets[:-1]:
            share += seen.counts.get(name, 0) / seen.total
            planned += mixture.get(name, 0.0)
            # The borders of the picture are no edges between buckets.
            if min(share, planned) < 1 - 1e-9 and max(share, planned) > 1e-9:
                dots.append((middle, share))
    if dots:
        axes.plot(*zip(*dots, strict=True), **_DOT, clip_on=False, zorder=5)


_DOT: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 4.5,
    "markerfacecolor": "black",
    "markeredgecolor": "white",
    "markeredgewidth": 0.8,
}


def _draw_rates(axes: Axes, timeline: Timeline) -> None:
    times, rates = [], []
    for stretch in timeline.stretches:
        times += [stretch.start, stretch.end]
        rates += [math.nan, math.nan] if stretch.rates is None else [*stretch.rates]
    axes.plot(times, rates, color=_INK, linewidth=1.6)
    known = sorted({rate for rate in rates if not math.isnan(rate)}, reverse=True)
    top = known[0] or 1.0
    if known[-1] > 0 and top / known[-1] > 30:
        axes.set(yscale="log", ylim=(known[-1] / 1.6, top * 1.6))
    else:
        axes.set_ylim(0, 1.18 * top)
    if len(known) <= _MOST_RATES:
        marks = _spread(known, axes.get_yscale() == "log")
        axes.set_yticks(marks, [readable_rate(mark) for mark in marks])
        axes.minorticks_off()
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    else:
        axes.yaxis.set_major_formatter(lambda rate, _: readable_rate(rate))
    axes.set_ylabel("learning rate")
    axes.set_axisbelow(True)


def _spread(rates: Sequence[float], is_log: bool) -> list[float]:
    """Return the rates, from the largest on, whose labels do not touch."""

    def height(rate: float) -> float:
        if not is_log:
            return rate / (rates[0] or 1.0)
        return 1 - math.log(rates[0] / rate) / math.log(2.56 * rates[0] / rates[-1])

    kept = [rates[0]]
    for rate in rates[1:]:
        if height(kept[-1]) - height(rate) >= 0.17:
            kept.append(rate)
    return kept


def _draw_boundaries(axes: Axes, timeline: Timeline, *, is_filled: bool) -> None:
    latest = 0.0
    for span in timeline.stages[1:]:
        if span.start - latest < _LEAST_APART * timeline.end:
            continue
        latest = span.start
        if is_filled:
            axes.axvline(span.start, color="white", linewidth=1.4)
        axes.axvline(
            span.start,
            color=_INK,
            linewidth=1.0 if is_filled else 0.7,
            linestyle=(0, (3, 2)),
            zorder=None if is_filled else 0.5,
        )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _name_stages(axes: Axes, timeline: Timeline) -> None:
    # The legend and the axis' labels take about a fifth of the width.
    width = 0.78 * _WIDTH * 72
    labels = stage_labels(timeline.stages, width, 1.2 * _NAME_SIZE, _width_of)
    names = axes.secondary_xaxis("top")
    names.set_ticks(labels.times, [_verbatim(name) for name in labels.names], minor=False)
    names.tick_params(length=0, labelsize=_NAME_SIZE, pad=3, labelcolor=_INK)
    names.spines["top"].set_visible(False)
    if labels.is_slanted:
        for label in names.get_xticklabels():
            label.set(rotation=45, ha="left", rotation_mode="anchor")


def _width_of(text: str) -> float:
    return float(
        TextPath((0, 0), _verbatim(text), size=_NAME_SIZE, prop=FontProperties()).get_extents().width
    )


def _name_buckets(figure: Figure, timeline: Timeline, has_dots: bool) -> None:
    """A legend beside the areas, in their order from top to bottom."""
    named = list(zip(timeline.buckets, bucket_colours(len(timeline.buckets)), strict=True))
    areas = [
        Patch(facecolor=colour, edgecolor="white", hatch=_hatch(place, timeline))
        for place, (_, colour) in enumerate(named)
    ]
    handles: list[Patch | Line2D] = [*reversed(areas)]
    names = [name for name, _ in named][::-1]
    if len(names) > _MOST_NAMES:
        step = (len(names) - 1) / (_MOST_NAMES - 1)
        places = [round(step * number) for number in range(_MOST_NAMES)]
        handles, names = [handles[place] for place in places], [names[place] for place in places]
    if has_dots:
        handles.append(Line2D([], [], **_DOT))
        names.append("drawn")
    legend = figure.legend(
        handles,
        [" "] * len(names),
        loc="outside right upper",
        frameon=False,
        fontsize=_NAME_SIZE,
        labelcolor=_INK,
    )
    # Set afterwards: as a label, a name that begins with "_" would be left out.
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(_verbatim(shortened(name, _LONGEST_NAME)))


def _verbatim(text: str) -> str:
    """Return text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$").replace("\n", " ")


def _above(title: str, path: str | os.PathLike[str]) -> str:
    """A page has its title as text."""
    return "" if picture_kind(path) == "html" else title
