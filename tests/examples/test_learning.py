"""The tiny trainers learn: what they paint for persons they never saw is nearer the truth than what they were given."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from common import tiny_vae
from common.bucketed_shards import write_bucketed_shards
from torch import Tensor

from .trainer_runs import TRAINERS, Runs, curriculum, rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.parametrize("trainer", TRAINERS, indirect=True, scope="session"),
]

BUCKETS = ("easy", "medium", "hard")
HELD_OUT = 8  # pictures of each bucket
STAGES = {
    "catvton": [("easy", 200, 2e-3), ("medium", 150, 1e-3), ("hard", 150, 5e-4)],
    "dit": [("easy", 300, 2e-3), ("medium", 200, 1e-3), ("hard", 200, 5e-4)],
    "vtongan": [("easy", 120, 4e-3), ("medium", 100, 2e-3), ("hard", 100, 1e-3)],
}

LOSS_AT_MOST = {"catvton": 0.2, "dit": 0.35, "vtongan": 0.7}
"""Held-out loss of every bucket after training, as a share of that before it."""

ERROR_AT_MOST = {"catvton": 0.9, "dit": 0.9, "vtongan": 0.75}
"""Error inside the mask of what is painted after training, as a share of the masked input's, for every bucket."""


@dataclass
class Learned:
    """One training, looked at before it and at the end of each stage.

    Attributes:
        losses: Held-out loss by bucket.
        errors: By bucket, the error inside the mask of what was painted, as a share of the masked input's.
    """

    losses: list[dict[str, float]]
    errors: list[dict[str, float]]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and an autoencoder that was trained on them."""
    folder = tmp_path_factory.mktemp("learning")
    counts = {"train": dict.fromkeys(BUCKETS, 96), "val": dict.fromkeys(BUCKETS, HELD_OUT)}
    write_bucketed_shards(str(folder / "shards"), counts, seed=5, height=32, width=24)
    places = ["--s3_prefixes", str(folder / "shards"), "--output_dir", str(folder / "vae")]
    tiny_vae.main([*places, "--height", "32", "--width", "24", "--steps", "400"])
    return folder


@pytest.fixture(scope="session")
def learned(runs: Runs, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """A short training of the whole curriculum."""
    folder, name = tmp_path_factory.mktemp("learned"), runs.trainer
    declared = folder / "curriculum.toml"
    declared.write_text(curriculum(STAGES[name]))
    flags = [
        *("--s3_prefixes", data / "shards", "--curriculum_config", declared, "--train_batch_size", 8),
        *("--checkpointing_steps", 10_000, "--validation_steps", 10_000, "--logging_steps", 50),
        *("--num_validation_samples", HELD_OUT),
    ]
    if name != "vtongan":
        flags += ["--pretrained_vae_name_or_path", data / "vae", "--num_validation_inference_steps", 12]
    errors: list[dict[str, float]] = []
    with pytest.MonkeyPatch.context() as patch:
        looks = sys.modules[f"{name}.look"]
        patch.setattr(looks, "picture_metrics", noting(errors, looks.picture_metrics))
        assert runs(folder / "run", *flags) == 0
    losses = [row["loss_by_bucket"] for row in rows(folder / "run", "validation")]
    assert len(losses) == len(errors) == 4
    return Learned(losses, errors)


def noting(
    errors: list[dict[str, float]], measure: Callable[..., Mapping[str, Any]]
) -> Callable[[Tensor, Tensor, Tensor], Mapping[str, Any]]:
    """Measure the pictures of a sheet, as before, and note the error of each bucket's."""

    def measured(painted: Tensor, truth: Tensor, mask: Tensor) -> Mapping[str, Any]:
        covered = mask.expand_as(truth)
        nothing = torch.zeros_like(truth)  # grey: the masked input
        ours, theirs = (
            [((pictures - truth).abs() * covered)[part].sum().item() for part in parts()]
            for pictures in (painted, nothing)
        )
        errors.append({name: a / b for name, a, b in zip(BUCKETS, ours, theirs, strict=True)})
        return measure(painted, truth, mask)

    return measured


def parts() -> list[slice]:
    """Where the pictures of each bucket are on a sheet."""
    return [slice(HELD_OUT * place, HELD_OUT * (place + 1)) for place in range(len(BUCKETS))]


def test_the_held_out_loss_falls_in_every_bucket(trainer: str, learned: Learned) -> None:
    before, *_, after = learned.losses
    for bucket in BUCKETS:
        assert after[bucket] < LOSS_AT_MOST[trainer] * before[bucket], bucket


def test_painted_pictures_are_nearer_the_truth_than_the_masked_input(trainer: str, learned: Learned) -> None:
    before, *_, after = learned.errors
    for bucket in BUCKETS:
        assert after[bucket] < ERROR_AT_MOST[trainer] < before[bucket], bucket


def test_what_the_easy_stage_does_not_show_is_learned_in_the_later_ones(learned: Learned) -> None:
    before, easy, _, hard = learned.losses
    assert easy["easy"] / before["easy"] < easy["hard"] / before["hard"]
    assert hard["hard"] < 0.8 * easy["hard"]
