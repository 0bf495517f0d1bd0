"""Reading ahead as a whole: the loader's promises hold over a far store, whoever fetches and whatever is cached."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import gc
import mmap
import multiprocessing
import os
import resource
import shutil
import signal
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curriculum_sampler as cs
from curriculum_sampler.build import write_shards
from curriculum_sampler.dataset import CurriculumDataset
from curriculum_sampler.errors import ArgumentError
from curriculum_sampler.manifest import Manifest
from curriculum_sampler.memory_storage import MemoryStorage
from curriculum_sampler.storage import ObjectStat

from .data_fixtures import FarStorage, WatchedStorage, s3_bucket, s3_endpoint, told, unlike
from .test_fetcher import join, watched

SIZES = {"easy": 120, "medium": 90, "hard": 60, "never": 30}
DATA = {name: unlike(name, size) for name, size in SIZES.items()}
SCHEDULE = cs.StageSchedule(
    [
        cs.Stage("easy", {"easy": 1}, steps=12),
        cs.Stage("medium", {"easy": 1, "medium": 3, "never": 0}, steps=12),
        cs.Stage("hard", {"easy": 1, "medium": 1, "hard": 2}, steps=12),
    ]
)
Told = list[list[tuple[str, int, str]]]


class LoggedStorage(MemoryStorage):
    """A far storage whose log all processes share."""

    parallel_reads = 4

    def __init__(self, log: Path) -> None:
        super().__init__("logged")
        self.log = log

    def read_into(self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None) -> ObjectStat:
        with open(self.log, "a", encoding="utf-8") as file:
            file.write(f"{key} {offset} {len(buffer)}\n")
        return super().read_into(key, buffer, offset, etag)

    def tar_reads(self) -> list[tuple[str, int, int]]:
        reads = [line.split() for line in self.log.read_text("utf-8").splitlines()]
        return [(key, int(at), int(count)) for key, at, count in reads if key.endswith(".tar")]


def written(home: Any, data: Any = DATA, **options: Any) -> Manifest:
    return write_shards(home, data, samples_per_shard=35, **options)


def loader(
    source: Manifest | CurriculumDataset, schedule: cs.StageSchedule = SCHEDULE, **options: Any
) -> cs.CurriculumLoader:
    dataset = CurriculumDataset(source, decode=None) if isinstance(source, Manifest) else source
    return cs.CurriculumLoader(
        dataset,
        schedule,
        **{  # type: ignore[arg-type]
            "batch_size": 8,
            "seed": 17,
            "collate": list,
            "plan_options": {"run_sizes": 8, "block_runs": 2},
            **options,
        },
    )


def received(run: cs.CurriculumLoader) -> Told:
    return [[told(sample) for sample in batch] for batch in run]


@pytest.fixture(scope="module")
def expected() -> Told:
    """What a near run delivers, without any cache."""
    return received(loader(written(WatchedStorage())))


@pytest.fixture
def far() -> Manifest:
    return written(FarStorage())


WORKERS: dict[str, dict[str, Any]] = {
    "alone": {},
    "one thread": {"num_workers": 1},
    "three threads": {"num_workers": 3, "prefetch_factor": 3},
    "forked": {"num_workers": 2, "workers": "processes", "multiprocessing_context": "fork"},
    "spawned": {"num_workers": 2, "workers": "processes", "multiprocessing_context": "spawn"},
}
some_workers = pytest.mark.parametrize("workers", ["alone", "three threads", "forked"])


@pytest.mark.parametrize(
    ("workers", "is_folder"), [*((name, False) for name in WORKERS), ("alone", True), ("three threads", True)]
)
def test_order_and_content_are_those_of_a_near_run(
    far: Manifest,
    expected: Told,
    workers: str,
    is_folder: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options = WORKERS[workers] | ({"cache_dir": tmp_path / "own"} if is_folder else {})
    assert received(loader(far, **options)) == expected
    has_default_folder = not is_folder and "workers" in options
    assert (tmp_path / "curriculum-sampler").exists() == has_default_folder


@some_workers
def test_ranks_share_the_global_batch(far: Manifest, expected: Told, workers: str, tmp_path: Path) -> None:
    halves = [
        received(loader(far, rank=rank, world_size=2, cache_dir=tmp_path, **WORKERS[workers]))
        for rank in range(2)
    ]
    assert [first + second for first, second in zip(*halves, strict=True)] == expected


@some_workers
def test_a_real_store_delivers_the_same(
    s3_endpoint: str,
    s3_bucket: str,
    expected: Told,
    workers: str,
    tmp_path: Path,
) -> None:
    url = f"s3://{s3_bucket}/v1"
    written(url, endpoint_url=s3_endpoint)
    manifest = Manifest.load(url, endpoint_url=s3_endpoint)
    assert received(loader(manifest, cache_dir=tmp_path, **WORKERS[workers])) == expected


@settings(max_examples=25)
@given(
    batch_size=st.sampled_from([1, 4, 8, 30]),
    run_size=st.integers(1, 40),
    block_runs=st.integers(1, 4),
    room=st.floats(1.0, 3.0),
    workers=st.sampled_from([{}, {"num_workers": 2}]),
    in_folder=st.booleans(),
    seed=st.integers(0, 9),
)
def test_no_size_of_batches_runs_blocks_and_cache_changes_the_samples_or_hangs(
    tmp_path_factory: pytest.TempPathFactory,
    batch_size: int,
    run_size: int,
    block_runs: int,
    room: float,
    workers: dict[str, Any],
    in_folder: bool,
    seed: int,
) -> None:
    manifest = written(FarStorage())
    least = sum(
        manifest.mean_sample_bytes(name) * min(run_size * block_runs, size) for name, size in SIZES.items()
    )
    if in_folder:
        workers = workers | {"cache_dir": tmp_path_factory.mktemp("cache")}
    run = loader(
        manifest,
        batch_size=batch_size,
        seed=seed,
        plan_options={"run_sizes": run_size, "block_runs": block_runs},
        cache_bytes=int(room * least) + 1,
        **workers,
    )
    draws = [[tuple(draw) for draw in run.sampler.draws(step=step)] for step in range(36)]
    assert [[(bucket, index) for bucket, index, _ in batch] for batch in received(run)] == draws


@pytest.mark.parametrize("is_folder", [False, True], ids=["memory", "folder"])
def test_runs_come_before_they_are_asked_for(is_folder: bool, tmp_path: Path) -> None:
    class Watched(FarStorage):
        """Tells when ten runs have been read."""

        def read_into(
            self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None
        ) -> ObjectStat:
            found = super().read_into(key, buffer, offset, etag)
            if sum(name.endswith(".tar") for name, *_ in list(self.reads)) >= 10:
                ten_are_there.set()
            return found

    manifest, ten_are_there = written(Watched()), threading.Event()
    run = loader(manifest, cache_dir=tmp_path if is_folder else None)
    next(iter(run))  # eight samples of at most two runs
    assert ten_are_there.wait(60)


def test_memory_of_runs_that_are_done_with_serves_the_next(
    far: Manifest, expected: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = list[int]()

    def counted(*args: Any, **options: Any) -> mmap.mmap:
        made.append(args[1])
        return system(*args, **options)

    system = mmap.mmap
    monkeypatch.setattr(mmap, "mmap", counted)
    run = loader(far)
    for _ in range(4):
        run.load_state_dict(loader(far).state_dict())
        assert received(run) == expected
    assert 10 < len(made) < 100  # 143 if none were used again


@pytest.mark.parametrize("blocks", [1.05, 2, None])
@some_workers
def test_a_pass_fetches_hardly_more_than_it_uses(workers: str, blocks: float | None, tmp_path: Path) -> None:
    manifest = written(FarStorage(), {"easy": unlike("easy", 2000)})
    num_bytes = int(manifest.mean_sample_bytes("easy") * 2000)
    run = loader(
        manifest,
        cs.StageSchedule([cs.Stage("one pass", {"easy": 1}, epochs=1)]),
        batch_size=20,
        plan_options={"run_sizes": 10, "block_runs": 20},
        cache_bytes=None if blocks is None else int(blocks * num_bytes / 10),
        cache_dir=tmp_path,
        **WORKERS[workers],
    )
    assert sum(len(batch) for batch in received(run)) == 2000
    fetched = run.stats()["bytes"]["easy"]
    # Each process may read some samples alone while its first runs are on their way.
    most = 1.10 if workers == "forked" else 1.05
    assert 0.9 * num_bytes <= fetched <= most * num_bytes


def test_two_processes_fetch_each_piece_once(expected: Told, tmp_path: Path) -> None:
    home = LoggedStorage(tmp_path / "log")
    manifest = written(home)
    home.log.unlink()
    folder = tmp_path / "cache"
    everything = 2 * manifest.num_bytes
    run = loader(manifest, cache_dir=folder, cache_bytes=everything, **WORKERS["forked"])
    assert received(run) == expected
    largest = 5 << 10
    runs = Counter(read for read in home.tar_reads() if read[2] > 2 * largest)
    assert len(runs) > 20
    assert max(runs.values()) == 1
    # A later run on the same machine finds nearly everything there.
    home.log.unlink()
    assert received(loader(manifest, cache_dir=folder, cache_bytes=everything)) == expected
    assert sum(count for _, _, count in home.tar_reads()) < 0.1 * manifest.num_bytes


@pytest.mark.parametrize(
    ("first", "then"), [("alone", "forked"), ("three threads", "alone"), ("forked", "three threads")]
)
@pytest.mark.parametrize("stop", [1, 12, 17])
def test_resuming_in_mid_pass_is_exact(
    far: Manifest, expected: Told, stop: int, first: str, then: str, tmp_path: Path
) -> None:
    run = loader(far, cache_dir=tmp_path, **WORKERS[first])
    before = [[told(sample) for sample in batch] for _, batch in zip(range(stop), run, strict=False)]
    resumed = loader(far, cache_dir=tmp_path, **WORKERS[then])
    resumed.load_state_dict(run.state_dict())
    assert before + received(resumed) == expected


@some_workers
def test_an_abandoned_iteration_loses_nothing(
    far: Manifest, expected: Told, workers: str, tmp_path: Path
) -> None:
    run, found = loader(far, cache_dir=tmp_path, **WORKERS[workers]), Told()
    for stop in (1, 9, 20, 36):
        for batch in run:
            found.append([told(sample) for sample in batch])
            if len(found) == stop:
                break
    assert found == expected


def test_a_state_with_other_run_sizes_is_continued_with_those(far: Manifest, expected: Told) -> None:
    run = loader(far)
    batches = iter(run)
    before = [[told(sample) for sample in next(batches)] for _ in range(14)]
    resumed = loader(far, plan_options={"block_runs": 2})
    assert resumed.plan.run_sizes != run.plan.run_sizes
    resumed.load_state_dict(run.state_dict())
    assert resumed.plan.run_sizes == run.plan.run_sizes
    assert before + received(resumed) == expected


def test_a_bucket_of_weight_zero_is_never_opened(expected: Told) -> None:
    home = FarStorage()
    manifest = written(home)
    home.touched.clear()
    for options in ({}, {"num_workers": 3}):
        assert received(loader(manifest, **options)) == expected
    assert home.touched
    assert not [key for key in home.touched if "never" in key]


def test_a_bucket_is_not_opened_before_the_plan_comes_near_it() -> None:
    opened = threading.Event()

    class Telling(FarStorage):
        def read_into(
            self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None
        ) -> ObjectStat:
            if "hard" in key:
                opened.set()
            return super().read_into(key, buffer, offset, etag)

    manifest = written(Telling(), {"easy": unlike("easy", 400), "hard": DATA["hard"]})
    opened.clear()
    stages = [cs.Stage("easy", {"easy": 1}, steps=100), cs.Stage("hard", {"hard": 1}, steps=10)]
    run = loader(manifest, cs.StageSchedule(stages))
    for _ in run:
        if run.step == 50:
            assert not opened.is_set()
        if run.step == 98:  # the first runs of the next stage are read before it begins
            assert opened.wait(60)


def test_a_cache_that_is_too_small_is_refused_and_what_is_said_to_fit_does(
    far: Manifest, expected: Told
) -> None:
    with pytest.raises(ArgumentError, match=r"cannot hold one block of 2 runs.*\{'block_runs': 1\}"):
        loader(far, cache_bytes=150_000)
    run = loader(far, cache_bytes=150_000, plan_options={"run_sizes": 8, "block_runs": 1})
    assert [len(batch) for batch in received(run)] == [8] * 36


@some_workers
def test_a_cache_folder_that_cannot_be_used_is_refused_before_anything_is_read(
    far: Manifest, workers: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArgumentError, match=r"cache_dir='.*file/cache' cannot be used"):
        loader(far, cache_dir=tmp_path / "file" / "cache", **WORKERS[workers])


@pytest.mark.parametrize("workers", ["three threads", "forked"])
def test_a_mixture_changed_at_run_time_is_followed_and_replayed(
    far: Manifest, workers: str, tmp_path: Path
) -> None:
    schedule = cs.StageSchedule(
        [cs.Stage("easy", {"easy": 1}, steps=60), cs.Stage("medium", {"medium": 1, "easy": 1}, steps=9)]
    )
    run = loader(far, schedule, cache_dir=tmp_path, **WORKERS[workers])
    found = Told()
    for batch in run:
        found.append([told(sample) for sample in batch])
        if run.step == 2:
            changed = run.change_mixture({"hard": 1}, "bored")
        if run.step == 25:
            ended = run.advance("plateau")
    assert len(run.log) == 2
    assert [{bucket for bucket, _, _ in batch} for batch in found] == [
        *[{"easy"}] * changed,
        *[{"hard"}] * (ended - changed),
        *[{"easy", "medium"}] * 9,
    ]
    replay = loader(written(WatchedStorage()), schedule)
    replay.load_state_dict(run.sampler.state_dict(step=0))
    assert received(replay) == found


@some_workers
def test_two_loaders_over_one_data_set_do_not_disturb_each_other(
    far: Manifest, expected: Told, workers: str, tmp_path: Path
) -> None:
    dataset = CurriculumDataset(far, decode=None)
    other = received(loader(dataset, seed=3))
    runs = [loader(dataset, seed=seed, cache_dir=tmp_path, **WORKERS[workers]) for seed in (17, 3)]
    both = [
        ([told(sample) for sample in one], [told(sample) for sample in two])
        for one, two in zip(*runs, strict=True)
    ]
    assert [one for one, _ in both] == expected
    assert [two for _, two in both] == other


def test_reading_goes_on_where_a_data_set_is_closed_meanwhile(far: Manifest, expected: Told) -> None:
    run, found = loader(far, num_workers=3), Told()
    for batch in run:
        found.append([told(sample) for sample in batch])
        run._reader.close()
    assert found == expected


@some_workers
def test_a_loader_that_is_deleted_in_mid_iteration_leaves_no_threads_and_no_processes(
    far: Manifest, workers: str, tmp_path: Path
) -> None:
    before = set(multiprocessing.active_children())
    gc.collect()
    gc.disable()
    try:
        with watched() as threads:
            run = loader(far, cache_dir=tmp_path, **WORKERS[workers])
            batches = iter(run)
            next(batches)
        del batches
        del run
        assert set(multiprocessing.active_children()) <= before
        join(threads)
    finally:
        gc.enable()


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 700):
        data[at] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 3)


def _of_another(path: Path) -> None:
    others = sorted(path.parent.glob("*.piece"))
    shutil.copy(others[others.index(path) - 1], path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "spoil",
    [
        _flipped,
        _cut,
        lambda path: path.write_bytes(b""),
        _of_another,
        _folder,
        _pipe,
        lambda path: path.chmod(0),
    ],
    ids=["flipped", "cut", "empty", "of another", "folder", "pipe", "forbidden"],
)
@pytest.mark.parametrize("workers", ["alone", "forked"])
@pytest.mark.filterwarnings("ignore:The cache takes no more:RuntimeWarning")
def test_no_damage_to_the_cache_folder_reaches_a_sample(
    far: Manifest, expected: Told, spoil: Callable[[Path], None], workers: str, tmp_path: Path
) -> None:
    options = {"cache_dir": tmp_path / "cache", "cache_bytes": 1 << 30}
    assert received(loader(far, **options)) == expected
    pieces = sorted((tmp_path / "cache").glob("*.piece"))
    assert len(pieces) > 20
    for path in pieces:
        spoil(path)
    run = loader(far, **options, **WORKERS[workers])
    assert received(run) == expected
    assert run.stats()["bad_samples"] == []


def test_a_folder_deleted_in_mid_run_changes_nothing(far: Manifest, expected: Told, tmp_path: Path) -> None:
    run, found = loader(far, cache_dir=tmp_path / "cache", num_workers=2), Told()
    for batch in run:
        found.append([told(sample) for sample in batch])
        if len(found) % 7 == 0:
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    assert found == expected


def _on_a_full_disk(folder: Path, expected: Told) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # less than the smallest piece
    manifest = written(FarStorage())
    run = loader(manifest, cache_dir=folder, num_workers=2)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert received(run) == expected
    assert ["The cache takes no more" in str(warning.message) for warning in warned] == [True]
    assert not [path for path in folder.iterdir() if path.name != ".lock"]


def test_a_full_disk_costs_a_warning_and_no_sample(expected: Told, tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(
        target=_on_a_full_disk, args=(tmp_path / "cache", expected)
    )
    child.start()
    child.join(60)
    assert child.exitcode == 0
