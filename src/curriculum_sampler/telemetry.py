"""What a loader has done so far: waits, bytes, requests, retries, replaced samples."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from .tally import Report

# Waits that the percentiles rest on: the latest ones.
_REMEMBERED_WAITS = 10_000


class Telemetry:
    """Adds up reports and waits; ``stats`` makes a plain dict of them.

    >>> telemetry = Telemetry()
    >>> telemetry.waited(0.5)
    >>> telemetry.stats()["batches"], telemetry.stats()["wait_seconds"]["total"]
    (1, 0.5)
    """

    def __init__(self) -> None:
        self._waits: deque[float] = deque(maxlen=_REMEMBERED_WAITS)
        self._batches = 0
        self._total = self._longest = 0.0
        self._read = Report()

    def waited(self, seconds: float) -> None:
        """Take note of the time that the training loop waited for a batch."""
        self._waits.append(seconds)
        self._batches += 1
        self._total += seconds
        self._longest = max(self._longest, seconds)

    def add(self, report: Report) -> None:
        """Take note of what reading has cost."""
        self._read.add(report)

    def stats(self) -> dict[str, Any]:
        """Return everything as numbers, strings, dicts and lists."""
        waits = np.array(self._waits or [0.0])
        read = self._read
        return {
            "batches": self._batches,
            "wait_seconds": {
                "last": float(waits[-1]),
                "median": float(np.quantile(waits, 0.5)),
                "p99": float(np.quantile(waits, 0.99)),
                "longest": self._longest,
                "total": self._total,
            },
            "bytes": dict(read.num_bytes),
            "requests": dict(read.requests),
            "cache": {"hits": read.hits, "misses": read.misses},
            "retries": dict(read.retries),
        }
