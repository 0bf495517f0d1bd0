"""What a build reads: a source lists its samples, and any process can then read any of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

from .errors import ArgumentError


class Entry(NamedTuple):
    """One sample of a source, before it is read.

    Attributes:
        key: Its name, unique in the source; see ``check_entry_key``.
        place: Whatever ``read`` needs to find it; texts and whole numbers, since it is journaled as JSON.
        num_bytes: About how many bytes its content has; shards are sized by it.
    """

    key: str
    place: tuple[str | int, ...]
    num_bytes: int


@runtime_checkable
class Source(Protocol):
    """Samples that a build can list once, and read in any order from any process. It must be picklable.

    Two attributes may be added: ``parallel_reads``, how many reads at a time are worth their threads (default 1), and
    ``is_fixed = True`` where the identity tells what is held, so that a build that goes on need not list it again.
    """

    @property
    def identity(self) -> str:
        """Names what is read. A killed build goes on only where this is the same."""
        ...

    def entries(self) -> Iterator[Entry]:
        """Yield all samples, in the same order each time."""
        ...

    def read(self, entry: Entry) -> dict[str, Any]:
        """Return a sample as ``write_shards`` takes it: ``__key__``, and a value for each extension.

        Bytes are stored untouched, other values as ``encode`` would store them.
        """
        ...


def check_entry_key(key: Any, where: str) -> str:
    """Return a sample's key if file names can be made of it on every system, else raise ``ArgumentError``.

    >>> check_entry_key("0007_front", "pictures")
    '0007_front'
    >>> check_entry_key("so.so", "pictures")
    Traceback (most recent call last):
    curriculum_sampler.errors.ArgumentError: pictures: the key 'so.so' must be printable ASCII text without ...
    """
    fits = isinstance(key, str) and key.isascii() and key.isprintable() and not set(key) & set("/\\.")
    if not fits or not key or key.startswith("__"):
        raise ArgumentError(
            f"{where}: the key {key!r} must be printable ASCII text without '/', '\\' or '.' and not begin with '__', "
            "since file names are made of it and its extensions, and other letters are spelt differently from "
            "system to system. Rename the sample."
        )
    return str(key)


def flat_key(path: str) -> str:
    """Return the key of a sample that lies in folders: each '/' becomes '-'.

    >>> flat_key("people/0007")
    'people-0007'
    """
    return path.replace("/", "-")
