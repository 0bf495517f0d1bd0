"""Laws of the shell scripts, run for real with a trainer that only notes how it was called."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from common.metrics_rows import of_kind, read_rows, realised_shares
from common.run_summary import summary_lines

from .recorded_scripts import EXAMPLES, TRAINERS, calls, run, stand

SCRIPTS = sorted(EXAMPLES.glob("*.sh")) + sorted(EXAMPLES.glob("*/*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_valid_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("train_*.sh")), ids=lambda path: path.name)
def test_scripts_that_are_run_stop_at_the_first_error(script: Path) -> None:
    assert "set -euo pipefail" in script.read_text()
    assert os.access(script, os.X_OK)


def test_a_real_run_without_data_says_what_to_give_and_trains_nothing(examples: Path) -> None:
    for script in ("train_catvton.sh", "train_dit.sh", "train_vtongan.sh", "train_all.sh"):
        refused = run(examples, script)
        assert refused.returncode == 2
        assert "S3_PREFIXES is empty" in refused.stderr
        assert f"bash {script} --tiny" in refused.stderr


def test_tiny_serves_its_pictures_trains_and_sums_up(examples: Path) -> None:
    done = run(examples, "train_all.sh", "--tiny")
    assert done.returncode == 0, done.stderr
    made = calls(stand(examples))
    assert [
        (call["trainer"], call["--difficulty"], call.get("--max_train_steps") or call["--num_epochs"])
        for call in made
    ] == [
        (trainer, stage, total)
        for trainer in TRAINERS
        for stage, total in (("easy", "3"), ("medium", "5"), ("hard", "9"))
    ]
    assert {call["--s3_prefixes"] for call in made} == {"s3://vton-demo/v1"}
    assert {call["--model_preset"] for call in made} == {"tiny"}
    assert "wrote train into s3://vton-demo/v1: easy 2, hard 2, medium 2" in done.stdout
    for trainer in TRAINERS:
        assert f"checkpoints_{trainer}_curriculum" in done.stdout
        assert (stand(examples) / f"checkpoints_{trainer}_curriculum" / "mixture.png").stat().st_size > 10_000
    assert (stand(examples) / "training_report.html").exists()
    assert no_store_left(examples)

    again = run(examples, "train_all.sh", "--tiny")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before") == 6
    # Only the trainer knows what an epoch is, so it is asked; it says that there is nothing to do.
    assert {call["trainer"] for call in calls(stand(examples))[9:]} == {"dit"}
    assert "rendered" not in again.stdout, "the pictures were kept"


@pytest.mark.parametrize("status", [130, 143, 1])
def test_a_trainer_that_stops_ends_the_script_and_the_next_run_goes_on(examples: Path, status: int) -> None:
    stopped = run(examples, "train_all.sh", "--tiny", STOP_AT="catvton medium", STOP_WITH=str(status))
    assert stopped.returncode == status, stopped.stderr
    assert "The same command goes on" in stopped.stdout
    assert [call["--difficulty"] for call in calls(stand(examples))] == ["easy", "medium"], "no next trainer"
    assert no_store_left(examples)
    resumed = run(examples, "train_catvton.sh", "--tiny")
    assert resumed.returncode == 0, resumed.stderr
    assert [call["--difficulty"] for call in calls(stand(examples))[2:]] == ["medium", "hard"]
    assert "rendered" not in resumed.stdout, "the pictures were kept"


def test_outputs_go_where_they_are_told(examples: Path, tmp_path: Path) -> None:
    done = run(
        examples,
        "train_catvton.sh",
        S3_PREFIXES="s3://a",
        SUMMARY="no",
        OUTPUT_ROOT=str(tmp_path / "elsewhere"),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "elsewhere" / "checkpoints_catvton_curriculum" / "metrics.jsonl").is_file()


def test_further_flags_reach_the_trainer(examples: Path) -> None:
    run(examples, "train_catvton.sh", "--seed", "5", S3_PREFIXES="s3://a", SUMMARY="no")
    assert {call["--seed"] for call in calls(stand(examples))} == {"5"}


def test_a_store_whose_shell_was_killed_goes_too(tmp_path: Path) -> None:
    shell = subprocess.Popen(["sleep", "60"])
    store = subprocess.Popen(
        [
            sys.executable,
            str(EXAMPLES / "demo/store.py"),
            "--endpoint_file",
            str(tmp_path / "e"),
            "--owner",
            str(shell.pid),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    shell.kill()
    shell.wait()
    assert store.wait(timeout=120) == 0
    assert (tmp_path / "e").read_text().startswith("http://127.0.0.1:")


def test_a_store_ends_on_sigterm_but_not_on_ctrl_c(tmp_path: Path) -> None:
    import time

    store = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "demo/store.py"), "--endpoint_file", str(tmp_path / "e")],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "e").exists() and time.monotonic() < deadline:
        with pytest.raises(subprocess.TimeoutExpired):
            store.wait(timeout=0.1)
    store.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        store.wait(timeout=0.3)
    store.terminate()
    assert store.wait(timeout=120) == 0


def test_a_summary_tells_where_things_are_and_what_was_learned(tmp_path: Path) -> None:
    def row(kind: str, step: int, **more: object) -> str:
        return json.dumps({"kind": kind, "step": step, "stage": "easy", **more}) + "\n"

    train = {"loss_by_bucket": {"easy": 0.5}, "target_mixture": {"easy": 0.75, "hard": 0.25}, "lr": 1e-3}
    text = row("validation", 0, loss_by_bucket={"easy": 2.0, "hard": 4.0})
    text += row("train", 1, samples_by_bucket={"easy": 3, "hard": 1}, **train)
    text += row("train", 2, samples_by_bucket={"easy": 6, "hard": 2}, **train)
    text += row("validation", 2, loss_by_bucket={"easy": 1.0, "hard": 3.0})
    (tmp_path / "metrics.jsonl").write_text(text + '{"kind": "trai')
    (tmp_path / "samples").mkdir()
    for step in (0, 2, 10):
        (tmp_path / "samples" / f"step_{step}.png").touch()
    said = "\n".join(summary_lines(tmp_path))
    assert "2 steps, 8 samples" in said
    assert "step_0.png  (before)" in said
    assert "step_10.png  (after; 3 in all)" in said
    assert "easy       2.0000 -> 1.0000  (-50 %)" in said
    assert "hard       4.0000 -> 3.0000  (-25 %)" in said
    assert (tmp_path / "mixture.png").stat().st_size > 10_000


def test_a_damaged_line_of_the_metrics_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train"}\nbroken\n{"kind": "train"}\n')
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        read_rows(tmp_path / "metrics.jsonl")


def test_the_shares_of_a_row_are_those_of_the_steps_since_the_row_before() -> None:
    rows = [
        {"kind": "train", "step": step, "samples_by_bucket": seen}
        for step, seen in ((2, {"easy": 4}), (6, {"easy": 4, "hard": 12}), (4, {"easy": 4, "hard": 4}))
    ]
    assert realised_shares(of_kind(rows, "train")) == [
        (1.0, {"easy": 1.0}),
        (3.0, {"easy": 0.0, "hard": 1.0}),
        (5.0, {"easy": 0.0, "hard": 1.0}),
    ]


def test_what_a_real_run_lacks_is_named_at_once(tmp_path: Path) -> None:
    from common.bucketed_shards import write_bucketed_shards
    from common.readiness import lacking_base, lacking_data

    import curriculum_sampler as cs

    schedule = cs.StageSchedule.load("catvton")
    data = str(tmp_path / "data")
    write_bucketed_shards(data, {"train": {"easy": 1, "hard": 1}}, height=32, width=24)
    without_medium, without_val = lacking_data([data], schedule)
    assert without_medium == "bucket medium of the curriculum; the data has easy, hard."
    assert without_val.startswith("val data.")
    write_bucketed_shards(data, {"val": {"easy": 1}}, height=32, width=24)
    assert len(list(lacking_data([data], schedule))) == 1
    train, val = lacking_data([str(tmp_path / "nowhere")], schedule)
    assert "nowhere" in train
    assert "nowhere" in val

    base = tmp_path / "base"
    for part in ("unet", "vae"):
        (base / part).mkdir(parents=True)
    assert [line.split(":")[0] for line in lacking_base(str(base))] == [f"{base}/scheduler"]
    (base / "scheduler").mkdir()
    assert list(lacking_base(str(base))) == []


def no_store_left(examples: Path) -> bool:
    """Whether the S3 server that a script started has ended: nobody answers at its endpoint."""
    import urllib.error
    import urllib.request

    endpoint = (stand(examples) / ".demo" / "endpoint").read_text().strip()
    try:
        urllib.request.urlopen(endpoint, timeout=5).close()
    except (urllib.error.URLError, ConnectionError):
        return True
    return False
