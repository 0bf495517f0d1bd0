"""What went wrong with a file, and what a person should do about it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from .errors import AbsentError, StorageError

_ADVICE = {
    errno.ENOSPC: "The disk is full: free some space",
    errno.EDQUOT: "Your quota is used up: free some space",
    errno.EFBIG: "The file system or 'ulimit -f' allows no file as large: write smaller shards or raise the limit",
    errno.EROFS: "Choose a folder that can be written to",
    errno.EISDIR: "A folder has this name: choose another place or move it away",
    errno.ENAMETOOLONG: "Choose a shorter path",
    errno.ENOENT: "Check the folder and the name",
}


def file_failure(path: Path, error: OSError, *, writing: bool = False) -> StorageError:
    """Turn what the operating system raised about ``path`` into an error that says what to do.

    >>> print(file_failure(Path("data/a.tar"), FileNotFoundError(2, "No such file or directory")))
    data/a.tar does not exist. Check the folder and the name.
    >>> print(file_failure(Path("data/a.tar"), OSError(28, "No space left on device"), writing=True))
    data/a.tar could not be written (No space left on device); what was there before is untouched. The disk is full: ...
    """
    if writing:
        what = f"could not be written ({error.strerror}); what was there before is untouched"
    elif isinstance(error, FileNotFoundError):
        what = "does not exist"
    else:
        what = f"cannot be read ({error.strerror})"
    kind = AbsentError if isinstance(error, FileNotFoundError) and not writing else StorageError
    return kind(f"{path} {what}. {_advice(path, error)}{', then write again' if writing else ''}.")


def _advice(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        # The system does not say which part of the path it is.
        file = next((parent for parent in path.parents if parent.is_file()), path.parent)
        return f"{file} is a file, not a folder: choose another place or move it away"
    if error.errno in (errno.EACCES, errno.EPERM):
        # What is below a folder that may not be entered looks absent, which names that folder.
        there = next((place for place in (path, *path.parents) if os.path.exists(place)), path)
        return f"Check the permissions of {there}, or choose another folder"
    return _ADVICE.get(error.errno or 0, "Check the disk")
