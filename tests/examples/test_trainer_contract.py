"""The contract that all trainers share, each run for real at 32 x 24 pixels."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from vtongan.model import SIZES

import curriculum_sampler as cs

from .trainer_runs import (
    BATCH,
    ENDS,
    EXAMPLES,
    STAGES,
    TRAINERS,
    Runs,
    assert_same,
    assert_same_training,
    by_step,
    curriculum,
    latest,
    rows,
    samples_by_step,
)

pytestmark = pytest.mark.parametrize("trainer", TRAINERS, indirect=True, scope="session")

RATES = {name: rate for name, _, rate in STAGES}
# Of a stage's rate, for each group of the optimizer: VTON-GAN's generator, warper, discriminator.
FACTORS = {"catvton": [1.0], "dit": [1.0], "vtongan": [0.5, 0.5, 2.0]}


def test_one_process_and_stage_by_stage_give_the_same_training_bit_for_bit(
    runs: Runs, whole: Path, staged: Path
) -> None:
    assert latest(whole)["trainer"] == runs.trainer
    assert_same_training(whole, staged)
    assert rows(whole, "validation") == rows(staged, "validation")


@pytest.mark.parametrize(("step", "workers"), [(1, 0), (5, 2), (7, 1)])
def test_a_power_cut_at_any_step_changes_nothing_in_the_end(
    runs: Runs, whole: Path, tmp_path: Path, step: int, workers: int
) -> None:
    runs.cut_off(tmp_path, step, "--checkpointing_steps", 1000)  # rows go beyond the last checkpoint
    assert runs(tmp_path, "--resume_from_checkpoint", "latest", "--dataloader_num_workers", workers) == 0
    assert_same_training(whole, tmp_path)
    steps = [row["step"] for row in rows(tmp_path, "train")]
    assert steps == sorted(set(steps)), "a step that was trained twice is logged once"


def test_every_update_is_made_at_its_stage_s_rate_after_a_live_switch_and_after_a_load(
    runs: Runs, whole: Path, staged: Path
) -> None:
    factors = FACTORS[runs.trainer]
    expected = [[rate * factor for factor in factors] for _, steps, rate in STAGES for _ in range(steps)]
    for folder in (whole, staged):
        assert runs.rates[folder] == expected
        for kind in ("train", "stage"):
            assert {row["stage"]: row["lr"] for row in rows(folder, kind)} == RATES
        saved = latest(folder)["optimizer"]["param_groups"]
        assert [group["lr"] for group in saved] == expected[-1]


def test_warm_up_and_cosine_begin_anew_in_every_stage(runs: Runs, tmp_path: Path) -> None:
    assert runs(tmp_path, "--lr_scheduler", "cosine", "--lr_warmup_steps", 2) == 0
    shares = [
        0.5,
        1.0,
        1.0,
        0.5,
        1.0,
        1.0,
        0.5,
        1.0,
    ]  # a wave over the one step behind the warm-up begins at 1
    rates = [rate for _, steps, rate in STAGES for _ in range(steps)]
    expected = [
        [rate * share * factor for factor in FACTORS[runs.trainer]]
        for rate, share in zip(rates, shares, strict=True)
    ]
    assert runs.rates[tmp_path] == expected


def test_each_stage_draws_its_mixture(whole: Path) -> None:
    seen: dict[str, set[str]] = {name: set() for name, _, _ in STAGES}
    for row in rows(whole, "train"):
        seen[row["stage"]] |= {key.split("-")[1] for key in row["sample_ids"]}
    assert seen == {"easy": {"easy"}, "medium": {"easy", "medium"}, "hard": {"easy", "medium", "hard"}}
    counts = latest(whole)["samples_seen"]
    assert sum(counts.values()) == ENDS[-1] * BATCH
    assert counts["hard"] == round(0.5 * STAGES[-1][1] * BATCH)


def test_files_are_named_as_the_specification_names_them(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert {"latest_checkpoint.pt", "training.log", "metrics.jsonl", "samples"} <= names
    assert {
        f"checkpoint_stage{number}-{name}_step_{end}.pt"
        for number, ((name, _, _), end) in enumerate(zip(STAGES, ENDS, strict=True), start=1)
    } <= names
    assert "checkpoint_epoch_0_step_4.pt" in names
    log = (whole / "training.log").read_text()
    for name, _, rate in STAGES:
        assert f": {name}\n" in log
        assert f"learning rate  {rate:g}\n" in log


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


def test_a_fresh_start_over_a_training_is_refused(runs: Runs, whole: Path) -> None:
    with pytest.raises(cs.ArgumentError, match="holds a training already"):
        runs(whole)


def test_time_boxed_runs_add_up_to_the_whole(runs: Runs, whole: Path, tmp_path: Path) -> None:
    for _ in range(3):
        assert runs(tmp_path, "--resume_from_checkpoint", "latest", "--max_steps_this_run", 3) == 0
    assert_same_training(whole, tmp_path)


def test_a_total_in_the_middle_of_a_stage_is_saved_and_a_larger_one_goes_on_from_there(
    runs: Runs, whole: Path, tmp_path: Path
) -> None:
    rarely = ("--checkpointing_steps", 1000, "--resume_from_checkpoint", "latest")
    for total in (2, 5):
        assert runs(tmp_path, *rarely, "--max_train_steps", total) == 0
        assert latest(tmp_path)["global_step"] == total
    assert runs(tmp_path, *rarely) == 0
    assert_same(latest(whole)["model"], latest(tmp_path)["model"])
    assert len(runs.rates[tmp_path]) == ENDS[-1], "no step was made twice"


def test_a_stage_that_ends_early_because_the_next_is_asked_for_leaves_its_final_and_its_sheet(
    runs: Runs, whole: Path, tmp_path: Path
) -> None:
    assert runs(tmp_path, "--difficulty", "easy", "--max_train_steps", 3, "--max_steps_this_run", 2) == 0
    resume = ("--resume_from_checkpoint", tmp_path / "latest_checkpoint.pt")
    assert runs(tmp_path, "--difficulty", "medium", "--max_train_steps", 4, *resume) == 0
    begun = [(row["stage"], row["first_step"]) for row in rows(tmp_path, "stage")]
    assert begun == [("easy", 0), ("medium", 2)]
    looks = [(row["stage"], row["step"]) for row in rows(tmp_path, "validation")]
    assert looks == [("easy", 0), ("easy", 2), ("medium", 4)]
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {
        f"step_{step}.png" for step in (0, 2, 4)
    }
    final = torch.load(tmp_path / "checkpoint_stage1-easy_step_2.pt", weights_only=True)
    assert (final["global_step"], final["stage"]["name"]) == (2, "easy")
    assert samples_by_step(tmp_path)[2] == samples_by_step(whole)[2]
    with pytest.raises(cs.ArgumentError, match="already in stage 'medium'"):
        runs(tmp_path, "--difficulty", "easy", "--max_train_steps", 9, *resume)


def test_accumulated_micro_batches_see_the_samples_of_the_global_batch(
    runs: Runs, whole: Path, tmp_path: Path
) -> None:
    split = ("--train_batch_size", BATCH // 2, "--gradient_accumulation_steps", 2)
    assert runs(tmp_path, *split) == 0
    assert samples_by_step(tmp_path) == samples_by_step(whole)
    assert len(runs.rates[tmp_path]) == ENDS[-1], "one update a global step"
    for name in ("loss", "grad_norm"):
        assert by_step(tmp_path, name) == pytest.approx(by_step(whole, name), rel=2e-3), name


def test_looking_at_averages_leaves_the_training_alone(runs: Runs, whole: Path, tmp_path: Path) -> None:
    assert runs(tmp_path, "--validation_steps", 1) == 0
    assert_same_training(whole, tmp_path)
    weights = [tensor for name, tensor in latest(whole)["model"].items() if not name.endswith(".left")]
    averaged = latest(whole)["ema"]["shadow_params"]
    assert len(averaged) > 10
    assert not any(torch.equal(a, b) for a, b in zip(averaged, weights, strict=False) if a.numel() > 1)


def test_generators_that_other_code_draws_from_go_on_where_they_were(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_device = runs.train.on_device

    def drawing(batch: Any, device: torch.device) -> dict[str, Any]:
        torch.rand(3), random.random(), np.random.rand()
        moved: dict[str, Any] = on_device(batch, device)
        return moved

    monkeypatch.setattr(runs.train, "on_device", drawing)
    straight, cut = tmp_path / "straight", tmp_path / "cut"
    assert runs(straight, "--max_steps_this_run", 2) == 0
    for _ in range(2):
        assert runs(cut, "--max_steps_this_run", 1, "--resume_from_checkpoint", "latest") == 0
    assert_same(latest(straight)["rng"], latest(cut)["rng"])


def test_a_loss_that_is_not_a_number_stops_the_run_and_leaves_the_checkpoint(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_batch, seen = runs.train.on_device, []

    def with_a_broken_picture(batch: Any, device: torch.device) -> dict[str, Any]:
        moved: dict[str, Any] = whole_batch(batch, device)
        seen.append(moved)
        return moved | {"image": moved["image"] * float("nan")} if len(seen) == 4 else moved

    monkeypatch.setattr(runs.train, "on_device", with_a_broken_picture)
    with pytest.raises(
        cs.CurriculumError,
        match=r"Step 3, stage 'medium': loss nan.*latest_checkpoint.pt holds the state saved last.*train-",
    ):
        runs(tmp_path)
    saved = latest(tmp_path)
    assert saved["global_step"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in saved["model"].values())
    assert len(runs.rates[tmp_path]) == 3, "no update was made with it"


OTHER_MODELS = {"catvton": ("--cross_attention", "none"), "dit": ("--qk_norm",), "vtongan": ()}


def test_a_checkpoint_of_another_model_is_refused(
    runs: Runs, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    monkeypatch.setitem(SIZES["tiny"]["generator"], "width", 12)  # VTON-GAN has no flag for its sizes
    path = tmp_path / "run" / "checkpoint_epoch_0_step_4.pt"
    with pytest.raises(cs.StateMismatchError, match=r"another model: .* Use the model flags of that run"):
        runs(tmp_path / "run", "--resume_from_checkpoint", path, *OTHER_MODELS[runs.trainer])


def test_a_checkpoint_of_another_trainer_is_refused(
    runs: Runs, runs_of: Callable[[str], Runs], whole: Path, tmp_path: Path
) -> None:
    other = TRAINERS[TRAINERS.index(runs.trainer) - 1]
    with pytest.raises(
        cs.StateMismatchError, match=f"checkpoint of the {runs.trainer} trainer, this is {other}"
    ):
        runs_of(other)(tmp_path, "--resume_from_checkpoint", whole / "latest_checkpoint.pt")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_keeps_trained_weights_in_float32(runs: Runs, tmp_path: Path, precision: str) -> None:
    checkpointing = () if runs.trainer == "vtongan" else ("--gradient_checkpointing",)
    assert runs(tmp_path, "--mixed_precision", precision, "--max_steps_this_run", 2, *checkpointing) == 0
    saved = latest(tmp_path)
    assert {tensor.dtype for tensor in saved["model"].values()} == {torch.float32}
    assert bool(saved["scaler"]) == (precision == "fp16")


def test_half_precision_may_begin_at_a_resume(runs: Runs, tmp_path: Path) -> None:
    runs(tmp_path, "--max_steps_this_run", 1)
    more = ("--mixed_precision", "fp16", "--max_steps_this_run", 1)
    assert runs(tmp_path, "--resume_from_checkpoint", "latest", *more) == 0


def test_optimiser_flags_hold_after_a_resume(runs: Runs, tmp_path: Path) -> None:
    runs(tmp_path, "--max_steps_this_run", 2)
    changed = ("--adam_weight_decay", 0.7, "--adam_beta1", 0.5, "--adam_beta2", 0.99, "--ema_decay", 0.5)
    runs(tmp_path, "--resume_from_checkpoint", "latest", "--max_steps_this_run", 1, *changed)
    for group in latest(tmp_path)["optimizer"]["param_groups"]:
        assert (group["weight_decay"], tuple(group["betas"])) == (0.7, (0.5, 0.99))
    assert latest(tmp_path)["ema"]["decay"] == 0.5


# A gain of all the loss is never made, so each stage ends with its second validation.
PLATEAU = ("--plateau_patience", 1, "--plateau_least_gain", 1.0, "--validation_steps", 1)


def test_a_plateau_ends_a_stage_and_a_resumed_run_follows(runs: Runs, tmp_path: Path) -> None:
    straight, cut, longer = tmp_path / "straight", tmp_path / "cut", tmp_path / "longer.toml"
    longer.write_text(curriculum((name, 3, rate) for name, _, rate in STAGES))
    flags = (*PLATEAU, "--curriculum_config", longer)
    assert runs(straight, *flags) == 0
    begun = [(row["stage"], row["first_step"]) for row in rows(straight, "stage")]
    assert begun == [("easy", 0), ("medium", 1), ("hard", 3)]
    saved = latest(straight)
    assert saved["global_step"] == 5
    assert [what for _, what, _ in saved["loader_state"]["log"]] == [
        {"advance": name} for name, _, _ in STAGES
    ]
    assert "held-out loss fell by less than 100.0% in 1 validations" in saved["loader_state"]["log"][0][2]
    for name in ("stage1-easy_step_1", "stage2-medium_step_3", "stage3-hard_step_5"):
        assert (straight / f"checkpoint_{name}.pt").exists()
    assert {row["stage"]: row["lr"] for row in rows(straight, "train")} == RATES

    runs.cut_off(cut, 2, *flags)  # behind the end of easy
    assert runs(cut, *flags, "--resume_from_checkpoint", "latest") == 0
    assert_same_training(straight, cut)
    assert latest(cut)["loader_state"]["log"] == saved["loader_state"]["log"]


def test_a_plateau_cannot_end_a_stage_that_was_asked_for_alone(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(cs.ArgumentError, match="Leave out --difficulty"):
        runs(tmp_path, *PLATEAU, "--difficulty", "easy")


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
    assert runs(tmp_path, "--print_config", "--lr-warmup-steps", 7) == 0
    assert json.loads(capsys.readouterr().out)["lr_warmup_steps"] == 7


SIZE = {"catvton": "this autoencoder needs", "dit": "this network needs", "vtongan": "preset 'tiny' needs"}


def test_a_size_that_the_network_cannot_halve_is_refused(runs: Runs, tmp_path: Path) -> None:
    message = rf"--height 34 --width 26: {SIZE[runs.trainer]} multiples of"
    with pytest.raises(cs.ArgumentError, match=message):
        runs(tmp_path, "--height", 34, "--width", 26)


def test_a_folder_is_trained_in_by_one_process_at_a_time(runs: Runs, tmp_path: Path) -> None:
    hold = (
        "import pathlib, sys\n"
        f"sys.path.insert(0, {str(EXAMPLES)!r})\n"
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
