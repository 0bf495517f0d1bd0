"""Writing shards: plain tars, the same bytes each time, and nothing half done."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.build import write_shards
from curriculum_sampler.dataset import CurriculumDataset
from curriculum_sampler.errors import ArgumentError, StorageError
from curriculum_sampler.index import INDEX_SUFFIX
from curriculum_sampler.indexing import index_tar
from curriculum_sampler.manifest import Manifest
from curriculum_sampler.memory_storage import MemoryStorage
from curriculum_sampler.storage import Storage

from .data_fixtures import labelled, read_by_webdataset, s3_bucket, s3_endpoint, storage, unprivileged
from .s3_server import web_server

GOLDEN = Path(__file__).parent / "golden" / "shards.json"


def everything(manifest: Manifest) -> list[dict[str, Any]]:
    return list(CurriculumDataset(manifest, decode=None).sequential())


@given(
    sizes=st.lists(st.integers(0, 3000), min_size=1, max_size=12),
    samples_per_shard=st.none() | st.integers(1, 5),
    max_shard_bytes=st.integers(1, 10_000),
)
def test_every_sample_is_in_one_shard_in_the_order_given_and_within_the_limits(
    sizes: list[int], samples_per_shard: int | None, max_shard_bytes: int
) -> None:
    samples = [{"__key__": f"{place}", "bin": bytes(size)} for place, size in enumerate(sizes)]
    home = MemoryStorage()
    manifest = write_shards(
        home, {"easy": iter(samples)}, samples_per_shard=samples_per_shard, max_shard_bytes=max_shard_bytes
    )
    assert [(sample["__key__"], len(sample["bin"])) for sample in everything(manifest)] == [
        (f"{place}", size) for place, size in enumerate(sizes)
    ]
    for placed in manifest.buckets["easy"]:
        assert placed.shard.num_bytes == len(home.objects[placed.shard.name])
        assert placed.shard.samples <= (samples_per_shard or 12)
        assert placed.shard.num_bytes <= max_shard_bytes or placed.shard.samples == 1


def test_the_index_written_is_the_index_found_by_reading_the_tar(storage: Storage) -> None:
    manifest = write_shards(storage, {"easy": labelled(7), "hard": labelled(3)}, samples_per_shard=3)
    assert storage.list() == [
        "manifest.json",
        *sorted(
            name + suffix
            for name in (placed.shard.name for shards in manifest.buckets.values() for placed in shards)
            for suffix in ("", INDEX_SUFFIX)
        ),
    ]
    for name in storage.list("train/"):
        if name.endswith(".tar"):
            assert index_tar(storage, name).to_bytes() == _read(storage, name + INDEX_SUFFIX)


def _read(storage: Storage, key: str) -> bytes:
    buffer = bytearray(storage.stat(key).num_bytes)
    storage.read_into(key, memoryview(buffer))
    return bytes(buffer)


def test_plain_webdataset_reads_what_was_written(tmp_path: Path) -> None:
    pixels = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    samples = [
        {
            "__key__": f"{n:03}",
            "png": pixels + n,
            "cls": n,
            "json": {"sleeve": "long"},
            "mask.png": pixels[:, :, 0],
        }
        for n in range(10)
    ]
    manifest = write_shards(tmp_path, {"easy": samples}, samples_per_shard=4)
    urls = [placed.url for placed in manifest.buckets["easy"]]
    found = read_by_webdataset(urls, "rgb8")
    assert [sample["__key__"] for sample in found] == [f"{n:03}" for n in range(10)]
    for n, sample in enumerate(found):
        assert np.array_equal(sample["png"], pixels + n)
        assert sample["cls"] == n
        assert sample["json"] == {"sleeve": "long"}
    ours = list(CurriculumDataset(manifest).sequential())
    assert [sample["__key__"] for sample in ours] == [sample["__key__"] for sample in found]
    assert np.array_equal(ours[3]["mask.png"], pixels[:, :, :1])


def test_equal_samples_give_equal_bytes() -> None:
    first, second = MemoryStorage("first"), MemoryStorage("second")
    for home in (first, second):
        write_shards(home, {"easy": labelled(5), "hard": labelled(5)}, samples_per_shard=2)
    assert first.objects == second.objects
    turned = [dict(reversed(sample.items())) for sample in labelled(5)]
    assert (
        write_shards(MemoryStorage(), {"easy": turned}).fingerprint
        == write_shards(MemoryStorage(), {"easy": labelled(5)}).fingerprint
    )


def test_the_bytes_written_are_those_written_last_year() -> None:
    home = MemoryStorage()
    samples = [
        {"__key__": f"{n}{'k' * n}", "txt": "t" * n, "npy": np.arange(n), "json": {"n": n}}
        for n in range(120)
    ]
    write_shards(
        home, {"easy": samples, "hard": samples[:3]}, samples_per_shard=50, difficulties={"hard": (0.5, 1.0)}
    )
    digests = {key: hashlib.blake2b(data, digest_size=16).hexdigest() for key, data in home.objects.items()}
    assert digests == json.loads(GOLDEN.read_text())


def test_a_second_split_is_added_and_the_first_stays(tmp_path: Path) -> None:
    train = write_shards(tmp_path, {"easy": labelled(5)})
    validation = write_shards(tmp_path, {"easy": labelled(2)}, split="val", difficulties={"easy": (0, 0.5)})
    assert Manifest.load(tmp_path).fingerprint == train.fingerprint
    assert validation.bucket_sizes == {"easy": 2}
    assert validation.difficulties == {"easy": (0, 0.5)}
    assert validation.buckets["easy"][0].shard.name == "val/easy/easy-000000.tar"


def test_a_split_is_replaced_only_on_demand_and_never_mixed() -> None:
    home = MemoryStorage("home")
    write_shards(home, {"easy": labelled(5)})
    before = dict(home.objects)
    with pytest.raises(
        ArgumentError, match=r"memory://home has a split 'train' already. Pass overwrite=True"
    ):
        write_shards(home, {"easy": labelled(2)})
    assert home.objects == before
    assert write_shards(home, {"hard": labelled(2)}, overwrite=True).bucket_sizes == {"hard": 2}

    def broken() -> Iterator[dict[str, Any]]:
        yield from labelled(1)
        raise RuntimeError("the source failed")

    with pytest.raises(RuntimeError, match="the source failed"):
        write_shards(home, {"hard": broken()}, overwrite=True)
    with pytest.raises(ArgumentError, match=r"has no split 'train'\. It has: none"):
        Manifest.load(home)


def test_a_failed_call_leaves_the_data_set_as_it_was(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path, {"easy": labelled(5)})
    with pytest.raises(ArgumentError, match="twice"):
        write_shards(tmp_path, {"easy": [*labelled(3), *labelled(1)]}, split="val", samples_per_shard=1)
    assert Manifest.load(tmp_path).fingerprint == manifest.fingerprint
    with pytest.raises(ArgumentError, match="no split 'val'"):
        Manifest.load(tmp_path, split="val")


def test_an_s3_bucket_that_does_not_exist_is_named_before_a_sample_is_asked_for(s3_endpoint: str) -> None:
    samples = iter(labelled(1))
    with pytest.raises(
        StorageError,
        match=rf"^s3://no-such/v1 at {s3_endpoint}: The S3 bucket does not exist.*check its name",
    ):
        write_shards("s3://no-such/v1", {"easy": samples}, endpoint_url=s3_endpoint)
    assert len(list(samples)) == 1


def test_without_rights_in_s3_the_place_and_the_rights_needed_are_named(s3_endpoint: str) -> None:
    body = b"<Error><Code>AccessDenied</Code><Message>hunter2</Message></Error>"
    with web_server(403, {"Content-Type": "application/xml"}, body) as server:
        with pytest.raises(
            StorageError, match=r"^s3://data/v1/manifest.json: .*403.*denied.*credentials.*s3:PutObject"
        ) as caught:
            write_shards("s3://data/v1", {"easy": labelled(1)}, endpoint_url=server.url)
        # A refused HEAD has no body that tells why: it may be that the credentials have expired, so they are read anew once.
        assert server.requests == 2
    assert server.url in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("below", ["", "new/v1"])
def test_a_read_only_folder_is_named_with_the_next_move(unprivileged: None, below: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o500)
        with pytest.raises(
            StorageError,
            match=rf"^{home}/.*easy.*Permission denied.*permissions of {home}, or choose another",
        ):
            write_shards(Path(home, below), {"easy": labelled(1)})
        assert os.listdir(home) == []


def one(**changes: Any) -> dict[str, Any]:
    return {"easy": [{"__key__": "a", "txt": "x", **changes}]}


@pytest.mark.parametrize(
    ("buckets", "options", "message"),
    [
        ({}, {}, "There are no buckets"),
        ({"easy": []}, {}, "Bucket 'easy' has no samples"),
        ({"ea/sy": labelled(1)}, {}, "Bucket name 'ea/sy' must be letters"),
        ({"": labelled(1)}, {}, "Bucket name ''"),
        ({3: labelled(1)}, {}, "Bucket name 3"),
        ({"easy": ["a"]}, {}, "a sample must be a mapping, not a str"),
        ({"easy": [{"txt": "x"}]}, {}, "'__key__' must be text, not None"),
        (one(__key__=7), {}, "'__key__' must be text, not 7"),
        (one(__key__="a/b"), {}, "key 'a/b' must be printable text without '/'"),
        (one(__key__="a.b"), {}, r"key 'a\.b' must be printable"),
        (one(__key__=""), {}, "key '' must be"),
        (one(__key__="a\n"), {}, "printable"),
        ({"easy": [*labelled(2), *labelled(1)]}, {}, "'easy' has the key '00000' twice"),
        ({"easy": [{"__key__": "a"}]}, {}, "sample 'a' has no members"),
        ({"easy": [{"__key__": "a", "PNG": b""}]}, {}, "extension 'PNG' must be lower-case"),
        ({"easy": [{"__key__": "a", "a..b": b""}]}, {}, "without empty parts"),
        ({"easy": [{"__key__": "a", 5: b""}]}, {}, "extension 5 must be"),
        (one(npz=[1, 2]), {}, "sample 'a': Member 'npz': a list cannot be stored"),
        (one(json={1, 2}), {}, "a set cannot be stored as json"),
        (one(), {"split": "../val"}, r"Split name '\.\./val'"),
        (one(), {"samples_per_shard": 0}, "samples_per_shard=0"),
        (one(), {"max_shard_bytes": 0}, "max_shard_bytes=0"),
        (one(), {"difficulties": {"hard": (0, 1)}}, "difficulties names bucket 'hard'"),
        (one(), {"difficulties": {"easy": (1, 0)}}, r"difficulty=\(1, 0\) must be"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_published(
    buckets: Any, options: dict[str, Any], message: str
) -> None:
    home = MemoryStorage()
    with pytest.raises(ArgumentError, match=message):
        write_shards(home, buckets, **options)
    assert "manifest.json" not in home.objects


def test_what_is_about_a_sample_is_not_stored_in_it() -> None:
    home = MemoryStorage()
    write_shards(home, {"easy": [{"__key__": "a", "txt": "x", "__url__": "from elsewhere"}]})
    with tarfile.open(fileobj=io.BytesIO(home.objects["train/easy/easy-000000.tar"])) as tar:
        assert tar.getnames() == ["a.txt"]


def test_samples_that_were_read_raw_can_be_written_again() -> None:
    first = write_shards(MemoryStorage(), {"easy": labelled(5)})
    again = write_shards(MemoryStorage(), {"easy": CurriculumDataset(first, decode=None).sequential()})
    assert again.fingerprint == first.fingerprint
