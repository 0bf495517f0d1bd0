"""Few reads, every byte verified, nothing opened that is not asked for."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.build import write_shards
from curriculum_sampler.errors import ShardError, StorageError
from curriculum_sampler.index import INDEX_SUFFIX
from curriculum_sampler.manifest import Manifest
from curriculum_sampler.memory_storage import MemoryStorage
from curriculum_sampler.ranges import coalesce
from curriculum_sampler.reader import SampleReader

from .data_fixtures import FarStorage, WatchedStorage, labelled, proxy, s3_bucket, s3_endpoint
from .s3_server import Fault, FaultProxy

SHARD = "train/easy/easy-000001.tar"
# Two members, each a header and one block.
SAMPLE = 2048


@given(st.lists(st.integers(0, 60), max_size=20), st.integers(0, 40), st.integers(1, 100))
def test_joined_ranges_cover_all_members_in_order_and_respect_both_limits(
    places: list[int], gap_bytes: int, most_bytes: int
) -> None:
    starts = np.array(places, np.int64) * 10
    stops = starts + 7
    joined = coalesce(starts, stops, gap_bytes=gap_bytes, most_bytes=most_bytes)
    assert sorted(np.concatenate([members for _, _, members in joined] or [[]]).tolist()) == list(
        range(len(places))
    )
    for first, last, members in joined:
        assert first == starts[members].min()
        assert last == stops[members].max()
        assert last - first <= max(most_bytes, 7)
    for (_, before, _), (after, last, _), (first, _, _) in zip(joined, joined[1:], joined, strict=False):
        assert after >= before
        assert after - before > gap_bytes or last - first > most_bytes


@given(st.lists(st.integers(0, 29), max_size=40))
def test_samples_come_in_the_order_asked_for_however_they_are_read(indices: list[int]) -> None:
    home = FarStorage()
    manifest = write_shards(home, {"easy": labelled(30)}, samples_per_shard=8)
    home.reads.clear()
    found = SampleReader(manifest).read("easy", indices)
    assert [bytes(data[:5]) for data in found] == [b"%05d" % index for index in indices]
    shards = {index // 8 for index in indices}
    assert len(home.reads) == 2 * len(shards)  # one index and one range each


@given(st.lists(st.integers(0, 29), max_size=40))
def test_where_reading_does_not_wait_each_sample_is_read_in_place(indices: list[int]) -> None:
    home = WatchedStorage()
    manifest = write_shards(home, {"easy": labelled(30)}, samples_per_shard=8)
    home.reads.clear()
    found = SampleReader(manifest).read("easy", indices)
    assert [bytes(data[:5]) for data in found] == [b"%05d" % index for index in indices]
    assert sum(count for key, _, count in home.reads if key.endswith(".tar")) == sum(map(len, found))


def test_distant_samples_are_read_apart() -> None:
    home = FarStorage()
    manifest = write_shards(home, {"easy": labelled(10, size=200_000)})
    home.reads.clear()
    SampleReader(manifest).read("easy", [0, 1, 5])
    ranges = [(start, count) for key, start, count in home.reads if key.endswith(".tar")]
    assert len(ranges) == 2
    assert sum(count for _, count in ranges) < 650_000


def test_an_index_is_read_once_and_a_bucket_never_drawn_is_never_opened() -> None:
    home = WatchedStorage()
    manifest = write_shards(home, {"easy": labelled(10), "hard": labelled(10)}, samples_per_shard=5)
    home.touched.clear()
    reader = SampleReader(manifest)
    assert home.touched == []
    for index in (0, 1, 2, 0):
        reader.read("easy", [index])
    first = "train/easy/easy-000000.tar"
    assert set(home.touched) == {first, first + INDEX_SUFFIX}
    assert [key for key, _, _ in home.reads].count(first + INDEX_SUFFIX) == 1


def test_what_is_open_stays_behind_when_a_reader_travels() -> None:
    manifest = write_shards(MemoryStorage(), {"easy": labelled(2000)})
    reader = SampleReader(manifest)
    reader.read("easy", [3])
    index_bytes = 24 * 2000
    assert len(pickle.dumps(reader)) - len(pickle.dumps(manifest)) < index_bytes / 10
    assert bytes(pickle.loads(pickle.dumps(reader)).read("easy", [3])[0][:5]) == b"00003"


def replace(home: MemoryStorage, key: str, change: Callable[[bytes], bytes]) -> None:
    home.objects[key] = change(home.objects[key])


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda tar: tar[:SAMPLE] + b"\xff" * 512 + tar[SAMPLE + 512 :],
            "header is unreadable at offset 2048 is damaged",
        ),
        (lambda tar: tar[:SAMPLE], "has 2048 bytes, but was indexed with"),
        (lambda tar: tar[: SAMPLE + 100], "has 2148 bytes, but was indexed with"),
        (lambda tar: tar[:SAMPLE] + bytes(len(tar) - SAMPLE), "at offset 2048 is damaged"),
        (lambda tar: tar[: SAMPLE + 1024], "has 3072 bytes, but was indexed with"),
        (lambda tar: tar[: SAMPLE + 600], "has 2648 bytes, but was indexed with"),
        (
            lambda tar: flipped(tar, SAMPLE + 513),
            r"sample '00005' at offset 2048 is damaged: XXH3-64 \w{16}, expected \w{16}",
        ),
    ],
    ids=[
        "overwritten header",
        "cut at header",
        "cut in header",
        "zero blocks",
        "cut between members",
        "cut in body",
        "flip",
    ],
)
def test_all_seven_kinds_of_damage_are_errors_that_name_the_shard(
    damage: Callable[[bytes], bytes], message: str
) -> None:
    home = MemoryStorage("store")
    manifest = write_shards(home, {"easy": labelled(12)}, samples_per_shard=4)
    replace(home, SHARD, damage)
    reader = SampleReader(manifest)
    with pytest.raises(ShardError, match=message) as caught:
        reader.read("easy", range(12))
    assert f"memory://store/{SHARD}" in str(caught.value)
    assert len(reader.read("easy", [0, 11])) == 2  # what is whole can still be read


@given(st.data())
def test_no_flipped_bit_in_a_sample_goes_unseen(data: st.DataObject) -> None:
    home = MemoryStorage()
    manifest = write_shards(home, {"easy": labelled(3)})
    position = data.draw(st.integers(0, 3 * SAMPLE - 1))
    replace(home, "train/easy/easy-000000.tar", lambda tar: flipped(tar, position))
    with pytest.raises(ShardError, match=f"at offset {position // SAMPLE * SAMPLE} is damaged"):
        SampleReader(manifest).read("easy", [0, 1, 2])


def test_an_index_that_does_not_match_is_an_error_that_names_it() -> None:
    home = MemoryStorage("store")
    manifest = write_shards(home, {"easy": labelled(12)}, samples_per_shard=4)
    home.objects[SHARD + INDEX_SUFFIX] = home.objects["train/easy/easy-000002.tar" + INDEX_SUFFIX]
    with pytest.raises(
        ShardError, match=r"memory://store/.*000001.*idx is not the index that the manifest names"
    ):
        SampleReader(manifest).read("easy", [5])
    del home.objects[SHARD + INDEX_SUFFIX]
    with pytest.raises(StorageError, match=r"000001\.tar\.curriculum\.idx does not exist"):
        SampleReader(manifest).read("easy", [5])


@pytest.mark.parametrize("field", ["samples", "bytes"])
def test_a_count_edited_in_the_manifest_is_told_alone(field: str) -> None:
    home = MemoryStorage("store")
    write_shards(home, {"easy": labelled(5)})
    told = json.loads(home.objects["manifest.json"])
    (shard,) = told["splits"]["train"]["easy"]["shards"]
    shard[field] += 1
    home.objects["manifest.json"] = json.dumps(told).encode()
    with pytest.raises(ShardError) as caught:
        SampleReader(Manifest.load(home)).read("easy", [0])
    assert (
        f"easy-000000.tar: the manifest counts {shard[field]} {field}, its index {shard[field] - 1}. "
        "The manifest was edited" in str(caught.value)
    )
    assert "replaced" not in str(caught.value)


def test_a_tar_of_the_same_length_but_other_content_is_found_out() -> None:
    home = MemoryStorage()
    manifest = write_shards(home, {"easy": labelled(12)}, samples_per_shard=4)
    home.objects[SHARD] = home.objects["train/easy/easy-000002.tar"]
    with pytest.raises(ShardError, match="sample '00008' at offset 0 is damaged"):
        SampleReader(manifest).read("easy", [4])


def test_a_shard_replaced_during_a_run_is_an_error(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path, {"easy": labelled(12)})
    reader = SampleReader(manifest)
    reader.read("easy", [0])
    shard = tmp_path / "train/easy/easy-000000.tar"
    shutil.copy(shard, tmp_path / "copy.tar")
    (tmp_path / "copy.tar").replace(shard)
    with pytest.raises(StorageError, match="was replaced while it was being read"):
        reader.read("easy", [1])


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path, {"easy": labelled(3)})
    (tmp_path / "train/easy/easy-000000.tar").unlink()
    with pytest.raises(StorageError, match=r"train/easy/easy-000000\.tar does not exist"):
        SampleReader(manifest).read("easy", [0])


def test_a_byte_flipped_on_the_way_is_fetched_again(s3_bucket: str, proxy: FaultProxy) -> None:
    manifest = write_shards(f"s3://{s3_bucket}/v1", {"easy": labelled(12)}, endpoint_url=proxy.url)
    reader = SampleReader(Manifest.load(f"s3://{s3_bucket}/v1", endpoint_url=proxy.url))
    expected = [bytes(data) for data in SampleReader(manifest).read("easy", range(12))]
    reader.read("easy", [0])
    proxy.ranges.clear()
    proxy.faults.append(Fault("flip", after=3 * SAMPLE + 513))
    assert [bytes(data) for data in reader.read("easy", range(12))] == expected
    assert proxy.ranges == [f"bytes=0-{12 * SAMPLE - 1}", f"bytes={3 * SAMPLE}-{4 * SAMPLE - 1}"]
    proxy.faults.extend([Fault("flip", after=3 * SAMPLE + 513), Fault("flip", after=513)])
    with pytest.raises(ShardError, match=f"sample '00003' at offset {3 * SAMPLE} is damaged.*twice in a row"):
        reader.read("easy", range(12))
