"""Every storage keeps the same promises."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import errno
import itertools
import os
import re
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curriculum_sampler.errors import ArgumentError, StorageError
from curriculum_sampler.file_failure import file_failure
from curriculum_sampler.local_storage import LocalStorage
from curriculum_sampler.locations import open_storage
from curriculum_sampler.memory_storage import MemoryStorage
from curriculum_sampler.s3 import S3Storage
from curriculum_sampler.storage import Storage, read_all
from curriculum_sampler.testing import check_storage

from .data_fixtures import s3_bucket, s3_endpoint, storage, unprivileged


@pytest.fixture(params=["memory", "local", "s3"])
def make_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Storage]:
    """Makes storages of each kind in turn, each empty."""
    names = (f"number-{number}" for number in itertools.count())
    if request.param == "memory":
        return lambda: MemoryStorage(next(names))
    if request.param == "local":
        return lambda: LocalStorage(tmp_path / next(names))
    endpoint = request.getfixturevalue("s3_endpoint")
    bucket = request.getfixturevalue("s3_bucket")
    return lambda: S3Storage(bucket, f"some/{next(names)}", endpoint_url=endpoint)


def test_every_storage_keeps_the_laws(make_storage: Callable[[], Storage]) -> None:
    check_storage(make_storage)
    assert isinstance(make_storage(), Storage)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=2000), ends=st.tuples(st.integers(0, 2000), st.integers(0, 2000)))
def test_any_range_of_any_object_reads_as_it_was_written(
    storage: Storage, content: bytes, ends: tuple[int, int]
) -> None:
    start, stop = sorted(min(end, len(content)) for end in ends)
    storage.write("a/b.bin", content)
    buffer = bytearray(stop - start)
    storage.read_into("a/b.bin", memoryview(buffer), start)
    assert bytes(buffer) == content[start:stop]


def test_messages_say_what_happened(storage: Storage) -> None:
    storage.write("a.bin", b"0123456789")
    before = storage.stat("a.bin")
    with pytest.raises(StorageError, match=r"a\.bin.*(shorter than its index|ends before)"):
        storage.read_into("a.bin", memoryview(bytearray(4)), 8)
    with pytest.raises(ArgumentError, match="relative path"):
        storage.write("../a.bin", b"x")
    storage.write("a.bin", b"other")
    with pytest.raises(StorageError, match=r"a\.bin.*replaced while it was being read"):
        storage.read_into("a.bin", memoryview(bytearray(2)), 0, before.etag)


@pytest.mark.parametrize("key", ["C:/x", "a\\b", "a\0b"])
def test_a_key_that_another_system_would_take_for_a_path_is_refused(storage: Storage, key: str) -> None:
    with pytest.raises(ArgumentError, match="relative path"):
        storage.write(key, b"x")
    with pytest.raises(ArgumentError, match="relative path"):
        storage.read_into(key, memoryview(bytearray(1)))


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    place = LocalStorage(tmp_path)
    place.write("a.bin", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"a\.bin could not be written.*untouched.*ulimit -f"):
            place.write("a.bin", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_all(place, "a.bin") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_what_may_not_be_used_is_an_error_and_never_taken_for_absent(unprivileged: None) -> None:
    # Not ``tmp_path``, whose parents only its owner may enter.
    with tempfile.TemporaryDirectory() as home:
        place = LocalStorage(Path(home))
        place.write("closed/a.bin", b"x")
        os.chmod(place.root / "closed", 0o000)
        try:
            for ask in (
                lambda: place.read_into("closed/a.bin", memoryview(bytearray(1))),
                lambda: place.stat("closed/a.bin"),
                lambda: place.exists("closed/a.bin"),
                lambda: place.write("closed/a.bin", b"y"),
                place.list,
            ):
                with pytest.raises(
                    StorageError, match=r"/closed.*Permission denied.*permissions of \S+/closed,"
                ):
                    ask()
        finally:
            os.chmod(place.root / "closed", 0o700)


@pytest.mark.parametrize("key", ["a.bin", "train/a.bin"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_text("x")
    place = LocalStorage(tmp_path / "file")
    with pytest.raises(StorageError, match=rf"{tmp_path}/file is a file, not a folder: choose another place"):
        place.write(key, b"x")
    with pytest.raises(StorageError, match=rf"{tmp_path}/file is a file, not a folder"):
        place.stat(key)
    assert not place.exists(key)
    assert place.list() == []


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EROFS, "Choose a folder that can be written to"),
        (errno.EPERM, "Check the permissions of /"),
        (errno.EIO, "Check the disk"),
    ],
)
def test_the_advice_is_about_what_went_wrong(number: int, advice: str) -> None:
    error = file_failure(Path("/data/a.tar"), OSError(number, os.strerror(number)), writing=True)
    assert re.search(rf"/data/a\.tar could not be written .*{advice}.*then write again", str(error))
    assert ("space" in advice) == ("space" in str(error).partition("untouched")[2])


def test_an_unfinished_file_is_never_listed(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-0123").write_bytes(b"half")
    assert LocalStorage(tmp_path).list() == []


def test_a_url_opens_the_storage_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_storage("data") == open_storage(tmp_path / "data") == open_storage(f"file://{tmp_path}/data")
    assert open_storage("memory://a") is open_storage("memory://a")
    assert open_storage("memory://a") is not open_storage("memory://b")
    mine = MemoryStorage()
    assert open_storage(mine) is mine
    assert open_storage("s3://bucket/a/b/").url == "s3://bucket/a/b"
    # Options of S3 do not disturb a folder in the same list of locations.
    assert open_storage("data", endpoint_url="http://localhost:1").url == str(tmp_path / "data")


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("gs://bucket/a", {}, "scheme must be one of s3"),
        ("", {}, "location is empty"),
        ("s3:/bucket/a", {}, r"lacks a slash or two. Write it like 's3://bucket/prefix'"),
        (None, {}, "location is None, which is neither a folder, a url nor a storage"),
        (7, {}, "location is 7"),
        (b"data", {}, "location is b'data'"),
        ("data", {"endpoint": "http://x"}, "Unknown storage option 'endpoint'.*endpoint_url"),
        ("s3://", {}, "names no bucket"),
        ("s3://key:hunter2@bucket/a", {}, "nothing more"),
        ("s3://bucket/a?versionId=3", {}, "nothing more"),
        ("s3://bucket", {"endpoint_url": "localhost:9000"}, "must be like https://host"),
        ("s3://bucket", {"endpoint_url": "http://key:hunter2@host"}, "holds credentials"),
    ],
)
def test_a_bad_location_is_refused_at_once(url: Any, options: dict[str, str], message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        open_storage(url, **options)
    assert "hunter2" not in str(caught.value)
