"""Laws of the CatVTON trainer that need processes of their own: killed, interrupted, and several at once."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from .catvton_runs import EXAMPLES, Runs, assert_same_training, latest, losses_by_step, rows, samples_by_step


def wait_for(path: Path, text: str, process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait until a file holds a text, or fail with what the process said."""
    end = time.monotonic() + seconds
    while not (path.exists() and text in path.read_text()):
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise AssertionError(f"{path} never held {text!r}: {process.communicate()[0]}")
        time.sleep(0.02)


def endless(runs: Runs, folder: Path) -> Path:
    """A curriculum too long to end by itself."""
    path = folder / "endless.toml"
    path.write_text(runs.curriculum.read_text().replace("steps = 3", "steps = 100000", 1))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_kill_9_at_any_step_and_a_restart_equal_the_uninterrupted_run(
    runs: Runs, whole: Path, tmp_path: Path, workers: int
) -> None:
    resume = ("--resume_from_checkpoint", "latest")
    process = runs.start(tmp_path, *resume, "--dataloader_num_workers", workers)
    wait_for(tmp_path / "metrics.jsonl", '"step": 4', process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = runs.start(tmp_path, *resume, "--dataloader_num_workers", 2 - workers)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert_same_training(whole, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_at_the_next_step_and_the_exit_code_tells_of_it(
    runs: Runs, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    run = tmp_path / "run"
    flags = ("--curriculum_config", endless(runs, tmp_path), "--checkpointing_steps", 100_000)
    process = runs.start(run, *flags, "--dataloader_num_workers", 1)
    wait_for(run / "metrics.jsonl", '"step": 2', process)
    process.send_signal(number)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == code, said
    assert f"{number.name} received" in said
    assert "Traceback" not in said
    step = latest(run)["global_step"]
    assert step >= 2
    assert rows(run)[-1]["kind"] == "checkpoint"
    assert rows(run)[-1]["step"] == step


@pytest.mark.slow
def test_two_ranks_see_the_global_batches_of_one_process(runs: Runs, whole: Path, tmp_path: Path) -> None:
    process = runs.start(tmp_path, ranks=2)
    said, _ = process.communicate(timeout=250)
    assert process.returncode == 0, said
    assert samples_by_step(tmp_path) == samples_by_step(whole)
    one, two = latest(whole), latest(tmp_path)
    assert one["samples_seen"] == two["samples_seen"]
    assert losses_by_step(tmp_path) == pytest.approx(losses_by_step(whole), rel=2e-3)


@pytest.mark.slow
def test_a_run_of_two_ranks_goes_on_in_one_process(runs: Runs, whole: Path, tmp_path: Path) -> None:
    process = runs.start(tmp_path, "--max_steps_this_run", 4, ranks=2)
    said, _ = process.communicate(timeout=250)
    assert process.returncode == 0, said
    assert runs(tmp_path, "--resume_from_checkpoint", "latest") == 0
    assert samples_by_step(tmp_path) == samples_by_step(whole)
    assert "going on with 1" in (tmp_path / "training.log").read_text()


@pytest.mark.slow
def test_an_error_is_one_line_and_no_traceback(runs: Runs, tmp_path: Path) -> None:
    process = runs.start(tmp_path, "--resume_from_checkpoint", tmp_path / "gone.pt")
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 1
    assert said.strip().splitlines()[-1].startswith("error: --resume_from_checkpoint")
    assert "Traceback" not in said


def test_help_answers_without_loading_torch(tmp_path: Path) -> None:
    import sys

    (tmp_path / "torch.py").write_text("raise SystemExit('torch was loaded')")
    told: Any = subprocess.run(
        [sys.executable, str(EXAMPLES / "catvton" / "train.py"), "--help"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "--cond_dropout_prob" in told.stdout
