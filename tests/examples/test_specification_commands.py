"""Every command of the curriculum's specification does here what it says there.

Its scripts' folder is `examples/`. Scripts run with recorders in the place of the trainers; calls of a trainer are real,
with the specification's numbers where nothing is trained (``--dry_run``) and with a thousandth of them where it is.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb
from common.bucketed_shards import rendered_bucket
from common.vton_data import get_vton_dataset

import curriculum_sampler as cs

from .recorded_scripts import calls
from .trainer_runs import MIXTURES, TRAINERS, Runs, curriculum, latest, rows

# Cumulative end and rate of each stage.
TOTALS = {
    "catvton": (
        "--max_train_steps",
        [("easy", 10_000, 1e-5), ("medium", 25_000, 5e-6), ("hard", 40_000, 2e-6)],
    ),
    "dit": ("--num_epochs", [("easy", 100, 1e-4), ("medium", 250, 5e-5), ("hard", 400, 2e-5)]),
    "vtongan": (
        "--max_train_steps",
        [("easy", 8_000, 2e-4), ("medium", 20_000, 1e-4), ("hard", 35_000, 5e-5)],
    ),
}
COMPOSITION = {
    "easy": {"easy": 1.0},
    "medium": {"easy": 0.30, "medium": 0.70},
    "hard": {"easy": 0.25, "medium": 0.25, "hard": 0.50},
}
SCRIPTS = {
    "cd examples\nbash train_all.sh": ("catvton", "dit", "vtongan"),
    "cd examples\nbash train_catvton.sh": ("catvton",),
    "cd examples\nbash train_dit.sh": ("dit",),
    "cd examples\nbash train_vtongan.sh": ("vtongan",),
}
FOLDERS = {trainer: f"checkpoints_{trainer}_curriculum" for trainer in TRAINERS}
every_trainer = pytest.mark.parametrize("trainer", TRAINERS, indirect=True, scope="session")


def shell(command: str, examples: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the specification above a copy of the examples, as a user whose data is on S3."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_"))}
    own = {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "S3_PREFIXES": "s3://shop/a s3://shop/b"}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=examples.parent,
        env=inherited | own,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done


def told(call: dict[str, Any]) -> tuple[str, str, int, float]:
    """Of a recorded call: trainer, stage, cumulative end, rate."""
    flag = TOTALS[call["trainer"]][0]
    return call["trainer"], call["--difficulty"], int(call[flag]), float(call["--learning_rate"])


@pytest.mark.parametrize("command", SCRIPTS)
def test_a_script_trains_its_models_from_easy_to_hard(
    examples: Path, command: str, runs_of: Callable[[str], Runs]
) -> None:
    shell(command, examples)
    made = calls(examples)
    assert [told(call) for call in made] == [
        (trainer, *stage) for trainer in SCRIPTS[command] for stage in TOTALS[trainer][1]
    ]
    for call in made:
        trainer, stage = call["trainer"], call["--difficulty"]
        number = list(COMPOSITION).index(stage) + 1
        latest_one = examples / FOLDERS[trainer] / "latest_checkpoint.pt"
        assert call["--output_dir"] == str(examples / FOLDERS[trainer])
        assert call["--resume_from_checkpoint"] == ("latest" if number == 1 else str(latest_one))
        assert call["--wandb_project"] == f"{trainer}-curriculum"
        assert call["--wandb_run_name"] == f"{trainer}-curriculum-stage{number}-{stage}"
        assert call["--s3_prefixes"] == "s3://shop/a s3://shop/b"
        args = runs_of(trainer).train.parse_arguments(call["words"])
        assert (args.model_preset, args.learning_rate) == ("full", float(call["--learning_rate"]))


@pytest.mark.parametrize("trainer", TRAINERS)
def test_one_process_trains_the_same_stages(trainer: str) -> None:
    schedule = cs.StageSchedule.load(trainer)
    unit = "epochs" if trainer == "dit" else "steps"
    total, found = 0, []
    for stage in schedule.stages:
        assert stage.unit == unit
        total += int(stage.length)
        found.append((stage.name, total, stage.lr))
        assert dict(stage.mixture) == pytest.approx(COMPOSITION[stage.name])
    assert found == TOTALS[trainer][1]


LONGER = ('"easy   10000 1e-5"', '"easy   15000 1e-5"')
FASTER = ('"medium 15000 5e-6"', '"medium 15000 8e-6"')
ADDED = ('  "easy   10000 1e-5"', '  "very_easy 5000 1e-5"\n  "easy   10000 1e-5"')


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (LONGER, [("easy", 15_000, 1e-5), ("medium", 30_000, 5e-6), ("hard", 45_000, 2e-6)]),
        (FASTER, [("easy", 10_000, 1e-5), ("medium", 25_000, 8e-6), ("hard", 40_000, 2e-6)]),
        (
            ADDED,
            [
                ("very_easy", 5_000, 1e-5),
                ("easy", 15_000, 1e-5),
                ("medium", 30_000, 5e-6),
                ("hard", 45_000, 2e-6),
            ],
        ),
    ],
    ids=["longer easy stage", "another rate", "one more stage"],
)
def test_a_stage_is_changed_or_added_by_one_line_of_a_script(
    examples: Path, edit: tuple[str, str], expected: list[tuple[str, int, float]]
) -> None:
    script = examples / "train_catvton.sh"
    assert edit[0] in script.read_text()
    script.write_text(script.read_text().replace(*edit))
    shell("cd examples\nbash train_catvton.sh", examples)
    made = calls(examples)
    assert [told(call)[1:] for call in made] == expected
    assert [call["--wandb_run_name"] for call in made] == [
        f"catvton-curriculum-stage{number}-{name}" for number, (name, _, _) in enumerate(expected, start=1)
    ]


VERY_EASY = """
[[stages]]
name = "very_easy"
mixture = { very_easy = 1.0 }
steps = 5_000
lr = 1e-5
"""


@pytest.fixture(scope="module")
def very_easy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with shards of one bucket more."""
    place = tmp_path_factory.mktemp("very_easy")
    for split, count in (("train", 6), ("val", 2)):
        pictures = rendered_bucket(split, "easy", count, seed=9, height=32, width=24)
        cs.write_shards(str(place), {"very_easy": pictures}, split=split)
    return place


DRY_RUNS = {
    "--difficulty easy --max_train_steps 15000": "Stage('easy', {'easy': 1.0}, steps=15000, lr=1e-05)",
    "--difficulty medium --learning_rate 8e-6": "Stage('medium', {'easy': 0.3, 'medium': 0.7}, steps=15000, lr=8e-06)",
    "--difficulty very_easy --max_train_steps 5000": "Stage('very_easy', {'very_easy': 1.0}, steps=5000, lr=1e-05)",
}


@pytest.mark.parametrize("command", DRY_RUNS)
def test_a_customised_call_plans_what_it_says(
    runs: Runs, very_easy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    declared = tmp_path / "curriculum.toml"
    declared.write_text(cs.StageSchedule.load("catvton").to_toml() + VERY_EASY)
    data = ("--curriculum_config", declared, "--s3_prefixes", very_easy)
    assert runs(tmp_path / "output", "--dry_run", *data, *command.split()) == 0
    assert DRY_RUNS[command] in capsys.readouterr().out


# A thousandth of the specification's steps; rates that a tiny network feels.
CALLS = [
    "--difficulty very_easy --max_train_steps 2 --learning_rate 2e-3",
    "--difficulty easy --max_train_steps 5 --learning_rate 1e-3"
    " --resume_from_checkpoint checkpoints_catvton_curriculum/latest_checkpoint.pt",
    "--difficulty medium --max_train_steps 7 --learning_rate 8e-4"
    " --resume_from_checkpoint checkpoints_catvton_curriculum/latest_checkpoint.pt",
]


def test_customised_stages_follow_each_other(
    runs: Runs, very_easy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = tmp_path / "curriculum.toml"
    declared.write_text(curriculum() + VERY_EASY)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / FOLDERS["catvton"]
    for command in CALLS:
        data = ("--curriculum_config", declared, "--s3_prefixes", very_easy)
        assert runs(folder, *data, *shlex.split(command)) == 0
    begun = [(row["stage"], row["first_step"], row["end_step"], row["lr"]) for row in rows(folder, "stage")]
    assert begun == [("very_easy", 0, 2, 2e-3), ("easy", 2, 5, 1e-3), ("medium", 5, 7, 8e-4)]
    assert runs.rates.pop(folder) == [[2e-3]] * 2 + [[1e-3]] * 3 + [[8e-4]] * 2
    seen: dict[str, set[str]] = {}
    for row in rows(folder, "train"):
        seen.setdefault(row["stage"], set()).update(key.split("-")[1] for key in row["sample_ids"])
    assert seen["easy"] == {"easy"}
    assert seen["medium"] == {"easy", "medium"}
    assert latest(folder)["samples_seen"]["very_easy"] == 8
    assert set(rows(folder, "validation")[-1]["loss_by_bucket"]) == {"very_easy", *MIXTURES}


@every_trainer
def test_the_log_can_be_followed_where_the_specification_looks_for_it(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(FOLDERS[runs.trainer])
    words = ["--model_preset", "tiny", "--data_root", "shards"]
    assert runs.train.parse_arguments(words).output_dir == folder, "where outputs go by default"
    monkeypatch.chdir(tmp_path)
    assert runs(folder, "--max_steps_this_run", 1) == 0
    follow = f"tail -f checkpoints_{runs.trainer}_curriculum/training.log"
    with subprocess.Popen(follow.split(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(" Stage 1: easy\n")
        process.kill()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What W&B was asked to open, and did, offline."""
    found: list[dict[str, Any]] = []
    init = wandb.init

    def noting(**values: Any) -> Any:
        found.append(values)
        return init(**values)

    monkeypatch.setattr(wandb, "init", noting)
    monkeypatch.setenv("WANDB_MODE", "offline")
    return found


def assert_one_run_a_stage(opened: list[dict[str, Any]], folder: Path, project: str) -> None:
    assert [run["name"] for run in opened] == [
        f"{project}-stage1-easy",
        f"{project}-stage2-medium",
        f"{project}-stage3-hard",
    ]
    assert {run["project"] for run in opened} == {project}
    assert {run["group"] for run in opened} == {folder.name}
    ids = latest(folder)["wandb"]
    assert ids == {stage: run["id"] for stage, run in zip(MIXTURES, opened, strict=True)}
    for number in ids.values():
        assert list((folder / "wandb").glob(f"offline-run-*/run-{number}.wandb"))


@every_trainer
def test_each_stage_of_one_process_is_a_run_of_one_project_in_wandb(
    runs: Runs, tmp_path: Path, opened: list[dict[str, Any]]
) -> None:
    assert runs(tmp_path, "--report_to", "wandb") == 0
    assert_one_run_a_stage(opened, tmp_path, f"{runs.trainer}-curriculum")


def test_each_call_of_a_script_is_a_run_of_one_project_in_wandb(
    runs_of: Callable[[str], Runs], tmp_path: Path, opened: list[dict[str, Any]]
) -> None:
    for number, (name, end) in enumerate((("easy", 3), ("medium", 6), ("hard", 8)), start=1):
        asked = ("--difficulty", name, "--max_train_steps", end, "--resume_from_checkpoint", "latest")
        run = (
            "--wandb_project",
            "dit-curriculum",
            "--wandb_run_name",
            f"dit-curriculum-stage{number}-{name}",
        )
        assert runs_of("dit")(tmp_path, *asked, "--report_to", "wandb", *run) == 0
    assert_one_run_a_stage(opened, tmp_path, "dit-curriculum")


@pytest.mark.parametrize("difficulty", ["easy", "medium", "hard"])
def test_the_data_set_of_a_stage_has_its_composition(runs: Runs, difficulty: str) -> None:
    dataset = get_vton_dataset(difficulty=difficulty, s3_prefixes=[str(runs.shards)])
    loader = cs.CurriculumLoader(dataset, batch_size=20, seed=17)
    batch = next(iter(loader))
    shares = {bucket: batch["bucket"].count(bucket) / 20 for bucket in set(batch["bucket"])}
    assert shares == COMPOSITION[difficulty]
