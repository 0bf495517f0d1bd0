"""The one command of the README, for real: pictures, S3 server, shards, VAE, three stages, summary."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]

SCRIPT = Path(__file__).parents[2] / "examples" / "train_all.sh"


def run(folder: Path, python: str = sys.executable) -> str:
    environment = os.environ | {"PYTHON": python, "OUTPUT_ROOT": str(folder)}
    done = subprocess.run(
        ["bash", SCRIPT, "--tiny"], env=environment, capture_output=True, text=True, timeout=2300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, str]:
    """The demo's folder, and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, run(folder)


@pytest.mark.timeout(2400)
def test_through_a_faulty_network_the_demo_ends_with_the_same_weights(demo, tmp_path):
    counts, python = tmp_path / "faults.json", tmp_path / "python"
    stand_in = Path(__file__).with_name("faulty_store.py")
    python.write_text(
        "#!/bin/bash\n"
        f'case "${{1:-}}" in */demo/store.py) exec {sys.executable} {stand_in} 3 {counts} "${{@:2}}";; esac\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    run(tmp_path, str(python))
    met = json.loads(counts.read_text())
    assert min(met.get(kind, 0) for kind in ("status", "hangup", "reset", "cut", "flip")) > 0, met
    latest = Path("checkpoints_catvton_curriculum", "latest_checkpoint.pt")
    clean, faulty = (
        torch.load(place / latest, map_location="cpu", weights_only=True) for place in (demo[0], tmp_path)
    )
    assert clean["model"].keys() == faulty["model"].keys()
    for name, weights in clean["model"].items():
        assert torch.equal(weights, faulty["model"][name]), name


@pytest.mark.timeout(2400)
def test_the_demo_trains_through_its_curriculum_and_learns_in_every_bucket(demo):
    tmp_path, told = demo
    folder = tmp_path / "checkpoints_catvton_curriculum"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows if row["kind"] == "stage"] == ["easy", "medium", "hard"]

    looks = [row for row in rows if row["kind"] == "validation"]
    for bucket, before in looks[0]["loss_by_bucket"].items():
        assert looks[-1]["loss_by_bucket"][bucket] < 0.2 * before, f"held-out noise prediction of {bucket}"
    assert looks[-1]["masked_l1"] < 0.5 * looks[0]["masked_l1"]

    for row in rows:
        if row["kind"] == "train":
            # A row covers whole batches, so it holds the mixture of its stage to within a draw or two.
            drawn = sum(row["samples_by_bucket"].values())
            assert drawn == row["step"] * 4
    last = max((row for row in rows if row["kind"] == "train"), key=lambda row: row["step"])
    counts = last["samples_by_bucket"]
    plan = {"easy": 600 + 0.30 * 500 + 0.25 * 500, "medium": 0.70 * 500 + 0.25 * 500, "hard": 0.50 * 500}
    assert all(abs(counts[bucket] - 4 * steps) <= 3 for bucket, steps in plan.items())

    names = [
        f"checkpoint_stage{n}-{stage}_step_{step}.pt"
        for n, stage, step in ((1, "easy", 600), (2, "medium", 1100))
    ]
    for name in [*names, "latest_checkpoint.pt", "training.log", "mixture.png", "samples/step_1600.png"]:
        assert (folder / name).is_file()
        assert name == "training.log" or str(folder) in told
    with Image.open(folder / "mixture.png") as picture:
        assert min(picture.size) > 300
    assert run(tmp_path).count("done before") == 3
