"""What is done, written down as it is done: whole lines of JSON at the end of a file, whatever kills the writer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import StorageError
from .file_failure import file_failure


class Journal:
    """Lines of JSON in a local file. A line that was cut by the writer's death is taken away when it is opened again.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "journal.jsonl"
    >>> with Journal(path) as journal:
    ...     first, second = journal.append({"done": 1}), journal.append({"done": 2})
    >>> _ = path.write_bytes(path.read_bytes() + b'{"done": 3')
    >>> with Journal(path) as journal:
    ...     [line for _, line in journal.lines()], journal.read(second)
    ([{'done': 1}, {'done': 2}], {'done': 2})
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise file_failure(path, error, writing=True) from error
        self._end = self._whole_bytes()
        os.ftruncate(self._descriptor, self._end)

    def append(self, line: Any) -> int:
        """Write a line, and return where it begins.

        Raises:
            StorageError: The disk does not take it; the journal ends before it.
        """
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        start = self._end
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._descriptor, data[written:], start + written)
        except OSError as error:
            raise file_failure(self.path, error, writing=True) from error
        self._end += len(data)
        return start

    def lines(self) -> Iterator[tuple[int, Any]]:
        """Yield all lines, each with where it begins."""
        with open(self.path, "rb") as file:
            start = 0
            for line in file:
                if not line.endswith(b"\n"):
                    return
                yield start, self._parsed(line, start)
                start += len(line)

    def read(self, start: int) -> Any:
        """Return the line that begins there."""
        return self.read_row(start, 1)[0]

    def read_row(self, start: int, count: int) -> list[Any]:
        """Return so many lines, the first of which begins there."""
        data, size = b"", count << 8
        while len(data) < self._end - start and data.count(b"\n") < count:
            data = os.pread(self._descriptor, size, start)
            size *= 4
        lines = data.split(b"\n", count)
        if len(lines) <= count:
            raise StorageError(
                f"{self.path} has no {count} lines from byte {start} on. Remove it; the build begins anew."
            )
        return [self._parsed(line, start) for line in lines[:count]]

    def clear(self) -> None:
        """Begin anew."""
        self._end = 0
        os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _parsed(self, line: bytes, start: int) -> Any:
        try:
            return json.loads(line)
        except ValueError as error:
            raise StorageError(
                f"{self.path} is damaged at byte {start} ({error}). Remove it; the build begins anew."
            ) from error

    def _whole_bytes(self) -> int:
        end = os.fstat(self._descriptor).st_size
        while end:
            start = max(0, end - (1 << 16))
            found = os.pread(self._descriptor, end - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0
