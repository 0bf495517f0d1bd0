"""When to try again, and when to stop: bounded attempts, bounded time, random pauses."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from .errors import ArgumentError

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

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ArgumentError(
                f"max_attempts={self.max_attempts!r} must be at least 1: the first attempt counts."
            )
        if not self.deadline_seconds > 0:
            raise ArgumentError(
                f"deadline_seconds={self.deadline_seconds!r} must be above 0, else nothing could be asked for. "
                "Leave it out for the default."
            )
        if not 0 <= self.first_pause_seconds <= self.longest_pause_seconds:
            raise ArgumentError(
                f"first_pause_seconds={self.first_pause_seconds!r} must lie between 0 and "
                f"longest_pause_seconds={self.longest_pause_seconds!r}."
            )

    def start(self, extra_seconds: float = 0.0) -> Budget:
        """Begin an operation: its clock runs from now, to the deadline and ``extra_seconds`` beyond."""
        return Budget(self, extra_seconds)

    def pause_seconds(self, failures: int) -> float:
        """Length of the pause after so many failures in a row (from 0), drawn anew each time."""
        # Beyond 2**64 no pause is shorter than the longest; floats would overflow.
        longest = min(self.longest_pause_seconds, self.first_pause_seconds * 2.0 ** min(failures, 64))
        return longest * (0.5 + 0.5 * self.jitter())


class Budget:
    """What is left for one operation.

    >>> passed = []
    >>> budget = Retry(max_attempts=3, sleep=passed.append, jitter=lambda: 1.0).start()
    >>> budget.pause(), budget.pause(), budget.pause(), passed
    (True, True, False, [0.2, 0.4])
    """

    def __init__(self, retry: Retry, extra_seconds: float = 0.0) -> None:
        self.retry = retry
        self._started = retry.clock()
        self._deadline = self._started + retry.deadline_seconds + extra_seconds
        self._in_a_row = 0
        self.attempts = 1

    def pause(self) -> bool:
        """After a failure: wait and return True, or return False when the budget is spent."""
        seconds = self.retry.pause_seconds(self._in_a_row)
        self._in_a_row += 1
        if self._in_a_row >= self.retry.max_attempts or not self.wait(seconds):
            return False
        self.attempts += 1
        return True

    def wait(self, seconds: float) -> bool:
        """Wait and return True, or return False at once if the deadline would pass meanwhile."""
        if seconds >= self.left:
            return False
        self.retry.sleep(seconds)
        return True

    def progressed(self) -> None:
        """Bytes arrived: the next failure is the first of a new row."""
        self._in_a_row = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the operation began."""
        return self.retry.clock() - self._started

    @property
    def left(self) -> float:
        """Seconds until the deadline; negative when it has passed."""
        return self._deadline - self.retry.clock()

    @property
    def is_late(self) -> bool:
        """Whether the deadline has passed, so that even a trickling body must be given up."""
        return self.left <= 0
