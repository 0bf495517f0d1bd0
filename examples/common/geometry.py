"""Points, limbs and homographies in the plane: all the geometry that the generator needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""``float64[n, 2]`` of (x, y); a single point is ``float64[2]``. y grows downwards, as in pictures."""


def direction(degrees: float) -> Points:
    """Return the unit vector that hangs straight down at 0 degrees and swings to +x at 90.

    >>> direction(0.0).tolist(), direction(90.0).round(9).tolist()
    ([0.0, 1.0], [1.0, 0.0])
    """
    angle = np.radians(degrees)
    return np.array([np.sin(angle), np.cos(angle)])


def across(start: Points, end: Points) -> Points:
    """Return the unit vector at a right angle to the way from ``start`` to ``end``.

    >>> across(np.zeros(2), np.array([0.0, 2.0])).tolist()
    [-1.0, 0.0]
    """
    along = end - start
    along = along / max(float(np.hypot(*along)), 1e-9)
    return np.array([-along[1], along[0]])


def limb(start: Points, end: Points, start_width: float, end_width: float) -> Points:
    """Return the four corners of a tapering limb; widths are from edge to edge."""
    side = across(start, end)
    return np.stack(
        [
            start + side * start_width / 2,
            start - side * start_width / 2,
            end - side * end_width / 2,
            end + side * end_width / 2,
        ]
    )


def ellipse(
    centre: Points, radius_x: float, radius_y: float, degrees: float = 0.0, count: int = 36
) -> Points:
    """Return ``count`` points on a turned ellipse."""
    around = np.linspace(0, 2 * np.pi, count, endpoint=False)
    points = np.stack([radius_x * np.cos(around), radius_y * np.sin(around)], axis=1)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.asarray(centre + points @ np.array([[cosine, sine], [-sine, cosine]]))


def homography(source: Points, target: Points) -> NDArray[np.float64]:
    """Return the 3x3 matrix that maps four corners onto four others, last element 1.

    >>> square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    >>> homography(square, 2 * square).round(9).tolist()
    [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]]
    """
    rows, right = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
        right.extend([u, v])
    solution = np.linalg.solve(np.array(rows, float), np.array(right, float))
    return np.append(solution, 1.0).reshape(3, 3)


def project(matrix: NDArray[np.float64], points: Points) -> Points:
    """Apply a homography to points."""
    lifted = np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1) @ matrix.T
    return np.asarray(lifted[..., :2] / lifted[..., 2:])


UNIT_SQUARE: Points = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
"""Corners in the order that every quadrilateral here uses: top left, top right, bottom right, bottom left."""
