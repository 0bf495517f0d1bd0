"""``index`` makes a data set of tars that are there, and says beforehand which are meant."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

import curriculum_sampler as cs
from curriculum_sampler.memory_storage import MemoryStorage
from curriculum_sampler.storage import Storage, read_all

from .command_fixtures import Commands, command
from .data_fixtures import WatchedStorage, s3_bucket, s3_endpoint, storage, tar_bytes, unprivileged


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Two folders of tars by the standard library, and something else."""
    root = tmp_path / "tars"
    for bucket in ("easy", "hard"):
        (root / bucket).mkdir(parents=True)
        for shard in range(2):
            members = {f"{bucket}{shard}{n}.txt": b"shirt" for n in range(3)}
            (root / bucket / f"part-{shard}.tar").write_bytes(tar_bytes(members))
    (root / "README.md").write_text("Shirts.")
    return root


def test_each_folder_of_tars_is_a_bucket(tars: Path, command: Commands) -> None:
    ran = command("index", tars)
    assert ran.exit_code == 0, ran.err
    assert cs.Manifest.load(tars).bucket_sizes == {"easy": 6, "hard": 6}
    assert cs.verify_dataset(tars).faults == ()


def test_patterns_say_which_tars_belong_to_which_bucket(tars: Path, command: Commands) -> None:
    ran = command(
        "index",
        tars,
        "--bucket",
        "low=easy/*.tar",
        "--bucket",
        "low=hard/part-0.tar",
        "--split",
        "look",
        "--json",
    )
    assert ran.told["buckets"] == [
        {
            "name": "low",
            "tars": ["easy/part-0.tar", "easy/part-1.tar", "hard/part-0.tar"],
            "bytes": 30720,
            "samples": 9,
        }
    ]
    assert cs.Manifest.load(tars, split="look").bucket_sizes == {"low": 9}


def test_a_dry_run_reads_no_tar_and_writes_nothing(tars: Path, command: Commands) -> None:
    (tars / "easy" / "part-0.tar").write_bytes(b"no tar at all")
    before = sorted(tars.rglob("*"))
    ran = command("index", tars, "--dry-run", "--json")
    assert ran.exit_code == 0
    assert [bucket["samples"] for bucket in ran.told["buckets"]] == [None, None]
    assert sorted(tars.rglob("*")) == before


def test_tars_that_cannot_be_written_to_have_their_manifest_elsewhere(
    tars: Path, command: Commands, tmp_path: Path, s3_bucket: str, s3_endpoint: str
) -> None:
    store = cs.S3Storage(s3_bucket, "tars", endpoint_url=s3_endpoint)
    for path in tars.rglob("*.tar"):
        store.write(path.relative_to(tars).as_posix(), path.read_bytes())
    before = store.list()
    place = [
        "index",
        f"s3://{s3_bucket}/tars",
        "--endpoint-url",
        s3_endpoint,
        "--destination",
        tmp_path / "home",
    ]
    ran = command(*place)
    assert ran.exit_code == 0, ran.err
    assert store.list() == before
    manifest = cs.Manifest.load(tmp_path / "home", endpoint_url=s3_endpoint)
    assert manifest.bucket_sizes == {"easy": 6, "hard": 6}
    looked = command("verify", tmp_path / "home", "--endpoint-url", s3_endpoint)
    assert looked.exit_code == 0, looked.err


def test_indexing_that_is_interrupted_goes_on_with_what_is_left(tmp_path: Path) -> None:
    store, content = WatchedStorage(), tar_bytes({f"{n}.bin": b"x" * 5000 for n in range(9)})
    names = [f"easy/{number}.tar" for number in range(6)]
    for name in names:
        store.write(name, content)
    record = tmp_path / "record.jsonl"
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cs.index_resumably(store, {"easy": names}, record=record, progress=stop)
    assert seen == [len(content) * count for count in (1, 2, 3)]
    assert "manifest.json" not in store.objects
    store.write(names[1], tar_bytes({"other.txt": b"replaced meanwhile"}))
    store.reads.clear()
    manifest = cs.index_resumably(store, {"easy": names}, record=record)
    read = {name for name, _, _ in store.reads if name.endswith(".tar")}
    assert read == {names[1], *names[3:]}
    assert manifest.bucket_sizes == {"easy": 46}
    assert cs.verify_dataset(store).faults == ()
    assert not record.exists()


def test_it_writes_what_index_shards_writes(storage: Storage, tmp_path: Path) -> None:
    other = MemoryStorage()
    for place in (storage, other):
        place.write("easy/0.tar", tar_bytes({"a.txt": b"1", "b.txt": b"2"}))
        place.write("hard/0.tar", tar_bytes({"c.txt": b"3"}))
    buckets = {"easy": ["easy/0.tar"], "hard": ["hard/0.tar"]}
    cs.index_resumably(storage, buckets, record=tmp_path / "record.jsonl")
    cs.index_shards(other, buckets)
    assert {name: read_all(storage, name) for name in storage.list()} == other.objects


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bucket", "easy=none-*.tar"], "matches 'none-*.tar'"),
        (["--bucket", "easy=*.tar", "--bucket", "hard=hard/*.tar"], "matches twice"),
        (["--bucket", "easy"], "NAME=PATTERN"),
        (["--bucket", "easy=easy/none.tar"], "does not exist"),
        (["--bucket", "a/b=*.tar"], "Bucket name 'a/b'"),
        (["--split", "no/name"], "Split name 'no/name'"),
    ],
)
def test_tars_that_are_not_there_are_refused(
    words: list[str], message: str, tars: Path, command: Commands
) -> None:
    ran = command("index", tars, *words)
    assert ran.exit_code == 2
    assert message in ran.err
    assert not (tars / "manifest.json").exists()


def test_folders_that_name_no_bucket_are_told(tars: Path, command: Commands, tmp_path: Path) -> None:
    (tars / "other" / "easy").mkdir(parents=True)
    (tars / "other" / "easy" / "0.tar").write_bytes(tar_bytes({"a.txt": b""}))
    assert "Two folders" in command("index", tars).err
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "0.tar").write_bytes(tar_bytes({"a.txt": b""}))
    assert "lies in no folder" in command("index", tmp_path / "flat").err
    (tmp_path / "empty").mkdir()
    assert "There are no tars" in command("index", tmp_path / "empty").err


def test_a_damaged_tar_leaves_no_manifest_and_one_that_exists_stays(tars: Path, command: Commands) -> None:
    assert command("index", tars).exit_code == 0
    before = (tars / "manifest.json").read_bytes()
    again = command("index", tars)
    assert again.exit_code == 2
    assert "has a split 'train' already" in again.err
    (tars / "hard" / "part-1.tar").write_bytes(b"\0" * 100)
    ran = command("index", tars, "--split", "second")
    assert ran.exit_code == 2
    assert "hard/part-1.tar" in ran.err
    assert (tars / "manifest.json").read_bytes() == before


def test_a_place_without_rights_is_told(tars: Path, command: Commands, unprivileged: None) -> None:
    ran = command("index", tars)
    assert ran.exit_code == 2
    assert "ermission" in ran.err
