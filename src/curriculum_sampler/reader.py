"""From sample numbers to verified bytes: the index, few ranged reads, the checksum."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checksum import checksum
from .errors import ShardError
from .grouping import split_name
from .index import INDEX_SUFFIX, ShardIndex
from .manifest import Manifest, PlacedShard
from .manifest_file import index_digest
from .parallel import in_parallel
from .ranges import coalesce
from .storage import read_all
from .tar import walk

# Fetching a small hole costs less than another request; a longer read gains nothing more.
GAP_BYTES = 128 << 10
MOST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class OpenShard:
    """A shard whose index has been read and compared with the manifest and the tar."""

    placed: PlacedShard
    index: ShardIndex
    etag: str


class SampleReader:
    """Reads the bytes of samples of a manifest. Picklable; what it has opened stays behind.

    A shard is opened when one of its samples is first asked for, once per process; a bucket that is
    never drawn is never opened. From then on its ETag is pinned, so a tar that is replaced during a
    run is an error.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._open: dict[tuple[str, int], OpenShard] = {}

    def read(self, bucket: str, indices: ArrayLike) -> list[memoryview]:
        """Return the tar blocks of samples, in the order asked for.

        Each is verified against its checksum. A sample that fails is fetched once more alone, since
        damage on the way is more likely than damage at rest.

        Raises:
            ArgumentError: No such bucket or sample.
            StorageError: The bytes cannot be had.
            ShardError: The shard or the sample is not what the manifest promises.
        """
        shards, positions = self.manifest.locate(bucket, indices)
        numbers = np.unique(shards).tolist()
        opened = in_parallel(partial(self._opened, bucket), numbers, self._threads(bucket, numbers))
        pieces = [
            piece
            for number, shard in zip(numbers, opened, strict=True)
            for piece in _pieces(shard, np.nonzero(shards == number)[0], positions)
        ]
        found: list[memoryview] = [memoryview(b"")] * len(positions)
        for piece, samples in zip(
            pieces, in_parallel(_read, pieces, self._threads(bucket, numbers)), strict=True
        ):
            for place, sample in zip(piece.places, samples, strict=True):
                found[place] = sample
        return found

    def _threads(self, bucket: str, numbers: list[int]) -> int:
        return max(
            (self.manifest.buckets[bucket][number].tars.parallel_reads for number in numbers), default=1
        )

    def _opened(self, bucket: str, number: int) -> OpenShard:
        known = self._open.get((bucket, number))
        if known is None:
            known = self._open[bucket, number] = open_shard(self.manifest.buckets[bucket][number])
        return known

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


def open_shard(placed: PlacedShard) -> OpenShard:
    """Read a shard's index, and raise ``ShardError`` unless manifest, index and tar agree."""
    shard = placed.shard
    data = read_all(placed.indexes, shard.name + INDEX_SUFFIX)
    where = f"{placed.indexes.url}/{shard.name}{INDEX_SUFFIX}"
    told = index_digest(data)
    if told != shard.digest:
        raise ShardError(
            f"{where} is not the index that the manifest names (digest {told}, expected {shard.digest}). "
            "The data set was changed in part: copy it again whole, or index it again."
        )
    try:
        index = ShardIndex.from_bytes(data)
    except ShardError as error:
        raise ShardError(f"{where}: {error}") from None
    for what, written, found in (
        ("samples", shard.samples, len(index)),
        ("bytes", shard.num_bytes, index.tar_bytes),
    ):
        if written != found:
            raise ShardError(
                f"{placed.url}: the manifest counts {written} {what}, its index {found}. The manifest was "
                "edited: restore it, or index the data set again."
            )
    stat = placed.tars.stat(shard.name)
    if stat.num_bytes != index.tar_bytes:
        raise ShardError(
            f"{placed.url} has {stat.num_bytes} bytes, but was indexed with {index.tar_bytes} bytes. It was cut "
            "or replaced: copy it again, or index it again."
        )
    return OpenShard(placed, index, stat.etag)


@dataclass(frozen=True, slots=True)
class _Piece:
    """One ranged read: the samples in it as (start, stop, checksum), and their places in the answer."""

    shard: OpenShard
    start: int
    stop: int
    samples: list[tuple[int, int, int]]
    places: list[int]


def _pieces(shard: OpenShard, places: NDArray[np.int64], positions: NDArray[np.int64]) -> list[_Piece]:
    wanted = positions[places]
    starts = shard.index.starts[wanted].astype(np.int64)
    stops = shard.index.stops[wanted].astype(np.int64)
    samples = list(zip(starts.tolist(), stops.tolist(), shard.index.checksums[wanted].tolist(), strict=True))
    return [
        _Piece(shard, start, stop, [samples[at] for at in members.tolist()], places[members].tolist())
        for start, stop, members in coalesce(starts, stops, gap_bytes=GAP_BYTES, most_bytes=MOST_BYTES)
    ]


def _read(piece: _Piece) -> list[memoryview]:
    data = _fetch(piece.shard, piece.start, piece.stop)
    return [
        _verified(piece.shard, data[start - piece.start : stop - piece.start], start, expected)
        for start, stop, expected in piece.samples
    ]


def _verified(shard: OpenShard, sample: memoryview, start: int, expected: int) -> memoryview:
    if checksum(sample) == expected:
        return sample
    again = _fetch(shard, start, start + len(sample))
    if checksum(again) == expected:
        return again
    raise _damaged(shard, start, again, expected)


def _fetch(shard: OpenShard, start: int, stop: int) -> memoryview:
    # Not zeroed first: every byte is received or the read raises.
    buffer = np.empty(stop - start, np.uint8).data
    shard.placed.tars.read_into(shard.placed.shard.name, buffer, start, shard.etag)
    return buffer.toreadonly()


def _damaged(shard: OpenShard, start: int, sample: memoryview, expected: int) -> ShardError:
    try:
        name = next(walk(lambda at, count: sample[at : at + count], 0, len(sample))).name
        parts = split_name(name)
        key = f"sample {parts[0]!r}" if parts else "a sample"
    except (ShardError, StopIteration):
        key = "a sample whose header is unreadable"
    return ShardError(
        f"{shard.placed.url}: {key} at offset {start} is damaged: XXH3-64 {checksum(sample):016x}, expected "
        f"{expected:016x}, twice in a row. Copy the shard again, or write it again."
    )
