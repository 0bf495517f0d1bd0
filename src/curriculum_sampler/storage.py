"""The one seam to the outside: a place that holds objects under keys.

Everything above it (tars, indexes, manifests, data sets) is a function of the bytes it returns, so
retries, timeouts and credentials live below it and nowhere else. ``MemoryStorage`` is the shortest
example of the protocol; any object with these methods will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from .errors import ArgumentError


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What a storage knows about an object without reading it.

    Attributes:
        num_bytes: Its length.
        etag: Opaque text that differs when the object's content was replaced.
    """

    num_bytes: int
    etag: str


@runtime_checkable
class Storage(Protocol):
    """Objects under keys such as ``train/easy/easy-000000.tar``, below one root.

    Every method raises ``StorageError`` when the storage cannot do it, naming the url and the next
    move. Implementations must survive pickling and forking, since loader workers receive them.

    ``curriculum_sampler.testing.check_storage`` puts one of your own through its paces.

    >>> from curriculum_sampler import MemoryStorage
    >>> isinstance(MemoryStorage("mine"), Storage)
    True
    """

    @property
    def url(self) -> str:
        """The root, without a slash at the end and without credentials."""
        ...

    @property
    def parallel_reads(self) -> int:
        """How many reads at a time are worth their threads: 1 where a read hardly waits."""
        ...

    def exists(self, key: str) -> bool:
        """Say whether an object is there. Being refused access is an error, not False."""
        ...

    def stat(self, key: str) -> ObjectStat:
        """Return size and ETag of an object that must exist."""
        ...

    @property
    def retries(self) -> Mapping[str, int]:
        """How often a request was made again in this process, by cause; empty where nothing ever is."""
        ...

    def read_into(self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None) -> ObjectStat:
        """Fill ``buffer`` with the object's bytes from ``offset`` on, and say which object that was.

        An object that ends early, or is no longer the one that ``etag`` names, is an error: a
        partly filled buffer is never returned as if it were whole, nor one filled from two objects.
        """
        ...

    def write(self, key: str, data: bytes | bytearray) -> None:
        """Publish an object whole: readers see the old one or the new one, never a part."""
        ...

    def list(self, prefix: str = "") -> list[str]:
        """Return all keys that begin with ``prefix``, sorted."""
        ...


def read_all(storage: Storage, key: str) -> bytes:
    """Return a whole (small) object: a manifest or an index."""
    found = storage.stat(key)
    data = bytearray(found.num_bytes)
    storage.read_into(key, memoryview(data), 0, found.etag)
    return bytes(data)


def check_key(key: str) -> str:
    """Return ``key`` if it stays below the root it is joined to, else raise ``ArgumentError``.

    >>> check_key("train/easy/easy-000000.tar")
    'train/easy/easy-000000.tar'
    >>> check_key("../secret")
    Traceback (most recent call last):
    curriculum_sampler.errors.ArgumentError: Object key '../secret' must be a relative path without '..', ...
    """
    parts = key.split("/") if isinstance(key, str) else [""]
    if any(part in ("", ".", "..") for part in parts) or "\\" in key or "\0" in key or ":" in parts[0]:
        raise ArgumentError(
            f"Object key {key!r} must be a relative path without '..', '.', '\\', ':' or empty parts, "
            "so that it stays below the root of its data set. Rename it."
        )
    return key
