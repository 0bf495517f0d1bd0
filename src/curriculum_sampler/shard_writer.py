"""Writing one shard: its tar, then its index."""

from __future__ import annotations

from .index import INDEX_SUFFIX
from .manifest_file import Shard, index_digest
from .storage import Storage
from .tar_writer import TarBuilder


def write_shard(home: Storage, name: str, builder: TarBuilder) -> Shard:
    """Write what a builder has collected, and return what a manifest says of it."""
    tar, index = builder.finish()
    data = index.to_bytes()
    home.write(name, tar)
    home.write(name + INDEX_SUFFIX, data)
    return Shard(name, len(index), len(tar), index_digest(data))
