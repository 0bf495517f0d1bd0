"""The index beside a shard: where each sample lies and what its bytes must hash to.

With it a sample is one ranged read, checked before anything looks inside. The file is a header of
40 bytes, then three little-endian ``uint64`` columns with one value per sample:

======  =======================================================
bytes   meaning
======  =======================================================
0-7     ``CSINDEX`` and a zero byte
8-15    format version, 1
16-23   number of samples, ``n``
24-31   length of the tar in bytes
32-39   XXH3-64 of the three columns, so that damage to the index itself is found
``8n``  offset of each sample
``8n``  its length: headers, contents and padding
``8n``  XXH3-64 of those bytes
======  =======================================================
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .checksum import checksum
from .errors import ShardError
from .tar import BLOCK

# Other tools keep their own indexes as ``.idx`` and ``.tar.idx`` beside the same tars.
INDEX_SUFFIX = ".curriculum.idx"

_MAGIC = b"CSINDEX\0"
_VERSION = 1
_HEADER = struct.Struct("<8sQQQQ")

# A sample is held in memory whole, so one that claims more is refused before any is set aside for it.
MOST_SAMPLE_BYTES = 1 << 30


def index_num_bytes(samples: int) -> int:
    """Return the length of the index file of a shard of so many samples."""
    return _HEADER.size + 24 * samples


@dataclass(frozen=True, slots=True, eq=False)
class ShardIndex:
    """Offsets, lengths and checksums of the samples of one shard, in the shard's order.

    >>> index = ShardIndex.of(4096, [(0, 1536, 7), (1536, 1024, 8)])
    >>> len(index), index.stops.tolist(), len(index.to_bytes())
    (2, [1536, 2560], 88)
    """

    tar_bytes: int
    starts: NDArray[np.uint64]
    lengths: NDArray[np.uint64]
    checksums: NDArray[np.uint64]

    @classmethod
    def of(cls, tar_bytes: int, samples: Sequence[tuple[int, int, int]]) -> ShardIndex:
        """Make an index from (offset, length, checksum) per sample."""
        columns = np.array(samples, dtype="<u8").reshape(-1, 3).T
        return cls(tar_bytes, *_frozen(np.ascontiguousarray(columns)))

    @property
    def stops(self) -> NDArray[np.uint64]:
        """Offset just after each sample."""
        return self.starts + self.lengths

    def __len__(self) -> int:
        return len(self.starts)

    def to_bytes(self) -> bytes:
        """Return the index as a file; ``from_bytes`` reads it back."""
        columns = b"".join(column.tobytes() for column in (self.starts, self.lengths, self.checksums))
        return _HEADER.pack(_MAGIC, _VERSION, len(self), self.tar_bytes, checksum(columns)) + columns

    @classmethod
    def from_bytes(cls, data: bytes) -> ShardIndex:
        """Read an index file.

        Raises:
            ShardError: It is no index, is damaged, is of a newer version, or names impossible places.
        """
        if len(data) < _HEADER.size or not data.startswith(_MAGIC):
            raise ShardError("this is not a shard index of curriculum-sampler. Index the shard again.")
        _, version, count, tar_bytes, told = _HEADER.unpack_from(data)
        if version != _VERSION:
            raise ShardError(
                f"the index has format version {version}, this library reads {_VERSION}. "
                "Upgrade curriculum-sampler, or index the shard again."
            )
        body = memoryview(data)[_HEADER.size :]
        if len(body) != 24 * count or checksum(body) != told:
            raise ShardError("the index is damaged (its checksum is wrong). Index the shard again.")
        index = cls(tar_bytes, *_frozen(np.frombuffer(body, dtype="<u8").reshape(3, count)))
        if not index._is_possible():
            raise ShardError(f"the index names places outside its tar of {tar_bytes} bytes. Index it again.")
        if count and int(index.lengths.max()) > MOST_SAMPLE_BYTES:
            raise ShardError(
                f"the index names a sample of {index.lengths.max()} bytes, more than the {MOST_SAMPLE_BYTES} that are "
                "held in memory at once. Split the sample."
            )
        return index

    def _is_possible(self) -> bool:
        stops = self.stops
        aligned = not np.any((self.starts % BLOCK) | (self.lengths % BLOCK))
        in_order = bool(np.all(self.starts[1:] >= stops[:-1]))
        return aligned and in_order and bool(np.all((self.lengths > 0) & (stops <= self.tar_bytes)))


def _frozen(columns: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    columns.setflags(write=False)
    return columns[0], columns[1], columns[2]
