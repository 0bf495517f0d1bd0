"""Laws of looking at VTON-GAN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from vtongan.flags import parse_arguments
from vtongan.look import look
from vtongan.losses import masked_l1
from vtongan.model import VTONGAN, build_vtongan

from .vtongan_pictures import WIDTH, rendered_batch

ARGS = parse_arguments(["--data_root", "shards", "--model_preset", "tiny"])


@pytest.fixture
def model() -> VTONGAN:
    model = build_vtongan("tiny", seed=3)
    model.move(torch.device("cpu"))
    return model


@pytest.fixture(scope="module")
def samples() -> dict[str, dict[str, Any]]:
    return {level: rendered_batch(level) for level in ("easy", "hard")}


def test_a_look_gives_numbers_of_each_bucket_and_a_sheet_of_eight_columns(
    model: VTONGAN, samples: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    sheet = tmp_path / "samples" / "step_0.png"
    values = look(model, samples, ARGS, "step 0", sheet)
    for name in ("loss_by_bucket", "warped_l1_by_bucket", "d_real_by_bucket", "d_fake_by_bucket"):
        assert list(values[name]) == ["easy", "hard"]
    assert {"ssim", "psnr", "masked_l1"} < values.keys()
    assert "flow_error_by_bucket" not in values, "the true flow is unknown here"
    worn = model.dresser.eval()(samples["hard"])
    expected = masked_l1(worn.result, samples["hard"]["image"], samples["hard"]["agnostic_mask"]).mean()
    assert values["loss_by_bucket"]["hard"] == pytest.approx(expected.item())
    with Image.open(sheet) as picture:
        assert picture.width > 8 * WIDTH * 5
        assert picture.height > 4 * 160


def test_looking_changes_nothing_and_sees_the_same_twice(
    model: VTONGAN, samples: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    before, state = torch.get_rng_state(), {name: value.clone() for name, value in model.state().items()}
    one = look(model, samples, ARGS, "one", tmp_path / "one.png")
    two = look(model, samples, ARGS, "two", tmp_path / "two.png")
    assert one == two
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(state[name], value) for name, value in model.state().items())
    assert model.dresser.training
    assert model.discriminator.training


def test_where_the_true_flow_is_known_its_error_is_told(model: VTONGAN, tmp_path: Path) -> None:
    held = {"easy": rendered_batch("easy", with_truth=True)}
    error = look(model, held, ARGS, "step 0", tmp_path / "sheet.png")["flow_error_by_bucket"]["easy"]
    truth = held["easy"]["flow"]
    known = truth.isfinite().all(dim=1)
    lengths = [truth[place, :, known[place]].abs().sum(0).mean() for place in range(3)]
    assert error == pytest.approx(torch.stack(lengths).mean().item(), rel=1e-4), (
        "at first a garment is not bent"
    )
