"""``manifest.json``: what a data set holds, as written at its root.

    {"format": "curriculum-sampler", "version": 1, "source": null,
     "splits": {"train": {"easy": {"difficulty": [0.0, 0.3],
                                   "shards": [{"name": "train/easy/easy-000000.tar", "samples": 500,
                                               "bytes": 8388608, "index": "9f31..."}]}}}}

``source`` names the root of the tars when they lie elsewhere (they were indexed from a place that
cannot be written to). ``index`` is the BLAKE2b-128 of the shard's index, which holds the checksums of
its samples, so the digest stands for the shard's content. No ETag is kept: a copy of a data set is
the same data set, although its store gives it other ETags.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ArgumentError, ShardError
from .storage import check_key

MANIFEST = "manifest.json"

_FORMAT = "curriculum-sampler"
_VERSION = 1


def index_digest(index: bytes) -> str:
    """Return the digest by which a manifest knows an index file."""
    return hashlib.blake2b(index, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar of samples of one bucket.

    Attributes:
        name: Its key below the data set's root (or below ``source``).
        samples: Number of samples, at least 1.
        num_bytes: Length of the tar.
        digest: ``index_digest`` of its index.
    """

    name: str
    samples: int
    num_bytes: int
    digest: str

    def __post_init__(self) -> None:
        _text(self.name, "a shard's name")
        check_key(self.name)
        _count(self.samples, f"samples of shard {self.name!r}")
        _count(self.num_bytes, f"bytes of shard {self.name!r}")
        if len(_text(self.digest, "a digest")) != 32 or not set(self.digest) <= set("0123456789abcdef"):
            raise ArgumentError(f"Shard {self.name!r}: its digest must be 32 hexadecimal digits.")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A named set of samples of like difficulty: its shards in order, at least one."""

    shards: tuple[Shard, ...]
    difficulty: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.shards:
            raise ArgumentError("A bucket has no shards. Give it samples, or leave it out.")
        names = [shard.name for shard in self.shards]
        twice = (
            next((name for name in names if names.count(name) > 1), None)
            if len(set(names)) < len(names)
            else None
        )
        if twice is not None:
            raise ArgumentError(f"Shard {twice!r} is listed twice in one bucket. List it once.")
        if self.difficulty is not None:
            low, high = self.difficulty
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ArgumentError(f"difficulty={self.difficulty!r} must be (lowest, highest), both finite.")


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """The whole of ``manifest.json``.

    Attributes:
        splits: Split name -> bucket name -> bucket.
        source: Url of the root of the tars, if it is another than the manifest's own.
    """

    splits: Mapping[str, Mapping[str, Bucket]] = field(default_factory=dict)
    source: str | None = None

    def __post_init__(self) -> None:
        for split, buckets in self.splits.items():
            check_name(split, "split")
            if not buckets:
                raise ArgumentError(f"Split {split!r} has no buckets. Give it samples, or leave it out.")
            for bucket in buckets:
                check_name(bucket, "bucket")

    def with_split(self, split: str, buckets: Mapping[str, Bucket]) -> ManifestFile:
        """Return a manifest that has these buckets as ``split``, and all else as before."""
        return ManifestFile({**self.splits, split: dict(buckets)}, self.source)

    def without_split(self, split: str) -> ManifestFile:
        """Return a manifest without ``split``."""
        return ManifestFile({name: told for name, told in self.splits.items() if name != split}, self.source)

    def to_bytes(self) -> bytes:
        """Return the file's text, the same for equal manifests."""
        splits = {
            split: {name: _written(bucket) for name, bucket in sorted(buckets.items())}
            for split, buckets in sorted(self.splits.items())
        }
        told = {"format": _FORMAT, "version": _VERSION, "source": self.source, "splits": splits}
        return json.dumps(told, indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, url: str) -> ManifestFile:
        """Read the file; ``url`` is for messages.

        Raises:
            ShardError: It is not JSON, not a manifest, of a newer version, or breaks a rule.
        """
        try:
            told = json.loads(data)
        except ValueError as error:
            raise ShardError(f"{url} is not JSON ({error}). Write or index the data set again.") from None
        if not isinstance(told, dict) or told.get("format") != _FORMAT:
            raise ShardError(
                f"{url} is not a manifest of {_FORMAT}. Check the url, or make one with index_shards(...)."
            )
        if told.get("version") != _VERSION:
            raise ShardError(
                f"{url} has format version {told.get('version')!r}, this library reads {_VERSION}. "
                "Upgrade curriculum-sampler, or index the data set again."
            )
        try:
            source = told.get("source")
            splits = {
                split: {name: _read(bucket) for name, bucket in _mapping(buckets, f"split {split!r}").items()}
                for split, buckets in _mapping(told.get("splits"), "splits").items()
            }
            return cls(splits, None if source is None else _text(source, "source"))
        except (ArgumentError, KeyError, TypeError, ValueError) as error:
            raise ShardError(f"{url} breaks a rule: {error}. Write or index the data set again.") from error


def check_name(name: str, what: str) -> str:
    """Return the name of a bucket or split if it can be part of a shard's name.

    >>> check_name("very_easy", "bucket")
    'very_easy'
    """
    allowed = isinstance(name, str) and all(char.isalnum() or char in "_-+." for char in name)
    if not allowed or not name or name.startswith("."):
        raise ArgumentError(
            f"{what.capitalize()} name {name!r} must be letters, digits and '_', '-', '+', '.', not beginning "
            "with '.', since it is part of file names. Rename it."
        )
    return name


def _written(bucket: Bucket) -> dict[str, Any]:
    shards = [
        {"name": shard.name, "samples": shard.samples, "bytes": shard.num_bytes, "index": shard.digest}
        for shard in bucket.shards
    ]
    difficulty = {} if bucket.difficulty is None else {"difficulty": list(bucket.difficulty)}
    return {**difficulty, "shards": shards}


def _read(told: Any) -> Bucket:
    bucket = _mapping(told, "a bucket")
    shards = tuple(
        Shard(shard["name"], shard["samples"], shard["bytes"], shard["index"])
        for shard in (_mapping(entry, "a shard") for entry in bucket["shards"])
    )
    difficulty = bucket.get("difficulty")
    if difficulty is None:
        return Bucket(shards)
    low, high = difficulty
    return Bucket(shards, (float(low), float(high)))


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ArgumentError(f"{what} must be an object, not {type(value).__name__}")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise ArgumentError(f"{what} must be text, not {value!r}")
    return value


def _count(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ArgumentError(f"{what} must be a whole number of at least 1, not {value!r}")
    return value
