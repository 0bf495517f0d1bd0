"""Indexes and a manifest for tars that exist already, made by ``tar`` or any WebDataset writer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Unpack

from .checksum import checksum
from .errors import ArgumentError, ShardError
from .grouping import group
from .index import INDEX_SUFFIX, ShardIndex
from .locations import Location, StorageOptions, open_storage
from .manifest import Manifest
from .manifest_file import Bucket, Shard, index_digest
from .publishing import make_room, publish
from .sliding import SlidingWindow
from .storage import Storage
from .tar import scan


def index_shards(
    source: Location,
    buckets: Mapping[str, Iterable[str]] | Callable[[str], str | None],
    *,
    destination: Location | None = None,
    split: str = "train",
    difficulties: Mapping[str, tuple[float, float]] | None = None,
    overwrite: bool = False,
    **options: Unpack[StorageOptions],
) -> Manifest:
    """Index existing tars, and write a manifest that makes a data set of them.

    Every tar is read once from front to back, in pieces, and must be whole. What the tar alone
    cannot show, a wrong byte within a file, is taken as it is; from then on it would be found.

    Args:
        source: Root of the tars.
        buckets: Bucket name -> names of its tars below ``source``, in order; or a function from the
            name of a tar to its bucket (None leaves it out), asked for all ``*.tar`` in name order.
        destination: Where indexes and manifest go, if ``source`` cannot be written to. The manifest
            remembers the url of ``source``.
        split: Name of the split these tars make up.
        difficulties: Bucket name -> (lowest, highest) difficulty, for the record.
        overwrite: Replace the split if it exists.
        **options: Options of ``s3://`` urls, for both places.

    Raises:
        ArgumentError: No tars, a bucket without samples, or a split that exists already.
        ShardError: A tar is damaged, or breaks the WebDataset convention; its url is named.

    >>> from curriculum_sampler.memory_storage import MemoryStorage
    >>> import io, tarfile
    >>> file, tars = io.BytesIO(), MemoryStorage()
    >>> with tarfile.open(fileobj=file, mode="w") as tar:
    ...     tar.addfile(tarfile.TarInfo("0001.txt"))
    >>> tars.write("easy.tar", file.getvalue())
    >>> index_shards(tars, lambda name: name.removesuffix(".tar")).bucket_sizes
    {'easy': 1}
    """
    tars = open_storage(source, **options)
    home = tars if destination is None else open_storage(destination, **options)
    apart = None if home.url == tars.url else tars.url
    make_room(home, split, overwrite=overwrite, source=apart)
    listed = _listed(tars, buckets)
    made = {}
    for bucket, names in listed.items():
        shards = tuple(index_shard(tars, name, home, bucket) for name in names)
        made[bucket] = Bucket(shards, (difficulties or {}).get(bucket))
    publish(home, split, made, source=apart)
    return Manifest.load(home, split=split, **options)


def index_shard(tars: Storage, name: str, home: Storage | None, bucket: str) -> Shard:
    """Index a tar, write the index to ``home`` (None: nowhere), and return what a manifest says of the shard.

    Raises:
        ArgumentError: It holds no samples; ``bucket`` is named.
        ShardError: See ``index_tar``.
    """
    index = index_tar(tars, name)
    if not len(index):
        raise ArgumentError(f"{tars.url}/{name} of bucket {bucket!r} holds no samples. Leave it out.")
    data = index.to_bytes()
    if home is not None:
        home.write(name + INDEX_SUFFIX, data)
    return Shard(name, len(index), index.tar_bytes, index_digest(data))


def index_tar(storage: Storage, key: str) -> ShardIndex:
    """Read a tar once and return its index.

    Raises:
        ShardError: It is damaged or cut, or its samples are not adjacent; url and place are named.
    """
    stat = storage.stat(key)
    window = SlidingWindow(storage, key, stat)
    samples = []
    try:
        for span in group(scan(window.read, stat.num_bytes)):
            content = window.read(span.start, span.stop - span.start)
            samples.append((span.start, span.stop - span.start, checksum(content)))
            window.keep_from = span.stop
    except ShardError as error:
        raise ShardError(f"{storage.url}/{key}: {error}") from None
    return ShardIndex.of(stat.num_bytes, samples)


def _listed(
    tars: Storage, buckets: Mapping[str, Iterable[str]] | Callable[[str], str | None]
) -> dict[str, list[str]]:
    if isinstance(buckets, Mapping):
        listed = {bucket: list(names) for bucket, names in buckets.items()}
    else:
        listed = {}
        for name in tars.list():
            bucket = buckets(name) if name.endswith(".tar") else None
            if bucket is not None:
                listed.setdefault(bucket, []).append(name)
    empty = [bucket for bucket, names in listed.items() if not names]
    if not listed or empty:
        what = f"Bucket {empty[0]!r} has" if empty else f"Found at {tars.url}:"
        raise ArgumentError(f"{what} no tars. Name at least one .tar for every bucket.")
    return listed
