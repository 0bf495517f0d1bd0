"""What the answer to a ranged GET says: which object it is of, and whether it is the range asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

_TOLD = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class RangeAnswer:
    """The headers of an answer, before its body is read.

    Attributes:
        etag: The object's ETag as the server writes it, quotes and ``W/`` included.
        length: Bytes in the body.
        told: The header Content-Range, empty if there is none.

    >>> answer = RangeAnswer('"3f"', 10, "bytes 100-109/5000")
    >>> answer.is_range(100, 109), answer.is_range(90, 99), answer.object_bytes
    (True, False, 5000)
    >>> RangeAnswer('"3f"', 10, "").object_bytes is None
    True
    """

    etag: str
    length: int
    told: str

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self | None:
        """Read what boto3 returned; None if the server named neither ETag nor length, as S3 always does."""
        if "ETag" not in answer or "ContentLength" not in answer:
            return None
        return cls(str(answer["ETag"]), int(answer["ContentLength"]), str(answer.get("ContentRange", "")))

    @property
    def object_bytes(self) -> int | None:
        """Length of the whole object, if the answer tells."""
        match = _TOLD.fullmatch(self.told)
        return int(match[2]) if match and match[2] != "*" else None

    def is_range(self, first: int, last: int) -> bool:
        """Whether the body begins with byte ``first`` and goes no further than ``last``.

        Some servers answer a range with status 200 and without Content-Range; then only the length
        tells whether they honoured it.
        """
        starts_elsewhere = self.told and not self.told.startswith(f"bytes {first}-")
        return not starts_elsewhere and self.length <= last - first + 1
