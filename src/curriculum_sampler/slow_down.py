"""When a server asks one thread to slow down, all threads of the process hold back."""

from __future__ import annotations

import threading

from .retry import Budget


class SlowDown:
    """Holds back requests to one server after it has refused some.

    A refusal begins a pause, in which no request begins; bodies in flight go on. Its length is
    ``Retry.pause_seconds`` of the number of refusals in a row, and each thread returns at a moment of
    its own within half a pause more, so the first to return tries the server for all: refused
    again, it makes the others wait on without having asked. Each request that is served takes back one
    refusal. Requests that were under way when the pause began tell nothing new, and change nothing.

    Where nothing was refused, holding back costs a comparison of two numbers.

    >>> from curriculum_sampler.retry import Retry
    >>> passed = []
    >>> budget = Retry(clock=lambda: sum(passed), sleep=passed.append, jitter=lambda: 0.0).start()
    >>> slow_down = SlowDown()
    >>> slow_down.refused(budget, slow_down.hold(budget))
    >>> slow_down.hold(budget), passed
    (0.1, [0.1])
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refusals = 0
        self._pause = 0.0
        self._until = float("-inf")

    @property
    def is_on(self) -> bool:
        """Whether the server has refused more than it has served since."""
        return self._refusals > 0

    def hold(self, budget: Budget) -> float | None:
        """Wait until a request may begin, and return that moment; None if the deadline would pass before."""
        while True:
            now = budget.retry.clock()
            if now >= self._until:
                return now
            if not budget.wait(self._until - now + 0.5 * self._pause * budget.retry.jitter()):
                return None

    def refused(self, budget: Budget, began: float) -> None:
        """The server asked to slow down; ``began`` is what ``hold`` returned before the request."""
        with self._lock:
            if began < self._until:
                return
            self._pause = budget.retry.pause_seconds(self._refusals)
            self._refusals += 1
            self._until = budget.retry.clock() + self._pause

    def served(self, began: float) -> None:
        """The server did as it was asked."""
        if not self._refusals:
            return
        with self._lock:
            if began >= self._until and self._refusals:
                self._refusals -= 1
