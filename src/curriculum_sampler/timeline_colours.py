"""A timeline in the colours of a terminal: the mixture as stacked areas, and the learning rate below. Needs rich."""

from __future__ import annotations

import io
from itertools import groupby

from .extras import missing
from .palette import bucket_colours
from .readable import UNITS
from .stage_labels import shortened
from .timeline import Timeline
from .timeline_chart import LONGEST_NAME, axis_line, column_times, rate_bars, stage_line

try:
    from rich.console import Console
    from rich.style import Style
    from rich.text import Text
except ImportError as error:
    raise missing("rich", "plot") from error

_LINES = 8
_MARGIN = 6
_DARKEST = 0.84  # darker could not be told from a dark terminal
_HALF = "▄"  # the lower half of a character in its colour, the upper in its background's


def coloured_chart(timeline: Timeline, width: int) -> str:
    """Return lines of text with the escape codes of the terminal at hand."""
    columns = width - _MARGIN
    times = column_times(timeline, columns)
    colours = dict(
        zip(timeline.buckets, bucket_colours(len(timeline.buckets), darkest=_DARKEST), strict=True)
    )
    lines = [_labelled("", Text(stage_line(timeline, columns), style="bold"))]
    for number in range(_LINES):
        heights = [1 - (2 * number + part) / (2 * _LINES) for part in (0.5, 1.5)]
        cells = [tuple(_bucket_at(timeline, time, height) for height in heights) for time in times]
        area = Text()
        for (upper, lower), alike in groupby(cells):
            area.append(_HALF * len(list(alike)), Style(color=colours[lower], bgcolor=colours[upper]))
        lines.append(_labelled({0: "100%", _LINES - 1: "0%"}.get(number, ""), area))
    rates = rate_bars(timeline, times)
    lines += [] if rates is None else [_labelled("lr", Text(rates))]
    lines.append(_labelled(UNITS[timeline.unit], Text(axis_line(timeline, columns), style="dim")))
    key = Text(" " * _MARGIN)
    for name, colour in colours.items():
        key.append("██", Style(color=colour))
        key.append(f" {shortened(name, LONGEST_NAME)}   ")
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, highlight=False)
    for line in lines:
        console.print(line, no_wrap=True, overflow="crop")
    console.print(key)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _labelled(label: str, line: Text) -> Text:
    return Text.assemble((f"{label:>{_MARGIN - 1}} ", "dim"), line)


def _bucket_at(timeline: Timeline, time: float, height: float) -> str:
    """Return the bucket whose area holds a height from 0 to 1."""
    mixture = timeline.at(time).mixture(time)
    for name in timeline.buckets:
        height -= mixture.get(name, 0.0)
        if height < 0:
            return name
    return timeline.buckets[-1]
