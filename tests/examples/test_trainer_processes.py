"""The trainers' contract where it needs processes of their own: killed, interrupted, and several at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .trainer_runs import (
    EXAMPLES,
    TRAINERS,
    Runs,
    assert_same_training,
    by_step,
    curriculum,
    latest,
    rows,
    samples_by_step,
)

pytestmark = pytest.mark.parametrize("trainer", TRAINERS, indirect=True, scope="session")


def wait_for(path: Path, text: str, process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait until a file holds a text, or fail with what the process said."""
    end = time.monotonic() + seconds
    while not (path.exists() and text in path.read_text()):
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise AssertionError(f"{path} never held {text!r}: {process.communicate()[0]}")
        time.sleep(0.02)


def endless(folder: Path) -> Path:
    """A curriculum too long to end by itself."""
    path = folder / "endless.toml"
    path.write_text(curriculum([("easy", 100_000, 2e-3)]))
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
    flags = ("--curriculum_config", endless(tmp_path), "--checkpointing_steps", 100_000)
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
    runs.together(tmp_path)
    assert samples_by_step(tmp_path) == samples_by_step(whole)
    assert latest(tmp_path)["samples_seen"] == latest(whole)["samples_seen"]
    assert by_step(tmp_path, "loss") == pytest.approx(by_step(whole, "loss"), rel=2e-3)


@pytest.mark.slow
def test_two_ranks_accumulate_as_one_process_does(runs: Runs, whole: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    # In both a backward pass sees one sample. An adversarial training makes much of how sums are rounded.
    assert runs(one, "--train_batch_size", 1, "--gradient_accumulation_steps", 4) == 0
    runs.together(two, "--train_batch_size", 2, "--gradient_accumulation_steps", 2)
    assert samples_by_step(two) == samples_by_step(one) == samples_by_step(whole)
    assert by_step(two, "loss") == pytest.approx(by_step(one, "loss"), rel=2e-3)


@pytest.mark.slow
def test_ranks_may_come_and_go_in_the_middle_of_a_stage(runs: Runs, whole: Path, tmp_path: Path) -> None:
    resume = ("--resume_from_checkpoint", "latest")
    assert runs(tmp_path, "--max_steps_this_run", 2) == 0  # of three easy ones
    runs.together(tmp_path, *resume, "--max_steps_this_run", 2)  # one easy, one medium
    assert runs(tmp_path, *resume) == 0
    assert samples_by_step(tmp_path) == samples_by_step(whole)
    assert latest(tmp_path)["samples_seen"] == latest(whole)["samples_seen"]
    assert by_step(tmp_path, "loss") == pytest.approx(by_step(whole, "loss"), rel=2e-3)
    log = (tmp_path / "training.log").read_text()
    assert "Saved by 1 processes, going on with 2." in log
    assert "Saved by 2 processes, going on with 1." in log


@pytest.mark.slow
def test_an_error_is_one_line_and_no_traceback(runs: Runs, tmp_path: Path) -> None:
    process = runs.start(tmp_path, "--resume_from_checkpoint", tmp_path / "gone.pt")
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 1
    assert said.strip().splitlines()[-1].startswith("error: --resume_from_checkpoint")
    assert "Traceback" not in said


OWN_FLAG = {"catvton": "--dream_training", "dit": "--num_epochs", "vtongan": "--no_ttur"}


def test_help_answers_without_loading_torch(trainer: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was loaded')")
    told = subprocess.run(
        [sys.executable, str(EXAMPLES / trainer / "train.py"), "--help"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert OWN_FLAG[trainer] in told.stdout
