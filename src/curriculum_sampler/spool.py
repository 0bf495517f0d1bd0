"""Samples that can be read only once, from first to last, set down as local tars that can be read in any order."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .encode import encode_members
from .errors import ArgumentError
from .local_storage import LocalStorage
from .source import check_entry_key
from .tar_source import TarSource
from .tar_writer import TarBuilder, pack

_TAR_BYTES = 64 << 20


@dataclass(frozen=True)
class SpooledSource(TarSource):
    """Samples that were set down; known by what they hold, wherever they came from."""

    content: str = ""

    @property
    def identity(self) -> str:
        return f"samples {self.content}"


def spool(samples: Iterable[Mapping[str, Any]], folder: Path) -> SpooledSource:
    """Set samples down in a folder; the same samples are set down there only once.

    A call that is interrupted begins anew, since nobody can tell where an iterable stood.

    Raises:
        ArgumentError: A sample that ``write_shards`` would not take, or none at all.
        StorageError: The folder cannot be written to.

    >>> import tempfile
    >>> source = spool([{"__key__": "a", "cls": 3}], Path(tempfile.mkdtemp()))
    >>> [source.read(entry) for entry in source.entries()]
    [{'__key__': 'a', 'cls': b'3'}]
    """
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    home = LocalStorage(unfinished)
    content = hashlib.blake2b(digest_size=16)
    try:
        for number, builder in enumerate(_filled(samples)):
            tar, index = builder.finish()
            home.write(f"{number:06}.tar", tar)
            content.update(index.to_bytes())
        if not unfinished.exists():
            raise ArgumentError("The source has no samples. Give it some.")
        finished = folder / content.hexdigest()
        if not finished.exists():
            unfinished.rename(finished)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    home = LocalStorage(finished)
    return SpooledSource(home, tuple(home.list()), content.hexdigest())


def _filled(samples: Iterable[Mapping[str, Any]]) -> Iterator[TarBuilder]:
    builder = TarBuilder()
    seen: set[str] = set()  # of one tar; those of all are compared when they are listed
    for number, sample in enumerate(samples):
        where = f"Sample {number} of the source"
        if not isinstance(sample, Mapping):
            raise ArgumentError(f"{where}: it must be a mapping, not a {type(sample).__name__}.")
        key = check_entry_key(sample.get("__key__"), where)
        if key in seen:
            raise ArgumentError(
                f"{where} has the key {key!r}, as one before it has. Keys must be unique in a data set: rename one."
            )
        seen.add(key)
        builder.add(pack(key, encode_members(where, key, sample)))
        if builder.num_bytes >= _TAR_BYTES:
            yield builder
            builder, seen = TarBuilder(), set()
    if len(builder):
        yield builder
