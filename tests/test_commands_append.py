"""``append``: data grow at their end, and whoever is drawing from them is not disturbed."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import curriculum_sampler as cs
from curriculum_sampler.difficulty_file import read_difficulties
from curriculum_sampler.errors import ArgumentError, ShardError, StorageError
from curriculum_sampler.index import INDEX_SUFFIX
from curriculum_sampler.local_storage import LocalStorage
from curriculum_sampler.memory_storage import MemoryStorage
from curriculum_sampler.storage import Storage, read_all

from .command_fixtures import Commands, FillingStorage, command, data, ends_anywhere, write_cluttered
from .data_fixtures import labelled, s3_bucket, s3_endpoint, storage, tar_bytes, told


def samples_of(manifest: cs.Manifest) -> list[tuple[str, int, str]]:
    return [told(sample) for sample in cs.CurriculumDataset(manifest, decode=None).sequential()]


def test_what_was_there_keeps_its_place_and_the_new_comes_after(storage: Storage) -> None:
    before = cs.write_shards(storage, {"easy": labelled(7), "hard": labelled(3)}, samples_per_shard=3)
    cs.write_shards(
        "memory://append-new", {"easy": labelled(5, first=100)}, samples_per_shard=2, overwrite=True
    )
    report = cs.append_shards(storage, "memory://append-new")
    after = cs.Manifest.load(storage)
    assert report.sizes == {"easy": 12}
    assert after.bucket_sizes == {"easy": 12, "hard": 3}
    assert set(samples_of(before)) < set(samples_of(after))
    dataset = cs.CurriculumDataset(after)
    assert [dataset["easy", index]["cls"] for index in range(12)] == [*range(7), *range(100, 105)]
    assert after.prefix_fingerprint("easy", 7) == before.bucket_fingerprints["easy"]
    assert cs.verify_dataset(storage).faults == ()


def test_a_running_curriculum_keeps_its_pass_and_takes_the_new_size_from_the_next(storage: Storage) -> None:
    cs.write_shards(storage, {"easy": labelled(12)}, samples_per_shard=4)
    schedule = cs.StageSchedule([cs.Stage("easy", {"easy": 1}, steps=20)])

    def loader() -> Any:
        dataset = cs.CurriculumDataset(cs.Manifest.load(storage))
        return cs.CurriculumLoader(
            dataset, schedule, batch_size=2, seed=17, collate=lambda found: [s["cls"] for s in found]
        )

    plain = list(loader())
    running = loader()
    batches = iter(running)
    seen = [next(batches), next(batches)]
    cs.write_shards("memory://append-running", {"easy": labelled(6, first=100)}, overwrite=True)
    report = cs.append_shards(storage, "memory://append-running")
    running.grow(report.sizes, "more samples")
    grown = loader()
    grown.load_state_dict(running.state_dict())
    seen += list(grown)
    numbers = [number for batch in seen for number in batch]
    assert seen[:6] == plain[:6], "the pass over 12 samples goes on as it would have"
    assert sorted(numbers[12:30]) == [*range(12), *range(100, 106)], "the next pass is over all 18"


def test_an_append_that_ends_anywhere_leaves_the_data_set_as_it_was_and_goes_on() -> None:
    new = MemoryStorage()
    cs.write_shards(
        new, {"easy": labelled(6, first=100), "hard": labelled(3, first=200)}, samples_per_shard=2
    )

    old = {"easy": labelled(5), "hard": labelled(3)}
    ends_anywhere(
        lambda home: cs.write_shards(home, old, samples_per_shard=2), lambda home: cs.append_shards(home, new)
    )


def test_tars_that_lie_there_already_are_indexed_in_place(tmp_path: Path, command: Commands) -> None:
    tars = tmp_path / "tars"
    tars.mkdir()
    for number in range(3):
        (tars / f"easy-{number}.tar").write_bytes(tar_bytes({f"{number}.txt": b"a shirt"}))
    index = command("index", tars, "--bucket", "easy=easy-0.tar", "--destination", tmp_path / "home")
    assert index.exit_code == 0, index.err
    dry = command("append", tmp_path / "home", "--bucket", "easy=easy-[12].tar", "--dry-run", "--json")
    assert dry.told["buckets"] == {"easy": {"before": 1, "after": 3, "shards": 2, "num_bytes": 20480}}
    assert cs.Manifest.load(tmp_path / "home").bucket_sizes == {"easy": 1}
    ran = command("append", tmp_path / "home", "--bucket", "easy=easy-[12].tar")
    assert ran.exit_code == 0
    assert "loader.grow({'easy': 3}" in ran.out
    assert cs.verify_dataset(tmp_path / "home").samples == 3
    again = command("append", tmp_path / "home", "--bucket", "easy=easy-1.tar")
    assert again.exit_code == 2
    assert "is part of the data set already" in again.err
    copied = command("append", tmp_path / "home", tmp_path / "home")
    assert copied.exit_code == 2
    assert "where nothing is written" in copied.err


@pytest.fixture
def scored(tmp_path: Path) -> tuple[Path, Path]:
    """A data set of twenty samples that records their difficulties, and an addition that was cut by its rule."""
    data, new = tmp_path / "data", tmp_path / "new"
    for place, first, cut in ((data, 0, {"quarantine": 0.1}), (new, 100, {"rule": data})):
        samples = [
            {"__key__": f"{n:03}", "json": {"area": (n % 10 - first / 1000) / 10}}
            for n in range(first, first + 20)
        ]
        cs.build_dataset(samples, place, score="json:area", work_dir=tmp_path / f"work{first}", **cut)  # type: ignore[arg-type]
    return data, new


def filling(folder: Path, writes_left: int) -> FillingStorage:
    home = FillingStorage(
        objects={name: read_all(LocalStorage(folder), name) for name in LocalStorage(folder).list()}
    )
    home.writes_left = writes_left
    return home


def test_difficulties_that_were_recorded_are_written_on(scored: tuple[Path, Path]) -> None:
    data, new = scored
    cs.append_shards(data, new)
    manifest = cs.Manifest.load(data)
    assert len(cs.recorded_scores(manifest) or {}) == len(manifest) == 36
    dataset = cs.CurriculumDataset(manifest)
    lines = list(read_difficulties(cs.open_storage(data)))
    assert len({line["key"] for line in lines}) == len(lines) == 40
    for line in lines:
        if "index" in line:
            assert dataset[line["bucket"], line["index"]]["__key__"] == line["key"]
    inside = {
        name: [line["score"] for line in lines if line.get("bucket") == name] for name in manifest.buckets
    }
    assert manifest.difficulties == {name: (min(found), max(found)) for name, found in inside.items()}


def test_an_append_that_ends_anywhere_leaves_the_scores_known_and_goes_on(scored: tuple[Path, Path]) -> None:
    data, new = scored
    whole = filling(data, 99)
    before = cs.recorded_scores(cs.Manifest.load(whole))
    cs.append_shards(whole, new)
    for writes in range(99 - whole.writes_left):
        home = filling(data, writes)
        with pytest.raises(StorageError, match="disk is full"):
            cs.append_shards(home, new)
        assert cs.recorded_scores(cs.Manifest.load(home)) == before
        home.writes_left = 99
        cs.append_shards(home, new)
        assert home.objects == whole.objects


def test_what_an_interrupted_new_cut_has_recorded_is_not_written_on(scored: tuple[Path, Path]) -> None:
    data, new = scored
    whole = filling(data, 99)
    cut = {"into": "train", "overwrite": True, "shares": {"a": 1, "b": 1}}
    cs.rebucket(whole, **cut)
    home = filling(data, 99 - whole.writes_left - 1)
    with pytest.raises(StorageError, match="disk is full"):
        cs.rebucket(home, **cut)
    home.writes_left = 99
    with pytest.raises(
        ArgumentError, match="bucket 'a', which split 'train' does not have: a rebucket was interrupted"
    ):
        cs.append_shards(home, new)
    cs.rebucket(home, **cut)
    assert home.objects.keys() >= whole.objects.keys()
    assert {name: home.objects[name] for name in whole.objects} == whole.objects


def damaged(new: MemoryStorage) -> None:
    name = "train/easy/easy-000000.tar"
    content = bytearray(new.objects[name])
    content[600] ^= 1
    new.objects[name] = bytes(content)


def test_a_split_may_be_appended_to_one_of_another_name(
    data: Path, command: Commands, tmp_path: Path
) -> None:
    cs.write_shards(tmp_path / "new", {"easy": labelled(5)}, split="more")
    ran = command("append", data, tmp_path / "new", "--from-split", "more")
    assert ran.exit_code == 0, ran.err
    assert cs.Manifest.load(data).bucket_sizes == {"easy": 17, "hard": 12, "medium": 12}


def test_a_damaged_shard_is_not_appended(data: Path) -> None:
    new = MemoryStorage()
    cs.write_shards(new, {"easy": labelled(4)})
    damaged(new)
    before = (data / "manifest.json").read_bytes()
    with pytest.raises(ShardError, match="it was damaged or replaced"):
        cs.append_shards(data, new)
    assert (data / "manifest.json").read_bytes() == before


def test_the_same_data_are_not_appended_twice(data: Path) -> None:
    new = MemoryStorage()
    cs.write_shards(new, {"easy": labelled(4)})
    cs.append_shards(data, new)
    with pytest.raises(ArgumentError, match=r"already\. Append what is new only"):
        cs.append_shards(data, new)


def test_a_bucket_that_is_not_there_is_refused(data: Path) -> None:
    new = MemoryStorage()
    cs.write_shards(new, {"hrad": labelled(4)})
    with pytest.raises(ArgumentError, match=r"no bucket 'hrad' .* It has: easy, hard, medium"):
        cs.append_shards(data, new)


def test_what_something_else_wrote_under_the_next_name_stays(data: Path) -> None:
    new = MemoryStorage()
    cs.write_shards(new, {"easy": labelled(4)})
    other = data / "train/easy/easy-000003.tar"
    other.write_bytes(b"somebody's notes")
    with pytest.raises(ArgumentError, match="exists, but is not part of the data set"):
        cs.append_shards(data, new)
    assert other.read_bytes() == b"somebody's notes"


def test_a_manifest_that_changed_meanwhile_is_not_overwritten(data: Path) -> None:
    new = MemoryStorage()
    cs.write_shards(new, {"easy": labelled(4)})

    def other_append(done: int, total: int) -> None:
        write_cluttered(data, split="validation")

    with pytest.raises(ArgumentError, match="was changed meanwhile"):
        cs.append_shards(data, new, progress=other_append)
    assert cs.Manifest.load(data, split="validation")


@pytest.mark.parametrize(
    "words", [[], ["new", "--bucket", "easy=a.tar"], ["--bucket", "easy"], ["--bucket", "easy=x-*.tar"]]
)
def test_it_must_be_said_what_to_append(words: list[str], data: Path, command: Commands) -> None:
    ran = command("append", data, *words)
    assert ran.exit_code == 2
    assert ran.err.startswith("error: ")
