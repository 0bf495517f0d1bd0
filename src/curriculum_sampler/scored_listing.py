"""The scores of all samples of a listing: columns in memory, and a journal from which they come back after a kill."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
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
from .task_size import TaskSize

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
        self,
        journal: Journal,
        listing: Listing,
        work: ScoreWork,
        engine: Engine,
        told: Callable[[int, int], None],
    ) -> None:
        self._listing = listing
        self._unit = work.scoring.samples_together
        size = len(listing)
        self._is_begun = False
        self.signals: dict[str, NDArray[np.float64]] = {}
        self._codes = {name: np.zeros(size, np.int32) for name in work.scoring.fields if name != _GROUP}
        self._names: dict[str, dict[str, int]] = {name: {} for name in self._codes}
        has_groups = _GROUP in work.scoring.fields
        self.groups = np.zeros(size, np.uint64) if has_groups else listing.hashes
        self.scored = 0
        self._is_known = np.zeros(size, np.bool_)
        self._places: dict[int, int] = {}  # the first sample of a line -> where the line begins
        self._journal = journal
        done = num_bytes = 0
        for place, (first, content, samples) in journal.lines():
            stop = first + len(samples)
            if self._is_missing(first, stop) and content == digest(listing.row(first, stop)):
                self._note(place, first, samples)
                done += len(samples)
                num_bytes += int(listing.num_bytes[first:stop].sum())
        told(done, num_bytes)
        task_size = TaskSize(self._unit)
        with closing(engine.run(score, work, self._tasks(task_size))) as scored:
            for task, (samples, seconds) in scored:
                task_size.learn(len(samples), seconds)
                line = [task.first, digest(task.entries), samples]
                self._note(journal.append(line), task.first, samples)
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
        for first, place in sorted(self._places.items()):
            _, _, samples = self._journal.read(place)
            entries = self._listing.row(first, first + len(samples))
            for entry, sample in zip(entries, samples, strict=True):
                yield entry.key, sample

    def group(self, number: int) -> str:
        """Return a sample's group, for messages."""
        first = max(first for first in self._places if first <= number)
        _, _, samples = self._journal.read(self._places[first])
        return str(samples[number - first][_GROUP])

    def _is_missing(self, first: int, stop: int) -> bool:
        """Whether samples are there, whole batches of them, and nothing is known of them."""
        size = len(self._listing)
        is_whole = stop == size or (stop < size and stop % self._unit == 0)
        return is_whole and not self._is_known[first:stop].any()

    def _tasks(self, task_size: TaskSize) -> Iterator[ScoreTask]:
        edges = np.flatnonzero(np.diff(self._is_known, prepend=True, append=True)).tolist()
        for first, end in zip(edges[::2], edges[1::2], strict=True):
            while first < end:
                stop = min(first + task_size.samples, end)
                yield ScoreTask(first, self._listing.row(first, stop))
                first = stop

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
        self._is_known[first : first + len(samples)] = True
        self._places[first] = place

    def _column(self, name: str) -> NamedColumn:
        """Return a column with its names in order, whatever the order in which they were met."""
        names = sorted(self._names[name])
        renumbered = np.empty(len(names), np.int32)
        for code, told in enumerate(names):
            renumbered[self._names[name][told]] = code
        return NamedColumn(tuple(names), renumbered[self._codes[name]])
