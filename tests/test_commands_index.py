"""``index`` makes a data set of tars that are there, and says beforehand which are meant."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

import curriculum_sampler as cs
from curriculum_sampler.counted_reads import CountedReads
from curriculum_sampler.storage import Storage

from .command_fixtures import Commands, command
from .data_fixtures import s3_bucket, s3_endpoint, storage, tar_bytes, unprivileged


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


def test_progress_counts_every_byte_once(storage: Storage) -> None:
    content = tar_bytes({f"{n}.bin": b"x" * 5000 for n in range(9)})
    storage.write("easy/0.tar", content)
    storage.write("easy/1.tar", content)
    seen: list[int] = []
    cs.index_shards(CountedReads(storage, seen.append), {"easy": ["easy/0.tar", "easy/1.tar"]})
    assert seen == sorted(seen)
    assert 2 * len(content) <= max(seen) <= 2 * len(content) + 4096, "the tars, and the manifest at the end"


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
