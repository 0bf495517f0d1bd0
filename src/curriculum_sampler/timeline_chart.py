"""A timeline in characters: a row for each bucket, as high as its share, and one for the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from .readable import UNITS, readable_time
from .stage_labels import shortened
from .timeline import Timeline

_BARS = " ▁▂▃▄▅▆▇█"
LONGEST_NAME = 16


def timeline_chart(timeline: Timeline, *, width: int = 80, in_colour: bool = False) -> str:
    """Draw a timeline, in colour where that is wanted and rich is installed.

    >>> from curriculum_sampler import Stage, StageSchedule
    >>> stages = [Stage("warm-up", {"x": 1}, steps=10, lr=0.2), Stage("all", {"x": 1, "y": 1}, steps=30, lr=0.1)]
    >>> print(timeline_chart(Timeline.of(StageSchedule(stages)), width=45))
          warm-up   all
    x     ██████████▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄
    y               ▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄
    lr    ██████████▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄▄
    step  0         10                         40
    """
    if in_colour:
        try:
            coloured: str = import_module(".timeline_colours", __package__).coloured_chart(timeline, width)
        except ImportError:  # rich is absent, and without colours the same is told
            pass
        else:
            return coloured
    names = [shortened(name, LONGEST_NAME) for name in timeline.buckets]
    unit = UNITS[timeline.unit]
    margin = 2 + max(map(len, [*names, unit]))
    columns = width - margin
    times = column_times(timeline, columns)
    rows = [("", stage_line(timeline, columns))]
    for name, label in zip(timeline.buckets, names, strict=True):
        rows.append((label, bars([timeline.at(time).mixture(time).get(name, 0.0) for time in times])))
    rates = rate_bars(timeline, times)
    rows += [] if rates is None else [("lr", rates)]
    rows.append((unit, axis_line(timeline, columns)))
    return "\n".join(f"{label:{margin}}{line}".rstrip() for label, line in rows)


def column_times(timeline: Timeline, columns: int) -> list[float]:
    """Return the time in the middle of every column."""
    return [(column + 0.5) * timeline.end / columns for column in range(columns)]


def bars(heights: Sequence[float]) -> str:
    """Return a bar for each height from 0 to 1; what is above 0 shows, however low it is."""
    return "".join(_BARS[max(1, round(height * (len(_BARS) - 1))) if height > 0 else 0] for height in heights)


def rate_bars(timeline: Timeline, times: Sequence[float]) -> str | None:
    """Return the learning rate as bars under the highest; None where there is none."""
    top = max((max(stretch.rates) for stretch in timeline.stretches if stretch.rates), default=0.0)
    return bars([(timeline.at(time).rate(time) or 0.0) / top for time in times]) if top else None


def stage_line(timeline: Timeline, columns: int) -> str:
    """Return the stages' names, each where its stage begins; one that does not fit is cut, or left out."""
    starts = [round(span.start / timeline.end * columns) for span in timeline.stages]
    line = ""
    for span, start, following in zip(timeline.stages, starts, [*starts[1:], columns], strict=True):
        room = following - start - 1 if following < columns else following - start
        if room >= min(3, len(span.stage)) and len(line) <= start:
            line = f"{line:{start}}{shortened(span.stage, room)} "
    return line.rstrip()


def axis_line(timeline: Timeline, columns: int) -> str:
    """Return when stages begin and the last one ends, as far as there is room."""
    end = readable_time(timeline.end)
    line = ""
    for span in timeline.stages:
        start, told = round(span.start / timeline.end * columns), readable_time(span.start)
        if len(line) <= start and start + len(told) < columns - len(end):
            line = f"{line:{start}}{told} "
    return f"{line:{columns - len(end)}}{end}"
