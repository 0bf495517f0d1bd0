"""A second S3 server, written by others, that checks signatures: rclone before a folder.

It ignores If-Match, and answers ranged reads with status 200.
"""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import re
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import curriculum_sampler as cs
from curriculum_sampler.build import write_shards
from curriculum_sampler.errors import StorageError
from curriculum_sampler.s3 import S3Storage
from curriculum_sampler.storage import read_all

from .data_fixtures import labelled, s3_endpoint

KEY_ID, SECRET = "rclone-key-id", "rclone-secret"
BUCKETS = {"easy": labelled(23), "hard": labelled(14, first=100)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the server serves: an S3 bucket is a folder in it."""
    root = tmp_path_factory.mktemp("rclone")
    (root / "data").mkdir()
    return root


@pytest.fixture(scope="module")
def endpoint(folder: Path) -> Iterator[str]:
    rclone = Path(sysconfig.get_path("scripts")) / "rclone"
    command = [rclone, "serve", "s3", "--config", "/dev/null", "--addr", "127.0.0.1:0"]
    command += ["--no-checksum"]
    with subprocess.Popen(
        [*command, "--auth-key", f"{KEY_ID},{SECRET}", folder], stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            told = (re.search(r"Starting s3 server on \[(\S+?)/?\]", line) for line in server.stderr)
            yield next(found[1] for found in told if found)
        finally:
            server.terminate()


@pytest.fixture(autouse=True)
def signed_in(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def everything(root: Any, **options: Any) -> list[dict[str, Any]]:
    dataset = cs.CurriculumDataset(cs.Manifest.load(root, **options))
    return [
        {**sample, "npy": sample["npy"].tolist()}
        for sample in [
            *dataset.sequential(),
            *dataset.__getitems__([cs.Draw("hard", 13), cs.Draw("easy", 0)]),
        ]
    ]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in a folder."""
    root = tmp_path_factory.mktemp("here")
    write_shards(root, BUCKETS, samples_per_shard=5)
    return root


@pytest.fixture
def there(endpoint: str) -> S3Storage:
    """The same data set, written through the server."""
    place = S3Storage("data", "v1", endpoint_url=endpoint)
    if not place.exists("manifest.json"):
        write_shards(place, BUCKETS, samples_per_shard=5)
    return place


def test_a_data_set_written_through_the_server_is_the_one_in_the_folder(
    folder: Path, here: Path, there: S3Storage
) -> None:
    served = folder / "data" / "v1"
    names = sorted(str(path.relative_to(here)) for path in here.rglob("*") if path.is_file())
    assert there.list() == names
    assert sorted(str(path.relative_to(served)) for path in served.rglob("*") if path.is_file()) == names
    for name in names:
        if name != "manifest.json":  # tells the ETags
            assert (served / name).read_bytes() == (here / name).read_bytes()


def test_what_is_read_through_the_server_is_what_the_folder_holds(
    here: Path, there: S3Storage, endpoint: str
) -> None:
    read = everything(here)
    assert len(read) == 23 + 14 + 2
    assert everything(there.url, endpoint_url=endpoint) == read


def test_a_loop_over_the_server_gives_the_batches_of_the_folder(here: Path, there: S3Storage) -> None:
    schedule = cs.StageSchedule(
        [
            cs.Stage("easy", {"easy": 1}, steps=3, lr=1e-3),
            cs.Stage("hard", {"easy": 1, "hard": 2}, steps=4, lr=1e-4),
        ]
    )

    def keys(root: Any) -> list[list[str]]:
        dataset = cs.CurriculumDataset(cs.Manifest.load(root))
        loader = cs.CurriculumLoader(dataset, schedule, batch_size=6, seed=3, collate=list)
        return [[sample["__key__"] for sample in batch] for batch in loader]

    assert keys(there) == keys(here)


@pytest.fixture
def place(endpoint: str) -> S3Storage:
    return S3Storage("data", "places", endpoint_url=endpoint)


def test_a_range_is_read_though_the_server_says_that_it_sends_all(place: S3Storage) -> None:
    content = bytes(range(256)) * 40
    place.write("a.bin", content)
    for offset, count in [(0, len(content)), (0, 10), (77, 1000), (len(content) - 1, 1), (5, 0)]:
        buffer = bytearray(count)
        assert place.read_into("a.bin", memoryview(buffer), offset) == place.stat("a.bin")
        assert bytes(buffer) == content[offset : offset + count]
    with pytest.raises(StorageError, match=r"shorter than its index|ends before"):
        place.read_into("a.bin", memoryview(bytearray(10)), len(content) - 5)


def test_an_object_that_was_replaced_is_noticed_though_the_server_does_not_look(place: S3Storage) -> None:
    place.write("b.bin", b"first version")
    etag = place.stat("b.bin").etag
    place.write("b.bin", b"other version")
    with pytest.raises(StorageError, match=r"b\.bin.*its ETag is.*replaced while it was being read"):
        place.read_into("b.bin", memoryview(bytearray(5)), 0, etag)
    assert read_all(place, "b.bin") == b"other version"


@pytest.mark.parametrize(
    ("key_id", "secret", "message"),
    [
        (KEY_ID, "not-the-secret", r"403 SignatureDoesNotMatch.*secret key is not the one that belongs"),
        ("nobody-knows-me", SECRET, r"403 InvalidAccessKeyId.*not or no longer accept the credentials"),
    ],
)
def test_wrong_credentials_are_a_clear_error(
    place: S3Storage, monkeypatch: pytest.MonkeyPatch, key_id: str, secret: str, message: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    requests = [
        place.list,
        lambda: place.write("c.bin", b"x"),
        lambda: place.read_into("a.bin", memoryview(bytearray(1))),
    ]
    for request in requests:
        with pytest.raises(StorageError, match=message) as caught:
            request()
        assert secret not in str(caught.value)
    with pytest.raises(StorageError, match="Access is denied: check the credentials"):
        place.stat("a.bin")
