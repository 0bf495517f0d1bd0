"""Objects as files below a folder."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import Any

from .errors import AbsentError, StorageError
from .file_failure import file_failure
from .storage import ObjectStat, check_key

# Half-written files carry this prefix, so that a listing never offers one.
UNFINISHED = ".unfinished-"

# Files kept open for more reads; opening one costs several times as much as reading a sample from it.
_MOST_OPEN_FILES = 128


@dataclass(frozen=True)
class LocalStorage:
    """A folder behind the ``Storage`` protocol; it need not exist until something is written.

    A file's ETag is its inode, size and time of change: it differs whenever the file was replaced.

    >>> import tempfile
    >>> storage = LocalStorage(Path(tempfile.mkdtemp()))
    >>> storage.write("easy/a.txt", b"hello")
    >>> storage.list("easy/"), storage.stat("easy/a.txt").num_bytes, storage.exists("b.txt")
    (['easy/a.txt'], 5, False)
    """

    root: Path
    _open: dict[str, OpenFile] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Workers and saved manifests may run in another current directory.
        object.__setattr__(self, "root", Path(os.path.abspath(self.root)))

    @property
    def url(self) -> str:
        return str(self.root)

    @property
    def parallel_reads(self) -> int:
        return 1

    def exists(self, key: str) -> bool:
        path = self._path(key)
        try:
            return S_ISREG(os.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise file_failure(path, error) from error

    def stat(self, key: str) -> ObjectStat:
        path = self._path(key)
        try:
            return _stat(os.stat(path))
        except OSError as error:
            raise file_failure(path, error) from error

    @property
    def retries(self) -> Mapping[str, int]:
        return {}

    def read_into(self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None) -> ObjectStat:
        try:
            file = self._opened(key, etag)
            received = file.read_into(buffer, offset)
            now = file.stat()
        except OSError as error:
            raise file_failure(self._path(key), error) from error
        if now is None or (etag is not None and now.etag != etag):
            raise StorageError(
                f"{self.url}/{key} was replaced while it was being read "
                f"(was {etag}, is {now.etag if now else 'gone'}). Start the run again."
            )
        if received < len(buffer):
            raise AbsentError(
                f"{self.url}/{key} has {now.num_bytes} bytes, but {len(buffer)} were asked for at offset "
                f"{offset}. The file is shorter than its index says: copy or write it again."
            )
        return now

    def _opened(self, key: str, etag: str | None) -> OpenFile:
        """Return the file, opened before if the caller names the version that it wants."""
        known = self._open.get(key) if etag is not None else None
        if known is None or known.found.etag != etag:
            known = OpenFile(self._path(key))
            if len(self._open) >= _MOST_OPEN_FILES:
                self._open.clear()  # each is closed when its last reader has finished
            self._open[key] = known
        return known

    def write(self, key: str, data: bytes | bytearray) -> None:
        path = self._path(key)
        unfinished = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(unfinished, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except OSError as error:
            raise file_failure(path, error, writing=True) from error
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)

    def list(self, prefix: str = "") -> list[str]:
        # Walk only the folder that the prefix names, not the whole data set.
        start = self.root / prefix.rpartition("/")[0]
        keys = (
            (Path(folder) / name).relative_to(self.root).as_posix()
            for folder, _, names in os.walk(start, onerror=_refuse_gaps)
            for name in names
            if not name.startswith(UNFINISHED)
        )
        return sorted(key for key in keys if key.startswith(prefix))

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}


class OpenFile:
    """A file held open for reading, by any number of threads, until nobody refers to it."""

    def __init__(self, path: Path) -> None:
        # Without waiting: a pipe of that name would wait for its writer for ever.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(self._descriptor)
        if not S_ISREG(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "It is no regular file", str(path))
        self.found = _stat(status)
        self._version = _version(status)

    def stat(self) -> ObjectStat | None:
        """Return what the file is now, or None if another took its name."""
        status = os.fstat(self._descriptor)
        if status.st_nlink == 0:
            return None
        return self.found if _version(status) == self._version else _stat(status)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Read until the buffer is full or the file ends, and return the count."""
        received = os.preadv(self._descriptor, (buffer,), offset)
        while 0 < received < len(buffer):  # one call may give less than there is
            count = os.preadv(self._descriptor, (buffer[received:],), offset + received)
            if not count:
                break
            received += count
        return received

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # Opening may have failed; and at the interpreter's end this module's names are gone.
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            close(descriptor)


def _refuse_gaps(error: OSError) -> None:
    """A folder that may not be read is an error: by default a walk passes over it without a word."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise file_failure(Path(error.filename), error) from error


def _version(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _stat(status: os.stat_result) -> ObjectStat:
    inode, num_bytes, changed = _version(status)
    return ObjectStat(num_bytes, f"{inode:x}-{num_bytes:x}-{changed:x}")
