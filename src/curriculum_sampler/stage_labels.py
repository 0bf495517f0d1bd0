"""Where the names of stages stand above a picture, so that none covers another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .timeline import StageSpan

_LONGEST = 24
_LONGEST_SLANTED = 18  # slanting, a long name pushes the picture down


class StageLabels(NamedTuple):
    """Names and where they stand, in time; ``is_slanted`` where they need the room."""

    names: list[str]
    times: list[float]
    is_slanted: bool


def stage_labels(
    stages: Sequence[StageSpan], width: float, height: float, width_of: Callable[[str], float]
) -> StageLabels:
    """Place the names of stages along an axis.

    Each stands over the middle of its stage where all fit. Else they slant upwards from the middles, and where even
    those would touch, the longer stage keeps its name.

    Args:
        stages: The stages.
        width: Of the axis, in the unit of ``width_of``.
        height: Of a line of text.
        width_of: Gives the width of a text.

    >>> spans = [StageSpan("warm-up", 0, 1), StageSpan("all", 1, 10)]
    >>> stage_labels(spans, width=100, height=10, width_of=lambda text: 8 * len(text))
    StageLabels(names=['warm-up', 'all'], times=[0.5, 5.5], is_slanted=True)
    """
    scale = width / stages[-1].end
    names = [shortened(span.stage, _LONGEST) for span in stages]
    middles = [(span.start + span.end) / 2 for span in stages]
    lengths = [(span.end - span.start) * scale for span in stages]
    if all(width_of(name) + height / 2 <= length for name, length in zip(names, lengths, strict=True)):
        return StageLabels(names, middles, False)
    kept: list[int] = []
    # At 45 degrees, lines of text are sqrt(2) times their height apart along the axis.
    apart = 1.5 * height / scale
    for place in sorted(range(len(stages)), key=lambda place: (-lengths[place], place)):
        if all(abs(middles[place] - middles[other]) >= apart for other in kept):
            kept.append(place)
    kept.sort()
    names = [shortened(stages[place].stage, _LONGEST_SLANTED) for place in kept]
    return StageLabels(names, [middles[place] for place in kept], True)


def shortened(name: str, longest: int) -> str:
    """Return a name of at most ``longest`` letters.

    >>> shortened("warm-up", 5)
    'warm…'
    """
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
