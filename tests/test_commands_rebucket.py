"""``rebucket``: a new cut holds the same samples, and writes no more than it must."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import curriculum_sampler as cs
from curriculum_sampler.difficulty_file import read_difficulties, read_rule
from curriculum_sampler.errors import ArgumentError
from curriculum_sampler.memory_storage import MemoryStorage
from curriculum_sampler.storage import Storage

from .command_fixtures import Commands, command, data, ends_anywhere
from .data_fixtures import labelled, s3_bucket, s3_endpoint, storage, tar_bytes


def content(manifest: cs.Manifest) -> dict[str, dict[str, object]]:
    samples = cs.CurriculumDataset(manifest, decode=None).sequential()
    return {s["__key__"]: {name: s[name] for name in s if not name.startswith("__")} for s in samples}


def bucket_of(manifest: cs.Manifest) -> dict[str, str]:
    return {key: bucket for bucket in manifest.buckets for key in cs.sample_keys(manifest, bucket)}


@given(
    scores=st.lists(st.integers(0, 50), min_size=9, max_size=9, unique=True),
    shares=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    shard=st.integers(1, 4),
)
def test_every_sample_is_once_in_the_bucket_of_its_score(
    scores: list[int], shares: list[int], shard: int
) -> None:
    store = MemoryStorage()
    old = cs.write_shards(store, {"a": labelled(5), "b": labelled(4, first=5)}, samples_per_shard=shard)
    by_key = {f"{n:05}": score for n, score in enumerate(scores)}
    wanted = {f"new{number}": share for number, share in enumerate(shares)}
    report = cs.rebucket(store, by_key, into="new", shares=wanted, max_shard_bytes=5000)
    new = cs.Manifest.load(store, split="new")
    assert content(new) == content(cs.Manifest.load(store)) == content(old), "the old split is as it was"
    found = bucket_of(new)
    harder_first = sorted(by_key, key=by_key.__getitem__)
    assert [found[key] for key in harder_first] == sorted(found.values())
    assert new.bucket_sizes == report.bucket_sizes
    for bucket, (low, high) in new.difficulties.items():
        inside = [by_key[key] for key in found if found[key] == bucket]
        assert (low, high) == (min(inside), max(inside))
    written = [
        one.shard for placed in new.buckets.values() for one in placed if one.shard.name.startswith("new/")
    ]
    assert all(shard.samples == 1 or shard.num_bytes <= 5000 for shard in written)
    assert cs.verify_dataset(store).faults == ()
    lines = list(read_difficulties(store, "new"))
    dataset = cs.CurriculumDataset(new)
    assert {line["key"]: dataset[line["bucket"], line["index"]]["__key__"] for line in lines} == {
        key: key for key in by_key
    }


def test_buckets_that_are_joined_or_renamed_cost_nothing(data: Path, command: Commands) -> None:
    tars = {path: path.stat().st_mtime_ns for path in data.rglob("*.tar")}
    ran = command(
        "rebucket",
        data,
        "--into",
        "two",
        "--scores",
        "json:clutter",
        "--thresholds",
        "low=0,high=0.305",
        "--json",
    )
    assert ran.exit_code == 0, ran.err
    assert (ran.told["kept_shards"], ran.told["rewritten_samples"]) == (9, 0)
    assert ran.told["bucket_sizes"] == {"low": 12, "high": 24}
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*.tar")} == tars


def test_a_dry_run_says_what_must_be_copied_and_writes_nothing(data: Path, command: Commands) -> None:
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    words = [
        "rebucket",
        data,
        "--into",
        "five",
        "--scores",
        "json:clutter",
        "--shares",
        "a=1,b=1,c=1,d=1,e=1",
    ]
    dry = command(*words, "--dry-run", "--json")
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before
    real = command(*words, "--json")
    assert dry.told | {"dry_run": False} == real.told
    assert 0 < real.told["rewritten_samples"] <= 36
    text = command(
        "rebucket", data, "--into", "six", "--scores", "json:clutter", "--shares", "a=1,b=1", "--dry-run"
    )
    assert "would be copied into new shards" in text.out


def test_a_new_cut_that_ends_anywhere_changes_nothing_and_goes_on() -> None:
    scores = {f"{n:05}": n * 7 % 10 for n in range(10)}
    ends_anywhere(
        lambda home: cs.write_shards(home, {"all": labelled(10)}, samples_per_shard=3),
        lambda home: cs.rebucket(home, scores, into="new", shares={"a": 1, "b": 1}),
    )


def built(place: Path, work: Path, quarantine: float = 0.0) -> None:
    samples = [{"__key__": f"{n:03}", "json": {"area": n % 10, "blur": n % 7}} for n in range(70)]
    cs.build_dataset(samples, place, score=["json:area", "json:blur"], quarantine=quarantine, work_dir=work)


def test_recorded_scores_are_the_default_and_the_rule_follows_the_split(tmp_path: Path) -> None:
    built(tmp_path / "data", tmp_path / "work")
    old = read_rule(tmp_path / "data")
    cs.rebucket(tmp_path / "data", into="other", shares={"a": 1, "b": 1})
    assert read_rule(tmp_path / "data") == old, "the split that it was measured on is as it was"
    cs.rebucket(tmp_path / "data", into="train", shares={"a": 1, "b": 1}, overwrite=True)
    new = read_rule(tmp_path / "data")
    assert list(new.buckets) == ["a", "b"]
    assert (new.weights, new.tables) == (old.weights, old.tables)
    more = [{"__key__": f"m{n:03}", "json": {"area": n % 10, "blur": n % 7}} for n in range(70)]
    cs.build_dataset(
        more,
        tmp_path / "more",
        score=["json:area", "json:blur"],
        rule=tmp_path / "data",
        work_dir=tmp_path / "work2",
    )
    cut = cs.Manifest.load(tmp_path / "data").bucket_sizes
    assert cs.Manifest.load(tmp_path / "more").bucket_sizes == cut, "equal samples are cut alike"


def test_a_rule_of_a_new_cut_leaves_nothing_out(tmp_path: Path) -> None:
    built(tmp_path / "data", tmp_path / "work", quarantine=0.1)
    assert read_rule(tmp_path / "data").most is not None
    cs.rebucket(tmp_path / "data", into="train", shares={"a": 1, "b": 1}, overwrite=True)
    assert read_rule(tmp_path / "data").most is None


def test_a_split_that_exists_is_replaced_only_on_demand(data: Path, command: Commands) -> None:
    words = ["rebucket", data, "--into", "train", "--scores", "json:clutter", "--shares", "a=1,b=1"]
    refused = command(*words)
    assert refused.exit_code == 2
    assert "has a split 'train' already" in refused.err
    assert command(*words, "--overwrite").exit_code == 0
    assert list(cs.Manifest.load(data).buckets) == ["a", "b"]
    assert cs.verify_dataset(data).faults == ()


def test_tars_that_lie_elsewhere_are_listed_anew_but_not_taken_apart(tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    for number in range(3):
        (tmp_path / "tars" / f"{number}.tar").write_bytes(
            tar_bytes({f"{number}a.txt": b"1", f"{number}b.txt": b"2"})
        )
    cs.index_shards(tmp_path / "tars", lambda name: "all", destination=tmp_path / "home")
    scores = {f"{number}{letter}": number for number in range(3) for letter in "ab"}
    cs.rebucket(tmp_path / "home", scores, into="new", thresholds={"low": 0, "high": 2})
    assert cs.Manifest.load(tmp_path / "home", split="new").bucket_sizes == {"high": 2, "low": 4}
    scores["0a"] = 5
    with pytest.raises(ArgumentError, match=r"1 of 3 shards must be taken apart, but the tars lie at"):
        cs.rebucket(tmp_path / "home", scores, into="other", thresholds={"low": 0, "high": 2})


@pytest.mark.parametrize(
    ("change", "cut", "message"),
    [
        ({"easy-003": None}, {"shares": {"a": 1, "b": 1}}, "'easy-003' has no score"),
        ({"easy-003": float("nan")}, {"shares": {"a": 1, "b": 1}}, "'easy-003' has the score nan"),
        ({}, {"thresholds": {"a": 5, "b": 9}}, "below the lowest of bucket 'a'"),
        ({}, {"thresholds": {"a": 0, "b": 99}}, "'b' would be empty"),
        ({}, {"thresholds": {"b": 9, "a": 0}}, "must rise"),
        ({}, {"shares": {"a": 1, "b": -1}}, "positive shares"),
        ({}, {"shares": {"a/b": 1, "b": 1}}, "Bucket name 'a/b'"),
        ({}, {}, "has one of them"),
        ({}, {"shares": {"a": 1}, "thresholds": {"a": 1}}, "has one of them"),
    ],
)
def test_a_cut_that_is_none_is_refused_before_anything_is_written(
    change: dict[str, float | None], cut: dict[str, dict[str, float]], message: str, data: Path
) -> None:
    manifest = cs.Manifest.load(data)
    keys = [key for bucket in manifest.buckets for key in cs.sample_keys(manifest, bucket)]
    scores = {
        key: change.get(key, number) for number, key in enumerate(keys) if change.get(key, 0) is not None
    }
    before = sorted(data.rglob("*"))
    with pytest.raises(ArgumentError, match=message):
        cs.rebucket(data, scores, into="new", **cut)  # type: ignore[arg-type]
    assert sorted(data.rglob("*")) == before


def test_a_key_in_two_samples_has_no_one_score() -> None:
    store = MemoryStorage()
    cs.write_shards(store, {"a": labelled(3), "b": labelled(3, first=2)})
    scores = {f"{n:05}": n for n in range(5)}
    with pytest.raises(ArgumentError, match="Two samples have the key '00002'"):
        cs.rebucket(store, scores, into="new", shares={"low": 1, "high": 1})


def test_without_scores_and_without_a_record_it_says_so(data: Path, command: Commands) -> None:
    ran = command("rebucket", data, "--into", "new", "--shares", "a=1,b=1")
    assert ran.exit_code == 2
    assert "records no scores" in ran.err
    for wrong in ("a=1,b", "a=1,a=2", "a=one"):
        assert command("rebucket", data, "--into", "new", "--shares", wrong).exit_code == 2
