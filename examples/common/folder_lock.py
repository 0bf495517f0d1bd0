"""One training at a time in one folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curriculum_sampler.errors import ArgumentError


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; two writers would mix their rows and remove each other's files.

    The lock is the process's own (POSIX record lock): loader workers do not inherit it, and the kernel drops it
    however the process ends, so nothing is left to clean up after a ``kill -9``.

    Raises:
        ArgumentError: Another process holds it; it is named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise ArgumentError(
                f"{folder} is in use by process {file.read().strip() or 'unknown'}. Wait for it or stop it, or give another"
                " --output_dir."
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
