"""Statistics that look at the order of numbers only, so that neither scale nor outliers matter."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Return the rank of each number, from 1; equal numbers share the mean of their ranks.

    >>> ranks([0.3, 0.1, 0.3]).tolist()
    [2.5, 1.0, 2.5]
    """
    _, codes, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean: NDArray[np.float64] = last - (counts - 1) / 2
    return mean[codes]


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Return the rank correlation: 1 where one rises with the other, -1 where it falls, 0 without order between them.

    NaN where one of them is constant, or there are fewer than two numbers.

    >>> spearman([1, 2, 3], [10, 100, 1000]), spearman([1, 2, 3], [9, 8, 7])
    (1.0, -1.0)
    """
    a, b = ranks(first), ranks(second)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip((a @ b) / np.sqrt((a @ a) * (b @ b)), -1, 1))


def chance_larger(lower: ArrayLike, upper: ArrayLike) -> float:
    """Return how likely a number of ``upper`` is larger than one of ``lower``, equal ones counted half.

    This is the area under the ROC curve (AUC) that tells the two apart: 1 where they do not overlap, 0.5 where they
    overlap wholly, below 0.5 where they are the other way round.

    >>> chance_larger([1, 2], [3, 4]), chance_larger([1, 2], [1, 2])
    (1.0, 0.5)
    """
    low, high = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    together = ranks(np.concatenate([low, high]))
    wins = together[len(low) :].sum() - len(high) * (len(high) + 1) / 2
    return float(wins / (len(low) * len(high)))


def chance_larger_noise(lower_count: int, upper_count: int) -> float:
    """Return the standard deviation that ``chance_larger`` has when both come from one distribution.

    >>> round(chance_larger_noise(100, 100), 3)
    0.041
    """
    return float(np.sqrt((lower_count + upper_count + 1) / (12 * lower_count * upper_count)))
