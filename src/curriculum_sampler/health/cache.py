"""The folder that keeps what was fetched from S3: what it holds, what may be left over, and what the disk has room for."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

from ..cache_folder import LOCK, SUFFIX
from ..file_failure import file_failure
from ..local_storage import UNFINISHED
from ..terminal import counted, readable_bytes
from . import Finding


def look_at_cache(folder: Path, budget: int | None) -> Finding:
    """Return what is in a cache folder, which need not exist. Nothing is written or removed.

    Args:
        folder: ``cache_dir`` of the loaders.
        budget: Their ``cache_bytes``; None if that is not known.
    """
    told: dict[str, Any] = {"folder": str(folder), "exists": folder.exists(), "budget": budget}
    rows = [("folder", str(folder) if told["exists"] else f"{folder} (made at first use)")]
    faults = []
    try:
        if told["exists"]:
            told |= _contents(folder)
            held = f"{counted(told['pieces'], 'piece')}, {readable_bytes(told['bytes'])}"
            rows.append(("holds", held))
            rows.append(
                ("in use", "a process is fetching right now" if told["is_locked"] else "nobody is fetching")
            )
            if told["left_over"]:
                rows.append(
                    (
                        "left over",
                        f"{counted(told['left_over'], 'unfinished file')} of processes that are gone; "
                        "the next job removes them",
                    )
                )
        place = next(path for path in (folder, *folder.parents) if path.exists())
        told["free_bytes"] = shutil.disk_usage(place).free
        if not os.access(place, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            faults.append(
                f"{place} cannot be written to. Change its permissions, or pass cache_dir= to the loader."
            )
    except OSError as error:
        faults.append(str(file_failure(Path(error.filename or folder), error)))
        return Finding("cache", rows, told, faults)
    rows.append(
        (
            "budget",
            readable_bytes(budget)
            if budget
            else "the loaders' cache_bytes (by default up to 512 MiB a bucket)",
        )
    )
    rows.append(("free disk", readable_bytes(told["free_bytes"])))
    room = told.get("bytes", 0) + told["free_bytes"]
    if budget is not None and room < budget:
        faults.append(
            f"The cache may grow to {readable_bytes(budget)}, but its disk has room for {readable_bytes(room)}. "
            "Free some space, lower cache_bytes, or choose another cache_dir."
        )
    return Finding("cache", rows, told, faults)


def _contents(folder: Path) -> dict[str, Any]:
    pieces = num_bytes = left_over = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # other processes come and go
                if entry.name.endswith(SUFFIX):
                    pieces += 1
                    num_bytes += entry.stat().st_size
                elif entry.name.startswith(UNFINISHED):
                    left_over += not _is_flocked(Path(entry.path))
    return {
        "pieces": pieces,
        "bytes": num_bytes,
        "left_over": left_over,
        "is_locked": _is_locked(folder / LOCK),
    }


def _is_flocked(path: Path) -> bool:
    """Say whether the writer of a half-written file lives."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _is_locked(path: Path) -> bool:
    """Say whether any process holds a byte of the lock file, which means that it fetches. Locks end with their process."""
    try:
        with open(path, "rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
