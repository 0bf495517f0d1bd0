"""One split of a data set, from one or more roots: what can be drawn, and where it lies."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ArgumentError
from .locations import Location, StorageOptions, open_storage
from .manifest_file import MANIFEST, Bucket, ManifestFile, Shard
from .storage import Storage, read_all


@dataclass(frozen=True, slots=True)
class PlacedShard:
    """A shard and where to read it: ``tars`` holds the tar, ``indexes`` the index beside the manifest."""

    shard: Shard
    tars: Storage
    indexes: Storage

    @property
    def url(self) -> str:
        """The tar's url, for messages."""
        return f"{self.tars.url}/{self.shard.name}"


@dataclass(frozen=True)
class Manifest:
    """The buckets of one split. Immutable, picklable, and small: no index is read before its shard is.

    Attributes:
        split: Name of the split.
        buckets: Bucket name -> its shards in order. Sample ``i`` of a bucket is the ``i``-th over
            those shards; that numbering is what a draw's ``index`` means.
        difficulties: Bucket name -> (lowest, highest) difficulty, for the buckets that state it.

    >>> from curriculum_sampler import write_shards
    >>> easy, hard = ([{"__key__": f"{level}{n}", "cls": n} for n in range(4)] for level in ("easy", "hard"))
    >>> _ = write_shards("memory://manifest", {"easy": easy, "hard": hard[:3]})
    >>> manifest = Manifest.load("memory://manifest")
    >>> manifest.bucket_sizes, len(manifest), manifest.split
    ({'easy': 4, 'hard': 3}, 7, 'train')
    """

    split: str
    buckets: Mapping[str, tuple[PlacedShard, ...]]
    difficulties: Mapping[str, tuple[float, float]]

    @classmethod
    def load(
        cls,
        locations: Location | Sequence[Location],
        *,
        split: str = "train",
        **options: Unpack[StorageOptions],
    ) -> Manifest:
        """Read the manifest of a data set, or of several that are joined in the order given.

        Buckets of the same name become one bucket: the samples of the first location come first.

        Args:
            locations: Folder, url or storage, or a list of these.
            split: Which split to take; every location must have it.
            **options: Options of ``s3://`` urls, such as ``endpoint_url=``.

        Raises:
            ArgumentError: No location, or one without this split.
            StorageError: A manifest cannot be read.
            ShardError: A manifest is damaged or of a newer version.
        """
        several = isinstance(locations, Sequence) and not isinstance(locations, str)
        listed: list[Location] = list(locations) if several else [locations]  # type: ignore[arg-type, list-item]
        if not listed:
            raise ArgumentError("The list of locations is empty. Give at least one folder or s3:// url.")
        buckets: dict[str, tuple[PlacedShard, ...]] = {}
        ranges: dict[str, list[tuple[float, float] | None]] = {}
        for location in listed:
            home = open_storage(location, **options)
            file = read_manifest(home)
            tars = tars_of(home, file, **options)
            for name, bucket in _split(file, split, home).items():
                placed = tuple(PlacedShard(shard, tars, home) for shard in bucket.shards)
                buckets[name] = buckets.get(name, ()) + placed
                ranges.setdefault(name, []).append(bucket.difficulty)
        stated = {name: hull(found) for name, found in sorted(ranges.items())}
        known = {name: both for name, both in stated.items() if both is not None}
        return cls(split, dict(sorted(buckets.items())), known)._summed_up()

    def _summed_up(self) -> Self:
        """Work out now what loaders ask, so that they begin at once however many shards there are."""
        _ = self._starts, self._num_bytes, self.storages, self.bucket_sizes, self.bucket_fingerprints
        return self

    @functools.cached_property
    def bucket_sizes(self) -> dict[str, int]:
        """Bucket name -> number of samples."""
        return {name: int(ends[-1]) for name, ends in self._ends.items()}

    @functools.cached_property
    def bucket_fingerprints(self) -> dict[str, str]:
        """Bucket name -> digest of its ordered content, wherever it is stored.

        It covers the name, sample count and digest of every shard, and no url: a copy of a data set
        has the same fingerprints.
        """
        return {name: _content(shards) for name, shards in self.buckets.items()}

    @property
    def fingerprint(self) -> str:
        """Digest of all buckets: their names and fingerprints."""
        return _digest(sorted(self.bucket_fingerprints.items()))

    def prefix_fingerprint(self, bucket: str, num_samples: int) -> str | None:
        """Return the fingerprint that a bucket had when it held its first ``num_samples`` samples only.

        A bucket that has grown by whole shards at its end still begins with the data that an older
        manifest named; this tells. It is ``bucket_fingerprints[bucket]`` for the bucket's whole size,
        and None where no shard ends at ``num_samples``, so that the bucket never was that large.

        Raises:
            ArgumentError: No such bucket.

        >>> from curriculum_sampler.build import write_shards
        >>> samples = [{"__key__": f"{n:04}", "cls": n} for n in range(5)]
        >>> old = write_shards("memory://before-growth", {"easy": samples[:4]}, samples_per_shard=2)
        >>> new = write_shards("memory://after-growth", {"easy": samples}, samples_per_shard=2)
        >>> new.prefix_fingerprint("easy", 4) == old.bucket_fingerprints["easy"]
        True
        >>> new.prefix_fingerprint("easy", 3) is None
        True
        """
        ends = self._shards_end(bucket)
        last = int(np.searchsorted(ends, num_samples))
        if last == len(ends) or ends[last] != num_samples:
            return None
        return _content(self.buckets[bucket][: last + 1])

    def run_sizes(self, target_bytes: int = 8 << 20) -> dict[str, int]:
        """Return bucket name -> samples per run, so that a run is about ``target_bytes`` (at least 1).

        It rests on the mean sample of the bucket, so equal data gives equal runs on every host.
        """
        if target_bytes < 1:
            raise ArgumentError(f"target_bytes={target_bytes} must be at least 1.")
        return {
            name: max(1, target_bytes * size // self._num_bytes[name])
            for name, size in self.bucket_sizes.items()
        }

    def locate(self, bucket: str, indices: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return, for sample numbers of a bucket, the shard's number in it and the position in that shard.

        Raises:
            ArgumentError: No such bucket, or a number outside ``[0, bucket_sizes[bucket])``.
        """
        ends, wanted = self._shards_end(bucket), np.asarray(indices, dtype=np.int64)
        outside = wanted[(wanted < 0) | (wanted >= ends[-1])]
        if outside.size:
            raise ArgumentError(
                f"Bucket {bucket!r} has {ends[-1]} samples, so index {outside.flat[0]} is outside "
                f"[0, {ends[-1]}). Plan with this manifest's bucket_sizes."
            )
        shards = np.searchsorted(ends, wanted, side="right")
        return shards, wanted - self._starts[bucket][shards]

    def shard_start(self, bucket: str, number: int) -> int:
        """Return the sample number that is the first of a bucket's shard ``number``."""
        return int(self._starts[bucket][number])

    def mean_sample_bytes(self, bucket: str) -> float:
        """Return the bytes of a bucket's tars per sample."""
        return self._num_bytes[bucket] / self.bucket_sizes[bucket]

    @property
    def num_bytes(self) -> int:
        """Bytes of all tars."""
        return sum(self._num_bytes.values())

    @property
    def is_far(self) -> bool:
        """Whether reading waits for something, so that fetching ahead is worth its while."""
        return any(tars.parallel_reads > 1 for tars in self.storages)

    @functools.cached_property
    def storages(self) -> tuple[Storage, ...]:
        """The storages that the tars lie in, each once."""
        found = {id(placed.tars): placed.tars for shards in self.buckets.values() for placed in shards}
        return tuple(found.values())

    def _shards_end(self, bucket: str) -> NDArray[np.int64]:
        """Number of samples up to the end of each shard of a bucket."""
        if bucket not in self.buckets:
            raise ArgumentError(
                f"No bucket {bucket!r} in split {self.split!r}. There are: {', '.join(map(repr, self.buckets))}."
            )
        return self._ends[bucket]

    @functools.cached_property
    def _num_bytes(self) -> dict[str, int]:
        return {
            name: sum(placed.shard.num_bytes for placed in shards) for name, shards in self.buckets.items()
        }

    @functools.cached_property
    def _starts(self) -> dict[str, NDArray[np.int64]]:
        return {name: np.concatenate([np.zeros(1, np.int64), ends[:-1]]) for name, ends in self._ends.items()}

    @functools.cached_property
    def _ends(self) -> dict[str, NDArray[np.int64]]:
        return {
            name: np.cumsum([placed.shard.samples for placed in shards], dtype=np.int64)
            for name, shards in self.buckets.items()
        }

    def __len__(self) -> int:
        return sum(self.bucket_sizes.values())

    def __repr__(self) -> str:
        return f"<Manifest split={self.split!r} {self.bucket_sizes} {self.fingerprint[:8]}>"


def read_manifest(home: Storage) -> ManifestFile:
    """Read ``manifest.json`` at a root."""
    if not home.exists(MANIFEST):
        raise ArgumentError(
            f"There is no {MANIFEST} at {home.url}. Check the url; the command 'build' (build_dataset, write_shards) "
            "makes one with new shards, 'index' (index_shards) for existing tars."
        )
    return ManifestFile.from_bytes(read_all(home, MANIFEST), f"{home.url}/{MANIFEST}")


def _split(file: ManifestFile, split: str, home: Storage) -> Mapping[str, Bucket]:
    try:
        return file.splits[split]
    except KeyError:
        have = ", ".join(map(repr, file.splits)) or "none"
        raise ArgumentError(f"{home.url} has no split {split!r}. It has: {have}.") from None


def tars_of(home: Storage, file: ManifestFile, **options: Unpack[StorageOptions]) -> Storage:
    """Return where the tars of a manifest lie: beside it, or where it says."""
    return home if file.source is None else open_storage(file.source, **options)


def hull(found: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """Return the range that holds all ranges; what is not known of a part is not known of the whole."""
    known = [both for both in found if both is not None]
    if len(known) < len(found):
        return None
    return min(low for low, _ in known), max(high for _, high in known)


def _content(shards: Sequence[PlacedShard]) -> str:
    return _digest([[placed.shard.name, placed.shard.samples, placed.shard.digest] for placed in shards])


def _digest(told: object) -> str:
    return hashlib.blake2b(json.dumps(told, separators=(",", ":")).encode(), digest_size=16).hexdigest()
