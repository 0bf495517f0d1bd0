"""Laws of the CatVTON trainer, each run for real at 32 x 24 pixels."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from catvton.flags import PRESETS
from catvton.model import TINY_UNET
from common import training_run
from common.tiny_vae import new_tiny_vae
from diffusers import DDPMScheduler, UNet2DConditionModel
from PIL import Image

import curriculum_sampler as cs

from .catvton_runs import (
    ENDS,
    STAGES,
    Runs,
    assert_same,
    assert_same_training,
    latest,
    losses_by_step,
    rows,
    samples_by_step,
    train,
)


def cut_power_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """Let the process die in the middle of a step, with nothing saved."""

    def check(*args: Any, **values: Any) -> None:
        if values["step"] == step:
            raise KeyboardInterrupt("power cut")

    patch.setattr(training_run, "refuse_not_a_number", check)


def stage_by_stage(runs: Runs, folder: Path, *more: Any) -> None:
    for (name, _, rate), end in zip(STAGES, ENDS, strict=True):
        path = "latest" if name == "easy" else folder / "latest_checkpoint.pt"
        given = ("--difficulty", name, "--max_train_steps", end, "--learning_rate", rate)
        assert runs(folder, *given, "--resume_from_checkpoint", path, *more) == 0


def test_one_process_and_stage_by_stage_give_the_same_training_bit_for_bit(
    runs: Runs, whole: Path, tmp_path: Path
) -> None:
    stage_by_stage(runs, tmp_path)
    assert_same_training(whole, tmp_path)
    assert rows(whole, "validation") == rows(tmp_path, "validation")


@pytest.mark.parametrize(("step", "workers"), [(1, 0), (5, 2), (7, 1)])
def test_a_power_cut_at_any_step_changes_nothing_in_the_end(
    runs: Runs, whole: Path, tmp_path: Path, step: int, workers: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        cut_power_at(step, patch)
        with pytest.raises(KeyboardInterrupt):  # rows have gone beyond the last checkpoint by then
            runs(tmp_path, "--checkpointing_steps", 1000)
    assert runs(tmp_path, "--resume_from_checkpoint", "latest", "--dataloader_num_workers", workers) == 0
    assert_same_training(whole, tmp_path)
    steps = [row["step"] for row in rows(tmp_path, "train")]
    assert steps == sorted(set(steps)), "a step that was trained twice is logged once"


def test_every_stage_is_trained_at_its_own_rate_after_a_live_switch_and_after_a_load(
    runs: Runs, whole: Path, tmp_path: Path
) -> None:
    stage_by_stage(runs, tmp_path)
    expected = {name: rate for name, _, rate in STAGES}
    for folder in (whole, tmp_path):
        assert {row["stage"]: row["lr"] for row in rows(folder, "train")} == expected
        assert {row["stage"]: row["lr"] for row in rows(folder, "stage")} == expected
    assert latest(tmp_path)["optimizer"]["param_groups"][0]["lr"] == STAGES[-1][2]


def test_each_stage_draws_its_mixture(whole: Path) -> None:
    seen = {name: set() for name, _, _ in STAGES}
    for row in rows(whole, "train"):
        seen[row["stage"]] |= {key.split("-")[1] for key in row["sample_ids"]}
    assert seen == {"easy": {"easy"}, "medium": {"easy", "medium"}, "hard": {"easy", "medium", "hard"}}
    assert sum(latest(whole)["samples_seen"].values()) == ENDS[-1] * 4


def test_the_loss_falls(runs: Runs, tmp_path: Path) -> None:
    long = (
        runs.curriculum.read_text().replace("steps = 3", "steps = 25").replace("steps = 2\n", "steps = 20\n")
    )
    curriculum = tmp_path / "long.toml"
    curriculum.write_text(long)
    assert runs(tmp_path / "run", "--curriculum_config", curriculum, "--train_batch_size", 8) == 0
    before, *_, after = rows(tmp_path / "run", "validation")
    for bucket, loss in before["loss_by_bucket"].items():
        assert after["loss_by_bucket"][bucket] < 0.6 * loss


def test_files_are_named_as_the_specification_names_them(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert {"latest_checkpoint.pt", "training.log", "metrics.jsonl", "samples"} <= names
    for number, ((stage, _, _), end) in enumerate(zip(STAGES, ENDS, strict=True), start=1):
        assert f"checkpoint_stage{number}-{stage}_step_{end}.pt" in names
    assert {name for name in names if "epoch" in name} == {
        "checkpoint_epoch_0_step_2.pt",
        "checkpoint_epoch_0_step_4.pt",
    }
    assert not (whole / "latest_checkpoint.pt").is_symlink()


def test_a_sheet_is_saved_before_training_and_at_the_end_of_every_stage(whole: Path) -> None:
    assert {path.name for path in (whole / "samples").iterdir()} == {
        f"step_{step}.png" for step in (0, *ENDS)
    }
    with Image.open(whole / "samples" / "step_0.png") as sheet:
        assert sheet.width > 4 * 24
        assert sheet.height > 3 * 32


def test_a_finished_stage_and_a_finished_training_are_no_work(
    runs: Runs, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def files() -> list[tuple[str, int]]:
        found = (path for path in whole.rglob("*") if path.name != ".lock")
        return sorted((path.name, path.stat().st_mtime_ns) for path in found)

    before = files()
    path = whole / "latest_checkpoint.pt"
    assert runs(whole, "--resume_from_checkpoint", path) == 0
    assert runs(whole, "--resume_from_checkpoint", path, "--difficulty", "easy", "--max_train_steps", 3) == 0
    assert capsys.readouterr().out.count("Nothing to do") == 2
    assert files() == before


def test_latest_starts_fresh_where_there_is_nothing_and_says_so(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runs(tmp_path, "--resume_from_checkpoint", "latest", "--max_steps_this_run", 1) == 0
    assert "starting fresh" in capsys.readouterr().out
    assert latest(tmp_path)["global_step"] == 1


def test_a_missing_checkpoint_is_an_error(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(cs.ArgumentError, match=r"no such file .* Correct the path"):
        runs(tmp_path, "--resume_from_checkpoint", tmp_path / "latest_checkpoint.pt")


def test_a_fresh_start_over_a_training_is_refused(runs: Runs, whole: Path) -> None:
    with pytest.raises(cs.ArgumentError, match="holds a training already"):
        runs(whole)


def test_time_boxed_runs_add_up_to_the_whole(runs: Runs, whole: Path, tmp_path: Path) -> None:
    for _ in range(3):
        assert runs(tmp_path, "--resume_from_checkpoint", "latest", "--max_steps_this_run", 3) == 0
    a, b = latest(whole), latest(tmp_path)
    for part in ("model", "ema", "optimizer", "samples_seen"):
        assert_same(a[part], b[part], part)


def test_a_stage_may_end_early_where_the_next_is_asked_for(runs: Runs, tmp_path: Path) -> None:
    assert runs(tmp_path, "--difficulty", "easy", "--max_train_steps", 3, "--max_steps_this_run", 2) == 0
    path = tmp_path / "latest_checkpoint.pt"
    assert (
        runs(tmp_path, "--difficulty", "medium", "--max_train_steps", 4, "--resume_from_checkpoint", path)
        == 0
    )
    assert [(row["stage"], row["first_step"]) for row in rows(tmp_path, "stage")] == [
        ("easy", 0),
        ("medium", 2),
    ]
    with pytest.raises(cs.ArgumentError, match="already in stage 'medium'"):
        runs(tmp_path, "--difficulty", "easy", "--max_train_steps", 9, "--resume_from_checkpoint", path)


def test_accumulated_micro_batches_see_the_samples_of_the_global_batch(
    runs: Runs, whole: Path, tmp_path: Path
) -> None:
    split = ("--train_batch_size", 2, "--gradient_accumulation_steps", 2)
    assert runs(tmp_path, *split) == 0
    assert samples_by_step(tmp_path) == samples_by_step(whole)
    assert losses_by_step(tmp_path) == pytest.approx(losses_by_step(whole), rel=2e-3)


def test_averages_leave_the_trained_weights_alone(runs: Runs, whole: Path, tmp_path: Path) -> None:
    assert runs(tmp_path, "--validation_steps", 1) == 0
    assert_same(latest(whole)["model"], latest(tmp_path)["model"])
    assert_same(latest(whole)["rng"], latest(tmp_path)["rng"])
    averaged = latest(whole)["ema"]["shadow_params"]
    assert any(not torch.equal(a, b) for a, b in zip(averaged, latest(whole)["model"].values(), strict=True))


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
    build = train.build_catvton
    monkeypatch.setattr(train, "build_catvton", lambda *a, **k: built.append(build(*a, **k)) or built[-1])
    assert runs(tmp_path, "--max_steps_this_run", 2) == 0
    untrained, trained = build("tiny", seed=42), built[0]
    for part in ("unet", "vae"):
        before, after = getattr(untrained, part).state_dict(), getattr(trained, part).state_dict()
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        assert changed == (set(latest(tmp_path)["model"]) if part == "unet" else set())


def test_a_loss_that_is_not_a_number_stops_the_run_and_leaves_the_checkpoint(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = train.catvton_loss
    monkeypatch.setattr(
        train,
        "catvton_loss",
        lambda *a, **k: loss(*a, **k) * (float("nan") if len(done) == 3 else done.append(1) or 1),
    )
    done: list[int] = []
    with pytest.raises(
        cs.CurriculumError,
        match=r"Step 3, stage 'medium': loss nan.*latest_checkpoint.pt holds the state saved last.*train-",
    ):
        runs(tmp_path)
    saved = latest(tmp_path)
    assert saved["global_step"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in saved["model"].values())


def test_a_checkpoint_of_another_model_or_base_is_refused(runs: Runs, whole: Path, tmp_path: Path) -> None:
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
    with pytest.raises(cs.StateMismatchError, match="another model"):
        runs(tmp_path / "run", "--resume_from_checkpoint", path, "--cross_attention", "none")


def _other_vae(folder: Path) -> Path:
    torch.manual_seed(1)
    new_tiny_vae().save_pretrained(folder / "vae")
    return folder / "vae"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_keeps_trained_weights_in_float32(runs: Runs, tmp_path: Path, precision: str) -> None:
    more = ("--mixed_precision", precision, "--max_steps_this_run", 2, "--gradient_checkpointing")
    assert runs(tmp_path, *more) == 0
    assert {tensor.dtype for tensor in latest(tmp_path)["model"].values()} == {torch.float32}


def test_a_dry_run_shows_the_plan_and_writes_nothing(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runs(tmp_path, "--dry_run") == 0
    said = capsys.readouterr().out
    assert "Stage('medium'" in said
    assert "(4, 3, 32, 24)" in said
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_is_printed_as_json(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    assert runs(tmp_path, "--print_config", "--lr-warmup-steps", 7) == 0
    assert json.loads(capsys.readouterr().out)["lr_warmup_steps"] == 7


def test_a_lost_latest_checkpoint_is_an_error_and_not_a_fresh_start(
    runs: Runs, whole: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "training"
    shutil.copytree(whole, folder)
    (folder / "latest_checkpoint.pt").unlink()
    before = rows(folder)
    for resume in (("--resume_from_checkpoint", "latest"), ()):
        with pytest.raises(
            cs.ArgumentError, match=r"latest_checkpoint.pt is missing, but .* holds checkpoints"
        ):
            runs(folder, *resume)
    assert rows(folder) == before


def test_optimiser_flags_hold_after_a_resume(runs: Runs, tmp_path: Path) -> None:
    runs(tmp_path, "--max_steps_this_run", 2)
    changed = ("--adam_weight_decay", 0.7, "--adam_beta1", 0.5, "--ema_decay", 0.5)
    runs(tmp_path, "--resume_from_checkpoint", "latest", "--max_steps_this_run", 1, *changed)
    group = latest(tmp_path)["optimizer"]["param_groups"][0]
    assert (group["weight_decay"], tuple(group["betas"])) == (0.7, (0.5, 0.999))
    assert latest(tmp_path)["ema"]["decay"] == 0.5


def test_half_precision_may_begin_at_a_resume(runs: Runs, tmp_path: Path) -> None:
    runs(tmp_path, "--max_steps_this_run", 1)
    more = ("--mixed_precision", "fp16", "--max_steps_this_run", 1)
    assert runs(tmp_path, "--resume_from_checkpoint", "latest", *more) == 0


def test_a_size_that_the_autoencoder_cannot_halve_is_refused(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(
        cs.ArgumentError, match=r"--height 34 --width 26: this autoencoder needs multiples of"
    ):
        runs(tmp_path, "--height", 34, "--width", 26)


def test_a_folder_is_trained_in_by_one_process_at_a_time(runs: Runs, tmp_path: Path) -> None:
    hold = (
        "import pathlib, sys\n"
        f"sys.path.insert(0, {str(Path(train.__file__).parents[1])!r})\n"
        "from common.folder_lock import only_run_in\n"
        f"with only_run_in(pathlib.Path({str(tmp_path)!r})):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(cs.ArgumentError, match=f"is in use by process {other.pid}"):
            runs(tmp_path, "--max_steps_this_run", 1)
        other.kill()
    assert runs(tmp_path, "--max_steps_this_run", 1) == 0
