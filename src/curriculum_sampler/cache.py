"""What was fetched and is kept near: pieces of shards under keys, within a byte budget.

A piece is written once and never changed; who reads it verifies each sample against its checksum. Two caches have
the same methods: ``MemoryCache`` for one process, ``FolderCache`` for all processes of a machine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Protocol

# Returns the bytes of a piece, from wherever they are.
Fetch = Callable[[], memoryview]


class CachedPiece(Protocol):
    """A piece at hand."""

    def read(self, start: int, stop: int) -> memoryview:
        """Return its bytes ``start ... stop - 1``; fewer if it is damaged."""
        ...


class PieceCache(Protocol):
    """Pieces under keys."""

    @property
    def is_usable(self) -> bool:
        """Whether what is fetched can be kept."""
        ...

    def get(self, key: str) -> CachedPiece | None:
        """Return a piece if it is at hand."""
        ...

    def obtain(self, key: str, fetch: Fetch) -> CachedPiece:
        """Return a piece; if it is not at hand, fetch and keep it. Nobody else fetches it meanwhile."""
        ...

    def trim(self, needed: Collection[str]) -> None:
        """Stay within the budget by dropping pieces, ``needed`` ones never, others oldest first."""
        ...

    def close(self) -> None:
        """Let go of what this process holds."""
        ...


class MemoryCache:
    """Pieces in the memory of this process.

    >>> cache = MemoryCache(num_bytes=10)
    >>> for key in "abc":
    ...     _ = cache.obtain(key, lambda: memoryview(b"12345"))
    >>> cache.trim(needed={"a"}), cache.get("b"), bytes(cache.get("a").read(1, 3))
    (None, None, b'23')
    """

    def __init__(self, num_bytes: int) -> None:
        self._budget = num_bytes
        self._held = 0
        self._pieces: dict[str, MemoryPiece] = {}
        self._needed: Collection[str] = ()
        self._lock = threading.Lock()

    @property
    def is_usable(self) -> bool:
        return True

    def get(self, key: str) -> MemoryPiece | None:
        return self._pieces.get(key)

    def obtain(self, key: str, fetch: Fetch) -> MemoryPiece:
        known = self._pieces.get(key)
        if known is None:
            known = MemoryPiece(fetch())
            with self._lock:
                self._held += len(known) if key not in self._pieces else 0
                self._pieces[key] = known
            self._drop()
        return known

    def trim(self, needed: Collection[str]) -> None:
        self._needed = needed
        self._drop()

    def _drop(self) -> None:
        with self._lock:
            if self._held <= self._budget:
                return
            for key in [key for key in self._pieces if key not in self._needed]:
                if self._held <= self._budget:
                    break
                self._held -= len(self._pieces.pop(key))

    def close(self) -> None:
        self._pieces.clear()


class MemoryPiece:
    """Bytes in memory."""

    __slots__ = ("_data",)

    def __init__(self, data: memoryview) -> None:
        self._data = data

    def read(self, start: int, stop: int) -> memoryview:
        return self._data[start:stop]

    def __len__(self) -> int:
        return len(self._data)
