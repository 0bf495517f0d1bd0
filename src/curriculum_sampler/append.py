"""New shards at the end of buckets: the data grow, and a running curriculum keeps its order.

Sample numbers count over the shards of a bucket in order, so shards at the end move no other sample. A running curriculum
draws its current pass as before; after ``loader.grow(...)`` its next pass takes the new size (see ``MixtureSampler.grow``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Unpack

from .difficulty_file import read_difficulties, write_difficulties
from .errors import ArgumentError
from .indexing import index_shard
from .locations import Location, StorageOptions, open_storage
from .manifest import Manifest, PlacedShard, hull, read_manifest, tars_of
from .manifest_file import Bucket, ManifestFile, Shard
from .manifest_update import is_written, new_shard_names, replace_manifest, write_shard
from .sample_columns import has_difficulties
from .storage import Storage
from .whole_tar import whole_tar


class Grown(NamedTuple):
    """How a bucket grew: its samples before and after, and the new shards with their bytes."""

    before: int
    after: int
    shards: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class AppendReport:
    """What was appended, or with ``dry_run`` would be: bucket -> how it grew."""

    url: str
    split: str
    buckets: Mapping[str, Grown]
    dry_run: bool

    @property
    def sizes(self) -> dict[str, int]:
        """The new sizes of the buckets that grew: what ``loader.grow`` takes."""
        return {name: grown.after for name, grown in self.buckets.items()}


def append_shards(
    destination: Location,
    addition: Location,
    *,
    split: str = "train",
    addition_split: str | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[StorageOptions],
) -> AppendReport:
    """Append a split of another data set: each of its buckets to the bucket of the same name.

    Tars are copied under the next free numbers, and compared with their indexes on the way. The manifest is written
    last, so that an append which fails or is interrupted leaves the data set as it was; the same call goes on from the
    shards that were copied. Keys are not compared with those that are there:
    an index holds none, so every tar of the data set would be read for it.

    Args:
        destination: The data set that grows: folder, url or storage.
        addition: The data set to append, such as one that was built by the same rule.
        split: The split that grows.
        addition_split: The split to append. Default: ``split``.
        dry_run: Write nothing.
        progress: Called with (bytes done, bytes of all).
        **options: Options of ``s3://`` urls, for both places.

    Raises:
        ArgumentError: A bucket that the data set does not have, an addition that it holds already, tars that lie
            elsewhere than its manifest, or recorded difficulties of other buckets than it has.
        ShardError: A tar of the addition is damaged.
        StorageError: Something cannot be read or written.

    >>> from curriculum_sampler.build import write_shards
    >>> samples = [{"__key__": f"{n:04}", "cls": n} for n in range(5)]
    >>> _ = write_shards("memory://grows", {"easy": samples[:3]}), write_shards("memory://new", {"easy": samples[3:]})
    >>> append_shards("memory://grows", "memory://new").buckets
    {'easy': Grown(before=3, after=5, shards=1, num_bytes=3072)}
    """
    home = open_storage(destination, **options)
    file = read_manifest(home)
    if file.source is not None:
        raise ArgumentError(
            f"The tars of {home.url} lie at {file.source}, where nothing is written. Put the new tars there, and append "
            "them by name: append_tars(...), or --bucket NAME=PATTERN of the command."
        )
    old = Manifest.load(home, split=split, **options)
    new = Manifest.load(addition, split=addition_split or split, **options)
    _refuse_strangers(old, new.buckets)
    for bucket, placed in new.buckets.items():
        known = {one.shard.digest for one in old.buckets[bucket]}
        again = [one for one in placed if one.shard.digest in known]
        if again:
            raise ArgumentError(
                f"Bucket {bucket!r} of {home.url} holds the samples of {again[0].url} already. Append what is new only."
            )
    total, done = new.num_bytes, 0
    added: dict[str, list[Shard]] = {}
    for bucket, placed in new.buckets.items():
        for one, name in zip(placed, new_shard_names(file, split, bucket), strict=False):
            if not dry_run:
                _copy(one, home, name)
            added.setdefault(bucket, []).append(dataclasses.replace(one.shard, name=name))
            done += one.shard.num_bytes
            if progress is not None:
                progress(done, total)
    if not dry_run:
        _record_difficulties(home, old, new)
        _publish(home, file, split, added, new.difficulties)
    return _report(home, old, added, dry_run)


def append_tars(
    destination: Location,
    buckets: Mapping[str, Iterable[str]],
    *,
    split: str = "train",
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[StorageOptions],
) -> AppendReport:
    """Append tars that lie with the data set already: they are indexed where they are.

    Args:
        destination: The data set that grows: folder, url or storage.
        buckets: Bucket name -> names of the new tars below the root of its tars, in order.
        split: The split that grows.
        dry_run: Write nothing, and read the tars all the same, so that damage is told.
        progress: Called with (bytes done, bytes of all).
        **options: Options of ``s3://`` urls.

    Raises:
        ArgumentError: A bucket that the data set does not have, no tar, or one that is listed already.
        ShardError: A tar is damaged, or breaks the WebDataset convention; its url is named.
        StorageError: Something cannot be read or written.

    >>> from curriculum_sampler import open_storage, write_shards
    >>> def shirts(first, stop): return [{"__key__": f"{n:03}", "txt": "shirt"} for n in range(first, stop)]
    >>> _ = write_shards("memory://grown", {"easy": shirts(0, 5)})
    >>> newer = write_shards("memory://newer-tars", {"easy": shirts(5, 9)})
    >>> name = newer.buckets["easy"][0].shard.name
    >>> tar = bytearray(newer.num_bytes)
    >>> _ = open_storage("memory://newer-tars").read_into(name, memoryview(tar))
    >>> open_storage("memory://grown").write("new/easy-1.tar", tar)
    >>> append_tars("memory://grown", {"easy": ["new/easy-1.tar"]}).sizes
    {'easy': 9}
    """
    home = open_storage(destination, **options)
    file = read_manifest(home)
    tars = tars_of(home, file, **options)
    old = Manifest.load(home, split=split, **options)
    wanted = {bucket: list(names) for bucket, names in buckets.items()}
    _refuse_strangers(old, wanted)
    listed = {
        shard.name for told in file.splits.values() for bucket in told.values() for shard in bucket.shards
    }
    seen: set[str] = set()
    for bucket, names in wanted.items():
        if not names:
            raise ArgumentError(f"No tars for bucket {bucket!r} at {tars.url}. Name at least one.")
        for name in names:
            if name in listed or name in seen:
                raise ArgumentError(
                    f"{tars.url}/{name} is part of the data set already. Append what is new only."
                )
            seen.add(name)
    total = sum(tars.stat(name).num_bytes for names in wanted.values() for name in names)
    done = 0
    added: dict[str, list[Shard]] = {}
    for bucket, names in wanted.items():
        for name in names:
            shard = index_shard(tars, name, None if dry_run else home, bucket)
            added.setdefault(bucket, []).append(shard)
            done += shard.num_bytes
            if progress is not None:
                progress(done, total)
    if not dry_run:
        _publish(home, file, split, added, {})
    return _report(home, old, added, dry_run)


def _refuse_strangers(old: Manifest, buckets: Iterable[str]) -> None:
    for bucket in buckets:
        if bucket not in old.buckets:
            raise ArgumentError(
                f"There is no bucket {bucket!r} in split {old.split!r} to append to. It has: {', '.join(old.buckets)}. "
                "Rename the bucket; a new one is a new data set."
            )


def _copy(placed: PlacedShard, home: Storage, name: str) -> None:
    """Copy a tar with its index, unless an append that was interrupted has done so; compare it on the way."""
    if not is_written(home, name, placed.shard.digest):
        tar, index = whole_tar(placed)
        write_shard(home, name, tar, index.to_bytes())


def _record_difficulties(home: Storage, old: Manifest, new: Manifest) -> None:
    """Write on the difficulties of the split, where both data sets recorded them; as it would be after one call."""
    places = [old.buckets, new.buckets]
    homes = [next(iter(buckets.values()))[0].indexes for buckets in places]
    if not all(map(has_difficulties, homes, (old.split, new.split))):
        return
    added = [
        {**line, "index": line["index"] + old.bucket_sizes[line["bucket"]]} if "index" in line else line
        for line in _recorded(homes[1], new)
    ]
    # Of what was left out, an append that was interrupted may have told already.
    coming = {line["key"] for line in added}
    kept = [line for line in _recorded(home, old) if "index" in line or line["key"] not in coming]
    write_difficulties(home, old.split, [*kept, *added])


def _recorded(home: Storage, manifest: Manifest) -> Iterator[dict[str, Any]]:
    """Yield what is recorded of the samples of a split, and of those that were left out of it."""
    for line in read_difficulties(home, manifest.split):
        bucket = line.get("bucket")
        if bucket is not None and bucket not in manifest.buckets:
            raise ArgumentError(
                f"{home.url} records difficulties of a bucket {bucket!r}, which split {manifest.split!r} does not have: a "
                "rebucket was interrupted. Run it again, then append."
            )
        # Behind them an append that was interrupted may have written on.
        if bucket is None or line["index"] < manifest.bucket_sizes[bucket]:
            yield line


def _publish(
    home: Storage,
    file: ManifestFile,
    split: str,
    added: Mapping[str, Sequence[Shard]],
    difficulties: Mapping[str, tuple[float, float]],
) -> None:
    buckets = dict(file.splits[split])
    for name, shards in added.items():
        bucket = buckets[name]
        buckets[name] = Bucket((*bucket.shards, *shards), hull([bucket.difficulty, difficulties.get(name)]))
    replace_manifest(home, file, file.with_split(split, buckets))


def _report(
    home: Storage, old: Manifest, added: Mapping[str, Sequence[Shard]], dry_run: bool
) -> AppendReport:
    grown = {
        bucket: Grown(
            old.bucket_sizes[bucket],
            old.bucket_sizes[bucket] + sum(shard.samples for shard in shards),
            len(shards),
            sum(shard.num_bytes for shard in shards),
        )
        for bucket, shards in added.items()
    }
    return AppendReport(home.url, old.split, grown, dry_run)
