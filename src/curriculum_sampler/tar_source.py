"""Samples of existing WebDataset tars, wherever a storage holds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .errors import ArgumentError, ShardError
from .grouping import group, split_name
from .keys import digest
from .sliding import SlidingWindow
from .source import Entry, check_entry_key, flat_key
from .storage import ObjectStat, Storage
from .tar import scan, walk

# Where a read hardly waits only the headers are read, from one to the next; elsewhere a request costs more than bytes.
_HOP_BYTES = 4 << 10
_PIECE_BYTES = 8 << 20


@dataclass(frozen=True)
class TarSource:
    """The samples of tars, in the order of the tars and in their order in each.

    A sample ``people/0007`` of a tar has the key ``people-0007``.

    Args:
        storage: Where the tars are.
        names: Their names in it.

    >>> from curriculum_sampler.memory_storage import MemoryStorage
    >>> from curriculum_sampler.build import write_shards
    >>> home = MemoryStorage()
    >>> _ = write_shards(home, {"all": [{"__key__": f"{n}", "txt": "hello"} for n in range(2)]})
    >>> source = TarSource(home, ("train/all/all-000000.tar",))
    >>> [source.read(entry) for entry in source.entries()]
    [{'__key__': '0', 'txt': b'hello'}, {'__key__': '1', 'txt': b'hello'}]
    """

    storage: Storage
    names: tuple[str, ...]

    # Its identity tells what it holds, so that a listing of it remains good.
    is_fixed = True

    @property
    def parallel_reads(self) -> int:
        """How many reads at a time are worth their threads."""
        return self.storage.parallel_reads

    @property
    def identity(self) -> str:
        versions = [[name, stat.num_bytes, stat.etag] for name, stat in self._stats.items()]
        return f"tars {self.storage.url} {digest(versions)}"

    @cached_property
    def _stats(self) -> dict[str, ObjectStat]:
        return {name: self.storage.stat(name) for name in self.names}

    def entries(self) -> Iterator[Entry]:
        """Yield the samples.

        Raises:
            ShardError: A tar is damaged, or its samples are not adjacent; its url is named.
            ArgumentError: A key that cannot be one.
        """
        window_bytes = _HOP_BYTES if self.parallel_reads == 1 else _PIECE_BYTES
        for name, stat in self._stats.items():
            window = SlidingWindow(self.storage, name, stat, window_bytes)
            window.keep_from = stat.num_bytes  # headers are read once, in order
            url = f"{self.storage.url}/{name}"
            try:
                for span in group(scan(window.read, stat.num_bytes)):
                    key = check_entry_key(flat_key(span.key), url)
                    length = span.stop - span.start
                    yield Entry(key, (name, span.start, length, stat.etag), length)
            except ShardError as error:
                raise ShardError(f"{url}: {error}") from None

    def read(self, entry: Entry) -> dict[str, Any]:
        """Read a sample by one range; the tar must still be the one that was listed.

        Raises:
            StorageError: It cannot be read, or was replaced.
        """
        name, start, length, etag = entry.place
        data = bytearray(int(length))
        self.storage.read_into(str(name), memoryview(data), int(start), str(etag))
        view = memoryview(data)
        sample: dict[str, Any] = {"__key__": entry.key}
        for member in walk(lambda at, count: view[at : at + count], 0, len(data)):
            parts = split_name(member.name)
            if parts is not None and member.kind == "file":
                sample[parts[1]] = bytes(view[member.data : member.data + member.num_bytes])
        return sample


def tars_at(storage: Storage) -> TarSource:
    """Return the samples of all tars of a storage, in the order of their names.

    Raises:
        ArgumentError: There are none.
    """
    names = tuple(name for name in storage.list() if name.endswith(".tar"))
    if not names:
        raise ArgumentError(
            f"There are no tars at {storage.url}. Check the url; loose files are read from a local folder."
        )
    return TarSource(storage, names)
