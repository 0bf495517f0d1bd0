"""Who does the work of a build: tasks that know nothing of each other, in this process or in several."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from .checks import whole
from .errors import ArgumentError, CurriculumError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Tasks on their way, for each process: one at work and one waiting.
_AHEAD = 2


class Engine(Protocol):
    """Runs tasks somewhere."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether the work is done in other processes, which share no memory with this one."""
        ...

    def run(
        self, work: Callable[[Any, Task], Result], shared: Any, tasks: Iterable[Task]
    ) -> Generator[tuple[Task, Result], None, None]:
        """Yield each task with ``work(shared, task)``, in the order in which they are done.

        Few tasks are taken ahead. The first error ends it, and is raised as ``work`` raised it. Who does not want the
        rest closes it: tasks at work are finished or given up, and none is begun.
        """
        ...


class LocalEngine:
    """Processes of this machine; with one the work is done in the calling process.

    Processes are spawned, so that no lock, socket or model of this one is copied half-way: functions must be importable,
    and a script needs its ``if __name__ == "__main__":``.

    >>> list(LocalEngine(1).run(lambda shared, task: shared * task, 10, [1, 2]))
    [(1, 10), (2, 20)]
    """

    def __init__(self, processes: int) -> None:
        self.processes = whole("processes", processes, least=1)

    @property
    def is_elsewhere(self) -> bool:
        return self.processes > 1

    def run(
        self, work: Callable[[Any, Task], Result], shared: Any, tasks: Iterable[Task]
    ) -> Generator[tuple[Task, Result], None, None]:
        if not self.is_elsewhere:
            for task in tasks:
                yield task, work(shared, task)
            return
        spawning = multiprocessing.get_context("spawn")
        # The pool cannot call back those of its tasks that wait next in line.
        is_over = spawning.Event()
        pool = ProcessPoolExecutor(
            self.processes,
            mp_context=spawning,
            initializer=_begin,
            initargs=(pickled((work, shared)), is_over),
        )
        coming = iter(tasks)
        running: dict[Future[Any], Task] = {}
        try:
            while True:
                for task in itertools.islice(coming, _AHEAD * self.processes - len(running)):
                    with _interrupts_held():  # submitting may start a process, which inherits this
                        running[pool.submit(_work, task)] = task
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise CurriculumError(
                "A process of the build ended all of a sudden: it was killed, or could not be started. If memory ran out, "
                "use fewer processes or smaller shards; a script needs its `if __name__ == '__main__':`. Then run the "
                "build again: it goes on from here."
            ) from error
        finally:
            is_over.set()
            pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def pickled(value: Any) -> bytes:
    """Return a value as it travels to another process.

    Raises:
        ArgumentError: It cannot travel.
    """
    try:
        return pickle.dumps(value)
    except Exception as error:
        raise ArgumentError(
            f"The source or a score cannot be sent to other processes ({error}). Define functions at the top of a module, "
            "or use processes=1."
        ) from error


_given: Any = None
_is_over: Any = None


def _begin(data: bytes, is_over: Any) -> None:
    global _given, _is_over
    _is_over = is_over
    # An interrupt is for the process that was asked; it lets the others finish what they are at.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _given = pickle.loads(data)


def _end_with_parent() -> None:
    """Nobody else ends the processes of one that was killed: they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(task: Any) -> Any:
    if _is_over.is_set():
        return None
    work, shared = _given
    return work(shared, task)
