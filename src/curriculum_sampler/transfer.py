"""A ranged read in progress: what has arrived stays, whatever happens to the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .retry import Budget

# Between two pieces of a body the deadline is looked at, so a trickling server cannot hold a read.
PIECE_BYTES = 256 * 1024


@dataclass(slots=True)
class Transfer:
    """The part of an object that is being read into ``buffer``, and how much of it has arrived.

    >>> transfer = Transfer(memoryview(bytearray(10)), offset=100, received=4)
    >>> transfer.missing, transfer.first, transfer.last
    (6, 104, 109)
    """

    buffer: memoryview
    offset: int
    received: int = 0

    @property
    def missing(self) -> int:
        """Bytes still to come."""
        return len(self.buffer) - self.received

    @property
    def first(self) -> int:
        """Offset in the object of the next byte to ask for."""
        return self.offset + self.received

    @property
    def last(self) -> int:
        """Offset in the object of the last byte wanted."""
        return self.offset + len(self.buffer) - 1

    def pour(self, body: Any, budget: Budget) -> None:
        """Read a response body until all has arrived, the body ends, or the deadline passes."""
        with body as stream:
            # ``read1`` returns what has arrived, so what came before a fault is kept and resumed from.
            read = getattr(stream, "read1", stream.read)
            while self.missing and not budget.is_late:
                piece = read(min(PIECE_BYTES, self.missing))
                if not piece:
                    return
                self.buffer[self.received : self.received + len(piece)] = piece
                self.received += len(piece)
                budget.progressed()
