"""Objects as files below a folder."""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from stat import S_ISREG

from .errors import StorageError
from .file_failure import file_failure
from .storage import ObjectStat, check_key

# Half-written files carry this prefix, so that a listing never offers one.
UNFINISHED = ".unfinished-"


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

    def read_into(self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None) -> None:
        path = self._path(key)
        try:
            with open(path, "rb", buffering=0) as file:
                found = _stat(os.fstat(file.fileno()))
                if etag is not None and found.etag != etag:
                    raise StorageError(
                        f"{self.url}/{key} was replaced while it was being read "
                        f"(was {etag}, is {found.etag}). Start the run again."
                    )
                file.seek(offset)
                received = _fill(file, buffer)
        except StorageError:
            raise
        except OSError as error:
            raise file_failure(path, error) from error
        if received < len(buffer):
            raise StorageError(
                f"{self.url}/{key} has {found.num_bytes} bytes, but {len(buffer)} were asked for at offset "
                f"{offset}. The file is shorter than its index says: copy or write it again."
            )

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


def _refuse_gaps(error: OSError) -> None:
    """A folder that may not be read is an error: by default a walk passes over it without a word."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise file_failure(Path(error.filename), error) from error


def _stat(found: os.stat_result) -> ObjectStat:
    return ObjectStat(found.st_size, f"{found.st_ino:x}-{found.st_size:x}-{found.st_mtime_ns:x}")


def _fill(file: FileIO, buffer: memoryview) -> int:
    """Read until the buffer is full or the file ends; one call may return less than asked for."""
    received = 0
    while received < len(buffer):
        count = file.readinto(buffer[received:])
        if not count:
            break
        received += count
    return received
