"""Samples that could not be used: which, why, how many may be, and what is drawn instead."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction

from .checks import finite
from .errors import ArgumentError, ShardError
from .tally import BadSample

_LOG = logging.getLogger("curriculum_sampler")


def others(index: int, size: int) -> Iterator[int]:
    """Yield the samples that stand in for a bad one of a bucket, each once: 1, 2, 4, ... after it, wrapping around.

    They rest on the data alone, so that every worker, rank and run makes the same choice; the first is the neighbour,
    which lies in the same run. The growing steps leave a whole bad shard behind quickly.

    >>> list(others(3, 10))
    [4, 5, 7, 1]
    >>> list(others(0, 1))
    []
    """
    seen = {index}
    step = 1
    while step < size:
        other = (index + step) % size
        if other not in seen:
            seen.add(other)
            yield other
        step *= 2


class BadSamples:
    """The bad samples met so far, each logged once, and the limit that they must keep.

    Args:
        bucket_sizes: Samples per bucket.
        max_fraction: Of a bucket's samples at most this share, rounded up, may be bad.

    >>> bad = BadSamples({"easy": 100}, max_fraction=0.01)
    >>> bad.limit("easy"), bad.count()
    (1, {})
    """

    def __init__(self, bucket_sizes: Mapping[str, int], max_fraction: float) -> None:
        share = finite(max_fraction)
        if share is None or not 0 <= share <= 1:
            raise ArgumentError(f"max_bad_fraction={max_fraction!r} must be from 0 to 1. Correct it.")
        self.max_fraction = max_fraction
        self._sizes = bucket_sizes
        self._found: dict[tuple[str, int], BadSample] = {}

    def limit(self, bucket: str) -> int:
        """Return how many samples of a bucket may be bad."""
        return math.ceil(Fraction(str(self.max_fraction)) * self._sizes[bucket])

    def add(self, bad: BadSample) -> None:
        """Take note of a bad sample.

        Raises:
            ShardError: With it the limit of its bucket is exceeded, now or before.
        """
        is_new = (bad.bucket, bad.index) not in self._found
        self._found[bad.bucket, bad.index] = bad
        count, limit = self.count()[bad.bucket], self.limit(bad.bucket)
        if count > limit:
            raise ShardError(
                f"Bucket {bad.bucket!r} has {count} bad samples, but max_bad_fraction={self.max_fraction} of its "
                f"{self._sizes[bad.bucket]} samples allows {limit}. The last one: {bad.reason} Repair the data, or raise "
                "max_bad_fraction."
            )
        if is_new:
            _LOG.warning("Sample %s:%d is replaced by another: %s", bad.bucket, bad.index, bad.reason)

    def count(self) -> dict[str, int]:
        """Return the number of bad samples by bucket, for buckets that have any."""
        counted: dict[str, int] = {}
        for bucket, _ in self._found:
            counted[bucket] = counted.get(bucket, 0) + 1
        return counted

    def listed(self) -> list[BadSample]:
        """Return all bad samples in order of bucket and index."""
        return [self._found[place] for place in sorted(self._found)]
