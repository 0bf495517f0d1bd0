"""Counting what reading costs, cheaply enough to be always on."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Report:
    """What was read, and how; reports of several processes add up.

    Attributes:
        num_bytes: Bytes that storages delivered, by bucket; indexes are left out.
        requests: Reads that delivered them, by bucket.
        hits: Samples that were at hand in the cache.
        misses: Samples that had to be fetched or waited for.
        retries: Requests made again, by cause.
        bad: Samples that could not be used.
    """

    num_bytes: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    hits: int = 0
    misses: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    bad: list[BadSample] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Add another report to this one."""
        self.num_bytes.update(other.num_bytes)
        self.requests.update(other.requests)
        self.hits += other.hits
        self.misses += other.misses
        self.retries.update(other.retries)
        self.bad += other.bad


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that could not be used: where it lies, and why; ``key`` if it could still be read."""

    bucket: str
    index: int
    reason: str


class Tally:
    """Counts by several threads; ``take`` returns what was counted since it was last called.

    >>> tally = Tally()
    >>> tally.fetched("easy", 100), tally.served(hits=3, misses=1)
    (None, None)
    >>> tally.take().num_bytes, tally.take().hits
    (Counter({'easy': 100}), 0)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._report = Report()

    def fetched(self, bucket: str, num_bytes: int, requests: int = 1) -> None:
        """Count reads."""
        with self._lock:
            self._report.num_bytes[bucket] += num_bytes
            self._report.requests[bucket] += requests

    def served(self, *, hits: int, misses: int) -> None:
        """Count samples handed out."""
        with self._lock:
            self._report.hits += hits
            self._report.misses += misses

    def take(self) -> Report:
        """Return what was counted, and begin anew."""
        with self._lock:
            report, self._report = self._report, Report()
        return report
