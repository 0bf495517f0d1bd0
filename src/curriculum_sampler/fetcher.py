"""Threads that fetch in order of need, each thing once however many ask for it."""

from __future__ import annotations

import atexit
import heapq
import itertools
import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

# A fetch that takes longer waits for the network more than it works, so that more of them at a time cost nothing.
_SLOW_SECONDS = 0.1

# How long the end of the process waits for what is in progress.
_GRACE_SECONDS = 5.0


class ClosedError(Exception):
    """What was asked for will not be fetched: the fetcher was closed."""


class Fetcher(Generic[Result]):
    """Threads before a queue. What is needed now overtakes what is needed later; the rest keeps its order.

    The threads begin with the first request and end with ``close`` or with the last reference to this object. After
    ``close`` nothing begins: who waits for it, or asks, is told ``ClosedError``. A failure belongs to those who wait for
    it: it is forgotten once reported, and the next request tries again.

    Args:
        threads: How many things are fetched at a time.
        threads_ahead: How many of these may fetch what nobody waits for yet, as long as fetches are quick: few are cheaper.
            Where they are slow, all may. Default: all always.
        clock: Injectable for tests.

    >>> fetcher = Fetcher(threads=2)
    >>> fetcher.ask("a", lambda: 7).result()
    7
    >>> fetcher.close()
    """

    def __init__(
        self, threads: int, threads_ahead: int | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._work: _Work[Result] = _Work(threads, threads if threads_ahead is None else threads_ahead, clock)
        # The threads know the work but not this object, so that it can end while they wait.
        self._finalizer = weakref.finalize(self, _Work.close, self._work)
        self._finalizer.atexit = False

    def ask(self, key: str, fetch: Callable[[], Result], *, ahead: bool = False) -> Future[Result]:
        """Return the future of what ``fetch`` returns; a request in progress for the same key is joined.

        Args:
            key: What is asked for.
            fetch: Called at most once, in one of the threads.
            ahead: Whether nobody waits for it yet.
        """
        return self._work.add(key, fetch, ahead)

    def has_begun(self, key: str) -> bool:
        """Say whether something is being fetched right now."""
        task = self._work.pending.get(key)
        return task is not None and task.has_begun

    def close(self) -> None:
        """Begin nothing more; what is in progress ends in its own time."""
        self._finalizer()


@dataclass(slots=True, eq=False)
class _Task(Generic[Result]):
    key: str
    fetch: Callable[[], Result]
    is_ahead: bool
    has_begun: bool = False
    future: Future[Result] = field(default_factory=Future)


class _Work(Generic[Result]):
    """What is asked for, shared by the threads that see to it."""

    def __init__(self, threads: int, threads_ahead: int, clock: Callable[[], float]) -> None:
        self.pending: dict[str, _Task[Result]] = {}
        self._threads = threads
        self._threads_ahead = threads_ahead
        self._clock = clock
        self._numbers = itertools.count()
        self._urgent: list[tuple[int, _Task[Result]]] = []
        self._ahead: list[tuple[int, _Task[Result]]] = []
        self._running_ahead = 0
        self._usual_seconds = 0.0
        self._is_closed = False
        self._lock = threading.RLock()
        # Idle threads wait for a bell, of which each ring wakes one. Not for a condition: a thread may drop the last
        # reference to its fetcher, or collect garbage, at any moment with the lock held, and so close the fetcher
        # itself just before it would wait. A ring is not lost then.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._idle = 0
        self.crew: list[threading.Thread] = []

    def add(self, key: str, fetch: Callable[[], Result], ahead: bool) -> Future[Result]:
        with self._lock:
            if self._is_closed:
                closed: Future[Result] = Future()
                closed.set_exception(ClosedError())
                return closed
            task = self.pending.get(key)
            if task is None:
                task = self.pending[key] = _Task(key, fetch, is_ahead=True)
                if ahead:
                    heapq.heappush(self._ahead, (next(self._numbers), task))
                    self._wake(1)
            if task.is_ahead and not ahead and not task.has_begun:
                task.is_ahead = False
                heapq.heappush(self._urgent, (next(self._numbers), task))
                self._wake(1)
            if not self.crew:
                self._begin()
            return task.future

    def _begin(self) -> None:
        _BEGUN.add(self)
        self.crew = [
            threading.Thread(target=self.run, name="fetch", daemon=True) for _ in range(self._threads)
        ]
        for thread in self.crew:
            thread.start()

    def run(self) -> None:
        """What a thread does."""
        while True:
            task = self._next()
            if task is None:
                return
            began = self._clock()
            try:
                result = task.fetch()
            except BaseException as error:
                self._end(task, began)
                task.future.set_exception(error)
            else:
                self._end(task, began)
                task.future.set_result(result)
                del result  # or this thread would keep it alive while it waits
            del task

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            dropped = [task for task in self.pending.values() if not task.has_begun]
            for task in dropped:
                del self.pending[task.key]
        for _ in range(self._threads):
            self._bell.put(None)
        for task in dropped:
            task.future.set_exception(ClosedError())

    def _next(self) -> _Task[Result] | None:
        """Return the next task when one may begin, or None when none will."""
        while True:
            with self._lock:
                if self._is_closed:
                    return None
                task = self._pop(self._urgent)
                if task is None and self._running_ahead < self._most_ahead:
                    task = self._pop(self._ahead)
                if task is not None:
                    task.has_begun = True
                    self._running_ahead += task.is_ahead
                    return task
                self._idle += 1
            self._bell.get()

    def _wake(self, threads: int) -> None:
        for _ in range(min(threads, self._idle)):
            self._idle -= 1
            self._bell.put(None)

    @property
    def _most_ahead(self) -> int:
        return self._threads if self._usual_seconds > _SLOW_SECONDS else self._threads_ahead

    @staticmethod
    def _pop(tasks: list[tuple[int, _Task[Result]]]) -> _Task[Result] | None:
        while tasks:
            _, task = heapq.heappop(tasks)
            if not task.has_begun:  # what became urgent stands in both lists
                return task
        return None

    def _end(self, task: _Task[Result], began: float) -> None:
        with self._lock:
            self.pending.pop(task.key, None)
            self._running_ahead -= task.is_ahead
            self._usual_seconds += 0.3 * (self._clock() - began - self._usual_seconds)
            self._wake(self._idle)


_BEGUN: weakref.WeakSet[_Work[Any]] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Let the threads of a process that ends come to an end by themselves.

    Those still there are stopped by force, and one that is in C++ code then, such as torch's, aborts the process.
    """
    # After a fork the threads are the parent's, and what they had locked stays locked.
    running = [work for work in _BEGUN if any(thread.is_alive() for thread in work.crew)]
    for work in running:
        work.close()
    latest = time.monotonic() + _GRACE_SECONDS
    for thread in (thread for work in running for thread in work.crew):
        thread.join(max(0.0, latest - time.monotonic()))
