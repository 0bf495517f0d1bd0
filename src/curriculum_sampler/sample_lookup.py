"""The keys of samples, which only the tars know: an index holds places and checksums."""

from __future__ import annotations

from collections.abc import Iterator

from .draws import Draw
from .errors import ArgumentError, ShardError
from .grouping import split_name
from .manifest import Manifest
from .shards import OpenShard, open_shard
from .sliding import SlidingWindow
from .tar import Bytes, walk


def sample_keys(manifest: Manifest, bucket: str) -> Iterator[str]:
    """Yield the key of every sample of a bucket, in the order of its indices.

    From a folder only the header of each sample is read; from an object store, where every small read is a request,
    the tars are read whole.

    >>> from curriculum_sampler.build import write_shards
    >>> manifest = write_shards("memory://sample-keys", {"easy": [{"__key__": "a", "cls": 1}, {"__key__": "b", "cls": 2}]})
    >>> list(sample_keys(manifest, "easy"))
    ['a', 'b']
    """
    for placed in manifest.buckets[bucket]:
        yield from _keys(open_shard(placed))


def find_sample(manifest: Manifest, key: str) -> Draw:
    """Return where the first sample that has a key lies, as the draw that would read it.

    Raises:
        ArgumentError: No sample of this split has it.

    >>> from curriculum_sampler.build import write_shards
    >>> manifest = write_shards("memory://find-sample", {"easy": [{"__key__": "a", "cls": 1}, {"__key__": "b", "cls": 2}]})
    >>> find_sample(manifest, "b")
    Draw(bucket='easy', index=1)
    """
    for bucket in manifest.buckets:
        for index, found in enumerate(sample_keys(manifest, bucket)):
            if found == key:
                return Draw(bucket, index)
    raise ArgumentError(
        f"No sample of split {manifest.split!r} has the key {key!r} ({len(manifest)} were looked at). Check the key; "
        "it has no extension."
    )


def _keys(shard: OpenShard) -> Iterator[str]:
    tars, name = shard.placed.tars, shard.placed.shard.name
    window = SlidingWindow(tars, name, tars.stat(name)) if tars.parallel_reads > 1 else None

    def read(offset: int, count: int) -> Bytes:
        if window is not None:
            window.keep_from = offset
            return window.read(offset, count)
        header = bytearray(count)
        shard.read_into(memoryview(header), offset)
        return header

    for start, stop in zip(shard.index.starts.tolist(), shard.index.stops.tolist(), strict=True):
        try:
            parts = split_name(next(walk(read, start, stop)).name)
        except (ShardError, StopIteration) as error:
            raise ShardError(
                f"{shard.placed.url}: the sample at offset {start} is damaged: {error}"
            ) from error
        if parts is None:
            raise ShardError(f"{shard.placed.url} has no sample at offset {start}. Index it again.")
        yield parts[0]
