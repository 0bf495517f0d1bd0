"""The shards that a process has opened: their indexes, compared with the manifest, and their pinned version."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from .errors import ShardError, StorageError
from .index import INDEX_SUFFIX, ShardIndex, index_num_bytes
from .manifest import Manifest, PlacedShard
from .manifest_file import index_digest
from .storage import read_all

# An index takes 24 bytes a sample; those opened longest ago are read again when needed.
MOST_INDEXED_SAMPLES = 4_000_000


class OpenShards:
    """Opens each shard when it is first asked for, and keeps what later reads need.

    Indexes are kept up to ``most_samples`` samples together. The version (ETag) of a tar is kept for good, so that
    one that is replaced during a run is an error, however much was read in between.
    """

    def __init__(self, manifest: Manifest, most_samples: int = MOST_INDEXED_SAMPLES) -> None:
        self._manifest = manifest
        self._most_samples = most_samples
        self._samples = 0
        self._open: OrderedDict[tuple[str, int], OpenShard] = OrderedDict()
        self._pins: dict[tuple[str, int], Pin] = {}
        self._lock = threading.Lock()

    def get(self, bucket: str, number: int) -> OpenShard:
        """Return shard ``number`` of a bucket.

        Raises:
            StorageError: Its index or tar cannot be read.
            ShardError: They are not what the manifest says.
        """
        place = (bucket, number)
        known = self._open.get(place)
        if known is not None:
            return known
        with self._lock:
            pin = self._pins.setdefault(place, Pin())
        with pin.opening:  # threads that want the same shard wait for one reading of its index
            known = self._open.get(place)
            if known is None:
                known = open_shard(self._manifest.buckets[bucket][number], pin)
                self._keep(place, known)
        return known

    def _keep(self, place: tuple[str, int], shard: OpenShard) -> None:
        with self._lock:
            self._open[place] = shard
            self._samples += len(shard.index)
            while self._samples > self._most_samples and len(self._open) > 1:
                _, oldest = self._open.popitem(last=False)
                self._samples -= len(oldest.index)


@dataclass(slots=True)
class Pin:
    """The version of a tar that a process reads, once it is known."""

    etag: str | None = None
    opening: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class OpenShard:
    """A shard whose index has been read and compared with the manifest."""

    placed: PlacedShard
    index: ShardIndex
    pin: Pin

    def read_into(self, buffer: memoryview, start: int) -> None:
        """Fill ``buffer`` from the tar, which must be the one that was indexed, and the same in every call."""
        placed, pinned = self.placed, self.pin.etag
        found = placed.tars.read_into(placed.shard.name, buffer, start, pinned)
        if pinned is None:
            self._check_length(found.num_bytes)
            pinned = self.pin.etag = self.pin.etag or found.etag
        if found.etag != pinned:
            raise StorageError(
                f"{placed.url} was replaced while it was being read (was {pinned}, is {found.etag}). "
                "Start the run again."
            )

    def pin_now(self) -> None:
        """Ask for length and version of the tar before its first read."""
        if self.pin.etag is None:
            stat = self.placed.tars.stat(self.placed.shard.name)
            self._check_length(stat.num_bytes)
            self.pin.etag = stat.etag

    def _check_length(self, num_bytes: int) -> None:
        if num_bytes != self.index.tar_bytes:
            raise ShardError(
                f"{self.placed.url} has {num_bytes} bytes, but was indexed with {self.index.tar_bytes} bytes. It was "
                "cut or replaced: copy it again, or index it again."
            )


def open_shard(placed: PlacedShard, pin: Pin | None = None) -> OpenShard:
    """Read a shard's index, and raise ``ShardError`` unless it is what the manifest says.

    Where reads hardly wait the tar's length is compared at once; elsewhere that would cost a request of its own, so
    the first read of its bytes does it.
    """
    shard = placed.shard
    where = f"{placed.indexes.url}/{shard.name}{INDEX_SUFFIX}"
    data = _read_index(placed)
    if index_digest(data) != shard.digest:
        data = _read_index(placed)  # damage on the way is more likely than damage at rest
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
    opened = OpenShard(placed, index, pin or Pin())
    if placed.tars.parallel_reads == 1:
        opened.pin_now()
    return opened


def _read_index(placed: PlacedShard) -> bytes:
    key = placed.shard.name + INDEX_SUFFIX
    if placed.indexes.parallel_reads == 1:
        return read_all(placed.indexes, key)
    # The manifest tells its length, which saves the request that would ask for it.
    data = bytearray(index_num_bytes(placed.shard.samples))
    found = placed.indexes.read_into(key, memoryview(data))
    return bytes(data) if found.num_bytes == len(data) else b""
