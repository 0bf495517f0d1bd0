"""One fetch for all processes of a machine: pieces as files of a folder.

Whatever kills a process, the folder stays good: a piece is written under another name and renamed when whole, a lock
ends with the process that holds it, and what was left half-written is removed by whoever opens the folder next.
Nothing in the folder is trusted: each sample read from it is verified. Names are digests, so that no name from a data
set can lead out of the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np

from .cache import BufferPool, CachedPiece, Fetch, MemoryPiece
from .errors import ArgumentError
from .file_failure import file_failure
from .local_storage import UNFINISHED, OpenFile

LOCK = ".lock"
SUFFIX = ".piece"

# Pieces kept open for more reads, per process.
_MOST_OPEN_PIECES = 256

# Who waits longer than this for another process fetches the piece too: the holder may be stopped, or hang.
_LONGEST_WAIT_SECONDS = 60.0
_PAUSE_SECONDS = 0.02

# A folder that took no more is tried again after this time.
_PROBE_SECONDS = 30.0


def default_folder() -> Path:
    """Return where runs are cached when nobody says where: ``curriculum-sampler`` in ``XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "curriculum-sampler"


class FolderCache:
    """Pieces as files of a folder, shared by any number of processes.

    Args:
        folder: Made if need be. Several data sets and jobs may share it.
        num_bytes: Budget of the whole folder, half-written files not counted.
        clock, sleep: Injectable for tests.

    Raises:
        ArgumentError: The folder cannot be made or written to.
    """

    def __init__(
        self,
        folder: Path,
        num_bytes: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.folder = folder
        self._budget = num_bytes
        self._clock = clock
        self._sleep = sleep
        self._open: dict[str, FilePiece] = {}
        self._buffers = BufferPool()
        self._failed_at: float | None = None
        self._telling = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ArgumentError(
                f"cache_dir={str(folder)!r} cannot be used: {file_failure(folder, error, writing=True)}"
            ) from error
        self._remove_unfinished()

    def get(self, key: str) -> FilePiece | None:
        known = self._open.get(key)
        if known is None:
            try:
                known = FilePiece(OpenFile(self._path(key)))
            except OSError:
                return None
            self._forget_dropped()
            self._open[key] = known
        return known

    def obtain(self, key: str, fetch: Fetch) -> CachedPiece:
        known = self.get(key)
        if known is not None:
            return known
        with self._locked(key):
            known = self.get(key)
            if known is not None:
                return known
            piece = MemoryPiece(fetch, self._buffers)
            self._publish(key, piece.read(0, len(piece)))
        kept = self.get(key)
        if kept is None:
            return piece  # what cannot be kept is still what was asked for
        piece.drop()
        return kept

    def trim(self, needed: Collection[str]) -> None:
        """See ``PieceCache``. Pieces that this process needs are marked as fresh, so that other jobs spare them."""
        found = []
        for key in needed:
            with contextlib.suppress(OSError):
                os.utime(self._path(key))
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    with contextlib.suppress(OSError):
                        status = entry.stat()
                        found.append((status.st_mtime_ns, status.st_size, entry.name.removesuffix(SUFFIX)))
        held = sum(size for _, size, _ in found)
        for _, size, key in sorted(found):
            if held <= self._budget:
                break
            if key not in needed:
                held -= size
                self._drop(key)

    @property
    def is_usable(self) -> bool:
        return self._failed_at is None or self._clock() - self._failed_at > _PROBE_SECONDS

    def close(self) -> None:
        self._open.clear()

    def _forget_dropped(self) -> None:
        """Close what another process dropped: until then it takes room on the disk. Readers in progress go on."""
        if len(self._open) >= _MOST_OPEN_PIECES:
            self._open.clear()
        for key in [key for key, piece in list(self._open.items()) if piece.is_dropped]:
            self._open.pop(key, None)

    def _drop(self, key: str) -> None:
        self._open.pop(key, None)
        with contextlib.suppress(OSError):
            os.unlink(self._path(key))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _publish(self, key: str, data: memoryview) -> None:
        """Write a piece; where that is impossible say so once, and go on without the cache."""
        try:
            try:
                self._write(key, data)
            except (
                FileNotFoundError
            ):  # the folder was deleted, or another process took the file for a dead writer's
                self._write(key, data)
            self._failed_at = None
        except OSError as error:
            with self._telling:
                is_new, self._failed_at = self._failed_at is None, self._clock()
            if is_new:
                warnings.warn(
                    f"The cache takes no more: {file_failure(self.folder, error, writing=True)} Until it does, samples "
                    "are read from the store one by one, which is slow.",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def _write(self, key: str, data: memoryview) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = self.folder / f"{UNFINISHED}{uuid.uuid4().hex}"
        try:
            with open(unfinished, "xb", buffering=0) as file:
                # Held until the file has its name; a lock that can be had tells of a dead writer.
                fcntl.flock(file, fcntl.LOCK_EX)
                written = 0
                while written < len(data):
                    written += file.write(data[written:])
                os.rename(unfinished, self._path(key))
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise

    def _remove_unfinished(self) -> None:
        for path in self.folder.glob(f"{UNFINISHED}*"):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Hold a key against other processes (threads of this one are told apart by ``Fetcher``).

        A lock is one byte of the lock file, at a place that the key decides: it ends with the process, and there is
        nothing to clean up. It is a courtesy that saves a fetch, not what keeps the folder good.
        """
        place = int(key[:15], 16)
        deadline = self._clock() + _LONGEST_WAIT_SECONDS
        held = False
        while not held and self._clock() < deadline:
            try:
                fcntl.lockf(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                held = True
            except OSError:
                self._sleep(_PAUSE_SECONDS)
        try:
            yield
        finally:
            if held:
                fcntl.lockf(self._lock_file, fcntl.LOCK_UN, 1, place)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        descriptor = getattr(self, "_lock_file", None)
        if descriptor is not None:
            close(descriptor)


class FilePiece:
    """A piece as an open file; it can be read even after it was dropped from the folder."""

    __slots__ = ("_file",)

    def __init__(self, file: OpenFile) -> None:
        self._file = file

    def hold(self) -> bool:
        return True

    def let_go(self) -> None:
        """Nothing to do: what was read is a copy."""

    def read(self, start: int, stop: int) -> memoryview:
        buffer = np.empty(stop - start, np.uint8).data
        return buffer[: self._file.read_into(buffer, start)].toreadonly()

    @property
    def is_dropped(self) -> bool:
        return self._file.stat() is None
