"""The body of a write, handed out piece by piece while there is time."""

from __future__ import annotations

import io

from .retry import Budget

# A write has a second more than its deadline for so many bytes: shards are large, and lines may be slow.
SLOWEST_WRITE = 256 * 1024


class Upload(io.BytesIO):
    """A file for boto3, which sends it in small pieces.

    A socket's timeout is for all that one call sends. Given the bytes themselves, boto3 would send them
    in one call, and a large object could never be written over a slow line; given a file, it sends
    pieces, and then nobody would notice a server that takes one now and then.
    """

    def __init__(self, data: bytes | bytearray, budget: Budget) -> None:
        super().__init__(data)
        self._budget = budget

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next piece.

        Raises:
            TimeoutError: The deadline has passed.
        """
        if self._budget.is_late:
            raise TimeoutError("the deadline of the write has passed")
        return super().read(size)
