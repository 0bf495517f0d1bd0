"""The examples are scripts, not a package: their folder goes on the path. Runs of a trainer are shared by its tests."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from .demo_runs import demo  # noqa: F401 -- a fixture
from .recorded_scripts import copy_with_recorders
from .trainer_runs import Runs


@pytest.fixture(scope="session")
def runs_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Runs]:
    """Calls of a trainer by its name; all have the same small data."""
    folder = tmp_path_factory.mktemp("trainers")
    return cache(lambda trainer: Runs(folder, trainer))


@pytest.fixture(scope="session")
def trainer(request: pytest.FixtureRequest) -> str:
    """The trainer that a test is about. A module about all of them parametrizes this, indirectly."""
    name: str = getattr(request, "param", "catvton")
    return name


@pytest.fixture(scope="session")
def runs(runs_of: Callable[[str], Runs], trainer: str) -> Runs:
    """Calls of the trainer."""
    return runs_of(trainer)


@pytest.fixture(scope="session")
def whole(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of the whole curriculum; read it, do not write into it."""
    folder = tmp_path_factory.mktemp("whole")
    assert runs(folder) == 0
    return folder


@pytest.fixture(scope="session")
def staged(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one call per stage; read it, do not write into it."""
    folder = tmp_path_factory.mktemp("staged")
    runs.stage_by_stage(folder)
    return folder


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A copy of the examples whose trainers record their calls; the scripts are the real ones."""
    return copy_with_recorders(tmp_path)
