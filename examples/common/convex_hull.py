"""The convex hull of a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw


def fill_polygon(corners: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels of a picture inside a polygon of (x, y)."""
    picture = Image.new("1", shape[::-1])
    ImageDraw.Draw(picture).polygon([tuple(corner) for corner in corners], fill=1)
    return np.array(picture)


def fill_hull(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the convex hull of a mask, as a mask; of an empty one an empty one.

    >>> corner = np.array([[1, 1, 1], [1, 0, 0], [1, 0, 0]], bool)
    >>> fill_hull(corner).astype(int).tolist()
    [[1, 1, 1], [1, 1, 0], [1, 0, 0]]
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return np.zeros_like(mask)
    left = mask[rows].argmax(axis=1)
    right = mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    sides = [_bulge(edge, rows, sign) for edge, sign in ((left, 1), (right, -1))]
    corners = np.array(sides[0] + sides[1][::-1], float)
    return fill_polygon(corners, (mask.shape[0], mask.shape[1])) | mask


def _bulge(edge: NDArray[np.intp], rows: NDArray[np.intp], sign: int) -> list[tuple[int, int]]:
    """Keep of one side, from top to bottom, the points at which it bulges outwards."""
    kept: list[tuple[int, int]] = []
    for x, y in zip(edge.tolist(), rows.tolist(), strict=True):
        while len(kept) >= 2:
            (x0, y0), (x1, y1) = kept[-2:]
            if sign * ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) < 0:
                break
            kept.pop()
        kept.append((x, y))
    return kept
