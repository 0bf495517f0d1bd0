"""Laws of looking at a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from common.validation import averaged_weights, held_out, picture_metrics, save_sheet
from common.vton_data import get_vton_dataset
from diffusers.training_utils import EMAModel
from PIL import Image

from .trainer_runs import Runs


def test_averaged_weights_are_lent_and_taken_back() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    ema = EMAModel([weight], decay=0.5)
    weight.data += 1
    trained = weight.detach().clone()
    lent = averaged_weights(ema, [weight])
    lent.__enter__()
    assert torch.equal(weight, torch.zeros(3))
    lent.__exit__(RuntimeError, RuntimeError("a picture failed"), None)
    assert torch.equal(weight, trained)


def test_held_out_samples_are_the_same_ones_every_time(runs: Runs) -> None:
    dataset = get_vton_dataset(s3_prefixes=[str(runs.shards)], split="val", curriculum=runs.curriculum)
    one, two = held_out(dataset, 2), held_out(dataset, 2)
    assert list(one) == ["easy", "medium", "hard"]
    assert all(one[bucket]["sample_id"] == two[bucket]["sample_id"] for bucket in one)
    assert {len(batch["image"]) for batch in one.values()} == {2}
    assert {len(batch["image"]) for batch in held_out(dataset, 99).values()} == {3}


def test_a_perfect_picture_has_perfect_numbers() -> None:
    truth = torch.rand(2, 3, 32, 24) * 2 - 1
    mask = torch.ones(2, 1, 32, 24)
    numbers = picture_metrics(truth * 0.999, truth, mask)
    assert numbers["ssim"] > 0.999
    assert numbers["psnr"] > 50
    assert picture_metrics(truth, -truth, mask)["masked_l1"] == pytest.approx(
        2 * truth.abs().mean().item(), rel=1e-4
    )


def test_errors_outside_the_mask_do_not_count() -> None:
    truth, mask = torch.zeros(1, 3, 32, 24), torch.zeros(1, 1, 32, 24)
    mask[..., :12] = 1
    wrong_outside = truth.clone()
    wrong_outside[..., 12:] = 1
    assert picture_metrics(wrong_outside, truth, mask)["masked_l1"] == 0


def test_a_sheet_has_a_row_for_each_sample_and_a_column_for_each_label(tmp_path: Path) -> None:
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(2, 3, 32, 24)
    save_sheet(tmp_path / "new" / "sheet.png", {"left": red, "right": -red}, ["easy", "hard"], "title")
    with Image.open(tmp_path / "new" / "sheet.png") as sheet:
        colours = {colour for _, colour in sheet.getcolors(10**6)}
        assert {(255, 0, 0), (0, 255, 255)} <= colours
        assert sheet.height > 2 * 160
