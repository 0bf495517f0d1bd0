"""Laws of the VTON-GAN trainer alone; what all trainers share is in ``test_trainer_contract.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from .trainer_runs import Runs, latest, rows

pytestmark = pytest.mark.parametrize("trainer", ["vtongan"], indirect=True, scope="session")


def test_every_part_learns_and_every_singular_vector_follows(runs: Runs, whole: Path, tmp_path: Path) -> None:
    assert runs(tmp_path, "--max_steps_this_run", 1) == 0
    before, after = latest(tmp_path)["model"], latest(whole)["model"]
    assert {name.split(".")[0] for name in after} == {"dresser", "discriminator"}
    for name, value in after.items():
        if value.numel() > 1:  # a vector of one number is 1 or -1
            assert not torch.equal(value, before[name]), name
        if name.endswith(".left"):
            matrix = after[name.replace(".left", ".weight")].flatten(1)
            bound = torch.linalg.matrix_norm(matrix, ord=2)
            assert (value @ matrix).norm() > 0.95 * bound, f"{name} lags behind its weight"


def test_what_the_discriminator_thinks_is_in_the_log(whole: Path) -> None:
    for row in rows(whole, "train"):
        assert {"hinge", "judge_hinge", "d_real", "d_fake", "d_accuracy", "flow_l1"} <= row["terms"].keys()
        assert 0 <= row["terms"]["d_accuracy"] <= 1
    assert set(rows(whole, "validation")[-1]["d_fake_by_bucket"]) == {"easy", "medium", "hard"}


def test_while_the_discriminator_warms_up_nobody_listens_to_it(
    runs: Runs, whole: Path, tmp_path: Path
) -> None:
    """The dresser then learns what it would learn with no weight on the judge's terms."""
    deaf, warming = tmp_path / "deaf", tmp_path / "warming"
    none = ("--hinge_weight", 0, "--feature_matching_weight", 0)
    assert runs(deaf, "--max_steps_this_run", 2, *none) == 0
    assert runs(warming, "--max_steps_this_run", 2, "--d_warmup_steps", 2) == 0
    a, b = latest(deaf)["model"], latest(warming)["model"]
    assert all(torch.equal(a[name], b[name]) for name in a)
    listening = torch.load(whole / "checkpoint_epoch_0_step_4.pt", weights_only=True)["model"]
    assert (
        runs(warming, "--max_steps_this_run", 2, "--d_warmup_steps", 2, "--resume_from_checkpoint", "latest")
        == 0
    )
    assert not all(torch.equal(listening[name], value) for name, value in latest(warming)["model"].items())
