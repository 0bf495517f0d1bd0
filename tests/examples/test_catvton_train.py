"""Laws of the CatVTON trainer alone; what all trainers share is in ``test_trainer_contract.py``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from catvton import train
from catvton.flags import PRESETS
from catvton.model import TINY_UNET, build_catvton
from common.tiny_vae import new_tiny_vae
from diffusers import DDPMScheduler, UNet2DConditionModel

import curriculum_sampler as cs

from .trainer_runs import Runs, curriculum, latest, rows


def test_the_loss_falls(runs: Runs, tmp_path: Path) -> None:
    longer = tmp_path / "longer.toml"
    longer.write_text(curriculum([("easy", 25, 2e-3), ("medium", 25, 1e-3), ("hard", 20, 5e-4)]))
    assert runs(tmp_path / "run", "--curriculum_config", longer, "--train_batch_size", 8) == 0
    before, *_, after = rows(tmp_path / "run", "validation")
    for bucket, loss in before["loss_by_bucket"].items():
        assert after["loss_by_bucket"][bucket] < 0.6 * loss


def test_full_trains_and_saves_only_the_self_attention_of_a_pretrained_pipeline(
    runs: Runs, tmp_path: Path
) -> None:
    base = tmp_path / "pipeline"
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**TINY_UNET)
    unet.save_pretrained(base / "unet")
    new_tiny_vae().save_pretrained(base / "vae")
    DDPMScheduler(beta_schedule="scaled_linear").save_pretrained(base / "scheduler")
    full = (
        "--model_preset",
        "full",
        "--pretrained_model_name_or_path",
        base,
        "--gradient_accumulation_steps",
        1,
    )
    assert runs(tmp_path / "run", *full, "--max_steps_this_run", 2) == 0
    saved, before = latest(tmp_path / "run"), unet.state_dict()
    assert saved["base_model"]["name"] == str(base)
    assert set(saved["model"]) == {name for name in before if ".attn1." in name}
    assert all(tensor.dtype == torch.float32 for tensor in saved["model"].values())
    assert all(not torch.equal(saved["model"][name], before[name]) for name in saved["model"])
    assert runs(tmp_path / "run", *full, "--resume_from_checkpoint", "latest", "--max_steps_this_run", 1) == 0


def test_what_is_frozen_stays_as_it_was(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS["tiny"], "train_all", False)
    built: list[Any] = []
    build = train.build_by_flags
    monkeypatch.setattr(train, "build_by_flags", lambda *a, **k: built.append(build(*a, **k)) or built[-1])
    assert runs(tmp_path, "--max_steps_this_run", 2) == 0
    untrained, trained = build_catvton("tiny", seed=42), built[0]
    for part in ("unet", "vae"):
        before, after = getattr(untrained, part).state_dict(), getattr(trained, part).state_dict()
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        assert changed == (set(latest(tmp_path)["model"]) if part == "unet" else set())


def test_a_checkpoint_of_another_base_is_refused(runs: Runs, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint_epoch_0_step_4.pt"
    with pytest.raises(cs.StateMismatchError, match=r"frozen weights .* Give --pretrained"):
        runs(
            tmp_path / "run",
            "--resume_from_checkpoint",
            path,
            "--pretrained_vae_name_or_path",
            _other_vae(tmp_path),
        )


def _other_vae(folder: Path) -> Path:
    torch.manual_seed(1)
    new_tiny_vae().save_pretrained(folder / "vae")
    return folder / "vae"
