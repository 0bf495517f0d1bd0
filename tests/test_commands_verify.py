"""``verify`` finds whatever is not as the manifest says, lists all of it, and goes on after an interruption."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import curriculum_sampler as cs
from curriculum_sampler.errors import ArgumentError, StorageError
from curriculum_sampler.index import INDEX_SUFFIX, ShardIndex
from curriculum_sampler.memory_storage import MemoryStorage
from curriculum_sampler.storage import ObjectStat, Storage

from .command_fixtures import Commands, command, data, write_cluttered
from .data_fixtures import WatchedStorage, labelled, s3_bucket, s3_endpoint, storage

TAR = "train/easy/easy-000000.tar"


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_a_whole_data_set_has_no_faults(storage: Storage) -> None:
    write_cluttered(storage)
    found = cs.verify_dataset(storage)
    assert (found.faults, found.shards, found.samples) == ((), 9, 36)
    assert cs.verify_dataset(storage, fast=True).faults == ()


WHOLE = MemoryStorage()
cs.write_shards(WHOLE, {"easy": labelled(7)}, samples_per_shard=4)
COVERED = {
    name: content
    for name, content in WHOLE.objects.items()
    if name.endswith((".tar", INDEX_SUFFIX)) and content
}


@given(data=st.data())
def test_any_bit_flipped_anywhere_is_found(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(COVERED)))
    place = data.draw(st.integers(0, len(COVERED[name]) * 8 - 1))
    damaged = bytearray(COVERED[name])
    damaged[place // 8] ^= 1 << place % 8
    faults = cs.verify_dataset(MemoryStorage(objects={**WHOLE.objects, name: bytes(damaged)})).faults
    assert len(faults) == 1
    assert faults[0].shard == name.removesuffix(INDEX_SUFFIX)


@given(data=st.data())
def test_any_object_cut_anywhere_is_found_also_the_fast_way(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(COVERED)))
    length = data.draw(st.integers(0, len(COVERED[name]) - 1))
    cut = MemoryStorage(objects={**WHOLE.objects, name: COVERED[name][:length]})
    for fast in (False, True):
        assert [fault.shard for fault in cs.verify_dataset(cut, fast=fast).faults] == [
            name.removesuffix(INDEX_SUFFIX)
        ]


def test_every_damaged_sample_is_listed_by_key(data: Path, command: Commands) -> None:
    index = ShardIndex.from_bytes((data / f"{TAR}{INDEX_SUFFIX}").read_bytes())
    flip(data / TAR, int(index.starts[1]) + 600)
    flip(data / TAR, int(index.starts[3]) + 600)
    flip(data / "train/hard/hard-000001.tar", 600)
    ran = command("verify", data, "--json")
    assert ran.exit_code == 1
    messages = [fault["message"] for fault in ran.told["faults"]]
    assert len(messages) == 3
    for message, key in zip(messages, ("easy-001", "easy-003", "hard-005"), strict=True):
        assert f"sample '{key}'" in message
        assert "is damaged" in message
    text = command("verify", data)
    assert text.exit_code == 1
    assert "3 faults in" in text.out
    assert text.err == ""


def test_a_lost_index_is_told_apart_from_a_lost_tar(data: Path, command: Commands) -> None:
    (data / f"{TAR}{INDEX_SUFFIX}").unlink()
    (data / "train/hard/hard-000000.tar").unlink()
    first, second = command("verify", data, "--json").told["faults"]
    assert "only its index must be made again" in first["message"]
    assert first["shard"] == TAR
    assert "does not exist" in second["message"]
    assert second["bucket"] == "hard"


def test_blocks_that_belong_to_no_sample_are_looked_at_too(data: Path) -> None:
    flip(data / TAR, (data / TAR).stat().st_size - 100)
    (fault,) = cs.verify_dataset(data).faults
    assert "data behind zero blocks" in fault.message


def test_an_interrupted_verification_goes_on_with_what_is_left(tmp_path: Path) -> None:
    store = WatchedStorage()
    write_cluttered(store)
    record = tmp_path / "record.jsonl"

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cs.verify_dataset(store, record=record, progress=stop)
    before = {name for name, _, _ in store.reads if name.endswith(".tar")}
    assert 0 < len(before) < 9
    store.reads.clear()
    noted = record.read_bytes()
    assert cs.verify_dataset(store, record=record, restart=True).continued == 0
    record.write_bytes(noted)
    store.reads.clear()
    with record.open("a") as file:  # a line that was torn by the end of the process
        file.write('{"name": "tra')
    found = cs.verify_dataset(store, record=record)
    read = {name for name, _, _ in store.reads if name.endswith(".tar")}
    assert found.faults == ()
    assert found.continued == len(before)
    assert before.isdisjoint(read)
    assert len(before | read) == 9
    torn, *others = [
        line for line in record.read_text().splitlines() if '"name": "tra' in line and "index" not in line
    ]
    assert torn == '{"name": "tra'
    assert not others, "half a line spoils no other"
    store.reads.clear()
    assert cs.verify_dataset(store, record=record).continued == 0, "what came to its end begins anew"


def test_a_shard_replaced_since_it_was_verified_is_not_passed_over(data: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cs.verify_dataset(data, record=record, progress=stop)
    flip(data / TAR, 600)
    assert [fault.shard for fault in cs.verify_dataset(data, record=record).faults] == [TAR]


def test_the_fast_way_finds_a_shard_replaced_since_the_last_whole_verification(
    data: Path, command: Commands
) -> None:
    assert command("verify", data, "--fast").exit_code == 0
    assert command("verify", data).exit_code == 0
    assert command("verify", data, "--fast").exit_code == 0
    content = (data / TAR).read_bytes()
    (data / TAR).unlink()
    (data / TAR).write_bytes(content)
    ran = command("verify", data, "--fast")
    assert ran.exit_code == 1
    assert "was replaced since it was verified" in ran.out
    assert command("verify", data).exit_code == 0, "its bytes are the same"
    assert command("verify", data, "--fast").exit_code == 0


def test_the_fast_way_tells_again_what_is_damaged_still(data: Path, command: Commands) -> None:
    whole = (data / TAR).read_bytes()
    flip(data / TAR, 600)
    assert command("verify", data, "--fast").exit_code == 0, "no size differs, and nobody has looked yet"
    (damaged,) = json.loads(command("verify", data, "--json").out)["faults"]
    ran = command("verify", data, "--fast")
    assert ran.exit_code == 1
    assert f"{damaged['message']} (Found when it was verified; it has not changed since.)" in ran.out
    (data / TAR).unlink()
    (data / TAR).write_bytes(whole)
    assert command("verify", data, "--fast").exit_code == 0, (
        "this is another file, of which nothing bad is known"
    )


def test_a_record_of_another_data_set_or_another_file_is_left_alone(data: Path, tmp_path: Path) -> None:
    write_cluttered(tmp_path / "other")
    record = tmp_path / "record.jsonl"
    cs.verify_dataset(tmp_path / "other", record=record)
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear colleague,\n")
    for path, why in ((record, "it speaks of"), (letter, "it is not the record")):
        before = path.read_bytes()
        with pytest.raises(ArgumentError, match=why):
            cs.verify_dataset(data, record=path, restart=True)
        assert path.read_bytes() == before


class Away(MemoryStorage):
    """A store that cannot be asked for names that end so."""

    away = "nothing ends so"

    def stat(self, key: str) -> ObjectStat:
        if key.endswith(self.away):
            raise StorageError("no route to host. Check the network.")
        return super().stat(key)


@pytest.mark.parametrize("fast", [False, True])
def test_a_store_that_is_away_is_an_error_and_not_a_list_of_faults(fast: bool) -> None:
    store = Away()
    write_cluttered(store)
    store.away = ".tar"
    with pytest.raises(StorageError, match="no route to host"):
        cs.verify_dataset(store, fast=fast)


@pytest.mark.parametrize("fast", [False, True])
def test_shards_here_and_there_that_cannot_be_read_are_faults(fast: bool) -> None:
    store = Away()
    write_cluttered(store)
    store.away = "-000001.tar"
    assert len(cs.verify_dataset(store, fast=fast).faults) == 3


def test_one_shard_that_may_not_be_read_is_a_fault_among_others(data: Path) -> None:
    (data / TAR).unlink()
    (data / TAR).mkdir()
    (fault,) = cs.verify_dataset(data).faults
    assert TAR in fault.message
    assert fault.shard == TAR


def test_damage_on_the_way_is_no_fault() -> None:
    class Noisy(WatchedStorage):
        noise = 1

        def read_into(
            self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None
        ) -> ObjectStat:
            stat = super().read_into(key, buffer, offset, etag)
            if key.endswith(".tar") and self.noise:
                self.noise -= 1
                buffer[600] ^= 1
            return stat

    store = Noisy()
    write_cluttered(store)
    assert cs.verify_dataset(store).faults == ()
    assert store.noise == 0


def test_a_shard_in_two_splits_is_looked_at_once(data: Path) -> None:
    scores = cs.sample_numbers(cs.Manifest.load(data), "json:clutter")
    cs.rebucket(data, scores, into="two", thresholds={"low": 0, "high": 0.305})
    assert cs.verify_dataset(data).shards == 9


def test_a_damaged_manifest_is_no_traceback(data: Path, command: Commands) -> None:
    (data / "manifest.json").write_text(json.dumps({"format": "other"}))
    ran = command("verify", data)
    assert ran.exit_code == 2
    assert "is not a manifest" in ran.err


def test_one_split_of_several_may_be_looked_at(data: Path, command: Commands) -> None:
    write_cluttered(data, split="validation")
    flip(data / TAR, 600)
    assert command("verify", data, "--split", "validation").exit_code == 0
    ran = command("verify", data, "--json")
    assert ran.exit_code == 1
    assert ran.told["shards"] == 18
    unknown = command("verify", data, "--split", "test")
    assert unknown.exit_code == 2
    assert "'validation'" in unknown.err
