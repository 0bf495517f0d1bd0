"""Shards are opened once, when first needed, and stay the ones that were opened."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from curriculum_sampler.build import write_shards
from curriculum_sampler.errors import AbsentError, ShardError, StorageError
from curriculum_sampler.index import INDEX_SUFFIX
from curriculum_sampler.manifest import Manifest
from curriculum_sampler.shards import OpenShard, OpenShards, open_shard
from curriculum_sampler.storage import ObjectStat

from .data_fixtures import FarStorage, WatchedStorage, labelled

SHARD = "train/easy/easy-000000.tar"
INDEX = SHARD + INDEX_SUFFIX


def far(samples: int = 12) -> tuple[FarStorage, Manifest]:
    home = FarStorage()
    manifest = write_shards(home, {"easy": labelled(samples)}, samples_per_shard=4)
    home.reads.clear()
    home.touched.clear()
    return home, manifest


def first_bytes(shard: OpenShard, count: int = 5) -> bytes:
    buffer = bytearray(count)
    shard.read_into(memoryview(buffer), 0)
    return bytes(buffer)


def test_threads_that_want_the_same_shard_read_its_index_once() -> None:
    class Meeting(FarStorage):
        """All threads are on their way before the first index arrives."""

        def read_into(
            self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None
        ) -> ObjectStat:
            if key.endswith(INDEX_SUFFIX):
                everybody.wait(60)
            return super().read_into(key, buffer, offset, etag)

    everybody = threading.Event()
    home = Meeting()
    everybody.set()
    manifest = write_shards(home, {"easy": labelled(12)}, samples_per_shard=4)
    everybody.clear()
    home.reads.clear()
    shards, found = OpenShards(manifest), list[OpenShard]()
    threads = [
        threading.Thread(target=lambda n=n: found.append(shards.get("easy", n % 3)), daemon=True)  # type: ignore[misc]
        for n in range(12)
    ]
    for thread in threads:
        thread.start()
    everybody.set()
    for thread in threads:
        thread.join(20)
    assert Counter(key for key, _, _ in home.reads) == {
        f"train/easy/easy-{n:06}.tar{INDEX_SUFFIX}": 1 for n in range(3)
    }
    assert len(found) == 12
    assert len({id(shard) for shard in found}) == 3


def test_opening_a_far_shard_is_one_request_and_its_length_and_version_come_with_the_first_read() -> None:
    home, manifest = far()
    shard = OpenShards(manifest).get("easy", 0)
    assert home.touched == [INDEX]
    assert shard.pin.etag is None
    assert first_bytes(shard) == b"00000"
    assert home.touched == [INDEX, SHARD]
    assert shard.pin.etag == home.stat(SHARD).etag


def test_a_near_shard_is_compared_with_its_manifest_when_it_is_opened() -> None:
    home = WatchedStorage()
    manifest = write_shards(home, {"easy": labelled(4)})
    home.objects[SHARD] = home.objects[SHARD][:-1024]
    with pytest.raises(ShardError, match=r"was indexed with \d+ bytes. It was cut or replaced"):
        OpenShards(manifest).get("easy", 0)


def test_a_far_shard_of_another_length_is_found_out_by_its_first_read() -> None:
    home, manifest = far()
    home.objects[SHARD] += bytes(1024)
    shard = OpenShards(manifest).get("easy", 0)
    for _ in range(2):  # it does not become right by being asked again
        with pytest.raises(ShardError, match=r"was indexed with \d+ bytes. It was cut or replaced"):
            first_bytes(shard)


def test_a_shard_that_is_replaced_stays_an_error_also_after_its_index_was_forgotten() -> None:
    home, manifest = far()
    shards = OpenShards(manifest, most_samples=4)  # one shard at a time
    assert first_bytes(shards.get("easy", 0)) == b"00000"
    for number in (1, 2):
        first_bytes(shards.get("easy", number))
    home.objects[SHARD] = home.objects[SHARD.replace("000000", "000001")]
    with pytest.raises(StorageError, match="was replaced while it was being read"):
        first_bytes(shards.get("easy", 0))


def test_indexes_are_kept_up_to_a_number_of_samples_those_opened_first_go_first() -> None:
    home, manifest = far()
    shards = OpenShards(manifest, most_samples=8)
    for number in (0, 1, 2, 2, 1, 0):
        shards.get("easy", number)
    indexes = [key for key, _, _ in home.reads if key.endswith(INDEX_SUFFIX)]
    assert [int(key[16:22]) for key in indexes] == [0, 1, 2, 0]


def test_a_shard_larger_than_the_limit_is_kept_alone() -> None:
    home, manifest = far()
    shards = OpenShards(manifest, most_samples=1)
    for number in (0, 0, 1, 1, 0):
        shards.get("easy", number)
    assert [int(key[16:22]) for key, _, _ in home.reads] == [0, 1, 0]


@pytest.mark.parametrize("kind", [FarStorage, WatchedStorage])
def test_an_index_damaged_on_the_way_is_read_again(kind: type[WatchedStorage]) -> None:
    class Once(kind):  # type: ignore[misc, valid-type]
        is_damaged = False

        def read_into(
            self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None
        ) -> ObjectStat:
            found = super().read_into(key, buffer, offset, etag)
            if key.endswith(INDEX_SUFFIX) and self.is_damaged:
                self.is_damaged = False
                buffer[50] ^= 1
            return found

    home = Once()
    manifest = write_shards(home, {"easy": labelled(4)})
    home.is_damaged = True
    home.reads.clear()
    assert len(open_shard(manifest.buckets["easy"][0]).index) == 4
    assert [key for key, _, _ in home.reads] == [INDEX, INDEX]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-24],
        lambda data: data + bytes(24),
        lambda data: data[:50] + bytes([data[50] ^ 1]) + data[51:],
        lambda data: bytes(len(data)),
    ],
    ids=["shorter", "longer", "flipped", "zeros"],
)
@pytest.mark.parametrize("kind", [FarStorage, WatchedStorage])
def test_an_index_that_is_not_the_manifests_is_an_error_that_names_it(
    kind: type[WatchedStorage], damage: object
) -> None:
    home = kind()
    manifest = write_shards(home, {"easy": labelled(4)})
    home.objects[INDEX] = damage(home.objects[INDEX])  # type: ignore[operator]
    with pytest.raises((ShardError, StorageError), match=r"memory://watched/train/easy/easy-000000\.tar"):
        open_shard(manifest.buckets["easy"][0])


def test_a_failure_to_open_is_not_remembered() -> None:
    home, manifest = far()
    shards = OpenShards(manifest)
    index = home.objects.pop(INDEX)
    for _ in range(2):
        with pytest.raises(AbsentError, match="does not exist"):
            shards.get("easy", 0)
    home.objects[INDEX] = index
    assert first_bytes(shards.get("easy", 0)) == b"00000"
