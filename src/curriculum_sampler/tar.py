"""Reading tar headers: which file lies where, and whether the archive is whole.

The standard library's reader takes damage for the end of the archive; here every block that is not
what it should be is an error, so a training set never ends early without a word. Understood are
ustar, GNU (long names, large numbers) and PAX; what hides a file's bytes elsewhere (links, sparse
files) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .errors import ShardError

BLOCK = 512
Bytes = bytes | bytearray | memoryview
Read = Callable[[int, int], Bytes]

# A long name or a PAX header larger than this is damage, not a name.
_MOST_EXTENDED_BYTES = 1 << 20
_ZEROS = bytes(BLOCK)

# Type flags of ordinary files.
_PLAIN = b"0\0"


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive.

    Attributes:
        name: Path in the archive.
        kind: ``"file"``, ``"directory"``, or what else it is (``"hard link"``, ...).
        start: Offset of its first header block, long-name and PAX headers included.
        data: Offset of its first content byte.
        num_bytes: Content length.
    """

    name: str
    kind: str
    start: int
    data: int
    num_bytes: int

    @property
    def stop(self) -> int:
        """Offset just after its last block."""
        return self.data + _padded(self.num_bytes)


def scan(read: Read, num_bytes: int) -> Iterator[Member]:
    """Yield the members of a whole archive, and raise unless it ends as an archive must.

    Args:
        read: ``read(offset, count)`` returns exactly ``count`` bytes.
        num_bytes: Length of the archive.

    Raises:
        ShardError: A header is damaged, the archive is cut anywhere (also between two members), its
            end is not two blocks of zeros, or anything but zeros follows them.
    """
    end = 0
    for member in walk(read, 0, num_bytes):
        yield member
        end = member.stop
    if num_bytes - end < 2 * BLOCK:
        raise ShardError(
            f"the archive is cut at byte {num_bytes}: after its last member must come two blocks of zeros. "
            "Copy or write it again."
        )
    while end < num_bytes:
        count = min(1 << 20, num_bytes - end)
        if bytes(read(end, count)).strip(b"\0"):
            raise ShardError(
                f"there is data behind zero blocks near byte {end}: blocks were wiped, or two archives were "
                "joined. Write it again as one archive."
            )
        end += count


def walk(read: Read, start: int, stop: int) -> Iterator[Member]:
    """Yield the members between two offsets, ending at ``stop`` or at the first block of zeros.

    Raises:
        ShardError: A damaged header, or a member that reaches beyond ``stop``.

    >>> import io, tarfile
    >>> info = tarfile.TarInfo("a.txt"); info.size = 5
    >>> sample = info.tobuf() + b"hello".ljust(512, bytes(1))
    >>> [(member.name, member.data, member.num_bytes) for member in walk(lambda at, n: sample[at:at + n], 0, 1024)]
    [('a.txt', 512, 5)]
    """
    offset = start
    while offset < stop:
        first = offset
        long_name: str | None = None
        told: dict[str, str] = {}
        while True:
            if offset + BLOCK > stop:
                raise ShardError(
                    f"the archive is cut inside a header, at byte {stop}. Copy or write it again."
                )
            header = bytes(read(offset, BLOCK))
            if header == _ZEROS:
                if first != offset:
                    raise ShardError(f"a member's second header at byte {offset} is blank. Write it again.")
                return
            _verify(header, offset)
            kind, size = header[156:157], _number(header[124:136], offset)
            if kind not in b"LKxXg":
                break
            if size > _MOST_EXTENDED_BYTES:
                raise ShardError(f"the extended header at byte {offset} claims {size} bytes: it is damaged.")
            if offset + BLOCK + _padded(size) > stop:
                raise ShardError(f"the archive is cut inside a long name, at byte {stop}. Copy it again.")
            content = bytes(read(offset + BLOCK, size))
            if kind == b"L":
                long_name = _text(content)
            elif kind in b"xX":
                told = _records(content, offset)
            elif kind == b"g" and {"path", "size"} & _records(content, offset).keys():
                raise ShardError(f"a global header at byte {offset} renames all members: not supported.")
            offset += BLOCK + _padded(size)
        size = int(told["size"]) if "size" in told else size
        name = told.get("path") or long_name or _name(header)
        what = "sparse file" if any(key.startswith("GNU.sparse") for key in told) else _kind(kind, name)
        if kind in b"123456":
            size = 0  # such entries have no content, whatever number their header holds
        member = Member(name, what, first, offset + BLOCK, size)
        if member.stop > stop:
            raise ShardError(
                f"member {name!r} ends at byte {member.stop}, but the archive is cut at byte {stop}. "
                "Copy or write it again."
            )
        yield member
        offset = member.stop


def contents(sample: memoryview) -> Iterator[tuple[str, int, int]]:
    """Yield (name, offset, length) of the files among the blocks of a sample that is known to be whole.

    Where a checksum has shown that the blocks are those that were indexed, plain headers are not checked again, which
    is several times quicker than ``walk``; anything but a plain header is left to it.

    Raises:
        ShardError: As ``walk``.
    """
    offset, stop = 0, len(sample)
    while offset < stop:
        header = bytes(sample[offset : offset + BLOCK])
        size = header[124:135]
        if header[156] not in _PLAIN or header[345] or not size.isdigit():
            for member in walk(lambda at, count: sample[at : at + count], offset, stop):
                if member.kind == "file":
                    yield member.name, member.data, member.num_bytes
            return
        num_bytes = int(size, 8)
        yield _text(header[:100]), offset + BLOCK, num_bytes
        offset += BLOCK + _padded(num_bytes)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _verify(header: bytes, offset: int) -> None:
    try:
        told = int(header[148:156].strip(b"\0 ") or b"-1", 8)
    except ValueError:
        told = -1
    counted = sum(header) - sum(header[148:156]) + 8 * 32
    if told == counted:
        return
    # Some old writers summed signed bytes.
    high = sum(byte > 127 for byte in header[:148] + header[156:])
    if told == counted - 256 * high:
        return
    compressed = offset == 0 and header[:2] in (b"\x1f\x8b", b"BZ", b"\xfd7", b"(\xb5")
    raise ShardError(
        "the archive is compressed, so that no part of it can be read alone. Decompress it to a plain .tar."
        if compressed
        else f"the header at byte {offset} is damaged (its checksum is wrong). Copy or write the archive again."
    )


def _number(field: bytes, offset: int) -> int:
    if field[0] == 0x80:  # GNU: big-endian binary, for what octal digits cannot hold
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b"\0 ") or b"0"
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise ShardError(f"the header at byte {offset} holds no valid size. Write it again.")
    return int(digits, 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _kind(flag: bytes, name: str) -> str:
    if flag in (b"0", b"\0", b"7"):
        return "directory" if name.endswith("/") else "file"
    known = {
        b"1": "hard link",
        b"2": "symbolic link",
        b"3": "character device",
        b"4": "block device",
        b"5": "directory",
        b"6": "pipe",
        b"S": "sparse file",
    }
    return known.get(flag, f"entry of type {flag!r}")


def _records(content: bytes, offset: int) -> dict[str, str]:
    """Parse PAX records, each ``<length> <key>=<value>\\n``."""
    found: dict[str, str] = {}
    position = 0
    while position < len(content):
        digits, _, _ = content[position : position + 20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = content[position : position + length]
        key, separator, value = record[len(digits) + 1 : -1].partition(b"=")
        if not separator or len(record) != length or record[-1:] != b"\n":
            raise ShardError(f"the PAX header at byte {offset} is damaged. Write the archive again.")
        found[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        position += length
    if not found.get("size", "0").isdigit():
        raise ShardError(f"the PAX header at byte {offset} holds no valid size. Write the archive again.")
    return found
