"""The examples are scripts, not a package: their folder goes on the path. Runs of a trainer are shared by its tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from .catvton_runs import Runs


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Calls of the CatVTON trainer on small data of its own."""
    return Runs(tmp_path_factory.mktemp("catvton"))


@pytest.fixture(scope="session")
def whole(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of the whole curriculum; read it, do not write into it."""
    folder = tmp_path_factory.mktemp("whole")
    assert runs(folder) == 0
    return folder
