"""Changing a data set that is there: names for new shards, and one replacement of the manifest at the end."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from .errors import ArgumentError
from .index import INDEX_SUFFIX
from .manifest import read_manifest
from .manifest_file import MANIFEST, ManifestFile, index_digest
from .storage import Storage, read_all

_NUMBERED = re.compile(r"(.*-)(\d{6,})\.tar")


def new_shard_names(file: ManifestFile, split: str, bucket: str) -> Iterator[str]:
    """Yield names for the next shards of a bucket, numbered on from the highest that any split lists.

    >>> next(new_shard_names(ManifestFile(), "train", "easy"))
    'train/easy/easy-000000.tar'
    """
    stem = f"{split}/{bucket}/{bucket}-"
    listed = (shard.name for told in file.splits.values() for one in told.values() for shard in one.shards)
    numbers = [int(found[2]) for name in listed if (found := _NUMBERED.fullmatch(name)) and found[1] == stem]
    return (f"{stem}{number:06}.tar" for number in itertools.count(max(numbers, default=-1) + 1))


def is_written(home: Storage, name: str, digest: str) -> bool:
    """Say whether a shard that no manifest lists was written before, by a call that was interrupted.

    Raises:
        ArgumentError: A file has this name that is something else; it is left alone.
    """
    if not home.exists(name):
        return False
    index = name + INDEX_SUFFIX
    if home.exists(index) and index_digest(read_all(home, index)) == digest:
        return True
    raise ArgumentError(
        f"{home.url}/{name} exists, but is not part of the data set: something else wrote it, or a call with other data "
        "was interrupted. Remove it, then try again."
    )


def write_shard(home: Storage, name: str, tar: bytes | bytearray, index: bytes) -> None:
    """Write a new shard. The index comes first: a tar without one would look like another's."""
    home.write(name + INDEX_SUFFIX, index)
    home.write(name, tar)


def replace_manifest(home: Storage, old: ManifestFile, new: ManifestFile) -> None:
    """Publish a manifest in place of the one that was read.

    Raises:
        ArgumentError: It is another one by now.
    """
    if read_manifest(home) != old:
        raise ArgumentError(f"{home.url}/{MANIFEST} was changed meanwhile. Try again, one change at a time.")
    home.write(MANIFEST, new.to_bytes())
