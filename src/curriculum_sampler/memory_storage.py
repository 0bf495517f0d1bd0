"""Objects in memory: for tests, and for anyone who wants to try things without a disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from .errors import AbsentError, StorageError
from .storage import ObjectStat, check_key


class MemoryStorage:
    """A dict of bytes behind the ``Storage`` protocol.

    ``MemoryStorage("name")`` twice is two storages; ``open_storage("memory://name")`` twice in one
    process is the same one. A copy that travels to a spawned worker takes the objects along.

    >>> storage = MemoryStorage("demo")
    >>> storage.write("greeting.txt", b"hello")
    >>> buffer = bytearray(4)
    >>> storage.read_into("greeting.txt", memoryview(buffer), offset=1).num_bytes
    5
    >>> bytes(buffer), storage.list(), storage.url
    (b'ello', ['greeting.txt'], 'memory://demo')
    """

    def __init__(self, name: str = "", objects: dict[str, bytes] | None = None) -> None:
        self.name = name
        self.objects: dict[str, bytes] = {} if objects is None else objects

    @property
    def url(self) -> str:
        return f"memory://{self.name}"

    @property
    def parallel_reads(self) -> int:
        return 1

    @property
    def retries(self) -> Mapping[str, int]:
        return {}

    def exists(self, key: str) -> bool:
        return check_key(key) in self.objects

    def stat(self, key: str) -> ObjectStat:
        data = self._get(key)
        return ObjectStat(len(data), hashlib.blake2b(data, digest_size=8).hexdigest())

    def read_into(self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None) -> ObjectStat:
        data = self._get(key)
        found = MemoryStorage.stat(self, key)
        if etag is not None and found.etag != etag:
            raise StorageError(f"{self.url}/{key} was replaced while it was being read. Start the run again.")
        part = data[offset : offset + len(buffer)]
        if len(part) != len(buffer):
            raise AbsentError(
                f"{self.url}/{key} has {len(data)} bytes, but {len(buffer)} were asked for at offset {offset}. "
                "The object is shorter than its index says: write it again."
            )
        buffer[:] = part
        return found

    def write(self, key: str, data: bytes | bytearray) -> None:
        self.objects[check_key(key)] = bytes(data)

    def list(self, prefix: str = "") -> list[str]:
        return sorted(key for key in self.objects if key.startswith(prefix))

    def _get(self, key: str) -> bytes:
        try:
            return self.objects[check_key(key)]
        except KeyError:
            raise AbsentError(
                f"{self.url}/{key} does not exist. Check the name, or write it first."
            ) from None

    def __repr__(self) -> str:
        return f"MemoryStorage({self.name!r})"

    def __eq__(self, other: Any) -> bool:
        return self is other

    __hash__ = object.__hash__
