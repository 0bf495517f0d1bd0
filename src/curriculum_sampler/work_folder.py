"""Where a build keeps what it must not lose: one local folder for each destination, held by one process at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ArgumentError
from .file_failure import file_failure
from .keys import digest


def default_work_dir() -> Path:
    """Return the folder of all builds of this user: ``~/.cache/curriculum-sampler/builds``, or below ``XDG_CACHE_HOME``."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "curriculum-sampler" / "builds"


@contextmanager
def work_folder(work_dir: Path, destination: str) -> Iterator[Path]:
    """Hold the folder of the builds to one destination.

    Raises:
        ArgumentError: Another process builds to this destination.
        StorageError: The folder cannot be made or written to.
    """
    folder = work_dir.expanduser().absolute() / digest(destination)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise file_failure(folder, error, writing=True) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ArgumentError(
            f"Another process is building to {destination} (it holds {folder}). Wait until it has ended."
        ) from None
    try:
        yield folder
    finally:
        os.close(lock)


def clear(folder: Path) -> None:
    """Remove what a finished build no longer needs."""
    shutil.rmtree(folder, ignore_errors=True)
