"""Building on a Ray cluster: the same bytes, and a worker may die. A local Ray with two workers."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from curriculum_sampler.dataset_build import build_dataset
from curriculum_sampler.errors import ArgumentError, CurriculumError

from .build_fixtures import Killed, MortalStorage, both, objects, picture_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    import ray

    os.environ["RAY_DISABLE_IMPORT_WARNING"] = "1"
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 << 20,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_folder(tmp_path_factory.mktemp("source") / "pictures", 200)


OPTIONS: dict[str, Any] = {"category": "json:kind", "splits": {"train": 4, "val": 1}, "samples_per_shard": 8}


def dying(folder: Path, sample: Mapping[str, Any]) -> dict[str, float]:
    """Score as ``both`` does, but the first that comes to sample 100 is killed."""
    if sample["__key__"] == "0100":
        died = folder / "died"
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return both(sample)


def test_the_bytes_are_those_of_a_local_build_though_a_worker_is_killed(
    pictures: Path, tmp_path: Path
) -> None:
    build = functools.partial(build_dataset, pictures, work_dir=tmp_path / "work", **OPTIONS)
    local = build(tmp_path / "local", score=both)
    ray = build(tmp_path / "ray", score=functools.partial(dying, tmp_path), engine="ray")
    assert (tmp_path / "died").exists()
    assert ray.bucket_sizes == local.bucket_sizes
    assert objects(tmp_path / "ray") == objects(tmp_path / "local")


def test_a_build_begun_by_processes_goes_on_in_ray(pictures: Path, tmp_path: Path) -> None:
    build = functools.partial(build_dataset, pictures, score=both, work_dir=tmp_path / "work", **OPTIONS)
    build(tmp_path / "whole")
    with pytest.raises(Killed):
        build(MortalStorage(tmp_path / "out", dies_at=15))
    report = build(tmp_path / "out", engine="ray")
    assert report.scored == 0
    assert 0 < report.written < report.num_shards
    assert objects(tmp_path / "out") == objects(tmp_path / "whole")


def refused(sample: Mapping[str, Any]) -> float:
    return float("nan")


def deadly(sample: Mapping[str, Any]) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


def test_an_error_is_raised_as_the_task_raised_it(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"^Sample '0\d+': its score 'refused' is nan"):
        build_dataset(pictures, tmp_path / "out", score=refused, engine="ray", work_dir=tmp_path / "work")
    assert not (tmp_path / "out").exists()


def test_a_task_that_kills_every_worker_ends_the_build_with_what_to_do(
    pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(CurriculumError, match=r"lost a task more than 5 times.*it goes on from here"):
        build_dataset(pictures, tmp_path / "out", score=deadly, engine="ray", work_dir=tmp_path / "work")
    assert not (tmp_path / "out").exists()
