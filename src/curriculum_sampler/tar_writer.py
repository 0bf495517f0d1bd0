"""Making a WebDataset tar in memory, byte for byte the same for the same samples."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping

from .checksum import checksum
from .index import ShardIndex
from .tar import BLOCK

_END = bytes(2 * BLOCK)

_LONGEST_NAME = 100
_PLAIN_BYTES = 8**11
# A header without name, size and checksum; blanks stand for the checksum while it is taken.
_HEADER = bytearray(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT))
_HEADER[148:156] = b" " * 8
_HEADER[124:135] = bytes(11)


def pack(key: str, members: Mapping[str, bytes]) -> bytes:
    """Return one sample as tar blocks: its members by extension, with no time, owner or order of its own.

    >>> len(pack("0001", {"txt": b"hello"})), pack("0001", {"txt": b"hello"})[:8]
    (1024, b'0001.txt')
    """
    blocks = []
    for extension, content in sorted(members.items()):
        blocks += [_header(f"{key}.{extension}", len(content)), content, bytes(-len(content) % BLOCK)]
    return b"".join(blocks)


def _header(name: str, num_bytes: int) -> bytes:
    """Return the header of a file, as ``tarfile`` writes it, which takes many times as long."""
    if not name.isascii() or len(name) > _LONGEST_NAME or num_bytes >= _PLAIN_BYTES:
        info = tarfile.TarInfo(name)
        info.size = num_bytes
        info.mode = 0o644
        return info.tobuf(tarfile.PAX_FORMAT)
    header = bytearray(_HEADER)
    header[: len(name)] = name.encode()
    header[124:135] = b"%011o" % num_bytes
    header[148:155] = b"%06o\0" % sum(header)
    return bytes(header)


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
        tar = b"".join((self._tar, _END))
        return tar, ShardIndex.of(len(tar), self._samples)
