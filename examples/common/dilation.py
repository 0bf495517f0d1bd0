"""Masks that grow and shrink by whole pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def grow(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Return every pixel that lies at most ``radius`` rows and columns from the mask.

    The cost grows with the logarithm of the radius: a window of twice the size is the union of two windows.

    >>> grow(np.array([[0, 0, 0, 1]], bool), 1).astype(int).tolist()
    [[0, 0, 1, 1]]
    """
    for axis in (0, 1):
        mask = _grow_along(mask, radius, axis)
    return mask


def shrink(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """Return every pixel whose neighbours within ``radius`` rows and columns are all in the mask.

    >>> shrink(np.array([[0, 1, 1, 1]], bool), 1).astype(int).tolist()
    [[0, 0, 1, 1]]
    """
    return ~grow(~mask, radius)


def _grow_along(mask: NDArray[np.bool_], radius: int, axis: int) -> NDArray[np.bool_]:
    padded = np.pad(mask, [(radius, radius) if along == axis else (0, 0) for along in (0, 1)])
    grown = np.moveaxis(padded, axis, 0)
    window, span = 1, 2 * radius + 1
    while window < span:
        step = min(window, span - window)
        grown = grown[:-step] | grown[step:]
        window += step
    return np.moveaxis(grown, 0, axis)
