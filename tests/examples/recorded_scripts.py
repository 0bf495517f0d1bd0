"""The examples' shell scripts, with recorders in the place of the trainers: what the tests of the scripts share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TRAINERS = ("catvton", "dit", "vtongan")
RECORDER = """
import json, os, pathlib, sys
arguments = {}
for word in sys.argv[1:]:
    if word.startswith("--"):
        flag, arguments[word] = word, ""
    else:
        arguments[flag] = f"{arguments[flag]} {word}".strip()
trainer, folder = pathlib.Path(__file__).parent.name, pathlib.Path(arguments["--output_dir"])
folder.mkdir(parents=True, exist_ok=True)
with open(folder.parent / "calls.jsonl", "a") as calls:
    calls.write(json.dumps({"trainer": trainer, "words": sys.argv[1:], **arguments}) + "\\n")
number, stage = arguments["--wandb_run_name"].split("stage")[1].split("-")
if f"{trainer} {stage}" == os.environ.get("STOP_AT"):
    sys.exit(int(os.environ["STOP_WITH"]))
steps = arguments.get("--max_train_steps") or 9 * int(arguments["--num_epochs"])
(folder / f"checkpoint_stage{number}-{stage}_step_{steps}.pt").touch()
row = {"kind": "train", "step": 0, "stage": stage, "loss_by_bucket": {"easy": 1.0}, "target_mixture": {"easy": 1.0},
       "samples_by_bucket": {"easy": 8}, "lr": 1e-3, "samples_per_second": 8.0, "data_wait_share": 0.0}
with open(folder / "metrics.jsonl", "a") as metrics:
    metrics.write(json.dumps(row) + "\\n")
"""
VAE = "import pathlib, sys\nfolder = pathlib.Path(sys.argv[-1])\nfolder.mkdir(parents=True)\n(folder / 'config.json').touch()\n"


def copy_with_recorders(tmp_path: Path) -> Path:
    """A copy of the examples whose trainers record their calls; the scripts are the real ones."""
    copy = tmp_path / "repository with a space" / "examples"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("__pycache__", *TRAINERS, "quickstart"))
    for trainer in TRAINERS:
        (copy / trainer).mkdir()
        (copy / trainer / "train.py").write_text(RECORDER)
    (copy / "common" / "tiny_vae.py").write_text(VAE)
    (copy / "common" / "readiness.py").write_text("")
    stages = [
        ("easy", 3, "{ easy = 1 }"),
        ("medium", 2, "{ easy = 1, medium = 1 }"),
        ("hard", 4, "{ hard = 1 }"),
    ]
    for trainer in TRAINERS:
        unit = "epochs" if trainer == "dit" else "steps"
        tables = "".join(
            f'[[stages]]\nname = "{name}"\nmixture = {mixture}\n{unit} = {length}\nlr = 1e-3\n'
            for name, length, mixture in stages
        )
        (copy / "common" / "curricula" / f"{trainer}_tiny.toml").write_text(tables)
    fill = (copy / "demo" / "fill_store.py").read_text()
    for default, small in (
        ("default=320", "default=2"),
        ("default=24", "default=2"),
        ("default=64", "default=32"),
    ):
        fill = fill.replace(default, small)
    (copy / "demo" / "fill_store.py").write_text(fill)
    return copy


def stand(examples: Path) -> Path:
    """The folder that scripts are called from."""
    return examples.parent.parent / "stand here"


def run(examples: Path, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a stranger would, from another folder, without the caller's S3 settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_"))}
    stand(examples).mkdir(exist_ok=True)
    return subprocess.run(
        ["bash", str(examples / script), *arguments],
        cwd=stand(examples),
        env=inherited | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def calls(folder: Path) -> list[dict[str, Any]]:
    """How trainers were called whose outputs are below ``folder``, in order: by flag, and as ``words``."""
    return [json.loads(line) for line in (folder / "calls.jsonl").read_text().splitlines()]
