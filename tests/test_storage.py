"""Every storage keeps the same promises."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import errno
import os
import pickle
import re
import resource
import tempfile
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
from curriculum_sampler.storage import Storage, read_all

from .data_fixtures import s3_bucket, s3_endpoint, storage, unprivileged

CONTENT = bytes(range(256)) * 3


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(start=st.integers(0, len(CONTENT)), count=st.integers(0, len(CONTENT)))
def test_any_range_reads_as_it_was_written(storage: Storage, start: int, count: int) -> None:
    if not storage.exists("a/b.bin"):
        storage.write("a/b.bin", CONTENT)
    expected = CONTENT[start : start + count]
    buffer = bytearray(len(expected))
    storage.read_into("a/b.bin", memoryview(buffer), start)
    assert bytes(buffer) == expected


def test_a_storage_tells_what_it_holds(storage: Storage) -> None:
    assert storage.list() == []
    for key in ("b.txt", "a/2.txt", "a/10.txt", "ab/1.txt"):
        storage.write(key, key.encode())
    assert storage.list() == ["a/10.txt", "a/2.txt", "ab/1.txt", "b.txt"]
    assert storage.list("a/") == ["a/10.txt", "a/2.txt"]
    assert storage.list("a") == ["a/10.txt", "a/2.txt", "ab/1.txt"]
    assert storage.list("c/") == []
    assert storage.exists("b.txt")
    assert not storage.exists("a")
    assert not storage.exists("c.txt")
    assert storage.stat("b.txt").num_bytes == 5
    assert read_all(storage, "a/2.txt") == b"a/2.txt"
    assert isinstance(storage, Storage)


def test_writing_again_replaces_the_whole_object_and_its_etag(storage: Storage) -> None:
    storage.write("a.bin", b"first version")
    before = storage.stat("a.bin")
    storage.write("a.bin", b"other")
    assert storage.stat("a.bin").etag != before.etag
    assert read_all(storage, "a.bin") == b"other"
    with pytest.raises(StorageError, match=r"a\.bin.*replaced while it was being read"):
        storage.read_into("a.bin", memoryview(bytearray(2)), 0, before.etag)


def test_what_is_absent_is_an_error_that_names_the_url(storage: Storage) -> None:
    for ask in (storage.stat, lambda key: storage.read_into(key, memoryview(bytearray(1)))):
        with pytest.raises(StorageError) as caught:
            ask("no/such.tar")
        assert f"{storage.url}/no/such.tar" in str(caught.value)


@pytest.mark.parametrize(("offset", "count"), [(0, 11), (8, 4), (10, 1), (50, 1)])
def test_a_read_beyond_the_end_is_an_error(storage: Storage, offset: int, count: int) -> None:
    storage.write("a.bin", b"0123456789")
    with pytest.raises(StorageError, match=r"a\.bin.*(shorter than its index|ends before)"):
        storage.read_into("a.bin", memoryview(bytearray(count)), offset)


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a/../../b", "..", "a//b", "a/./b", "a/", "C:/x", "a\\b"])
def test_a_key_never_leaves_the_root(storage: Storage, key: str) -> None:
    with pytest.raises(ArgumentError, match="relative path"):
        storage.write(key, b"x")
    with pytest.raises(ArgumentError, match="relative path"):
        storage.read_into(key, memoryview(bytearray(1)))


def test_a_copy_that_was_pickled_reads_the_same(storage: Storage) -> None:
    storage.write("a.bin", b"hello")
    copy = pickle.loads(pickle.dumps(storage))
    assert copy.url == storage.url
    assert read_all(copy, "a.bin") == b"hello"


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
