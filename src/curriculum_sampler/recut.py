"""A new cut of a data set that is there. Shards whose samples stay together are kept; only the others are written anew.

A bucket is a list of whole shards. So buckets that are joined or renamed cost nothing, while a shard whose samples part
company must be taken apart: its samples are copied, byte for byte, into new shards.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from .difficulty_file import RULE, read_rule, write_difficulties
from .difficulty_rule import measure_rule
from .easiest_first import easiest_first
from .errors import ArgumentError
from .locations import Location, StorageOptions, open_storage
from .manifest import Manifest, PlacedShard, read_manifest
from .manifest_file import Bucket, ManifestFile, Shard, check_name, index_digest
from .manifest_update import is_written, new_shard_names, replace_manifest, write_shard
from .sample_columns import recorded_scores
from .sample_lookup import sample_keys
from .storage import Storage
from .tar_writer import TarBuilder
from .whole_tar import whole_tar

Names: TypeAlias = NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class RebucketReport:
    """What a new cut did, or with ``dry_run`` would do.

    Attributes:
        url, split: The data set, and the split that has the new cut.
        bucket_sizes: Samples of the new buckets, easiest first.
        difficulties: Lowest and highest score of each.
        moved: Samples whose bucket has another name than before.
        kept_shards: Shards that are listed anew, but not written.
        rewritten_samples: Samples that are copied into new shards.
        rewritten_bytes: Bytes of the tars that they are copied from.
        dry_run: Whether nothing was written.
    """

    url: str
    split: str
    bucket_sizes: Mapping[str, int]
    difficulties: Mapping[str, tuple[float, float]]
    moved: int
    kept_shards: int
    rewritten_samples: int
    rewritten_bytes: int
    dry_run: bool


class _Cut(NamedTuple):
    """A shard, and the new bucket of each of its samples."""

    placed: PlacedShard
    old_bucket: str
    new_buckets: Names

    @property
    def stays_whole(self) -> bool:
        return bool((self.new_buckets == self.new_buckets[0]).all())


def rebucket(
    location: Location,
    scores: Mapping[str, float] | None = None,
    *,
    into: str,
    shares: Mapping[str, float] | None = None,
    thresholds: Mapping[str, float] | None = None,
    split: str = "train",
    overwrite: bool = False,
    max_shard_bytes: int = 64 << 20,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[StorageOptions],
) -> RebucketReport:
    """Cut a split by other scores, or by the same scores elsewhere.

    The old split stays as it is, unless ``into`` names it. Shards may belong to both. The manifest is written last, so a
    call that fails or is interrupted changes nothing; the same call then passes over the shards it had written. No tar
    is deleted. Kept shards keep their names, also where these tell of the old bucket.

    Samples of one score share a bucket. The scores are recorded with the new split. Where it replaces the old one, it
    also replaces the stored rule, by which later data are cut.

    Args:
        location: Folder, url or storage of the data set.
        scores: Key -> score of every sample, higher is harder. Default: those that ``build_dataset`` recorded.
        into: Name of the split with the new cut.
        shares: Bucket -> share of the samples, easiest first.
        thresholds: Bucket -> lowest score in it, easiest first; instead of ``shares``.
        split: The split to cut anew.
        overwrite: Replace ``into`` if it exists, which it does when it is ``split``.
        max_shard_bytes: A new shard is closed before it would grow beyond this; one for each bucket is held in memory.
        dry_run: Write nothing.
        progress: Called with (bytes done, bytes of all) of the shards that are taken apart.
        **options: Options of ``s3://`` urls.

    Raises:
        ArgumentError: A sample without score, a key twice, a bucket that would be empty, a split that exists, or shards
            that must be taken apart in a data set whose tars lie elsewhere than its manifest.
        ShardError: A shard is damaged.

    >>> from curriculum_sampler.build import write_shards
    >>> samples = [{"__key__": str(n), "cls": n} for n in range(6)]
    >>> _ = write_shards("memory://rebucket", {"all": samples}, samples_per_shard=2)
    >>> report = rebucket("memory://rebucket", {str(n): n for n in range(6)}, into="cut", shares={"easy": 1, "hard": 1})
    >>> report.bucket_sizes, report.kept_shards, report.rewritten_samples
    ({'easy': 3, 'hard': 3}, 2, 2)
    """
    home = open_storage(location, **options)
    file, manifest = read_manifest(home), Manifest.load(home, split=split, **options)
    for bucket in shares or thresholds or {}:
        check_name(bucket, "bucket")
    check_name(into, "split")
    if into in file.splits and not overwrite:
        raise ArgumentError(
            f"{home.url} has a split {into!r} already. Pass overwrite=True to replace it, or another into=."
        )
    known = recorded_scores(manifest) if scores is None else scores
    if known is None:
        raise ArgumentError(
            f"{home.url} records no scores of all samples of split {split!r}, as build_dataset does. Pass scores=."
        )
    buckets, _ = easiest_first(manifest)
    keys, column = _keys_and_scores(manifest, buckets, known)
    rule = measure_rule({"score": column}, None, shares=shares, thresholds=thresholds)
    names = list(rule.buckets)
    every = np.array(names)[rule.cut(column)]
    cuts = _cuts(manifest, buckets, every)
    apart = [cut for cut in cuts if not cut.stays_whole]
    if apart and file.source is not None:
        raise ArgumentError(
            f"{len(apart)} of {len(cuts)} shards must be taken apart, but the tars lie at {file.source}, where nothing is "
            "written. Build a new data set from these tars instead."
        )
    ranges = {name: _range(column[every == name]) for name in names}
    if not dry_run:
        shards: dict[str, list[Shard]] = {name: [] for name in names}
        for cut in cuts:
            if cut.stays_whole:
                shards[str(cut.new_buckets[0])].append(cut.placed.shard)
        for bucket, shard in _rewritten(home, file, into, apart, max_shard_bytes, progress):
            shards[bucket].append(shard)
        made = {name: Bucket(tuple(found), ranges[name]) for name, found in shards.items()}
        write_difficulties(home, into, _difficulty_lines(keys, column, cuts, names))
        if into == split and home.exists(RULE):
            old = read_rule(home)
            new = rule if scores is not None else dataclasses.replace(old, buckets=rule.buckets, most=None)
            home.write(RULE, new.to_bytes())
        replace_manifest(home, file, file.with_split(into, made))
    return RebucketReport(
        url=home.url,
        split=into,
        bucket_sizes={name: int((every == name).sum()) for name in names},
        difficulties=ranges,
        moved=sum(int((cut.new_buckets != cut.old_bucket).sum()) for cut in cuts),
        kept_shards=len(cuts) - len(apart),
        rewritten_samples=sum(cut.placed.shard.samples for cut in apart),
        rewritten_bytes=sum(cut.placed.shard.num_bytes for cut in apart),
        dry_run=dry_run,
    )


def _keys_and_scores(
    manifest: Manifest, buckets: list[str], scores: Mapping[str, float]
) -> tuple[list[str], NDArray[np.float64]]:
    """Return key and score of each sample, in the order of the buckets and of the samples in them."""
    keys = [key for bucket in buckets for key in sample_keys(manifest, bucket)]
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise ArgumentError(
                f"Two samples have the key {key!r}, so its score has no one place. Rename one."
            )
        if not math.isfinite(scores.get(key, math.nan)):
            told = f"the score {scores[key]}" if key in scores else "no score"
            raise ArgumentError(f"Sample {key!r} has {told}. Give a finite number for every sample.")
        seen.add(key)
    return keys, np.array([scores[key] for key in keys], np.float64)


def _cuts(manifest: Manifest, buckets: list[str], new_buckets: Names) -> list[_Cut]:
    cuts, start = [], 0
    for bucket in buckets:
        for placed in manifest.buckets[bucket]:
            cuts.append(_Cut(placed, bucket, new_buckets[start : start + placed.shard.samples]))
            start += placed.shard.samples
    return cuts


def _difficulty_lines(
    keys: list[str], column: NDArray[np.float64], cuts: list[_Cut], names: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield a line for each sample at its new place: in each bucket first what was kept, then what was copied."""
    new_buckets = np.concatenate([cut.new_buckets for cut in cuts])
    stays = np.concatenate([np.full(len(cut.new_buckets), cut.stays_whole) for cut in cuts])
    for name in names:
        members = new_buckets == name
        order = np.concatenate([np.flatnonzero(members & stays), np.flatnonzero(members & ~stays)])
        for index, place in enumerate(order.tolist()):
            yield {"key": keys[place], "bucket": name, "index": index, "score": float(column[place])}


def _range(column: NDArray[np.float64]) -> tuple[float, float]:
    return float(column.min()), float(column.max())


def _rewritten(
    home: Storage,
    file: ManifestFile,
    into: str,
    apart: list[_Cut],
    max_shard_bytes: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[str, Shard]]:
    """Copy the samples of shards into new ones, in their old order, and yield each that was written with its bucket."""
    builders: dict[str, TarBuilder] = {}
    names: dict[str, Iterator[str]] = {}
    total, done = sum(cut.placed.shard.num_bytes for cut in apart), 0

    def close(bucket: str) -> tuple[str, Shard]:
        tar, index = builders.pop(bucket).finish()
        data = index.to_bytes()
        numbered = names.setdefault(bucket, new_shard_names(file, into, bucket))
        shard = Shard(next(numbered), len(index), len(tar), index_digest(data))
        if not is_written(home, shard.name, shard.digest):
            write_shard(home, shard.name, tar, data)
        return bucket, shard

    for cut in apart:
        tar, index = whole_tar(cut.placed)
        for bucket, start, stop in zip(
            cut.new_buckets.tolist(), index.starts.tolist(), index.stops.tolist(), strict=True
        ):
            builder = builders.setdefault(bucket, TarBuilder())
            if len(builder) and builder.num_bytes + stop - start > max_shard_bytes:
                yield close(bucket)
                builder = builders.setdefault(bucket, TarBuilder())
            builder.add(tar[start:stop])
        done += cut.placed.shard.num_bytes
        if progress is not None:
            progress(done, total)
    for bucket in list(builders):
        yield close(bucket)
