"""Verified reads of a shard: what comes back has the checksum that the index names, or is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .checksum import checksum
from .errors import BadSampleError, ShardError
from .grouping import split_name
from .ranges import coalesce
from .shards import OpenShard
from .tally import Tally
from .tar import walk

# Fetching a small hole costs less than another request; a longer read gains nothing more.
GAP_BYTES = 128 << 10
MOST_BYTES = 16 << 20

# The tar blocks of a sample, or why it cannot be used.
Found: TypeAlias = memoryview | BadSampleError


def _fresh(num_bytes: int) -> memoryview:
    # Not zeroed first: every byte is received or the read raises.
    return np.empty(num_bytes, np.uint8).data


class VerifiedReads:
    """Reads of shards, counted in a tally.

    A sample that fails its checksum is fetched once more alone, since damage on the way is more likely than damage
    at rest. One that fails again is quarantined: it is not asked for any more by this object.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._quarantine: dict[tuple[str, int], BadSampleError] = {}

    def one_by_one(self, bucket: str, shard: OpenShard, positions: list[int]) -> list[Found]:
        """Return samples, each by a read of its own."""
        index, found, num_bytes = shard.index, list[Found](), 0
        for position in positions:
            sample = _fresh(index.lengths.item(position))
            shard.read_into(sample, index.starts.item(position))
            num_bytes += len(sample)
            is_right = checksum(sample) == index.checksums.item(position)
            found.append(sample if is_right else self.again(bucket, shard, position))
        self._tally.fetched(bucket, num_bytes, requests=len(positions))
        return found

    def again(self, bucket: str, shard: OpenShard, position: int) -> Found:
        """Return one sample whose first reading was damaged."""
        known = self._quarantine.get((shard.placed.url, position))
        if known is not None:
            return known
        start, expected = shard.index.starts.item(position), shard.index.checksums.item(position)
        sample = self._bytes(bucket, shard, start, start + shard.index.lengths.item(position))
        if checksum(sample) == expected:
            return sample
        bad = _damaged(shard, start, sample, expected)
        self._quarantine[shard.placed.url, position] = bad
        return bad

    def span(
        self, bucket: str, shard: OpenShard, first: int, stop: int, allocate: Callable[[int], memoryview]
    ) -> memoryview:
        """Return the bytes from sample ``first`` to just before sample ``stop``, whatever lies between them included.

        A sample that is damaged for good is left in it as it is, for whoever takes it out to find.
        """
        index = shard.index
        base = index.starts.item(first)
        data = self._bytes(
            bucket, shard, base, index.starts.item(stop - 1) + index.lengths.item(stop - 1), allocate
        )
        for position in range(first, stop):
            start = index.starts.item(position) - base
            sample = data[start : start + index.lengths.item(position)]
            if checksum(sample) != index.checksums.item(position):
                again = self.again(bucket, shard, position)
                if isinstance(again, memoryview):
                    sample[:] = again
        return data.toreadonly()

    def near_each_other(self, bucket: str, shard: OpenShard, positions: list[int]) -> list[Found]:
        """Return samples that one ranged read covers."""
        index = shard.index
        base = min(index.starts.item(position) for position in positions)
        stop = max(index.starts.item(position) + index.lengths.item(position) for position in positions)
        data = self._bytes(bucket, shard, base, stop).toreadonly()
        found: list[Found] = []
        for position in positions:
            start = index.starts.item(position) - base
            sample = data[start : start + index.lengths.item(position)]
            is_right = checksum(sample) == index.checksums.item(position)
            found.append(sample if is_right else self.again(bucket, shard, position))
        return found

    def _bytes(
        self,
        bucket: str,
        shard: OpenShard,
        start: int,
        stop: int,
        allocate: Callable[[int], memoryview] = _fresh,
    ) -> memoryview:
        buffer = allocate(stop - start)
        shard.read_into(buffer, start)
        self._tally.fetched(bucket, stop - start)
        return buffer


def in_few_reads(shard: OpenShard, positions: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Group places in ``positions`` so that each group is worth one ranged read."""
    starts = shard.index.starts[positions].astype(np.int64)
    stops = shard.index.stops[positions].astype(np.int64)
    return [members for _, _, members in coalesce(starts, stops, gap_bytes=GAP_BYTES, most_bytes=MOST_BYTES)]


def _damaged(shard: OpenShard, start: int, sample: memoryview, expected: int) -> BadSampleError:
    try:
        name = next(walk(lambda at, count: sample[at : at + count], 0, len(sample))).name
        parts = split_name(name)
        key = f"sample {parts[0]!r}" if parts else "a sample"
    except (ShardError, StopIteration):
        key = "a sample whose header is unreadable"
    return BadSampleError(
        f"{shard.placed.url}: {key} at offset {start} is damaged: XXH3-64 {checksum(sample):016x}, expected "
        f"{expected:016x}, twice in a row. Copy the shard again, or write it again."
    )
