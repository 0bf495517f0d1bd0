"""Laws of the shell scripts, run for real with a trainer that only notes how it was called."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
sys.path.insert(0, str(EXAMPLES))

from common.metrics_rows import of_kind, read_rows, realised_shares  # noqa: E402
from common.run_summary import summary_lines  # noqa: E402

SCRIPTS = sorted(EXAMPLES.glob("*.sh")) + sorted(EXAMPLES.glob("*/*.sh"))
RECORDER = """
import json, os, pathlib, sys
arguments = {}
for word in sys.argv[1:]:
    if word.startswith("--"):
        flag, arguments[word] = word, ""
    else:
        arguments[flag] = f"{arguments[flag]} {word}".strip()
folder = pathlib.Path(arguments["--output_dir"])
folder.mkdir(parents=True, exist_ok=True)
with open(folder / "calls.jsonl", "a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
number, stage = arguments["--wandb_run_name"].split("stage")[1].split("-")
if stage == os.environ.get("STOP_AT"):
    sys.exit(int(os.environ["STOP_WITH"]))
(folder / f"checkpoint_stage{number}-{stage}_step_{arguments['--max_train_steps']}.pt").touch()
row = {"kind": "train", "step": 0, "stage": stage, "loss_by_bucket": {"easy": 1.0}, "target_mixture": {"easy": 1.0},
       "samples_by_bucket": {"easy": 8}, "lr": 1e-3, "samples_per_second": 8.0, "data_wait_share": 0.0}
with open(folder / "metrics.jsonl", "a") as metrics:
    metrics.write(json.dumps(row) + "\\n")
"""
VAE = "import pathlib, sys\nfolder = pathlib.Path(sys.argv[-1])\nfolder.mkdir(parents=True)\n(folder / 'config.json').touch()\n"


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A copy of the examples whose trainers record their calls; the scripts are the real ones."""
    copy = tmp_path / "repository with a space" / "examples"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("__pycache__", "catvton", "quickstart"))
    (copy / "catvton").mkdir()
    (copy / "catvton" / "train.py").write_text(RECORDER)
    (copy / "common" / "tiny_vae.py").write_text(VAE)
    (copy / "common" / "readiness.py").write_text("")
    stages = [
        ("easy", 3, "{ easy = 1 }"),
        ("medium", 2, "{ easy = 1, medium = 1 }"),
        ("hard", 4, "{ hard = 1 }"),
    ]
    tables = "".join(
        f'[[stages]]\nname = "{name}"\nmixture = {mixture}\nsteps = {steps}\nlr = 1e-3\n'
        for name, steps, mixture in stages
    )
    (copy / "common" / "curricula" / "catvton_tiny.toml").write_text(tables)
    fill = (copy / "demo" / "fill_store.py").read_text()
    for default, small in (
        ("default=320", "default=2"),
        ("default=24", "default=2"),
        ("default=64", "default=32"),
    ):
        fill = fill.replace(default, small)
    (copy / "demo" / "fill_store.py").write_text(fill)
    return copy


def run(examples: Path, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a stranger would, from another folder, without the caller's S3 settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_"))}
    where = examples.parent.parent / "stand here"
    where.mkdir(exist_ok=True)
    return subprocess.run(
        ["bash", str(examples / script), *arguments],
        cwd=where,
        env=inherited | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def calls(examples: Path) -> list[dict[str, str]]:
    folder = examples.parent.parent / "stand here" / "checkpoints_catvton_curriculum"
    return [json.loads(line) for line in (folder / "calls.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_valid_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("train_*.sh")), ids=lambda path: path.name)
def test_scripts_that_are_run_stop_at_the_first_error(script: Path) -> None:
    assert "set -euo pipefail" in script.read_text()
    assert os.access(script, os.X_OK)


def test_the_real_run_is_the_specification_s_three_calls(examples: Path) -> None:
    done = run(examples, "train_catvton.sh", S3_PREFIXES="s3://shop/a s3://shop/b", SUMMARY="no")
    assert done.returncode == 0, done.stderr
    made = calls(examples)
    assert [call["--difficulty"] for call in made] == ["easy", "medium", "hard"]
    assert [call["--max_train_steps"] for call in made] == ["10000", "25000", "40000"]
    assert [call["--learning_rate"] for call in made] == ["1e-5", "5e-6", "2e-6"]
    folder = examples.parent.parent / "stand here" / "checkpoints_catvton_curriculum"
    latest = str(folder / "latest_checkpoint.pt")
    assert [call["--resume_from_checkpoint"] for call in made] == ["latest", latest, latest]
    assert {call["--output_dir"] for call in made} == {str(folder)}
    assert {call["--s3_prefixes"] for call in made} == {"s3://shop/a s3://shop/b"}
    assert {call["--wandb_project"] for call in made} == {"catvton-curriculum"}
    assert [call["--wandb_run_name"] for call in made] == [
        f"catvton-curriculum-stage{number}-{name}"
        for number, name in enumerate(("easy", "medium", "hard"), start=1)
    ]


def test_a_real_run_without_data_says_what_to_give_and_trains_nothing(examples: Path) -> None:
    for script in ("train_catvton.sh", "train_all.sh"):
        refused = run(examples, script)
        assert refused.returncode == 2
        assert "S3_PREFIXES is empty" in refused.stderr
        assert f"bash {script} --tiny" in refused.stderr


def test_tiny_serves_its_pictures_trains_and_sums_up(examples: Path) -> None:
    done = run(examples, "train_all.sh", "--tiny")
    assert done.returncode == 0, done.stderr
    made = calls(examples)
    assert [(call["--difficulty"], call["--max_train_steps"]) for call in made] == [
        ("easy", "3"),
        ("medium", "5"),
        ("hard", "9"),
    ]
    assert {call["--s3_prefixes"] for call in made} == {"s3://vton-demo/v1"}
    assert "wrote train into s3://vton-demo/v1: easy 2, hard 2, medium 2" in done.stdout
    assert "checkpoints_catvton_curriculum" in done.stdout
    assert "mixture.png" in done.stdout
    assert no_store_left(examples)

    again = run(examples, "train_all.sh", "--tiny")
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before") == 3
    assert "Rendering" not in again.stdout
    assert len(calls(examples)) == 3, "a finished curriculum is not trained again"


@pytest.mark.parametrize("status", [130, 143, 1])
def test_a_trainer_that_stops_ends_the_script_and_the_next_run_goes_on(examples: Path, status: int) -> None:
    stopped = run(examples, "train_all.sh", "--tiny", STOP_AT="medium", STOP_WITH=str(status))
    assert stopped.returncode == status, stopped.stderr
    assert "The same command goes on" in stopped.stdout
    assert [call["--difficulty"] for call in calls(examples)] == ["easy", "medium"]
    assert no_store_left(examples)
    resumed = run(examples, "train_all.sh", "--tiny")
    assert resumed.returncode == 0, resumed.stderr
    assert [call["--difficulty"] for call in calls(examples)[2:]] == ["medium", "hard"]
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
    assert (tmp_path / "elsewhere" / "checkpoints_catvton_curriculum" / "calls.jsonl").is_file()


def test_further_flags_reach_the_trainer(examples: Path) -> None:
    run(examples, "train_catvton.sh", "--seed", "5", S3_PREFIXES="s3://a", SUMMARY="no")
    assert {call["--seed"] for call in calls(examples)} == {"5"}


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
    assert store.wait(timeout=30) == 0
    assert (tmp_path / "e").read_text().startswith("http://127.0.0.1:")


def test_a_store_ends_on_sigterm_but_not_on_ctrl_c(tmp_path: Path) -> None:
    import time

    store = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "demo/store.py"), "--endpoint_file", str(tmp_path / "e")],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "e").exists() and time.monotonic() < deadline:
        with pytest.raises(subprocess.TimeoutExpired):
            store.wait(timeout=0.1)
    store.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        store.wait(timeout=0.3)
    store.terminate()
    assert store.wait(timeout=30) == 0


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

    schedule = cs.StageSchedule.load(EXAMPLES / "common" / "curricula" / "catvton.toml")
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

    endpoint = (examples.parent.parent / "stand here" / ".demo" / "endpoint").read_text().strip()
    try:
        urllib.request.urlopen(endpoint, timeout=5).close()
    except (urllib.error.URLError, ConnectionError):
        return True
    return False
