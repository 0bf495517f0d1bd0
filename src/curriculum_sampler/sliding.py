"""Reading an object from front to back in large pieces, looking at small ones."""

from __future__ import annotations

from .storage import ObjectStat, Storage


class SlidingWindow:
    """Serves ``read(offset, count)`` from a window that moves forward over an object.

    Bytes from ``keep_from`` on stay in the window, so a caller that looks ahead can still come back.
    Each byte is fetched once as long as the caller never goes back before ``keep_from``.

    >>> from curriculum_sampler.memory_storage import MemoryStorage
    >>> storage = MemoryStorage(objects={"a": b"0123456789"})
    >>> window = SlidingWindow(storage, "a", storage.stat("a"), window_bytes=4)
    >>> bytes(window.read(2, 3)), bytes(window.read(8, 2))
    (b'234', b'89')
    """

    def __init__(self, storage: Storage, key: str, stat: ObjectStat, window_bytes: int = 8 << 20) -> None:
        self._storage = storage
        self._key = key
        self._stat = stat
        self._window_bytes = window_bytes
        self._start = 0
        self._held = memoryview(b"")
        self.keep_from = 0

    def read(self, offset: int, count: int) -> memoryview:
        """Return ``count`` bytes at ``offset``; the object must be that long."""
        if offset < self._start or offset + count > self._start + len(self._held):
            self._move(offset, count)
        at = offset - self._start
        return self._held[at : at + count]

    def _move(self, offset: int, count: int) -> None:
        held_stop = self._start + len(self._held)
        start = min(offset, self.keep_from)
        stop = min(max(offset + count, start + self._window_bytes), self._stat.num_bytes)
        kept = self._held[start - self._start :] if self._start <= start < held_stop else memoryview(b"")
        fresh = memoryview(bytearray(stop - start))
        fresh[: len(kept)] = kept
        if len(kept) < len(fresh):
            self._storage.read_into(self._key, fresh[len(kept) :], start + len(kept), self._stat.etag)
        self._start, self._held = start, fresh.toreadonly()
