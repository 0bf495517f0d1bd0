"""Which bytes to ask for: neighbouring samples of a shard in one ranged read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def coalesce(
    starts: NDArray[np.int64], stops: NDArray[np.int64], *, gap_bytes: int, most_bytes: int
) -> list[tuple[int, int, NDArray[np.int64]]]:
    """Join byte ranges that are close, and return ``(start, stop, members)`` in ascending order.

    ``members`` are positions in the input. Two ranges are joined when at most ``gap_bytes`` lie
    between them and the result is no longer than ``most_bytes``; a single range may be longer.
    Ranges may repeat, but are otherwise disjoint.

    >>> starts, stops = np.array([900, 0, 100]), np.array([950, 90, 200])
    >>> [(a, b, members.tolist()) for a, b, members in coalesce(starts, stops, gap_bytes=16, most_bytes=1000)]
    [(0, 200, [1, 2]), (900, 950, [0])]
    """
    joined: list[tuple[int, int, NDArray[np.int64]]] = []
    order = np.argsort(starts, kind="stable")
    begin = 0
    for at in range(1, len(order) + 1):
        first = int(starts[order[begin]])
        if at < len(order):
            hole = int(starts[order[at]]) - int(stops[order[at - 1]])
            if hole <= gap_bytes and int(stops[order[at]]) - first <= most_bytes:
                continue
        joined.append((first, int(stops[order[at - 1]]), order[begin:at]))
        begin = at
    return joined
