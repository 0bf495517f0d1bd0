"""Threads that fetch in order of need, each thing once however many ask for it."""

from __future__ import annotations

import itertools
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")

_URGENT, _AHEAD = 0, 1


class ClosedError(Exception):
    """What was asked for will not be fetched: the fetcher was closed."""


class Fetcher(Generic[Result]):
    """A few threads before a queue. What is needed now overtakes what is needed later; the rest keeps its order.

    Args:
        threads: How many things are fetched at a time.
        urgent_threads: How many more threads see to what somebody waits for.

    The threads begin with the first request and end with ``close`` or with the last reference to this object. After
    ``close`` nothing begins: who waits for it, or asks, is told ``ClosedError``. A failure belongs to those who wait for it: it is forgotten once reported, and the next request tries again.

    >>> fetcher = Fetcher(threads=2)
    >>> fetcher.ask("a", lambda: 7).result()
    7
    >>> fetcher.close()
    """

    def __init__(self, threads: int, urgent_threads: int = 0) -> None:
        self._num_threads = threads
        self._num_urgent_threads = urgent_threads
        self._urgent: queue.PriorityQueue[tuple[int, int, _Task[Result] | None]] = queue.PriorityQueue()
        self._tasks: queue.PriorityQueue[tuple[int, int, _Task[Result] | None]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._pending: dict[str, _Task[Result]] = {}
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._is_closed = False
        # The threads know the queue but not this object, so that it can end while they wait.
        self._finalizer = weakref.finalize(
            self, _stop, ((self._tasks, threads), (self._urgent, urgent_threads))
        )
        self._finalizer.atexit = False

    def ask(self, key: str, fetch: Callable[[], Result], *, ahead: bool = False) -> Future[Result]:
        """Return the future of what ``fetch`` returns; a request in progress for the same key is joined.

        Args:
            key: What is asked for.
            fetch: Called at most once, in one of the threads.
            ahead: Whether nobody waits for it yet.
        """
        with self._lock:
            if self._is_closed:
                closed: Future[Result] = Future()
                closed.set_exception(ClosedError())
                return closed
            task = self._pending.get(key)
            is_new = task is None
            if task is None:
                task = self._pending[key] = _Task(key, fetch)
            if is_new or (not ahead and task.is_ahead):
                task.is_ahead = ahead
                place = (_AHEAD if ahead else _URGENT, next(self._numbers), task)
                self._tasks.put(place)
                if not ahead and self._num_urgent_threads:
                    self._urgent.put(place)
            if not self._threads:
                self._start()
        return task.future

    def has_begun(self, key: str) -> bool:
        """Say whether something is being fetched right now."""
        task = self._pending.get(key)
        return task is not None and task.has_begun

    def close(self) -> None:
        """Begin nothing more; what is in progress ends in its own time."""
        with self._lock:
            self._is_closed = True
            dropped = [task for task in self._pending.values() if not task.has_begun]
            for task in dropped:
                task.has_begun = True
                del self._pending[task.key]
        for task in dropped:
            task.future.set_exception(ClosedError())
        self._finalizer()

    def _start(self) -> None:
        for tasks, number in ((self._tasks, self._num_threads), (self._urgent, self._num_urgent_threads)):
            for _ in range(number):
                work = (tasks, self._pending, self._lock)
                thread = threading.Thread(target=_work, args=work, name="fetch", daemon=True)
                thread.start()
                self._threads.append(thread)


@dataclass(slots=True, eq=False)
class _Task(Generic[Result]):
    key: str
    fetch: Callable[[], Result]
    is_ahead: bool = True
    has_begun: bool = False
    future: Future[Result] = field(default_factory=Future)


def _work(tasks: Any, pending: dict[str, Any], lock: threading.Lock) -> None:
    while True:
        _, _, task = tasks.get()
        if task is None:
            return
        with lock:
            if task.has_begun:  # it was queued again when it became urgent
                continue
            task.has_begun = True
        try:
            result = task.fetch()
        except BaseException as error:
            with lock:
                pending.pop(task.key, None)
            task.future.set_exception(error)
        else:
            with lock:
                pending.pop(task.key, None)
            task.future.set_result(result)
        del task


def _stop(queues: Any) -> None:
    for tasks, threads in queues:
        for number in range(threads):
            tasks.put((-1, number, None))
