"""When to try again, and when to stop: bounded attempts, bounded time, random pauses."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

# Own source of randomness: the caller's seeded generators are never touched.
_SYSTEM = random.SystemRandom()


def _jitter() -> float:
    return _SYSTEM.random()


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A budget for one operation.

    Pause ``k`` (from 0) lasts between half of and the whole of ``first_pause_seconds * 2**k``,
    never more than ``longest_pause_seconds``, so that many workers that failed together do not
    return together. Progress (bytes received) resets the count of attempts but not the deadline.

    Attributes:
        max_attempts: Attempts in a row without progress, at least 1.
        deadline_seconds: No attempt begins later than this after the first one.
        clock, sleep, jitter: Injectable, so that tests pass hours in no time.
    """

    max_attempts: int = 6
    deadline_seconds: float = 120.0
    first_pause_seconds: float = 0.2
    longest_pause_seconds: float = 8.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = _jitter

    def start(self) -> Budget:
        """Begin an operation: its clock runs from now."""
        return Budget(self)


class Budget:
    """What is left for one operation.

    >>> passed = []
    >>> budget = Retry(max_attempts=3, sleep=passed.append, jitter=lambda: 1.0).start()
    >>> budget.pause(), budget.pause(), budget.pause(), passed
    (True, True, False, [0.2, 0.4])
    """

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._started = retry.clock()
        self._in_a_row = 0
        self.attempts = 1

    def pause(self) -> bool:
        """After a failure: wait and return True, or return False when the budget is spent."""
        retry = self._retry
        longest = min(retry.longest_pause_seconds, retry.first_pause_seconds * 2**self._in_a_row)
        seconds = longest * (0.5 + 0.5 * retry.jitter())
        self._in_a_row += 1
        if self._in_a_row >= retry.max_attempts or self.elapsed + seconds >= retry.deadline_seconds:
            return False
        retry.sleep(seconds)
        self.attempts += 1
        return True

    def progressed(self) -> None:
        """Bytes arrived: the next failure is the first of a new row."""
        self._in_a_row = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the operation began."""
        return self._retry.clock() - self._started

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed, so that even a trickling body must be given up."""
        return self.elapsed >= self._retry.deadline_seconds
