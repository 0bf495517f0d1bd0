"""The scores of all samples of a listing: columns in memory, and a journal from which they come back after a kill."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checksum import checksum
from .difficulty_rule import NamedColumn
from .engine import Engine
from .errors import ArgumentError
from .journal import Journal
from .keys import digest
from .listing import Listing
from .score_tasks import ScoreTask, ScoreWork, score
from .source import Entry

_GROUP = "group"


class ScoredListing:
    """Signals, names and groups of every sample. A value takes 8 bytes, a name 4, a group 8: quantiles are exact.

    Attributes:
        signals: Signal -> a value for each sample.
        names: ``category``, ``label``, ``split`` -> a name for each sample, for those that are used.
        groups: What identifies each sample's group; where there are none, the sample.
        scored: Samples that this call scored; the others were found in the journal.
    """

    def __init__(
        self, path: Path, listing: Listing, work: ScoreWork, engine: Engine, told: Callable[[int, int], None]
    ) -> None:
        self._listing = listing
        self._per_task = work.samples_per_task
        size = len(listing)
        self._is_begun = False
        self.signals: dict[str, NDArray[np.float64]] = {}
        self._codes = {name: np.zeros(size, np.int32) for name in work.scoring.fields if name != _GROUP}
        self._names: dict[str, dict[str, int]] = {name: {} for name in self._codes}
        has_groups = _GROUP in work.scoring.fields
        self.groups = np.zeros(size, np.uint64) if has_groups else listing.hashes
        self.scored = 0
        self._places = array("q", [-1]) * -(-size // self._per_task)
        self._journal = Journal(path)
        done = num_bytes = 0
        for place, (first, content, samples) in self._journal.lines():
            if first % self._per_task or content != self._content(first):
                continue  # the source was changed since
            self._note(place, first, samples)
            done += len(samples)
            num_bytes += int(listing.num_bytes[first : first + len(samples)].sum())
        told(done, num_bytes)
        with closing(engine.run(score, work, self._tasks())) as scored:
            for task, samples in scored:
                line = [task.first, digest(task.entries), samples]
                self._note(self._journal.append(line), task.first, samples)
                self.scored += len(samples)
                done += len(samples)
                num_bytes += sum(entry.num_bytes for entry in task.entries)
                told(done, num_bytes)
        self.names = {name: self._column(name) for name in self._codes}

    @property
    def identity(self) -> str:
        """Names the samples with all that is known of them."""
        content = hashlib.blake2b(self._listing.identity.encode(), digest_size=16)
        for name, values in self.signals.items():
            content.update(name.encode() + values.tobytes())
        for name, column in self.names.items():
            content.update(f"{name}{column.names}".encode() + column.codes.tobytes())
        content.update(self.groups.tobytes())
        return content.hexdigest()

    def told(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each sample's key and what the journal holds of it, in the order of the listing."""
        for number, place in enumerate(self._places):
            _, _, samples = self._journal.read(place)
            for entry, sample in zip(self._entries(number * self._per_task), samples, strict=True):
                yield entry.key, sample

    def group(self, number: int) -> str:
        """Return a sample's group, for messages."""
        _, _, samples = self._journal.read(self._places[number // self._per_task])
        return str(samples[number % self._per_task][_GROUP])

    def close(self) -> None:
        """Close the file."""
        self._journal.close()

    def _tasks(self) -> Iterator[ScoreTask]:
        for number, place in enumerate(self._places):
            if place < 0:
                first = number * self._per_task
                yield ScoreTask(first, self._entries(first))

    def _entries(self, first: int) -> tuple[Entry, ...]:
        return self._listing.row(first, min(first + self._per_task, len(self._listing)))

    def _content(self, first: int) -> str:
        return digest(self._entries(first))

    def _note(self, place: int, first: int, samples: list[dict[str, Any]]) -> None:
        if not self._is_begun:
            self._is_begun = True
            self.signals = {
                name: np.full(len(self._listing), np.nan) for name in sorted(samples[0]["signals"])
            }
        for number, sample in enumerate(samples, first):
            signals = sample["signals"]
            if signals.keys() != self.signals.keys():
                raise ArgumentError(
                    f"Sample {self._listing.entry(number).key!r} has the scores {', '.join(sorted(signals)) or 'none'}, another "
                    f"has {', '.join(self.signals) or 'none'}. Give every sample the same ones."
                )
            for name, value in signals.items():
                self.signals[name][number] = value
            for name, codes in self._codes.items():
                known = self._names[name]
                codes[number] = known.setdefault(sample[name], len(known))
            if _GROUP in sample:
                self.groups[number] = checksum(sample[_GROUP].encode())
        self._places[first // self._per_task] = place

    def _column(self, name: str) -> NamedColumn:
        """Return a column with its names in order, whatever the order in which they were met."""
        names = sorted(self._names[name])
        renumbered = np.empty(len(names), np.int32)
        for code, told in enumerate(names):
            renumbered[self._names[name][told]] = code
        return NamedColumn(tuple(names), renumbered[self._codes[name]])
