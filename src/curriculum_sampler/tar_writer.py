"""Making a WebDataset tar in memory, byte for byte the same for the same samples."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping

from .checksum import checksum
from .index import ShardIndex
from .tar import BLOCK

_END = bytes(2 * BLOCK)


def pack(key: str, members: Mapping[str, bytes]) -> bytes:
    """Return one sample as tar blocks: its members by extension, with no time, owner or order of its own.

    >>> len(pack("0001", {"txt": b"hello"})), pack("0001", {"txt": b"hello"})[:8]
    (1024, b'0001.txt')
    """
    blocks = bytearray()
    for extension, content in sorted(members.items()):
        info = tarfile.TarInfo(f"{key}.{extension}")
        info.size = len(content)
        info.mode = 0o644
        blocks += info.tobuf(tarfile.PAX_FORMAT)
        blocks += content
        blocks += bytes(-len(content) % BLOCK)
    return bytes(blocks)


class TarBuilder:
    """Collects packed samples into one archive and its index.

    >>> builder = TarBuilder()
    >>> builder.add(pack("0001", {"txt": b"hello"}))
    >>> tar, index = builder.finish()
    >>> len(tar), len(index), builder.num_bytes
    (2048, 1, 2048)
    """

    def __init__(self) -> None:
        self._tar = bytearray()
        self._samples: list[tuple[int, int, int]] = []

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def num_bytes(self) -> int:
        """Length of the archive if it ended here."""
        return len(self._tar) + len(_END)

    def add(self, sample: bytes) -> None:
        """Append one packed sample."""
        self._samples.append((len(self._tar), len(sample), checksum(sample)))
        self._tar += sample

    def finish(self) -> tuple[bytes, ShardIndex]:
        """Return the archive and its index."""
        tar = bytes(self._tar) + _END
        return tar, ShardIndex.of(len(tar), self._samples)
