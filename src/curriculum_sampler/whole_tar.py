"""A shard's tar as a whole, compared with its index: for those who copy it or take it apart."""

from __future__ import annotations

from .errors import ShardError
from .index import ShardIndex
from .indexing import index_tar
from .manifest import PlacedShard
from .manifest_file import index_digest
from .memory_storage import MemoryStorage
from .storage import read_all


def whole_tar(placed: PlacedShard) -> tuple[bytes, ShardIndex]:
    """Return the bytes of a tar and its index; the whole tar is held in memory.

    Raises:
        StorageError: It cannot be read.
        ShardError: It is not the tar that the manifest names.
    """
    name = placed.shard.name
    tar = read_all(placed.tars, name)
    index = index_tar(MemoryStorage(placed.tars.url, {name: tar}), name)
    if index_digest(index.to_bytes()) != placed.shard.digest:
        raise ShardError(
            f"{placed.url} is not the tar that its manifest names: it was damaged or replaced. Verify its data set, and "
            "copy the shard again."
        )
    return tar, index
