"""Building a data set: the same bytes whoever builds it, and a killed build goes on."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler import journal as journal_module
from curriculum_sampler.build_report import BuildReport, Progress
from curriculum_sampler.dataset import CurriculumDataset
from curriculum_sampler.dataset_build import build_dataset
from curriculum_sampler.difficulty_file import read_difficulties, read_rule
from curriculum_sampler.difficulty_rule import QUARANTINED
from curriculum_sampler.errors import ArgumentError, BadSampleError, CurriculumError, StorageError
from curriculum_sampler.index import INDEX_SUFFIX
from curriculum_sampler.local_storage import LocalStorage
from curriculum_sampler.manifest import Manifest
from curriculum_sampler.memory_storage import MemoryStorage
from curriculum_sampler.s3 import S3Storage
from curriculum_sampler.whole_tar import whole_tar

from .build_fixtures import (
    Generated,
    Killed,
    MortalStorage,
    both,
    brightness,
    kill_me,
    losses,
    objects,
    picture,
    picture_folder,
    told,
)
from .data_fixtures import read_by_webdataset, s3_bucket, s3_endpoint, unprivileged

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("source") / "pictures", 150)


@pytest.fixture
def build(tmp_path: Path) -> Any:
    """``build_dataset`` with its journal in this test's folder."""
    return functools.partial(build_dataset, work_dir=tmp_path / "work")


USUAL: dict[str, Any] = {
    "score": "json:difficulty",
    "group": "json:person",
    "splits": {"train": 0.8, "val": 0.2},
    "samples_per_shard": 16,
    "seed": 17,
}


def test_the_bytes_do_not_depend_on_the_number_of_processes(
    build: Any, pictures: Path, tmp_path: Path
) -> None:
    options = {**USUAL, "score": both, "category": "json:kind", "score_batch": losses, "batch_size": 7}
    reports = [
        build(pictures, tmp_path / f"by-{processes}", processes=processes, **options) for processes in (1, 2)
    ]
    assert reports[0].num_shards > 8
    assert reports[0].bucket_sizes == reports[1].bucket_sizes
    assert objects(tmp_path / "by-1") == objects(tmp_path / "by-2")


def test_every_sample_is_written_once_with_its_bytes_untouched(
    build: Any, pictures: Path, tmp_path: Path
) -> None:
    report = build(pictures, tmp_path / "out", **USUAL)
    seen = Counter()
    for split in ("train", "val"):
        manifest = Manifest.load(tmp_path / "out", split=split)
        assert manifest.bucket_sizes == report.bucket_sizes[split]
        for sample in CurriculumDataset(manifest, decode=None).sequential():
            key = sample["__key__"]
            seen[key] += 1
            members = {name: value for name, value in sample.items() if not name.startswith("__")}
            assert members == {name: (pictures / f"{key}.{name}").read_bytes() for name in ("png", "json")}
    assert seen == {f"{number:04}": 1 for number in range(150)}


def test_webdataset_reads_what_was_built(build: Any, pictures: Path, tmp_path: Path) -> None:
    build(pictures, tmp_path / "out", **USUAL)
    urls = [placed.url for placed in Manifest.load(tmp_path / "out").buckets["hard"]]
    found = read_by_webdataset(urls, "rgb8")
    ours = CurriculumDataset(Manifest.load(tmp_path / "out")).sequential()
    hard = [sample for sample in ours if sample["__bucket__"] == "hard"]
    assert [sample["__key__"] for sample in found] == [sample["__key__"] for sample in hard]
    assert np.array_equal(found[3]["png"], hard[3]["png"])


def test_a_harder_bucket_holds_the_higher_scores_and_says_so(
    build: Any, pictures: Path, tmp_path: Path
) -> None:
    report = build(pictures, tmp_path / "out", **USUAL)
    manifest = Manifest.load(tmp_path / "out")
    scores: dict[str, list[float]] = {}
    for sample in CurriculumDataset(manifest).sequential():
        scores.setdefault(sample["__bucket__"], []).append(sample["json"]["difficulty"])
    assert max(scores["easy"]) < min(scores["medium"])
    assert max(scores["medium"]) < min(scores["hard"])
    assert manifest.difficulties == {name: (min(found), max(found)) for name, found in scores.items()}
    assert report.difficulties["train"] == manifest.difficulties
    size = sum(map(len, scores.values()))
    assert [len(scores[name]) for name in ("easy", "medium", "hard")] == [
        round(0.4 * size),
        round(0.75 * size) - round(0.4 * size),
        size - round(0.75 * size),
    ]


def test_a_bucket_is_shuffled_by_the_seed_and_holds_the_same_whatever_the_seed(
    build: Any, pictures: Path, tmp_path: Path
) -> None:
    orders = {}
    for seed in (1, 2):
        build(pictures, tmp_path / f"{seed}", score="json:difficulty", seed=seed)
        dataset = CurriculumDataset(Manifest.load(tmp_path / f"{seed}"), decode=None)
        orders[seed] = [s["__key__"] for s in dataset.sequential() if s["__bucket__"] == "easy"]
    assert sorted(orders[1]) == sorted(orders[2])
    assert orders[1] != orders[2]
    assert sorted(orders[1]) != orders[1]


def test_a_group_never_lies_in_two_splits(build: Any, pictures: Path, tmp_path: Path) -> None:
    report = build(pictures, tmp_path / "out", **USUAL)
    people = {
        split: {line["group"] for line in read_difficulties(LocalStorage(tmp_path / "out"), split)}
        for split in ("train", "val")
    }
    assert people["train"].isdisjoint(people["val"])
    assert len(people["train"] | people["val"]) == 38
    assert 4 <= sum(report.bucket_sizes["val"].values()) <= 60


def test_later_data_is_cut_by_the_stored_rule(build: Any, pictures: Path, tmp_path: Path) -> None:
    options = {"score": both, "category": "json:kind", "weights": {"bright": 1, "area": 3}}
    build(pictures, tmp_path / "out", quarantine=0.05, **options)
    rule = read_rule(tmp_path / "out")
    lines = list(read_difficulties(LocalStorage(tmp_path / "out")))
    signals = {name: np.array([line["signals"][name] for line in lines]) for name in ("bright", "area")}
    scores = rule.scores(signals, [line["category"] for line in lines])
    assert scores.tolist() == [line["score"] for line in lines]
    names = [*rule.buckets, None]
    assert [names[code] for code in rule.cut(scores)] == [line.get("bucket") for line in lines]

    later = picture_folder(tmp_path / "later", 40)
    score = {key: options[key] for key in ("score", "category")}
    build(later, tmp_path / "more", rule=tmp_path / "out" / "difficulty.json", splits={"later": 1}, **score)
    for own in ({"quarantine": 0.05}, {"weights": {"bright": 1}}):
        with pytest.raises(ArgumentError, match="a stored rule has weights and quarantine of its own"):
            build(later, tmp_path / "other", rule=tmp_path / "out", splits={"later": 1}, **score, **own)
    before = {line["key"]: line.get("bucket") for line in lines}
    after = list(read_difficulties(LocalStorage(tmp_path / "more"), "later"))
    assert {line["key"]: line.get("bucket") for line in after} == {
        key: bucket for key, bucket in before.items() if key < "0040"
    }
    assert read_rule(tmp_path / "more") == rule


def test_what_is_told_of_a_sample_names_its_place(build: Any, pictures: Path, tmp_path: Path) -> None:
    build(pictures, tmp_path / "out", quarantine=0.1, **{**USUAL, "group": None, "splits": None})
    dataset = CurriculumDataset(Manifest.load(tmp_path / "out"), decode=None)
    by_place = {(s["__bucket__"], s["__index__"]): s["__key__"] for s in dataset.sequential()}
    lines = list(read_difficulties(LocalStorage(tmp_path / "out")))
    assert [line["key"] for line in lines] == [f"{number:04}" for number in range(150)]
    assert {(line["bucket"], line["index"]): line["key"] for line in lines if "bucket" in line} == by_place
    left_out = [line["score"] for line in lines if "bucket" not in line]
    assert len(left_out) == 15
    assert min(left_out) > max(line["score"] for line in lines if "bucket" in line)


def test_given_labels_are_the_buckets(build: Any, pictures: Path, tmp_path: Path) -> None:
    report = build(pictures, tmp_path / "out", label="json:level", score="json:area")
    assert report.bucket_sizes == {"train": {"easy": 75, "hard": 75}}
    assert not (tmp_path / "out" / "difficulty.json").exists()
    areas = [told(number)["area"] for number in range(0, 150, 2)]
    assert report.difficulties["train"]["easy"] == (min(areas), max(areas))
    rest = build(pictures, tmp_path / "rest", label="json:level", score="json:area", quarantine=0.1)
    assert rest.quarantined == 150 - sum(rest.bucket_sizes["train"].values()) > 0
    assert (
        max(high for _, high in rest.difficulties["train"].values()) < report.difficulties["train"]["hard"][1]
    )
    unscored = build(pictures, tmp_path / "bare", label="json:level", splits="json:level")
    assert unscored.bucket_sizes == {"easy": {"easy": 75}, "hard": {"hard": 75}}
    assert Manifest.load(tmp_path / "bare", split="easy").difficulties == {}


def test_thresholds_are_the_lowest_scores_of_their_buckets(
    build: Any, pictures: Path, tmp_path: Path
) -> None:
    thresholds = {"very_easy": 0, "rest": 0.25}
    build(pictures, tmp_path / "out", score="json:difficulty", thresholds=thresholds)
    for line in read_difficulties(LocalStorage(tmp_path / "out")):
        assert line["bucket"] == ("rest" if line["score"] >= 0.25 else "very_easy")
    thresholds = {"very_easy": 0.0, "rest": np.float64(0.25)}
    build(pictures, tmp_path / "again", score="json:difficulty", thresholds=thresholds)
    assert objects(tmp_path / "again") == objects(tmp_path / "out")


def test_numbers_may_be_numpys(build: Any, pictures: Path, tmp_path: Path) -> None:
    options = {"score": "json:difficulty", "weights": {"difficulty": 2}, "quarantine": 0.25, "seed": 3}
    options |= {"shares": {"easy": 1, "hard": 3}, "samples_per_shard": 20}
    build(pictures, tmp_path / "plain", **options)
    options |= {"weights": {"difficulty": np.float32(2)}, "quarantine": np.float32(0.25), "seed": np.int64(3)}
    options |= {"shares": {"easy": np.int64(1), "hard": np.int64(3)}, "samples_per_shard": np.int32(20)}
    build(pictures, tmp_path / "numpy", **options)
    assert objects(tmp_path / "numpy") == objects(tmp_path / "plain")


# --- killed, and continued


def whole(build: Any, source: Any, folder: Path, **options: Any) -> dict[str, bytes]:
    build(source, folder, **options)
    return objects(folder)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_build_killed_at_any_write_goes_on_and_the_bytes_are_the_same(
    pictures: Path, tmp_path: Path, after: bool
) -> None:
    expected = whole(
        functools.partial(build_dataset, work_dir=tmp_path), pictures, tmp_path / "whole", **USUAL
    )
    for dies_at in range(len(expected)):
        work, out = tmp_path / f"work-{dies_at}", tmp_path / f"out-{dies_at}"
        mortal = MortalStorage(out, dies_at=dies_at, after=after)
        with pytest.raises(Killed):
            build_dataset(pictures, mortal, work_dir=work, **USUAL)
        if "manifest.json" not in mortal.written:
            with pytest.raises(ArgumentError, match=r"There is no manifest\.json"):
                Manifest.load(out)
        home = MortalStorage(out)
        report = build_dataset(pictures, home, work_dir=work, **USUAL)
        assert objects(out) == expected
        assert report.scored == 0, "samples were scored again"
        # A shard whose writer died before it could say so is written again; no other is.
        tars = [name for name in mortal.written if name.endswith(INDEX_SUFFIX)]
        assert report.written in (report.num_shards - len(tars), report.num_shards - len(tars) + 1)
        assert not list(work.rglob("*.jsonl")), "the journal of a finished build was left"


def test_an_overwriting_build_killed_at_any_write_never_leaves_a_manifest_of_old_and_new_shards(
    pictures: Path, tmp_path: Path
) -> None:
    options = {"score": "json:difficulty", "samples_per_shard": 40}
    expected = whole(
        functools.partial(build_dataset, work_dir=tmp_path), pictures, tmp_path / "whole", seed=2, **options
    )
    for dies_at in range(len(expected) + 1):
        work, out = tmp_path / f"work-{dies_at}", tmp_path / f"out-{dies_at}"
        build_dataset(pictures, out, work_dir=work, seed=1, **options)
        again = functools.partial(build_dataset, pictures, work_dir=work, seed=2, overwrite=True, **options)
        with pytest.raises(Killed):
            again(MortalStorage(out, dies_at=dies_at))
        with contextlib.suppress(ArgumentError):  # there is no split
            for placed in itertools.chain(*Manifest.load(out).buckets.values()):
                whole_tar(placed)
        again(out)
        assert objects(out) == expected


def test_a_build_killed_at_any_line_of_its_journal_goes_on(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**USUAL, "samples_per_shard": 50}
    expected = whole(
        functools.partial(build_dataset, work_dir=tmp_path), pictures, tmp_path / "whole", **options
    )
    pwrite = os.pwrite

    def dying(descriptor: int, data: bytes, offset: int) -> int:
        dying.left -= 1
        if dying.left < 0:
            pwrite(descriptor, data[: len(data) // 2], offset)
            raise Killed
        return pwrite(descriptor, data, offset)

    dies_at, finished = 0, False
    while not finished:
        work, out = tmp_path / f"work-{dies_at}", tmp_path / f"out-{dies_at}"
        dying.left = dies_at
        monkeypatch.setattr(journal_module.os, "pwrite", dying)
        try:
            build_dataset(pictures, out, work_dir=work, **options)
            finished = True
        except Killed:
            monkeypatch.setattr(journal_module.os, "pwrite", pwrite)
            build_dataset(pictures, out, work_dir=work, **options)
        assert objects(out) == expected
        # The first 150 are lines of the listing, all alike: a few of them will do.
        dies_at += 37 if dies_at < 148 else 1
    assert dies_at > 160


SCRIPT = """
import os, signal, sys
from curriculum_sampler.dataset_build import build_dataset
from tests.build_fixtures import both
if __name__ == "__main__":
    source, out, work, part, dies_at, how = sys.argv[1:]
    def told(progress):
        told.calls += progress.part == part
        if told.calls == int(dies_at):
            if how == "SIGINT":
                os.killpg(0, signal.SIGINT)  # as a terminal does: all processes are told
            os.kill(os.getpid(), getattr(signal, how))
    told.calls = 0
    build_dataset(source, out, score=both, samples_per_shard=8, processes=2, work_dir=work, progress=told)
"""


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
@pytest.mark.parametrize(("part", "dies_at"), [("score", 2), ("score", 7), ("write", 4), ("write", 9)])
def test_a_build_of_several_processes_that_is_killed_or_interrupted_goes_on(
    build: Any, pictures: Path, tmp_path: Path, part: str, dies_at: int, how: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(pictures), str(tmp_path / "out"), str(tmp_path / "work")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [*command, part, str(dies_at), how],
        env=environment,
        capture_output=True,  # which ends only when the last process has ended
        text=True,
        timeout=60,
        start_new_session=True,
    )
    assert ran.returncode == (-signal.SIGKILL if how == "SIGKILL" else -signal.SIGINT), ran.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert "SpawnProcess" not in ran.stderr, "the other processes complained"
    continued = build(pictures, tmp_path / "out", score=both, samples_per_shard=8)
    assert continued.scored < 150
    build(pictures, tmp_path / "whole", score=both, samples_per_shard=8)
    assert objects(tmp_path / "out") == objects(tmp_path / "whole")


STARTING = """
import os, signal, sys
from curriculum_sampler.dataset_build import build_dataset
from tests.build_fixtures import both
if __name__ == "__main__":
    build_dataset(sys.argv[1], sys.argv[2], score=both, processes=2, work_dir=sys.argv[3])
else:
    os.kill(os.getpid(), signal.SIGINT)
"""


def test_an_interrupt_is_not_for_a_process_that_is_only_starting(pictures: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(STARTING)
    ran = subprocess.run(
        [sys.executable, str(script), str(pictures), str(tmp_path / "out"), str(tmp_path / "work")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert sum(Manifest.load(tmp_path / "out").bucket_sizes.values()) == 150


def test_a_process_that_is_killed_ends_the_build_with_what_to_do(
    build: Any, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(CurriculumError, match=r"ended all of a sudden.*run the build again"):
        build(pictures, tmp_path / "out", score=kill_me, processes=2)
    assert not (tmp_path / "out").exists()


def test_another_plan_goes_on_from_the_scores_and_rewrites_what_it_must(
    build: Any, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        build(pictures, MortalStorage(tmp_path / "out", dies_at=5), score=both, samples_per_shard=8)
    shares = {"easy": 0.9, "hard": 0.1}
    report = build(pictures, tmp_path / "out", score=both, samples_per_shard=9, shares=shares)
    assert report.scored == 0
    assert report.written == report.num_shards
    assert report.bucket_sizes == {"train": {"easy": 135, "hard": 15}}
    dataset = CurriculumDataset(Manifest.load(tmp_path / "out"), decode=None)
    assert len(list(dataset.sequential())) == 150


def test_what_any_earlier_plan_of_a_build_wrote_is_its_own(
    build: Any, pictures: Path, tmp_path: Path
) -> None:
    for samples_per_shard, dies_at in ((8, 17), (50, 2)):
        mortal = MortalStorage(tmp_path / "out", dies_at=dies_at)
        with pytest.raises(Killed):
            build(pictures, mortal, score="json:difficulty", samples_per_shard=samples_per_shard)
    build(pictures, tmp_path / "out", score="json:difficulty", samples_per_shard=8)
    build(pictures, tmp_path / "whole", score="json:difficulty", samples_per_shard=8)
    assert objects(tmp_path / "out") == objects(tmp_path / "whole")


def test_a_source_that_changed_since_a_kill_is_built_as_it_is_now(build: Any, tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "pictures", 150)
    options = {"score": "json:difficulty", "samples_per_shard": 8}
    with pytest.raises(Killed):
        build(source, MortalStorage(tmp_path / "out", dies_at=9), **options)
    (source / "0005.json").write_text(json.dumps({**told(5), "difficulty": 5}))  # it was easy
    (source / "0140.json").unlink()
    (source / "0140.png").unlink()
    report = build(source, tmp_path / "out", **options)
    assert report.scored == 4 + 22, "the samples of the task of 0005, and those of the last"
    build(source, tmp_path / "whole", **options)
    assert objects(tmp_path / "out") == objects(tmp_path / "whole")


def test_of_other_samples_than_those_of_a_killed_build_nothing_is_taken_for_known(
    build: Any, tmp_path: Path
) -> None:
    others = [{**sample, "json": told(500 + n)} for n, sample in enumerate(samples())]
    with pytest.raises(Killed):
        build(samples(), MortalStorage(tmp_path / "out", dies_at=3), score="json:difficulty")
    assert build(others, tmp_path / "out", score="json:difficulty").scored == 20
    build(others, tmp_path / "whole", score="json:difficulty")
    assert objects(tmp_path / "out") == objects(tmp_path / "whole")


@pytest.mark.parametrize("suffix", ["", INDEX_SUFFIX])
def test_a_shard_that_was_damaged_or_lost_since_a_kill_is_written_again(
    build: Any, pictures: Path, tmp_path: Path, suffix: str
) -> None:
    options = {"score": "json:difficulty", "samples_per_shard": 8}
    with pytest.raises(Killed):
        build(pictures, MortalStorage(tmp_path / "out", dies_at=9), **options)
    (tmp_path / "out" / f"train/easy/easy-000001.tar{suffix}").write_bytes(b"damage")
    (tmp_path / "out" / f"train/easy/easy-000002.tar{suffix}").unlink()
    build(pictures, tmp_path / "out", **options)
    build(pictures, tmp_path / "whole", **options)
    assert objects(tmp_path / "out") == objects(tmp_path / "whole")


def test_a_sample_repaired_between_two_runs_is_scored_anew_and_the_rest_is_not(
    build: Any, tmp_path: Path
) -> None:
    source = picture_folder(tmp_path / "pictures", 200)
    (source / "0150.png").write_bytes(b"no picture")
    with pytest.raises(
        BadSampleError, match=r"Sample '0150': Member 'png' of 10 bytes cannot be decoded: .* that of no PNG"
    ):
        build(source, tmp_path / "out", score=brightness)
    assert not (tmp_path / "out").exists()
    (source / "0150.png").write_bytes(picture(150))
    report = build(source, tmp_path / "out", score=brightness)
    assert report.scored == 73, "those of the task of 0150, and after it"
    assert sum(report.bucket_sizes["train"].values()) == 200


def test_a_sample_that_changes_while_it_is_read_is_refused(build: Any, tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "pictures", 70)

    def meddle(progress: Progress) -> None:
        if progress.part == "score" and progress.done == 70:
            (source / "0042.json").write_text(json.dumps(told(41)))

    with pytest.raises(StorageError, match=r"sample '0042' .* were changed while the build read them"):
        build(source, tmp_path / "out", score="json:difficulty", progress=meddle)
    assert not (tmp_path / "out" / "manifest.json").exists()
    build(source, tmp_path / "out", score="json:difficulty")


def test_a_build_that_fails_leaves_no_file_open(build: Any, tmp_path: Path) -> None:
    twins = [{"__key__": f"{n}", "cls": n % 70, "bin": bytes(1 << 20)} for n in (*range(70), 3)]
    open_before = os.listdir("/proc/self/fd")
    for source, score in ((samples(), broken), (twins, broken), (samples(), kill_me)):
        damaged = next((tmp_path / "work").glob("*/shards.jsonl"), None)
        if score is kill_me:
            assert damaged is not None
            damaged.write_text("damaged\n")
        with pytest.raises(CurriculumError):
            build(source, tmp_path / "out", score=score)
        assert os.listdir("/proc/self/fd") == open_before


def test_a_dry_run_tells_what_would_be_and_writes_nothing(build: Any, pictures: Path, tmp_path: Path) -> None:
    dry = build(pictures, tmp_path / "out", dry_run=True, **USUAL)
    assert dry.dry_run
    assert not (tmp_path / "out").exists()
    real = build(pictures, tmp_path / "out", **USUAL)
    assert (real.scored, real.written) == (0, real.num_shards)
    assert (dry.scored, dry.written) == (150, 0)
    for name in ("bucket_sizes", "difficulties", "quarantined", "num_shards"):
        assert getattr(dry, name) == getattr(real, name)


def test_progress_counts_up_to_all_samples(build: Any, pictures: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    build(pictures, tmp_path / "out", progress=told.append, **USUAL)
    for part in ("list", "score", "write"):
        done = [progress.done for progress in told if progress.part == part]
        assert done == sorted(done)
        assert done[-1] == 150
    assert {progress.total for progress in told if progress.part == "list"} == {None}
    assert {progress.total for progress in told if progress.part != "list"} == {150}


def test_memory_does_not_grow_with_the_data(build: Any, tmp_path: Path) -> None:
    def peak(count: int) -> int:
        source = Generated(count, sample_bytes=1 << 16)
        tracemalloc.start()
        build(source, tmp_path / f"{count}", score="json:difficulty", max_shard_bytes=1 << 19)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(40)  # what is loaded once
    small, large = peak(100), peak(700)
    assert large < small + (2 << 20), "40 MB more of data took 2 MB more of memory"


# --- at the destination


def test_a_second_build_adds_a_split_and_leaves_the_first(build: Any, pictures: Path, tmp_path: Path) -> None:
    build(pictures, tmp_path / "out", score="json:difficulty")
    before = objects(tmp_path / "out")
    later = picture_folder(tmp_path / "later", 30)
    build(later, tmp_path / "other", score="json:difficulty")
    with pytest.raises(ArgumentError, match=r"was cut by another rule.*Pass rule="):
        build(later, tmp_path / "out", score="json:difficulty", splits={"val": 1}, rule=tmp_path / "other")
    assert objects(tmp_path / "out") == before
    build(later, tmp_path / "out", score="json:difficulty", splits={"val": 1}, rule=tmp_path / "out")
    after = objects(tmp_path / "out")
    assert {name: after[name] for name in before if name != "manifest.json"} == {
        name: data for name, data in before.items() if name != "manifest.json"
    }
    assert set(Manifest.load(tmp_path / "out", split="val").bucket_sizes) <= {"easy", "medium", "hard"}


def test_a_split_that_exists_is_refused_before_anything_is_scored(
    build: Any, pictures: Path, tmp_path: Path
) -> None:
    build(pictures, tmp_path / "out", score="json:difficulty")
    before = objects(tmp_path / "out")
    with pytest.raises(ArgumentError, match=r"has a split 'train' already. Pass overwrite=True"):
        build(pictures, tmp_path / "out", score=kill_me)
    assert objects(tmp_path / "out") == before
    shares = {"low": 0.5, "high": 0.5}
    build(pictures, tmp_path / "out", score="json:difficulty", shares=shares, overwrite=True)
    assert Manifest.load(tmp_path / "out").bucket_sizes == {"low": 75, "high": 75}


def test_another_data_set_at_the_destination_stays_as_it_is(
    build: Any, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text('{"shards": []}')
    with pytest.raises(CurriculumError, match="is not a manifest of curriculum-sampler"):
        build(pictures, tmp_path / "out", score="json:difficulty")
    assert objects(tmp_path / "out") == {"manifest.json": b'{"shards": []}'}


def test_a_shard_that_something_else_wrote_stays_as_it_is(build: Any, pictures: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "out" / "train" / "easy" / "easy-000000.tar"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"mine")
    with pytest.raises(ArgumentError, match=r"easy-000000\.tar is there already.*something else wrote it"):
        build(pictures, tmp_path / "out", score="json:difficulty")
    assert objects(tmp_path / "out") == {"train/easy/easy-000000.tar": b"mine"}
    build(pictures, tmp_path / "out", score="json:difficulty", overwrite=True)


def test_a_destination_in_the_source_is_refused(build: Any, tmp_path: Path) -> None:
    source = picture_folder(tmp_path / "pictures", 10)
    with pytest.raises(ArgumentError, match=r"lies in the source .*pictures.*Choose a destination beside it"):
        build(source, source / "out", score="json:difficulty")
    build(source, tmp_path / "tars", score="json:difficulty")
    with pytest.raises(ArgumentError, match=r"lies in the source .*tars.*Choose a destination beside it"):
        build(tmp_path / "tars", tmp_path / "tars" / "out", score="json:difficulty")
    assert not (tmp_path / "tars" / "out").exists()


def test_a_full_disk_leaves_a_build_that_goes_on(build: Any, pictures: Path, tmp_path: Path) -> None:
    class Full(LocalStorage):
        def write(self, key: str, data: bytes | bytearray) -> None:
            if key.endswith("hard-000000.tar"):
                raise StorageError(f"{key} could not be written (No space left on device).")
            super().write(key, data)

    with pytest.raises(StorageError, match="No space left"):
        build(pictures, Full(tmp_path / "out"), score="json:difficulty")
    assert not (tmp_path / "out" / "manifest.json").exists()
    report = build(pictures, tmp_path / "out", score="json:difficulty")
    assert (report.scored, report.written, report.num_shards) == (0, 1, 3)


def test_a_folder_without_rights_is_named(
    unprivileged: None, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as home:
        locked = Path(home) / "locked"
        locked.mkdir(mode=0o500)
        samples = [{"__key__": f"{n}", "json": told(n)} for n in range(20)]
        with pytest.raises(StorageError, match=r"locked.*Permission denied.*permissions of"):
            build_dataset(samples, locked, score="json:difficulty", work_dir=Path(home) / "work")


def test_two_builds_to_one_destination_do_not_meet(build: Any, pictures: Path, tmp_path: Path) -> None:
    def meet(progress: Progress) -> None:
        with pytest.raises(ArgumentError, match=r"Another process is building to .*out"):
            build(pictures, tmp_path / "out", score="json:difficulty")

    build(pictures, tmp_path / "out", score="json:difficulty", progress=meet)


def test_a_build_to_s3_has_the_bytes_of_one_to_a_folder(
    build: Any, pictures: Path, tmp_path: Path, s3_bucket: str, s3_endpoint: str
) -> None:
    expected = whole(build, pictures, tmp_path / "out", **USUAL)
    url = f"s3://{s3_bucket}/some/v1"
    with pytest.raises(Killed):
        build(pictures, url, endpoint_url=s3_endpoint, progress=_dying_at("write", 40), **USUAL)
    report = build(pictures, url, endpoint_url=s3_endpoint, processes=2, **USUAL)
    assert 0 < report.written < report.num_shards
    home = S3Storage(s3_bucket, "some/v1", endpoint_url=s3_endpoint)
    assert home.list() == sorted(expected)
    for name, data in expected.items():
        found = bytearray(len(data))
        home.read_into(name, memoryview(found))
        assert found == data


def _dying_at(part: str, done: int) -> Any:
    def told(progress: Progress) -> None:
        if progress.part == part and progress.done >= done:
            raise Killed

    return told


# --- what is refused


def samples(count: int = 20, **changes: Any) -> list[dict[str, Any]]:
    return [{"__key__": f"{n:02}", "json": told(n), **changes} for n in range(count)]


BY_DIFFICULTY: dict[str, Any] = {"score": "json:difficulty"}


def nothing(sample: Any) -> Any:
    return None


def broken(sample: Any) -> float:
    return 1 / 0


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (samples(), {}, "nothing to cut by. Give score="),
        ([], BY_DIFFICULTY, "The source has no samples"),
        ("no/such/folder", BY_DIFFICULTY, "There is no folder 'no/such/folder'"),
        (5, BY_DIFFICULTY, "The source is a int, but it must be a Source or an iterable"),
        (
            [*samples(3), samples(2)[1]],
            BY_DIFFICULTY,
            "Sample 3 of the source has the key '01', as one before it has.*rename one",
        ),
        (samples(__key__="a/b"), BY_DIFFICULTY, "the key 'a/b' must be printable ASCII text without '/'"),
        (samples(__key__="a.b"), BY_DIFFICULTY, r"the key 'a\.b' must be"),
        (samples(__key__="é"), BY_DIFFICULTY, "the key 'é' must be printable ASCII"),
        (samples(__key__=7), BY_DIFFICULTY, "the key 7 must be"),
        (samples(), {"score": "json:none"}, "Sample '00': its json has no field 'none'"),
        ([{"__key__": "a", "cls": 3}], BY_DIFFICULTY, "Sample 'a' has no json"),
        (
            samples(),
            {"score": "json:person"},
            "Sample '00': its score 'person' is 'p000', but a score is a finite",
        ),
        (samples(), {"score": nothing}, "its score 'nothing' is None"),
        (samples(), {"score": lambda sample: float("nan")}, "Sample '00': its score '<lambda>' is nan"),
        (samples(), {"score": lambda sample: True}, "is True, but a score is a finite number"),
        (
            samples(),
            {"score": broken},
            "Sample '00': broken failed with ZeroDivisionError.*Correct the function",
        ),
        (samples(), {"score": ["json:area", "json:area"]}, "Two scores are called 'area'"),
        (samples(), {"score": "none_such:f"}, "module 'none_such' cannot be imported"),
        (samples(), {"score": "math:none"}, "module 'math' has no 'none'"),
        (samples(), {"score": [7]}, "score: got 7, but it is a function"),
        (
            samples(),
            {"score_batch": lambda found: [1]},
            "Samples '00' to '19': <lambda> returned 1 scores for 20 samples",
        ),
        (samples(), {"score": lambda sample: 3.5}, "All 20 training samples have the same score, 3.5"),
        (
            samples(),
            {"score": lambda sample: int(sample["__key__"] > "17")},
            "Bucket 'easy' would be empty|Bucket 'medium' would be empty",
        ),
        (samples(2), BY_DIFFICULTY, "Bucket .* would be empty for 2 training samples"),
        (
            samples(),
            {**BY_DIFFICULTY, "thresholds": {"a": 0, "b": 5}},
            "Bucket 'b' would be empty: no training",
        ),
        (
            samples(),
            {**BY_DIFFICULTY, "thresholds": {"a": 0.5, "b": 0.7}},
            "scores below the lowest of bucket 'a'",
        ),
        (samples(), {**BY_DIFFICULTY, "thresholds": {"a": 0.5, "b": 0.1}}, "must rise from bucket to bucket"),
        (samples(), {**BY_DIFFICULTY, "shares": {}}, "shares: got {}"),
        (samples(), {**BY_DIFFICULTY, "shares": {"a": 0}}, "positive shares"),
        (samples(), {**BY_DIFFICULTY, "shares": {"a/b": 1}}, "Bucket name 'a/b'"),
        (samples(), {**BY_DIFFICULTY, "shares": {"a": 1}, "label": "json:level"}, "got shares and label"),
        (samples(), {**BY_DIFFICULTY, "label": "json:difficulty"}, "its label .* is 0.0, but it is a name"),
        (samples(), {**BY_DIFFICULTY, "weights": {"other": 1}}, "there is no signal 'other'"),
        (samples(), {**BY_DIFFICULTY, "weights": {"difficulty": -1}}, "maps signals to positive numbers"),
        (samples(), {**BY_DIFFICULTY, "quarantine": 1}, "quarantine=1 must be a share"),
        (samples(), {"label": "json:level", "quarantine": 0.1}, "quarantined by score, and there is none"),
        (samples(), {**BY_DIFFICULTY, "splits": {"val": 1}}, "measured on the split 'train'"),
        (
            samples(),
            {**BY_DIFFICULTY, "splits": {"train": 1, "val": 1e-9}},
            "Split 'val' would have no samples",
        ),
        (samples(), {**BY_DIFFICULTY, "splits": {"train": -1}}, "splits: 'train' has the share -1"),
        (samples(), {**BY_DIFFICULTY, "splits": {"a/b": 1}}, "Split name 'a/b'"),
        (
            samples(),
            {**BY_DIFFICULTY, "splits": "json:level", "group": "json:person"},
            "Group 'p00.' has samples in both 'easy' and 'hard'|Group 'p00.' has samples in both 'hard' and 'easy'",
        ),
        (
            samples(),
            {**BY_DIFFICULTY, "rule": "memory://nothing-here"},
            "There is no difficulty.json at memory://",
        ),
        (samples(), {**BY_DIFFICULTY, "require": ["png"]}, "sample '00' has no 'png' .it has json"),
        (samples(), {**BY_DIFFICULTY, "seed": 0.5}, "seed: got 0.5"),
        (samples(), {**BY_DIFFICULTY, "samples_per_shard": 0}, "samples_per_shard: got 0"),
        (samples(), {**BY_DIFFICULTY, "max_shard_bytes": 0}, "max_shard_bytes: got 0"),
        (samples(), {**BY_DIFFICULTY, "processes": 0}, "processes: got 0"),
        (samples(), {**BY_DIFFICULTY, "batch_size": 0}, "batch_size: got 0"),
        (samples(), {**BY_DIFFICULTY, "engine": "spark"}, "engine='spark' must be 'local', 'ray'"),
        (
            samples(),
            {**BY_DIFFICULTY, "processes": 2},
            "memory of this process, which others cannot write to",
        ),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    build: Any, source: Any, options: dict[str, Any], message: str
) -> None:
    home = MemoryStorage()
    with pytest.raises(ArgumentError, match=message):
        build(source, home, **options)
    assert home.objects == {}


class Liar(Generated):
    """A source that does not keep its word."""

    lie: str = ""

    def entries(self) -> Any:
        for entry in super().entries():
            yield entry._replace(num_bytes=-1) if self.lie == "negative" else entry

    def read(self, entry: Any) -> dict[str, Any]:
        return {**super().read(entry), "__key__": "another" if self.lie == "another" else entry.key}


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ("negative", "Sample '000000' has num_bytes=-1. Correct the source"),
        ("another", "sample '000000' was asked for and 'another' came. Correct the source"),
    ],
)
def test_a_source_that_breaks_its_word_is_named(build: Any, lie: str, message: str) -> None:
    source = Liar(20)
    object.__setattr__(source, "lie", lie)
    with pytest.raises(ArgumentError, match=message):
        build(source, MemoryStorage(), score="json:difficulty")


def test_a_function_that_cannot_travel_is_named(build: Any, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"cannot be sent to other processes.*or use processes=1"):
        build(pictures, tmp_path / "out", score=lambda sample: 1.0, processes=2)
