"""All samples of a source, listed once into a local file, and found again by number."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .checksum import checksum
from .errors import ArgumentError
from .journal import Journal
from .source import Entry, Source, check_entry_key

_TOLD_EVERY = 1000
_END = b"\nnull\n"


class Listing:
    """The entries of a source, in its order, with three numbers each in memory.

    Args:
        journal: Keeps the listing. A whole one is used again if the source says that it ``is_fixed``: that what it
            holds is told by its identity.
        source: What to list.
        told: Called now and then with how many samples and bytes have been listed.

    Raises:
        ArgumentError: A key that is there twice or cannot be one, or no samples.
    """

    def __init__(
        self,
        journal: Journal,
        source: Source,
        told: Callable[[int, int], None] = lambda samples, num_bytes: None,
    ) -> None:
        self._starts, self._lengths, self._hashes = array("q"), array("q"), array("Q")
        self._journal = journal
        if not getattr(source, "is_fixed", False) or not _is_whole(journal.path):
            journal.clear()
        for start, line in self._journal.lines():
            if line is not None:
                self._note(start, _entry(line))
        if not self._starts:
            self._list(source, told)
        self.num_bytes = np.array(self._lengths, np.int64)
        self.hashes = np.array(self._hashes, np.uint64)

    def __len__(self) -> int:
        return len(self._starts)

    def entry(self, number: int) -> Entry:
        """Return one entry."""
        return _entry(self._journal.read(self._starts[number]))

    def entries(self, numbers: Iterable[int]) -> tuple[Entry, ...]:
        """Return several entries."""
        return tuple(self.entry(number) for number in numbers)

    def row(self, first: int, stop: int) -> tuple[Entry, ...]:
        """Return the entries ``first ... stop - 1``."""
        return tuple(_entry(line) for line in self._journal.read_row(self._starts[first], stop - first))

    @property
    def identity(self) -> str:
        """Names all that was listed."""
        content = hashlib.blake2b(digest_size=16)
        with open(self._journal.path, "rb") as file:
            while piece := file.read(1 << 20):
                content.update(piece)
        return content.hexdigest()

    def _list(self, source: Source, told: Callable[[int, int], None]) -> None:
        total = 0
        for number, entry in enumerate(source.entries(), 1):
            check_entry_key(entry.key, source.identity)
            if entry.num_bytes < 0:
                raise ArgumentError(
                    f"Sample {entry.key!r} has num_bytes={entry.num_bytes}. Correct the source."
                )
            self._note(self._journal.append([entry.key, list(entry.place), entry.num_bytes]), entry)
            total += entry.num_bytes
            if number % _TOLD_EVERY == 0:
                told(number, total)
        if not self._starts:
            raise ArgumentError(
                f"There are no samples in {source.identity}. Check the place and the file names."
            )
        self._refuse_twins(source)
        self._journal.append(None)
        told(len(self), total)

    def _note(self, start: int, entry: Entry) -> None:
        self._starts.append(start)
        self._lengths.append(entry.num_bytes)
        self._hashes.append(checksum(entry.key.encode()))

    def _refuse_twins(self, source: Source) -> None:
        hashes = np.array(self._hashes, np.uint64)
        order = np.argsort(hashes, kind="stable")
        # Equal hashes are most likely equal keys; if not, two samples would share a split, which does no harm.
        for place in np.flatnonzero(hashes[order][1:] == hashes[order][:-1]).tolist():
            first, second = self.entries(order[place : place + 2].tolist())
            if first.key == second.key:
                raise ArgumentError(
                    f"{source.identity} has the key {first.key!r} twice: {_where(first)} and {_where(second)}. Keys must "
                    "be unique in a data set: rename one."
                )


def _entry(line: Any) -> Entry:
    key, place, num_bytes = line
    return Entry(key, tuple(place), num_bytes)


def _is_whole(path: Path) -> bool:
    """Whether the line that ends a listing is there."""
    try:
        with open(path, "rb") as file:
            file.seek(-len(_END), os.SEEK_END)
            return file.read() == _END
    except OSError:
        return False


def _where(entry: Entry) -> str:
    return " ".join(map(str, entry.place)) or "a sample"
