"""Shards as tasks: whoever writes one, whenever, writes the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .encode import encode_members
from .manifest_file import Shard
from .sample_reading import read_samples
from .shard_writer import write_shard
from .source import Entry, Source
from .storage import Storage
from .tar_writer import TarBuilder, pack

# Samples read at a time, some of them by several threads.
_SAMPLES = 64


class ShardTask(NamedTuple):
    """Shard ``number`` of a bucket of a split, and its samples in order."""

    split: str
    bucket: str
    number: int
    entries: tuple[Entry, ...]

    @property
    def name(self) -> str:
        """The tar's key at the destination."""
        return shard_name(self.split, self.bucket, self.number)


def shard_name(split: str, bucket: str, number: int) -> str:
    """Return the key of a shard's tar.

    >>> shard_name("train", "easy", 3)
    'train/easy/easy-000003.tar'
    """
    return f"{split}/{bucket}/{bucket}-{number:06}.tar"


@dataclass(frozen=True)
class ShardWork:
    """What all tasks of writing share."""

    source: Source
    destination: Storage
    require: Sequence[str]


def write(work: ShardWork, task: ShardTask) -> Shard:
    """Read the samples of a shard, and write its tar and index; the bytes of members stay as they are."""
    builder = TarBuilder()
    for start in range(0, len(task.entries), _SAMPLES):
        for sample in read_samples(work.source, task.entries[start : start + _SAMPLES], work.require):
            key = sample["__key__"]
            builder.add(pack(key, encode_members(work.source.identity, key, sample)))
    return write_shard(work.destination, task.name, builder)
