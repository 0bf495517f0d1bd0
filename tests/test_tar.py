"""Tars made by others are read as they are; damaged ones never pass for shorter ones."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.errors import ShardError
from curriculum_sampler.tar import BLOCK, Member, scan
from curriculum_sampler.tar_writer import TarBuilder, pack

from .data_fixtures import tar_bytes

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
LONG = "folder/" * 20 + "x" * 150

names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]),
    min_size=1,
    max_size=130,
)
archives = st.dictionaries(
    names.filter(lambda name: name not in (".", "..")), st.binary(max_size=1500), max_size=6
)


def members(data: bytes) -> list[Member]:
    return list(scan(lambda offset, count: data[offset : offset + count], len(data)))


def contents(data: bytes) -> dict[str, bytes]:
    return {
        member.name: data[member.data : member.data + member.num_bytes]
        for member in members(data)
        if member.kind == "file"
    }


@given(archive=archives, format=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_what_the_standard_library_writes_is_read_back(archive: dict[str, bytes], format: int) -> None:
    assert contents(tar_bytes(archive, format)) == archive


@pytest.mark.parametrize("format", FORMATS)
def test_members_tile_the_archive_from_the_first_byte(format: int) -> None:
    data = tar_bytes({"a.txt": b"1", "d/": b"", "d/b.txt": bytes(600), "empty": b""}, format)
    found = members(data)
    assert [(member.name.rstrip("/"), member.kind) for member in found] == [
        ("a.txt", "file"),
        ("d", "directory"),
        ("d/b.txt", "file"),
        ("empty", "file"),
    ]
    assert found[0].start == 0
    assert [member.start for member in found[1:]] == [member.stop for member in found[:-1]]


def test_a_long_ustar_name_is_joined_from_its_two_fields() -> None:
    name = "folder/" * 20 + "x" * 60
    assert contents(tar_bytes({name: b"1"}, tarfile.USTAR_FORMAT)) == {name: b"1"}


def test_large_sizes_and_strange_names_survive_in_every_format_that_can_hold_them() -> None:
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info = tarfile.TarInfo("big.bin")
        info.size = 9 << 30  # more than octal digits hold
        header = info.tobuf(format)
        read = lambda offset, count, header=header: header[offset : offset + count].ljust(count, b"\0")  # noqa: E731
        (member,) = scan(read, len(header) + info.size + 2 * BLOCK)
        assert (member.num_bytes, member.data) == (9 << 30, len(header))


def test_gnu_tar_is_read_with_links_and_directories_told_apart(tmp_path: Path) -> None:
    (tmp_path / "in/d").mkdir(parents=True)
    (tmp_path / "in/d/a.txt").write_bytes(b"hello")
    (tmp_path / f"in/{'n' * 180}.txt").write_bytes(b"long")
    os.symlink("a.txt", tmp_path / "in/d/b.txt")
    os.link(tmp_path / "in/d/a.txt", tmp_path / "in/d/c.txt")
    for format in ("gnu", "posix", "ustar", "v7"):
        target = tmp_path / f"{format}.tar"
        options = ["--exclude=n*"] if format in ("v7", "ustar") else []
        command = [
            "tar",
            f"--format={format}",
            "--sort=name",
            *options,
            "-cf",
            str(target),
            "-C",
            str(tmp_path / "in"),
            ".",
        ]
        subprocess.run(command, check=True)
        found = {member.name: member.kind for member in members(target.read_bytes())}
        assert found["./d/a.txt"] == "file"
        assert found["./d/b.txt"] == "symbolic link"
        assert found["./d/c.txt"] == "hard link"
        assert found["./d/"] == "directory"
        assert (f"./{'n' * 180}.txt" in found) == (not options)


def sample_tar(count: int = 100) -> bytes:
    builder = TarBuilder()
    for number in range(count):
        builder.add(pack(f"{number:04}", {"cls": b"%d" % number, "bin": bytes([number]) * 700}))
    return builder.finish()[0]


SAMPLE = 512 + 512 + 512 + 1024
MIDDLE = 50 * SAMPLE


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda tar: tar[:MIDDLE] + b"\xff" * BLOCK + tar[MIDDLE + BLOCK :],
            "header at byte 128000 is damaged",
        ),
        (lambda tar: tar[:MIDDLE], "cut at byte 128000"),
        (lambda tar: tar[: MIDDLE + 100], "cut inside a header"),
        (lambda tar: tar[:MIDDLE] + bytes(10 * BLOCK) + tar[MIDDLE + 10 * BLOCK :], "behind zero blocks"),
        (lambda tar: tar[: MIDDLE + 1536], "cut at byte 129536"),
        (lambda tar: tar[: MIDDLE + 700], "ends at byte 129536, but the archive is cut at byte 128700"),
        (lambda tar: tar[:-BLOCK], "must come two blocks of zeros"),
        (lambda tar: tar + tar, "two archives were joined"),
        (lambda tar: b"", "cut at byte 0"),
        (lambda tar: gzip.compress(tar), "compressed"),
    ],
    ids=[
        "overwritten header",
        "cut at a header",
        "cut in a header",
        "zero blocks",
        "cut between members",
        "cut in a body",
        "no end",
        "joined",
        "empty",
        "gzip",
    ],
)
def test_every_kind_of_damage_is_an_error_and_never_a_shorter_archive(damage, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ShardError, match=message):
        members(damage(sample_tar()))


@given(st.data())
def test_a_tar_cut_anywhere_is_an_error(data: st.DataObject) -> None:
    tar = sample_tar(3)
    cut = data.draw(st.integers(0, len(tar) - 1))
    with pytest.raises(ShardError):
        members(tar[:cut])


@given(position=st.integers(0, 3 * BLOCK - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_header_is_an_error_or_changes_nothing(position: int, bit: int) -> None:
    tar = bytearray(tar_bytes({LONG: b"abc"}, tarfile.GNU_FORMAT))
    tar[position] ^= 1 << bit
    before = members(tar_bytes({LONG: b"abc"}, tarfile.GNU_FORMAT))
    in_long_name = BLOCK <= position < 2 * BLOCK  # content, which a tar does not protect
    if in_long_name:
        return
    with contextlib.suppress(ShardError):
        assert members(bytes(tar)) == before


@pytest.mark.parametrize(("flag", "kind"), [(b"1", "hard link"), (b"5", "directory"), (b"6", "pipe")])
def test_what_has_no_content_has_none_whatever_size_its_header_tells(flag: bytes, kind: str) -> None:
    info = tarfile.TarInfo("thing")
    info.type, info.size = flag, 700
    found = members(info.tobuf(tarfile.USTAR_FORMAT) + tar_bytes({"a.txt": b"abc"}))
    assert [(member.name.rstrip("/"), member.kind, member.num_bytes) for member in found] == [
        ("thing", kind, 0),
        ("a.txt", "file", 3),
    ]


@pytest.mark.parametrize("field", [(124, b"9z"), (124, b"-1")])
def test_a_size_that_is_no_number_is_an_error(field: tuple[int, bytes]) -> None:
    tar = bytearray(tar_bytes({"a.txt": b"abc"}))
    tar[field[0] : field[0] + 12] = field[1].ljust(12, b"\0")
    tar[148:156] = b"%06o\0 " % (sum(tar[:148]) + sum(tar[156:512]) + 256)
    with pytest.raises(ShardError, match="no valid size"):
        members(bytes(tar))


def test_a_pax_header_that_lies_is_an_error() -> None:
    def with_pax(records: bytes, kind: bytes = b"x") -> bytes:
        info = tarfile.TarInfo("pax")
        info.type, info.size = kind, len(records)
        head = info.tobuf(tarfile.USTAR_FORMAT) + records.ljust(BLOCK, b"\0")
        return head + tar_bytes({"a.txt": b"abc"})

    assert contents(with_pax(b"16 path=new.txt\n")) == {"new.txt": b"abc"}
    assert contents(with_pax(b"17 comment=hello\n", b"g")) == {"a.txt": b"abc"}
    for records in (
        b"99 path=x\n",
        b"path=x\n",
        b"0 path=x\n",
        b"10 path=xy",
        b"9 size=xx\n",
        b"10 size=-1\n",
    ):
        with pytest.raises(ShardError, match="PAX header at byte 0"):
            members(with_pax(records))
    with pytest.raises(ShardError, match="renames all members"):
        members(with_pax(b"16 path=new.txt\n", b"g"))


def test_a_packed_sample_is_what_the_standard_library_reads() -> None:
    tar, index = (builder := TarBuilder()).finish()
    assert (len(tar), len(index), builder.num_bytes) == (2 * BLOCK, 0, 2 * BLOCK)
    builder.add(pack("a", {"txt": b"1", "bin": b"22"}))
    builder.add(pack("k" * 120, {"näme": b"3"}))
    tar, index = builder.finish()
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        found = {info.name: (info.mtime, info.uid, info.uname, info.mode) for info in opened}
        assert opened.extractfile("a.bin").read() == b"22"  # type: ignore[union-attr]
    assert found == dict.fromkeys(["a.bin", "a.txt", f"{'k' * 120}.näme"], (0, 0, "", 0o644))
    assert index.stops.tolist()[-1] == len(tar) - 2 * BLOCK
