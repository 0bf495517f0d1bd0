"""What was fetched and is kept near: pieces of shards under keys, within a byte budget.

A piece is written once and never changed; who reads it verifies each sample against its checksum. Two caches have
the same methods: ``MemoryCache`` for one process, ``FolderCache`` for all processes of a machine.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Collection
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

# Fresh memory is filled in at once where the system can: one page fault at a time takes several times as long.
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)

Buffer: TypeAlias = NDArray[np.uint8]
# Returns a buffer of so many bytes to write to, not zeroed.
Allocate = Callable[[int], memoryview]
# Returns the bytes of a piece, from wherever they are, in a buffer that it asked for.
Fetch = Callable[[Allocate], memoryview]


class CachedPiece(Protocol):
    """A piece at hand. Its memory is used again for another piece unless somebody holds it."""

    def hold(self) -> bool:
        """Keep the bytes where they are until ``let_go``; False if they are gone already."""
        ...

    def let_go(self) -> None:
        """Undo one ``hold``: what ``read`` returned must not be looked at any more."""
        ...

    def read(self, start: int, stop: int) -> memoryview:
        """Return its bytes ``start ... stop - 1``, while it is held; fewer if it is damaged."""
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
    ...     _ = cache.obtain(key, lambda allocate: allocate(5))
    >>> cache.trim(needed={"c"})
    >>> [key for key in "abc" if cache.get(key)]
    ['b', 'c']
    """

    is_usable = True

    def __init__(self, num_bytes: int) -> None:
        self._budget = num_bytes
        self._num_bytes = 0
        self._pieces: dict[str, MemoryPiece] = {}
        self._buffers = BufferPool()
        self._lock = threading.Lock()

    def get(self, key: str) -> MemoryPiece | None:
        return self._pieces.get(key)

    def obtain(self, key: str, fetch: Fetch) -> MemoryPiece:
        known = self._pieces.get(key)
        if known is None:
            known = MemoryPiece(fetch, self._buffers)
            with self._lock:
                self._pieces[key] = known
                self._num_bytes += len(known)
        return known

    def trim(self, needed: Collection[str]) -> None:
        # Only here: a piece that has just come may be one that is needed, but was not yet told of.
        with self._lock:
            for key in [key for key in self._pieces if key not in needed]:
                if self._num_bytes <= self._budget:
                    break
                piece = self._pieces.pop(key)
                self._num_bytes -= len(piece)
                piece.drop()

    def close(self) -> None:
        self._pieces.clear()


class MemoryPiece:
    """Bytes in buffers of a pool, which get them back once the piece is dropped and nobody holds it."""

    __slots__ = ("_buffers", "_data", "_holders", "_lock", "_pool")

    def __init__(self, fetch: Fetch, pool: BufferPool) -> None:
        self._pool = pool
        self._buffers: list[Buffer] | None = []
        self._holders = 0
        self._lock = threading.Lock()
        self._data = fetch(self._allocate)

    def _allocate(self, num_bytes: int) -> memoryview:
        assert self._buffers is not None
        buffer = self._pool.take(num_bytes)
        self._buffers.append(buffer)
        return buffer.data[:num_bytes]

    def hold(self) -> bool:
        with self._lock:
            if self._buffers is None:
                return False
            self._holders += 1
            return True

    def let_go(self) -> None:
        with self._lock:
            self._holders -= 1
            self._give_back()

    def drop(self) -> None:
        """Give the memory back, now or when the last holder lets go."""
        with self._lock:
            self._holders -= 1  # the cache was a holder, so to speak: below zero nobody is left
            self._give_back()

    def _give_back(self) -> None:
        if self._holders < 0 and self._buffers is not None:
            for buffer in self._buffers:
                self._pool.give(buffer)
            self._buffers = None

    def read(self, start: int, stop: int) -> memoryview:
        return self._data[start:stop]

    def __len__(self) -> int:
        return len(self._data)


class BufferPool:
    """Buffers to be used again: fresh memory costs more than what is then written to it.

    >>> pool = BufferPool()
    >>> buffer = pool.take(5)
    >>> pool.give(buffer), pool.take(7) is buffer
    (None, True)
    """

    # Pieces differ a little in length; rounded up, they can use each other's buffers.
    _ROUND = 1 << 20
    _MOST_FREE = 32

    def __init__(self) -> None:
        self._free: dict[int, list[Buffer]] = {}

    def take(self, num_bytes: int) -> Buffer:
        """Return a buffer of at least so many bytes, with anything in it."""
        size = max(1, -(-num_bytes // self._ROUND)) * self._ROUND
        try:
            return self._free[size].pop()
        except (KeyError, IndexError):
            return np.frombuffer(mmap.mmap(-1, size, flags=_FLAGS), np.uint8)

    def give(self, buffer: Buffer) -> None:
        """Take back a buffer that nobody uses any more."""
        free = self._free.setdefault(len(buffer), [])
        if len(free) < self._MOST_FREE:
            free.append(buffer)
