"""Time that passes when all threads sleep, so that many can be watched for hours in a moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence


class VirtualTime:
    """A clock and a sleep for the threads that ``run`` starts.

    When every thread that is left sleeps, time jumps to the moment at which the first of them wakes.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._awake = 0
        self._turn = threading.Condition()
        self._sleepers: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._turn:
            until = self.now + max(0.0, seconds)
            self._sleepers.append(until)
            self._leave()
            while self.now < until:
                self._turn.wait()

    def run(self, calls: Sequence[Callable[[], None]]) -> None:
        """Call all at the same time, and return when all have ended."""
        self._awake = len(calls)
        threads = [threading.Thread(target=self._through, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _through(self, call: Callable[[], None]) -> None:
        try:
            call()
        finally:
            with self._turn:
                self._leave()

    def _leave(self) -> None:
        self._awake -= 1
        if self._awake == 0 and self._sleepers:
            self.now = max(self.now, min(self._sleepers))
            self._awake = sum(until <= self.now for until in self._sleepers)
            self._sleepers = [until for until in self._sleepers if until > self.now]
            self._turn.notify_all()
