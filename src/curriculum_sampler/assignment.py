"""Where every sample goes: its split, its bucket, its place in the shuffled bucket, and the shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .difficulty_rule import QUARANTINED
from .errors import ArgumentError
from .keys import derive
from .permutation import Permutation
from .quota import exact_share

Int64s: TypeAlias = NDArray[np.int64]
UInt64s: TypeAlias = NDArray[np.uint64]


def split_by_group(groups: UInt64s, shares: Mapping[str, float], seed: int) -> Int64s:
    """Return the number of each sample's split, the same for all samples of a group.

    A group's split depends on the group, the seed and the shares alone, so it is the same when data is added. Shares
    are kept on average: of few groups, or groups of unlike size, roughly.

    Args:
        groups: What identifies each sample's group.
        shares: Split -> positive share, any sum.
        seed: Decides which groups go where.

    >>> groups = np.array([7, 8, 7, 3, 3], np.uint64)
    >>> split_by_group(groups, {"train": 0.5, "val": 0.5}, seed=1).tolist()
    [1, 1, 1, 0, 0]
    """
    if len(shares) == 1:
        return np.zeros(len(groups), np.int64)
    exact = exact_share(shares)
    upper = np.cumsum([float(share) for share in exact.values()])[:-1]
    # A quarter of a million at a time: Python's numbers take many times the room of NumPy's.
    known, places = np.unique(groups, return_inverse=True)
    drawn = np.empty(len(known), np.float64)
    for start in range(0, len(known), 1 << 18):
        part = known[start : start + (1 << 18)].tolist()
        drawn[start : start + len(part)] = [derive(seed, "split", group) for group in part]
    drawn /= 2.0**64
    return np.searchsorted(upper, drawn, side="right").astype(np.int64)[places]


def group_in_two_splits(groups: UInt64s, splits: Int64s) -> tuple[int, int] | None:
    """Return two samples of one group in different splits, if there are any.

    >>> group_in_two_splits(np.array([7, 8, 7], np.uint64), np.array([0, 0, 1]))
    (0, 2)
    """
    order = np.argsort(groups, kind="stable")
    torn = np.flatnonzero(
        (groups[order][1:] == groups[order][:-1]) & (splits[order][1:] != splits[order][:-1])
    )
    return (int(order[torn[0]]), int(order[torn[0] + 1])) if torn.size else None


@dataclass(frozen=True, slots=True)
class Shuffled:
    """The samples of one bucket of one split, in the order in which they are written.

    Attributes:
        split, bucket: Their names.
        order: Numbers of the samples.
    """

    split: str
    bucket: str
    order: Int64s

    def shard_stops(
        self, num_bytes: Int64s, samples_per_shard: int | None, max_shard_bytes: int
    ) -> Iterator[tuple[int, int]]:
        """Yield first and stop of each shard in ``order``.

        Args:
            num_bytes: Bytes of every sample of the source.
            samples_per_shard: Most samples in a shard.
            max_shard_bytes: A shard ends before it would grow beyond this; a larger sample has one of its own.

        >>> bucket = Shuffled("train", "easy", np.array([2, 0, 1]))
        >>> list(bucket.shard_stops(np.array([5, 5, 9]), None, 10))
        [(0, 1), (1, 3)]
        """
        ends = np.cumsum(num_bytes[self.order])
        start = 0
        while start < len(ends):
            before = int(ends[start - 1]) if start else 0
            stop = int(np.searchsorted(ends, before + max_shard_bytes, side="right"))
            stop = max(start + 1, min(stop, start + (samples_per_shard or len(ends))))
            yield start, stop
            start = stop


def shuffle(
    splits: Int64s, buckets: Int64s, split_names: Sequence[str], bucket_names: Sequence[str], seed: int
) -> list[Shuffled]:
    """Return each bucket's samples in a keyed order of its own; quarantined samples are in none.

    Args:
        splits: Number of each sample's split.
        buckets: Number of each sample's bucket, or ``QUARANTINED``.
        split_names, bucket_names: What the numbers mean.
        seed: Decides the order, with the names of split and bucket.

    Raises:
        ArgumentError: A split without samples.
    """
    found = []
    for split, split_name in enumerate(split_names):
        inside = splits == split
        parts = [
            Shuffled(
                split_name,
                bucket_name,
                _shuffled(
                    np.flatnonzero(inside & (buckets == bucket)),
                    derive(seed, "shuffle", split_name, bucket_name),
                ),
            )
            for bucket, bucket_name in enumerate(bucket_names)
        ]
        if not any(len(part.order) for part in parts):
            quarantined = int(np.count_nonzero(inside & (buckets == QUARANTINED)))
            raise ArgumentError(
                f"Split {split_name!r} would have no samples of {len(splits)}"
                f"{f' ({quarantined} are quarantined)' if quarantined else ''}. Raise its share, or leave it out."
            )
        found += [part for part in parts if len(part.order)]
    return found


def _shuffled(samples: Int64s, key: int) -> Int64s:
    return samples[Permutation(key, len(samples))(0, len(samples))] if samples.size else samples
