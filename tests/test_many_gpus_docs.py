"""The page on many GPUs: its script runs on two ranks over an S3 server, and goes on with another number of them."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from .command_fixtures import Commands, command
from .test_commands_guide import pictures
from .test_docs import ROOT, python_blocks, shell_lines, store

PAGE = ROOT / "docs" / "many_gpus.md"


def train(folder: Path, script: str, ranks: int) -> tuple[list[str], dict[str, Any]]:
    """Launch the script as the page does, with so many ranks; return the lines it printed and its last checkpoint."""
    (folder / "train.py").write_text(script)
    (line,) = [
        line for line in shell_lines(PAGE) if line.startswith("torchrun") and line.endswith(" train.py")
    ]
    words = shlex.split(re.sub(r"nproc_per_node=\d+", f"nproc_per_node={ranks}", line))
    launched = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert launched.returncode == 0, launched.stderr
    return launched.stdout.splitlines(), torch.load(folder / "checkpoint.pt")


@pytest.mark.slow
def test_two_ranks_and_then_one_end_where_one_does(
    store: None, command: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pictures(tmp_path / "pictures", 120, "p")
    prepared = [shlex.split(line)[1:] for line in shell_lines(PAGE) if line.startswith("curriculum-sampler")]
    assert [words[0] for words in prepared] == ["build", "verify"]
    for words in prepared:
        ran = command(*words)
        assert ran.exit_code == 0, ran.err

    (script,) = python_blocks(PAGE)
    script = re.sub(r"(\d)_000\b", r"\1", script)  # lengths are real; a test takes a thousandth
    assert "steps=6," in script
    together, alone = tmp_path / "together", tmp_path / "alone"
    together.mkdir()
    alone.mkdir()
    begun, checkpoint = train(together, script.replace("steps=6,", "steps=1,"), ranks=2)
    assert [line.split()[:2] for line in begun] == [["1", "easy"], ["2", "easy"], ["3", "hard"]]
    assert checkpoint["loader"]["draws"] == 3 * 64
    gone_on, ended = train(together, script, ranks=1)
    assert [line.split()[0] for line in gone_on] == ["4", "5", "6", "7", "8"]
    _, ended_alone = train(alone, script, ranks=1)
    assert ended["loader"] == ended_alone["loader"]
    for name, weights in ended_alone["model"].items():
        torch.testing.assert_close(ended["model"][name], weights, atol=1e-6, rtol=0)
