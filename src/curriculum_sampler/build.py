"""Writing samples into shards, with their indexes and the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Unpack

from .encode import encode_members
from .errors import ArgumentError
from .locations import Location, StorageOptions, open_storage
from .manifest import Manifest
from .manifest_file import Bucket, check_name
from .publishing import make_room, publish
from .shard_writer import write_shard
from .tar_writer import TarBuilder, pack


def write_shards(
    destination: Location,
    buckets: Mapping[str, Iterable[Mapping[str, Any]]],
    *,
    split: str = "train",
    samples_per_shard: int | None = None,
    max_shard_bytes: int = 256 << 20,
    difficulties: Mapping[str, tuple[float, float]] | None = None,
    overwrite: bool = False,
    **options: Unpack[StorageOptions],
) -> Manifest:
    """Write samples as WebDataset shards and return the manifest of their split.

    A sample is a mapping with ``__key__`` and, per extension, a value that ``encode`` understands:
    ``{"__key__": "0007", "png": pixels, "json": {"sleeve": "long"}}``. Other names with two leading
    underscores are not stored, so samples read by a ``CurriculumDataset(decode=None)`` can be written
    again. Shards are called ``train/easy/easy-000000.tar`` and hold the samples in the order given;
    equal samples give equal bytes. The manifest is written last: a call that fails leaves the data
    set as it was, apart from shards that nothing refers to.

    Args:
        destination: Folder, url or storage. A data set that is there already gains a split.
        buckets: Bucket name -> samples; any iterable, consumed once, one shard in memory at a time.
        split: Name of the split.
        samples_per_shard: Most samples in a shard.
        max_shard_bytes: A shard is closed before it would grow beyond this; a larger sample has a
            shard of its own.
        difficulties: Bucket name -> (lowest, highest) difficulty, for the record.
        overwrite: Replace the split if it exists.
        **options: Options of ``s3://`` urls, such as ``endpoint_url=``.

    Raises:
        ArgumentError: A bad name, key, value or limit, a key twice in a bucket, a bucket without
            samples, or a split that exists already.
        StorageError: The destination cannot be written to.

    >>> samples = [{"__key__": f"{n:04}", "cls": n} for n in range(5)]
    >>> manifest = write_shards("memory://write-shards", {"easy": samples}, samples_per_shard=2)
    >>> manifest.bucket_sizes, [placed.shard.name for placed in manifest.buckets["easy"]][-1]
    ({'easy': 5}, 'train/easy/easy-000002.tar')
    """
    home = open_storage(destination, **options)
    if not buckets:
        raise ArgumentError("There are no buckets. Give at least one, such as {'easy': samples}.")
    for bucket in buckets:
        check_name(bucket, "bucket")
    unknown = sorted(set(difficulties or {}) - set(buckets))
    if unknown:
        raise ArgumentError(f"difficulties names bucket {unknown[0]!r}, which is not written. Remove it.")
    if (samples_per_shard is not None and samples_per_shard < 1) or max_shard_bytes < 1:
        raise ArgumentError(
            f"samples_per_shard={samples_per_shard} and max_shard_bytes={max_shard_bytes} must be at least 1."
        )
    make_room(home, split, overwrite=overwrite)
    made = {}
    for bucket, samples in buckets.items():
        stem = f"{split}/{bucket}/{bucket}"
        packed = _packed(bucket, samples)
        shards = tuple(
            write_shard(home, f"{stem}-{number:06}.tar", builder)
            for number, builder in enumerate(_filled(packed, samples_per_shard, max_shard_bytes))
        )
        if not shards:
            raise ArgumentError(f"Bucket {bucket!r} has no samples. Give it some, or leave it out.")
        made[bucket] = Bucket(shards, (difficulties or {}).get(bucket))
    publish(home, split, made)
    return Manifest.load(home, split=split, **options)


def _packed(bucket: str, samples: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    seen: set[str] = set()
    for sample in samples:
        if not isinstance(sample, Mapping):
            raise ArgumentError(
                f"Bucket {bucket!r}: a sample must be a mapping, not a {type(sample).__name__}."
            )
        key = _key(bucket, sample)
        if key in seen:
            raise ArgumentError(
                f"Bucket {bucket!r} has the key {key!r} twice. Keys must be unique in a bucket."
            )
        seen.add(key)
        members = encode_members(f"Bucket {bucket!r}", key, sample)
        yield pack(key, members)


def _key(bucket: str, sample: Mapping[str, Any]) -> str:
    key = sample.get("__key__")
    if not isinstance(key, str):
        raise ArgumentError(
            f"Bucket {bucket!r}: a sample's '__key__' must be text, not {key!r}. Name each sample, e.g. '000017'."
        )
    if not key or not key.isprintable() or any(char in key for char in "/\\.") or key.startswith("__"):
        raise ArgumentError(
            f"Bucket {bucket!r}: key {key!r} must be printable text without '/', '\\' or '.' and not begin with "
            "'__', since file names are made of it and its extensions. Rename it."
        )
    return key


def _filled(
    packed: Iterable[bytes], samples_per_shard: int | None, max_shard_bytes: int
) -> Iterator[TarBuilder]:
    builder = TarBuilder()
    for sample in packed:
        is_full = len(builder) == samples_per_shard or builder.num_bytes + len(sample) > max_shard_bytes
        if is_full and len(builder):
            yield builder
            builder = TarBuilder()
        builder.add(sample)
    if len(builder):
        yield builder
