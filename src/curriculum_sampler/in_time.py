"""Calls that cannot be interrupted, and callers who wait no longer than agreed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def begin(call: Callable[[], Result]) -> Future[Result]:
    """Begin ``call()`` in a thread of its own, which does not keep the process alive."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="in-time", daemon=True).start()
    return future


def in_time(call: Callable[[], Result], seconds: float) -> Result:
    """Return ``call()``, or raise ``TimeoutError`` when it has not returned after ``seconds``.

    A socket's timeout counts from the last byte, so a server that sends a byte now and then can hold a
    call for ever. A call that is given up goes on alone, and its outcome is dropped.

    >>> in_time(lambda: 6 * 7, seconds=60)
    42
    """
    return begin(call).result(timeout=min(max(0.0, seconds), threading.TIMEOUT_MAX))
