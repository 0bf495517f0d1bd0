"""A manifest says what can be drawn; what it says is checked when it is read."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.build import write_shards
from curriculum_sampler.errors import ArgumentError, ShardError, StorageError
from curriculum_sampler.manifest import Manifest
from curriculum_sampler.manifest_file import Bucket, ManifestFile, Shard
from curriculum_sampler.memory_storage import MemoryStorage

from .data_fixtures import WatchedStorage, labelled

DIGEST = "0123456789abcdef" * 2
names = st.text("abcz019_-+", min_size=1, max_size=8)
shards = st.builds(
    Shard,
    st.uuids().map(lambda uuid: f"d/{uuid}.tar"),
    st.integers(1, 10**9),
    st.integers(1, 10**15),
    st.just(DIGEST),
)
ranges = st.none() | st.tuples(st.floats(-5, 0), st.floats(0, 5))
buckets = st.builds(Bucket, st.lists(shards, min_size=1, max_size=4).map(tuple), ranges)
files = st.builds(
    ManifestFile,
    st.dictionaries(names, st.dictionaries(names, buckets, min_size=1, max_size=3), max_size=3),
    st.none() | st.just("s3://elsewhere/v1"),
)


@given(files)
def test_a_manifest_survives_the_way_through_its_file(file: ManifestFile) -> None:
    again = ManifestFile.from_bytes(file.to_bytes(), "here")
    assert again == file
    assert again.to_bytes() == file.to_bytes()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.data())
def test_locating_is_counting_through_the_shards(counts: list[int], data: st.DataObject) -> None:
    listed = tuple(Shard(f"{place}.tar", count, 1, DIGEST) for place, count in enumerate(counts))
    home = MemoryStorage(
        objects={"manifest.json": ManifestFile({"train": {"easy": Bucket(listed)}}).to_bytes()}
    )
    manifest = Manifest.load(home)
    truth = [(shard, position) for shard, count in enumerate(counts) for position in range(count)]
    assert manifest.bucket_sizes == {"easy": len(truth)}
    assert len(manifest) == len(truth)
    wanted = data.draw(st.lists(st.integers(0, len(truth) - 1), max_size=20))
    found = manifest.locate("easy", wanted)
    assert list(zip(*(column.tolist() for column in found), strict=True)) == [
        truth[index] for index in wanted
    ]


def test_a_number_outside_the_bucket_or_a_bucket_outside_the_manifest_is_an_error() -> None:
    manifest = write_shards(MemoryStorage(), {"easy": labelled(5), "hard": labelled(2)})
    for index in (-1, 5, 10**12):
        with pytest.raises(
            ArgumentError, match=rf"'easy' has 5 samples, so index {index} is outside \[0, 5\)"
        ):
            manifest.locate("easy", [0, index])
    with pytest.raises(
        ArgumentError, match=r"No bucket 'medium' in split 'train'. There are: 'easy', 'hard'"
    ):
        manifest.locate("medium", 0)


def test_several_locations_are_joined_in_the_order_given() -> None:
    first, second = MemoryStorage("first"), MemoryStorage("second")
    write_shards(
        first, {"easy": labelled(3), "hard": labelled(2)}, difficulties={"easy": (0, 1), "hard": (2, 3)}
    )
    write_shards(second, {"easy": labelled(4), "medium": labelled(1)}, difficulties={"easy": (0.5, 2)})
    joined = Manifest.load([first, second])
    assert joined.bucket_sizes == {"easy": 7, "hard": 2, "medium": 1}
    assert [placed.tars for placed in joined.buckets["easy"]] == [first, second]
    assert joined.difficulties == {"easy": (0, 2), "hard": (2, 3)}
    turned = Manifest.load([second, first])
    assert turned.fingerprint != joined.fingerprint
    assert turned.bucket_fingerprints["hard"] == joined.bucket_fingerprints["hard"]
    with pytest.raises(ArgumentError, match="list of locations is empty"):
        Manifest.load([])
    with pytest.raises(ArgumentError, match="location is None"):
        Manifest.load([first, None])  # type: ignore[list-item]


def test_fingerprints_follow_the_content_and_not_the_place(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path / "a", {"easy": labelled(5), "hard": labelled(5)}, samples_per_shard=2)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    copy = Manifest.load(str(tmp_path / "b"))
    assert copy.bucket_fingerprints == manifest.bucket_fingerprints
    assert copy.fingerprint == manifest.fingerprint
    changed = write_shards(
        tmp_path / "c", {"easy": labelled(5), "hard": labelled(5, first=1)}, samples_per_shard=2
    )
    assert changed.bucket_fingerprints["easy"] == manifest.bucket_fingerprints["easy"]
    assert changed.bucket_fingerprints["hard"] != manifest.bucket_fingerprints["hard"]
    assert changed.fingerprint != manifest.fingerprint


def of_shards(listed: list[Shard]) -> Manifest:
    file = ManifestFile({"train": {"easy": Bucket(tuple(listed))}})
    return Manifest.load(MemoryStorage(objects={"manifest.json": file.to_bytes()}))


@given(st.lists(shards, min_size=1, max_size=8, unique_by=lambda shard: shard.name), st.data())
def test_a_grown_bucket_still_tells_what_it_was(listed: list[Shard], data: st.DataObject) -> None:
    grown = of_shards(listed)
    for count in range(1, len(listed) + 1):
        old = of_shards(listed[:count])
        told = grown.prefix_fingerprint("easy", old.bucket_sizes["easy"])
        assert told == old.bucket_fingerprints["easy"]
    ends = {sum(shard.samples for shard in listed[:count]) for count in range(1, len(listed) + 1)}
    assert grown.prefix_fingerprint("easy", max(ends)) == grown.bucket_fingerprints["easy"]
    anywhere = data.draw(st.integers(-1, max(ends) + 1) | st.sampled_from([end + 1 for end in ends]))
    assert (grown.prefix_fingerprint("easy", anywhere) is None) == (anywhere not in ends)
    with pytest.raises(ArgumentError, match="No bucket 'hard' in split 'train'"):
        grown.prefix_fingerprint("hard", 1)


@given(st.lists(shards, min_size=1, max_size=5, unique_by=lambda shard: shard.name), st.data())
def test_what_changed_before_the_end_is_seen_in_every_later_prefix(
    listed: list[Shard], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(listed) - 1))
    changed = list(listed)
    changed[place] = dataclasses.replace(listed[place], digest=DIGEST[::-1])
    for count in range(1, len(listed) + 1):
        size = sum(shard.samples for shard in listed[:count])
        same = of_shards(listed).prefix_fingerprint("easy", size) == of_shards(changed).prefix_fingerprint(
            "easy", size
        )
        assert same == (count <= place)


def test_run_sizes_are_what_one_good_read_holds() -> None:
    manifest = write_shards(MemoryStorage(), {"small": labelled(100), "large": labelled(4, size=100_000)})
    runs = manifest.run_sizes(target_bytes=50_000)
    assert runs["large"] == 1
    mean = sum(placed.shard.num_bytes for placed in manifest.buckets["small"]) / 100
    assert runs["small"] * mean <= 50_000 < (runs["small"] + 1) * mean
    assert manifest.run_sizes()["small"] > runs["small"]
    with pytest.raises(ArgumentError, match="target_bytes=0"):
        manifest.run_sizes(0)


def test_loading_reads_the_manifest_and_nothing_else() -> None:
    storage = WatchedStorage()
    write_shards(storage, {"easy": labelled(5)})
    storage.touched.clear()
    Manifest.load(storage)
    assert set(storage.touched) == {"manifest.json"}


def test_a_manifest_is_frozen_and_travels() -> None:
    manifest = write_shards(MemoryStorage(), {"easy": labelled(5)})
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifest.split = "val"  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(manifest))
    assert copy.fingerprint == manifest.fingerprint
    assert copy.bucket_sizes == {"easy": 5}


def test_a_missing_manifest_or_split_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"no manifest\.json at .*nowhere.*write_shards.*index_shards"):
        Manifest.load(tmp_path / "nowhere")
    write_shards(tmp_path, {"easy": labelled(1)}, split="val")
    with pytest.raises(ArgumentError, match=r"has no split 'train'. It has: 'val'"):
        Manifest.load(tmp_path)


SHARD = {"name": "a.tar", "samples": 3, "bytes": 2048, "index": DIGEST}


def told(**changes: Any) -> bytes:
    bucket = {"shards": [{**SHARD, **changes}]}
    return json.dumps(
        {"format": "curriculum-sampler", "version": 1, "splits": {"train": {"easy": bucket}}}
    ).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x00\x01", "is not JSON"),
        (b"[]", "is not a manifest of curriculum-sampler"),
        (b'{"format": "other"}', "is not a manifest"),
        (
            b'{"format": "curriculum-sampler", "version": 7}',
            "format version 7, this library reads 1. Upgrade",
        ),
        (b'{"format": "curriculum-sampler", "version": 1}', "splits must be an object"),
        (told(name="../../etc/passwd.tar"), r"'\.\./\.\./etc/passwd\.tar' must be a relative path"),
        (told(name="/etc/passwd"), "must be a relative path"),
        (told(name=None), "name must be text, not None"),
        (told(samples=0), "samples of shard 'a.tar' must be a whole number of at least 1, not 0"),
        (told(samples=2.5), "not 2.5"),
        (told(samples=True), "not True"),
        (told(bytes="many"), "not 'many'"),
        (told(index="123"), "32 hexadecimal digits"),
        (told().replace(b'"name"', b'"nome"'), "'name'"),
        (told().replace(b'"easy"', b'"e/sy"'), "Bucket name 'e/sy'"),
        (told().replace(b'"train"', b'".."'), r"Split name '\.\.'"),
        (told().replace(b'{"shards"', b'{"difficulty": [3, 1], "shards"'), "must be .lowest, highest."),
        (told().replace(b'{"shards"', b'{"difficulty": [1], "shards"'), "breaks a rule"),
        (told().replace(b'"splits"', b'"source": 7, "splits"'), "source must be text, not 7"),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused_whole(data: bytes, message: str) -> None:
    home = MemoryStorage("broken", {"manifest.json": data})
    with pytest.raises(ShardError, match=message) as caught:
        Manifest.load(home)
    assert "memory://broken/manifest.json" in str(caught.value)


def test_a_location_that_cannot_be_reached_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match="no connection to the endpoint"):
        Manifest.load("s3://data/v1", endpoint_url="http://127.0.0.1:9", anonymous=True, deadline_seconds=0.1)


def test_counting_is_done_in_64_bits() -> None:
    listed = tuple(Shard(f"{place}.tar", 10**12, 10**15, DIGEST) for place in range(3))
    home = MemoryStorage(
        objects={"manifest.json": ManifestFile({"train": {"easy": Bucket(listed)}}).to_bytes()}
    )
    assert [column.tolist() for column in Manifest.load(home).locate("easy", np.array([10**12]))] == [
        [1],
        [0],
    ]
