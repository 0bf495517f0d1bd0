"""Runs of the one command of the README, which the tests of the demo share, whichever process they are in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock

TRAINERS = ("catvton", "dit", "vtongan")
SCRIPT = Path(__file__).parents[2] / "examples" / "train_all.sh"


def run(folder: Path, python: str = sys.executable) -> str:
    """Run the demo into a folder, and return what it said."""
    environment = os.environ | {"PYTHON": python, "OUTPUT_ROOT": str(folder)}
    done = subprocess.run(
        ["bash", SCRIPT, "--tiny"], env=environment, capture_output=True, text=True, timeout=2300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo's folder, and what it said; it takes minutes, so the first process to ask runs it for all."""
    home = tmp_path_factory.getbasetemp()
    home = (home.parent if "PYTEST_XDIST_WORKER" in os.environ else home) / "the-demo"
    said = home / "said.txt"
    with FileLock(f"{home}.lock"):
        if not said.exists():
            home.mkdir(exist_ok=True)
            said.write_text(run(home))
    return home, said.read_text()


def weights_of(home: Path, trainer: str) -> dict[str, torch.Tensor]:
    """What a trainer has learned."""
    path = home / f"checkpoints_{trainer}_curriculum" / "latest_checkpoint.pt"
    weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)["model"]
    return weights


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
