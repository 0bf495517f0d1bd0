"""How each shard was found, and under which ETag: a local file with one line a shard.

It lets a verification that was interrupted go on, and a later quick look notice shards that were replaced, or that are as
damaged as they were.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import ArgumentError
from .file_failure import file_failure

_FORMAT = "curriculum-sampler verification"


class VerificationRecord:
    """What is known of the shards of one data set.

    Args:
        path: The file; made with its folder when the first shard is added.
        url: The data set that it speaks of.

    Raises:
        ArgumentError: The file is something else, or speaks of another data set; it is left alone.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "record.jsonl"
    >>> record = VerificationRecord(path, "data/v1")
    >>> record.add("easy-0.tar", "9f31", "etag-1")
    >>> VerificationRecord(path, "data/v1").etag("easy-0.tar", "9f31")
    'etag-1'
    """

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.is_complete = False
        """Whether the verification that wrote it came to its end."""
        self._url = url
        self._etags: dict[tuple[str, str], str] = {}
        self._faults: dict[tuple[str, str, str], list[str]] = {}
        self._is_torn = False
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return
        except (OSError, UnicodeDecodeError) as error:
            raise self._foreign(f"it cannot be read ({error})") from error
        lines = text.splitlines()
        # A process that was killed leaves half a line; the next one begins on a line of its own.
        self._is_torn = bool(text) and not text.endswith("\n")
        if lines:
            self._check_head(_parsed(lines[0]))
        for line in lines[1:]:
            told = _parsed(line)
            if told is None:
                continue
            if told.get("complete"):
                self.is_complete = True
            elif "faults" in told:
                self._faults[told["name"], told["index"], told["etag"]] = told["faults"]
            else:
                self._etags[told["name"], told["index"]] = told["etag"]

    def etag(self, name: str, digest: str) -> str | None:
        """Return the ETag under which a shard was found whole, if it was."""
        return self._etags.get((name, digest))

    def __len__(self) -> int:
        """Number of shards known to be whole."""
        return len(self._etags)

    def add(self, name: str, digest: str, etag: str) -> None:
        """Note a shard that was found whole."""
        self._etags[name, digest] = etag
        self._append({"name": name, "index": digest, "etag": etag})

    def faults(self, name: str, digest: str, etag: str) -> list[str]:
        """Return what was found wrong with a shard while it had this ETag; nothing if it was whole, or not looked at."""
        return self._faults.get((name, digest, etag), [])

    def add_faults(self, name: str, digest: str, etag: str, faults: Sequence[str]) -> None:
        """Note what is wrong with a shard."""
        self._faults[name, digest, etag] = [*faults]
        self._append({"name": name, "index": digest, "etag": etag, "faults": [*faults]})

    def finish(self) -> None:
        """Note that every shard was looked at."""
        self.is_complete = True
        self._append({"complete": True})

    def begin_anew(self) -> None:
        """Forget everything."""
        self._etags.clear()
        self._faults.clear()
        self.is_complete = False
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def _append(self, told: dict[str, Any]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                if self._is_torn:
                    file.write("\n")
                    self._is_torn = False
                if not file.tell():
                    file.write(json.dumps({"format": _FORMAT, "url": self._url}) + "\n")
                file.write(json.dumps(told) + "\n")
        except OSError as error:
            raise file_failure(self.path, error, writing=True) from error

    def _check_head(self, head: dict[str, Any] | None) -> None:
        if head is None or head.get("format") != _FORMAT:
            raise self._foreign("it is not the record of a verification")
        if head.get("url") != self._url:
            raise self._foreign(f"it speaks of {head.get('url')}, not of {self._url}")

    def _foreign(self, why: str) -> ArgumentError:
        return ArgumentError(f"{self.path} cannot be used: {why}. Give another file for the record.")


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None
