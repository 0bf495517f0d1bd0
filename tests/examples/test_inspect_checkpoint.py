"""Laws of what a checkpoint says about itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from common.inspect_checkpoint import main, summary_of
from common.trained import saved_at

import curriculum_sampler as cs

from .trainer_runs import BATCH, TRAINERS, Runs


@pytest.fixture(scope="module")
def stopped(
    runs_of: Callable[[str], Runs], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """The folder of a run that left in the middle of its second stage; read it, do not write into it."""
    made: dict[str, Path] = {}

    def folder_of(trainer: str) -> Path:
        if trainer not in made:
            made[trainer] = tmp_path_factory.mktemp(f"stopped-{trainer}")
            assert runs_of(trainer)(made[trainer], "--max_steps_this_run", 4) == 0
        return made[trainer]

    return folder_of


def told_of(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    main([str(path), "--json"])
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_checkpoint_tells_where_its_training_stands(
    trainer: str, stopped: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    told = told_of(stopped(trainer), capsys)
    assert told["trainer"] == trainer
    assert (told["global_step"], told["total_steps"], told["global_batch"]) == (4, 8, BATCH)
    assert told["stage"] == {"name": "medium", "number": 2, "first_step": 3, "end_step": 6}
    assert told["mixture"] == pytest.approx({"easy": 0.3, "medium": 0.7})
    factors = [0.5, 0.5, 2.0] if trainer == "vtongan" else [1.0]
    assert told["rates"] == pytest.approx([factor * 1e-3 for factor in factors])
    assert sum(told["samples_seen"].values()) == 4 * BATCH
    assert told["samples_seen"]["easy"] >= 3 * BATCH
    assert told["ema_decay"] == 0.99
    assert told["versions"]["torch"] == str(torch.__version__)
    assert told["args"]["height"] == 32


def test_the_last_step_of_a_stage_belongs_to_it(
    stopped: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    told = told_of(stopped("catvton") / "checkpoint_stage1-easy_step_3.pt", capsys)
    assert told["stage"] == {"name": "easy", "number": 1, "first_step": 0, "end_step": 3}
    assert told["mixture"] == {"easy": 1.0}
    assert told["rates"] == [2e-3]


def test_people_read_a_few_lines(stopped: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = stopped("catvton")
    capsys.readouterr()
    main([str(folder)])
    said = capsys.readouterr().out
    lines = dict(line.split(maxsplit=1) for line in said.splitlines()[1:])
    assert said.startswith("catvton\n")
    assert lines["step"] == "4 of 8, epoch 0"
    assert lines["stage"] == "2 medium, steps 3 to 6"
    assert lines["rate"] == "0.001"
    assert lines["mixture"] == "easy 30%, medium 70%"
    assert "easy 13 (81%), hard 0 (0%), medium 3 (19%)" in lines["samples"]
    assert "none" in lines["W&B"]


def test_runs_of_wandb_and_missing_averages_are_named(stopped: Callable[[str], Path]) -> None:
    saved = saved_at(stopped("catvton") / "latest_checkpoint.pt")
    told = summary_of({**saved, "wandb": {"easy": "abc123"}, "ema": None})
    assert told["wandb"] == {"easy": "abc123"}
    assert told["ema_decay"] is None


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "x.pt")
    with pytest.raises(cs.StorageError, match="no checkpoint of ours"):
        main([str(tmp_path / "x.pt")])
    with pytest.raises(cs.ArgumentError, match="there is no such checkpoint"):
        main([str(tmp_path)])
