"""What one process keeps of an S3 storage, and no other process may share."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from .slow_down import SlowDown


class Session:
    """A client made at first use, what is agreed among the threads that use it, and their counts.

    A forked child must not use its parent's sockets, nor wait for a lock that a thread of the parent
    held: it makes a session of its own.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self.slow_down = SlowDown()
        self._connect = connect
        self._lock = threading.Lock()
        self._client: Any = None
        self._retries: Counter[str] = Counter()

    @property
    def client(self) -> Any:
        """The boto3 client; threads share it, and the first of them makes it."""
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = self._connect()
        return self._client

    def renew(self, used: Any) -> None:
        """Have the client made anew, unless another thread has replaced ``used`` already."""
        with self._lock:
            if self._client is used:
                self._client = None

    def count(self, cause: str) -> None:
        """A request is made again because of ``cause``."""
        with self._lock:
            self._retries[cause] += 1

    @property
    def retries(self) -> dict[str, int]:
        """How often ``count`` was called, by cause."""
        with self._lock:
            return dict(self._retries)
