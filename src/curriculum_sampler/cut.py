"""From a column of labels or scores to buckets: which samples of a map-style dataset belong to which."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import ArgumentError
from .quota import exact_share

Members: TypeAlias = dict[str, NDArray[np.int64]]
"""Bucket name -> ``int64[n]``, the dataset indices of its samples."""


def members_by_label(labels: Sequence[str] | NDArray[np.str_]) -> Members:
    """Return each label's dataset indices, rising.

    >>> {name: found.tolist() for name, found in members_by_label(["easy", "hard", "easy"]).items()}
    {'easy': [0, 2], 'hard': [1]}
    """
    listed = [str(label) if isinstance(label, str) else label for label in labels]
    for index, label in enumerate(listed):
        if not isinstance(label, str) or not label:
            raise ArgumentError(
                f"labels[{index}]: got {label!r}, but a label is the name of a bucket, a non-empty string. "
                "Convert the column, for example by map(str, labels)."
            )
    names, codes = np.unique(np.array(listed, dtype=np.str_), return_inverse=True)
    by_label = np.argsort(codes, kind="stable")
    parts = np.split(by_label, np.cumsum(np.bincount(codes))[:-1])
    return {str(name): part for name, part in zip(names, parts, strict=True)}


def members_by_quantile(scores: Any, shares: Mapping[str, float]) -> Members:
    """Cut samples into buckets by rank of their score: higher is harder.

    Args:
        scores: ``[n]`` finite numbers, one per sample. Equal scores keep the order of the dataset.
        shares: Bucket name -> share of the samples, easiest bucket first, positive numbers of any sum. The
            cut after a bucket falls at ``round(n * cumulative share)``.

    Returns:
        Bucket name -> rising dataset indices.

    Raises:
        ArgumentError: Scores are not one finite number per sample, or a bucket would be empty.

    >>> members = members_by_quantile([0.9, 0.1, 0.5, 0.2], {"easy": 0.5, "hard": 0.5})
    >>> {name: found.tolist() for name, found in members.items()}
    {'easy': [1, 3], 'hard': [0, 2]}
    """
    try:
        column = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"scores: not a column of numbers ({error}). Pass one number per sample."
        ) from error
    if column.ndim != 1 or not column.size:
        raise ArgumentError(
            f"scores: got shape {column.shape}, but it is one number per sample. Pass a flat, non-empty column."
        )
    broken = np.flatnonzero(~np.isfinite(column))
    if broken.size:
        raise ArgumentError(
            f"scores[{broken[0]}]: got {column[broken[0]]}, and {broken.size} of {column.size} scores are not finite numbers. "
            "Drop these samples or score them again."
        )
    exact = exact_share(shares) if shares and all(share > 0 for share in shares.values()) else {}
    if not exact:
        raise ArgumentError(
            f"shares: got {dict(shares)!r}, but it maps bucket names to positive shares. Correct it."
        )
    by_score = np.argsort(column, kind="stable")
    members: Members = {}
    done, first = Fraction(0), 0
    for name, share in exact.items():
        done += share
        last = round(done * column.size)
        if first == last:
            raise ArgumentError(
                f"Bucket {name!r} with share {shares[name]!r} would be empty for {column.size} samples. "
                "Raise its share or drop it."
            )
        members[name] = np.sort(by_score[first:last])
        first = last
    return members


def member_fingerprints(members: Members) -> dict[str, str]:
    """Return a digest of each bucket's dataset indices."""
    return {
        name: hashlib.blake2b(found.astype("<i8").tobytes(), digest_size=8).hexdigest()
        for name, found in members.items()
    }
