"""Loose files of a folder as samples: files of one base name belong together, as in a WebDataset tar."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .errors import ArgumentError, StorageError
from .file_failure import file_failure
from .grouping import split_name
from .source import Entry, check_entry_key, flat_key


class _File(NamedTuple):
    name: str
    num_bytes: int
    changed: int


@dataclass(frozen=True)
class FolderSource:
    """``0007.png``, ``0007.mask.png`` and ``0007.json`` are the sample ``0007``.

    Files in sub-folders belong, too: ``people/0007.png`` is of sample ``people-0007``. Hidden files and those without
    extension are passed over; links are followed. The order is that of the names, a folder's files before its folders.

    Args:
        root: The folder.
        require: Extensions that every sample must have; others are then optional. Without it every sample must have
            exactly those of the first: a picture whose partner is missing is an error.

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> for name in ("a.txt", "a.json", "b.txt", "b.json"):
    ...     _ = (root / name).write_text("{}")
    >>> source = FolderSource(root)
    >>> [source.read(entry) for entry in source.entries()][0]
    {'__key__': 'a', 'json': b'{}', 'txt': b'{}'}
    """

    root: Path
    require: Sequence[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(os.path.abspath(self.root)))

    @property
    def identity(self) -> str:
        return f"folder {self.root}"

    def entries(self) -> Iterator[Entry]:
        """Yield the samples.

        Raises:
            ArgumentError: A key that cannot be one, a partner that is missing, or a tar among the files.
            StorageError: A folder cannot be read.
        """
        first: tuple[str, frozenset[str]] | None = None
        for entry in self._below(""):
            extensions = frozenset(_extension(path) for path in entry.place[1:])
            if self.require is None:
                first = first or (entry.key, extensions)
                self._compare(entry, extensions, *first)
            yield entry

    def read(self, entry: Entry) -> dict[str, Any]:
        """Read the files of a sample.

        Raises:
            StorageError: One cannot be read, or was changed since they were listed.
        """
        sample: dict[str, Any] = {"__key__": entry.key}
        changed = num_bytes = 0
        for path in map(str, entry.place[1:]):
            try:
                with open(os.path.join(self.root, path), "rb", buffering=0) as file:
                    changed = max(changed, os.fstat(file.fileno()).st_mtime_ns)
                    content = file.read()
            except OSError as error:
                raise file_failure(self.root / path, error) from error
            num_bytes += len(content)
            sample[_extension(path)] = content
        if (changed, num_bytes) != (entry.place[0], entry.num_bytes):
            raise StorageError(
                f"The files of sample {entry.key!r} in {self.root} were changed while the build read them. Leave them as "
                "they are, and run the build again."
            )
        return sample

    def _below(self, folder: str) -> Iterator[Entry]:
        # Names that share a base are neighbours in sorted order, so that one folder's names are all that is held.
        files, folders = self._listed(folder)
        for base, named in itertools.groupby(files, key=lambda file: file.name.partition(".")[0]):
            yield self._entry(folder, base, list(named))
        for name in folders:
            yield from self._below(f"{folder}{name}/")

    def _listed(self, folder: str) -> tuple[list[_File], list[str]]:
        files: list[_File] = []
        folders: list[str] = []
        try:
            with os.scandir(self.root / folder) as found:
                for item in found:
                    if item.name.startswith("."):
                        continue
                    if item.is_dir():
                        folders.append(item.name)
                    elif split_name(item.name) is not None:
                        status = item.stat()
                        files.append(_File(item.name, status.st_size, status.st_mtime_ns))
        except OSError as error:
            raise file_failure(Path(error.filename or self.root / folder), error) from error
        return sorted(files), sorted(folders)

    def _entry(self, folder: str, base: str, files: list[_File]) -> Entry:
        where = f"{self.root / folder}"
        key = check_entry_key(flat_key(f"{folder}{base}"), where)
        extensions = [_extension(file.name) for file in files]
        if "tar" in extensions:
            raise ArgumentError(
                f"{where}: {base}.tar is an archive among loose files. Keep archives and files in folders apart."
            )
        twice = next((name for name in extensions if extensions.count(name) > 1), None)
        if twice is not None:
            raise ArgumentError(
                f"{where}: sample {base!r} has two files with extension {twice!r}, which differ in upper and lower case "
                "alone. Rename one."
            )
        # The time of the last change is part of the place, so that nothing is read that was not listed.
        changed = max(file.changed for file in files)
        return Entry(
            key, (changed, *(f"{folder}{file.name}" for file in files)), sum(file.num_bytes for file in files)
        )

    def _compare(
        self, entry: Entry, extensions: frozenset[str], first: str, expected: frozenset[str]
    ) -> None:
        if extensions == expected:
            return
        lacking, extra = sorted(expected - extensions), sorted(extensions - expected)
        what = (
            f"sample {entry.key!r} has no file {lacking[0]!r}, but {first!r} has one"
            if lacking
            else f"sample {entry.key!r} has a file {extra[0]!r}, but {first!r} has none"
        )
        raise ArgumentError(
            f"{self.root}: {what}. Add or remove the file; or name by require= the extensions that every sample must have "
            f"({','.join(sorted(expected & extensions) or sorted(extensions))}), and the others are optional."
        )


def _extension(path: str | int) -> str:
    parts = split_name(str(path))
    assert parts is not None
    return parts[1]
