"""Indexing that goes on where it was: ``index_shards``, with a record of the tars that were indexed already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Unpack

from .errors import ArgumentError
from .index import INDEX_SUFFIX, ShardIndex
from .indexing import index_shard
from .locations import Location, StorageOptions, open_storage
from .manifest import Manifest
from .manifest_file import Bucket, Shard, check_name, index_digest
from .publishing import make_room, publish
from .storage import Storage, read_all
from .verification_record import VerificationRecord


def index_resumably(
    source: Location,
    buckets: Mapping[str, Iterable[str]],
    *,
    record: Path,
    destination: Location | None = None,
    split: str = "train",
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[StorageOptions],
) -> Manifest:
    """Index tars as ``index_shards`` does, so that a call which was interrupted is not for nothing.

    A tar is passed over if its index was written by an earlier call and it was not replaced since.

    Args:
        source: Root of the tars.
        buckets: Bucket name -> names of its tars below ``source``, in order.
        record: A local file to note in which tars were indexed; it is removed at the end.
        destination: Where indexes and manifest go, if ``source`` cannot be written to.
        split: Name of the split these tars make up.
        overwrite: Replace the split if it exists.
        progress: Called with (bytes done, bytes of all).
        **options: Options of ``s3://`` urls, for both places.

    Raises:
        ArgumentError: No tars, one without samples, a bad name, a split that exists already, or ``record`` is another file.
        ShardError: A tar is damaged, or breaks the WebDataset convention; its url is named.
        StorageError: Something cannot be read or written.

    >>> import io, tarfile, tempfile
    >>> from curriculum_sampler.memory_storage import MemoryStorage
    >>> file, tars = io.BytesIO(), MemoryStorage()
    >>> with tarfile.open(fileobj=file, mode="w") as tar:
    ...     tar.addfile(tarfile.TarInfo("0001.txt"))
    >>> tars.write("easy.tar", file.getvalue())
    >>> index_resumably(tars, {"easy": ["easy.tar"]}, record=Path(tempfile.mkdtemp()) / "record.jsonl").bucket_sizes
    {'easy': 1}
    """
    tars = open_storage(source, **options)
    home = tars if destination is None else open_storage(destination, **options)
    apart = None if home.url == tars.url else tars.url
    listed = {check_name(bucket, "bucket"): list(names) for bucket, names in buckets.items()}
    if not listed or not all(listed.values()):
        raise ArgumentError(
            f"There is a bucket without tars, or none, for {tars.url}. Name at least one tar for each."
        )
    known = VerificationRecord(record, f"{home.url} of {tars.url}")
    stats = {name: tars.stat(name) for names in listed.values() for name in names}
    make_room(home, split, overwrite=overwrite, source=apart)
    total, done = sum(stat.num_bytes for stat in stats.values()), 0
    made: dict[str, Bucket] = {}
    for bucket, names in listed.items():
        shards = []
        for name in names:
            etag = stats[name].etag
            shard = _known(home, name, etag, known)
            if shard is None:
                shard = index_shard(tars, name, home, bucket)
                known.add(name, shard.digest, etag)
            shards.append(shard)
            done += stats[name].num_bytes
            if progress is not None:
                progress(done, total)
        made[bucket] = Bucket(tuple(shards))
    publish(home, split, made, source=apart)
    known.begin_anew()
    return Manifest.load(home, split=split, **options)


def _known(home: Storage, name: str, etag: str, known: VerificationRecord) -> Shard | None:
    """Return the shard if an earlier call wrote the index for a tar of this version."""
    if not known or not home.exists(name + INDEX_SUFFIX):
        return None
    data = read_all(home, name + INDEX_SUFFIX)
    digest = index_digest(data)
    if known.etag(name, digest) != etag:
        return None
    index = ShardIndex.from_bytes(data)
    return Shard(name, len(index), index.tar_bytes, digest)
