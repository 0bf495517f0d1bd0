"""What a data set tells of its difficulty, beside the manifest: the rule of the cut, and a line for every sample.

``difficulty.json`` is the rule. ``train/difficulty-000000.jsonl`` and its successors hold lines such as
``{"key": "0007", "bucket": "easy", "index": 12, "score": 0.31, "signals": {"area": 0.4}}`` in the order of the source;
``index`` is the sample's number in its bucket, as a draw names it. Quarantined samples have neither bucket nor index.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Unpack

from .difficulty_rule import DifficultyRule
from .errors import ArgumentError
from .locations import Location, StorageOptions, open_storage
from .storage import Storage, read_all

RULE = "difficulty.json"

# Lines in a file; only the last of a split has fewer, so that its end is known however many files lie there.
_LINES = 100_000


def write_difficulties(home: Storage, split: str, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a line for each sample of a split."""
    coming = iter(lines)
    for number in itertools.count():
        told = [json.dumps(line, separators=(",", ":")) for line in itertools.islice(coming, _LINES)]
        home.write(_name(split, number), "".join(f"{line}\n" for line in told).encode())
        if len(told) < _LINES:
            return


def read_difficulties(home: Storage, split: str = "train") -> Iterator[dict[str, Any]]:
    """Yield the line of each sample of a split.

    Raises:
        ArgumentError: The split was not written by ``build_dataset``.
        StorageError: A file cannot be read.

    >>> from curriculum_sampler.memory_storage import MemoryStorage
    >>> home = MemoryStorage()
    >>> write_difficulties(home, "train", [{"key": "0007", "bucket": "easy", "index": 0}])
    >>> list(read_difficulties(home))
    [{'key': '0007', 'bucket': 'easy', 'index': 0}]
    """
    if not home.exists(_name(split, 0)):
        raise ArgumentError(
            f"{home.url} tells no difficulties of split {split!r}: there is no {_name(split, 0)}. build_dataset writes them."
        )
    for number in itertools.count():
        lines = read_all(home, _name(split, number)).splitlines()
        yield from map(json.loads, lines)
        if len(lines) < _LINES:
            return


def read_rule(location: Location, **options: Unpack[StorageOptions]) -> DifficultyRule:
    """Return the rule of a data set, named by its root or by the file itself.

    Raises:
        ArgumentError: There is none.
    """
    if isinstance(location, str | os.PathLike):
        text = os.fspath(location)
        location = text.removesuffix(RULE).rstrip("/") or "." if text.endswith(RULE) else text
    home = open_storage(location, **options)
    if not home.exists(RULE):
        raise ArgumentError(
            f"There is no {RULE} at {home.url}. Name a data set that build_dataset cut by score."
        )
    return DifficultyRule.from_bytes(read_all(home, RULE), f"{home.url}/{RULE}")


def _name(split: str, number: int) -> str:
    return f"{split}/difficulty-{number:06}.jsonl"
