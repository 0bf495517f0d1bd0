"""A storage that tells how many bytes were read from it, for those who watch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .storage import ObjectStat, Storage


class CountedReads:
    """Everything that another storage does, and a call of ``watch`` with the bytes read so far after each read.

    >>> from curriculum_sampler.memory_storage import MemoryStorage
    >>> storage = CountedReads(MemoryStorage(objects={"a": b"0123"}), watch=print)
    >>> _ = storage.read_into("a", memoryview(bytearray(3))), storage.read_into("a", memoryview(bytearray(1)))
    3
    4
    """

    def __init__(self, storage: Storage, watch: Callable[[int], None]) -> None:
        self._storage = storage
        self._watch = watch
        self._num_bytes = 0

    def read_into(self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None) -> ObjectStat:
        """Fill ``buffer``; see ``Storage``."""
        found = self._storage.read_into(key, buffer, offset, etag)
        self._num_bytes += len(buffer)
        self._watch(self._num_bytes)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)
