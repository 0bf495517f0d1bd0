"""Colours of buckets: one scale from light (the first bucket) to dark, so that order survives print and colour-blindness."""

from __future__ import annotations

# Each anchor is darker than the one before: grey-scale print keeps the order, and hue helps those who see it.
_ANCHORS = ((253, 231, 156), (246, 173, 92), (214, 93, 86), (131, 49, 110), (45, 27, 78))


def bucket_colours(num_buckets: int, *, darkest: float = 1.0) -> list[str]:
    """Return one colour per bucket, as ``#rrggbb``, evenly spaced from light to dark; ``darkest`` ends the scale earlier.

    >>> bucket_colours(1), bucket_colours(3)
    (['#fde79c'], ['#fde79c', '#d65d56', '#2d1b4e'])
    """
    return [_colour(darkest * place / max(1, num_buckets - 1)) for place in range(num_buckets)]


def _colour(where: float) -> str:
    place, part = divmod(where * (len(_ANCHORS) - 1), 1)
    low, high = _ANCHORS[int(place)], _ANCHORS[min(int(place) + 1, len(_ANCHORS) - 1)]
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(low, high, strict=True))
