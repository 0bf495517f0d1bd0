"""Laws of what VTON-GAN is trained on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vtongan.discriminator import Discriminator
from vtongan.flags import DRESSER_WEIGHTS, JUDGE_WEIGHTS
from vtongan.losses import (
    discriminator_hinge,
    discriminator_terms,
    dresser_terms,
    feature_matching,
    flow_error,
    generator_hinge,
    masked_l1,
    second_order,
    total_variation,
    warp_terms,
    weighted,
)
from vtongan.model import VTONGAN, build_vtongan
from vtongan.warper import Warped, identity_grid, warp

from .vtongan_pictures import HEIGHT, WIDTH, bend_at_random, one_of, rendered_batch


@pytest.fixture
def model() -> VTONGAN:
    return build_vtongan("tiny", seed=3)


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    return rendered_batch("medium", with_truth=True)


def seen_by(flow: torch.Tensor, batch: dict[str, Any]) -> Warped:
    """The garment as a flow shows it, nothing in front."""
    garment, mask = warp(batch["cloth"], flow), warp(batch["cloth_mask"], flow, padding="zeros")
    return Warped([flow], garment, mask, torch.ones_like(mask))


def test_hinge_is_as_computed_by_hand() -> None:
    real = [
        torch.tensor([[0.5, 2.0], [-1.0, 0.0]]).view(2, 1, 1, 2),
        torch.tensor([3.0, -3.0]).view(2, 1, 1, 1),
    ]
    fake = [
        torch.tensor([[-2.0, 0.0], [1.0, -0.5]]).view(2, 1, 1, 2),
        torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1),
    ]
    # Sample 1, scale 1: (0.5 + 0) / 2 + (0 + 1) / 2 = 0.75; scale 2: 0 + 0.
    # Sample 2, scale 1: (2 + 1) / 2 + (2 + 0.5) / 2 = 2.75; scale 2: 4 + 2.
    assert discriminator_hinge(real, fake).tolist() == [0.375, 4.375]
    assert generator_hinge(fake).tolist() == [1.0, -0.625]


def test_what_is_logged_of_the_discriminator_is_counted_by_hand(batch: dict[str, Any]) -> None:
    class Signs(torch.nn.Module):
        """Scores a patch 2 where its first colour is above 0, else -1."""

        def forward(self, agnostic: torch.Tensor, pictures: torch.Tensor) -> list[list[torch.Tensor]]:
            return [[torch.where(pictures[:, :1] > 0, 2.0, -1.0)]]

    image, result = torch.full((1, 3, 2, 2), -0.5), torch.full((1, 3, 2, 2), -0.5)
    image[..., 0, :] = 0.5
    result[..., 0, 0] = 0.5
    terms, seen = discriminator_terms(Signs(), {"agnostic": torch.zeros_like(image), "image": image}, result)
    assert seen["d_real"].tolist() == [0.5]
    assert seen["d_fake"].tolist() == [-0.25]
    assert seen["d_accuracy"].tolist() == [(0.5 + 0.75) / 2]
    assert terms["judge_hinge"].tolist() == [(0 + 0 + 2 + 2) / 4 + (3 + 0 + 0 + 0) / 4]


def test_feature_matching_is_zero_for_equal_inputs_only(model: VTONGAN, batch: dict[str, Any]) -> None:
    judge = model.discriminator.eval()
    real = judge(batch["agnostic"], batch["image"])
    assert not feature_matching(real, real).any()
    assert (feature_matching(real, judge(batch["agnostic"], batch["cloth"])) > 0.01).all()


def test_feature_matching_sums_layers_averages_scales_and_leaves_scores_out() -> None:
    def judged(*values: list[float]) -> list[list[torch.Tensor]]:
        return [[torch.full((1, 2, 2, 2), value) for value in scale] for scale in values]

    assert feature_matching(judged([1, 2, 9], [0, 0, 0]), judged([2, 4, 0], [0, 1, 0])).tolist() == [2.0]


def test_no_weight_of_the_discriminator_learns_from_the_dresser_s_loss(
    model: VTONGAN, batch: dict[str, Any]
) -> None:
    model.move(torch.device("cpu"))
    before = {name: value.clone() for name, value in model.discriminator.state_dict().items()}
    terms = dresser_terms(model.discriminator, model.perceptual, batch, model.dresser(batch))
    weighted(terms, DRESSER_WEIGHTS).mean().backward()
    assert all(weight.grad is None for weight in model.discriminator.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.discriminator.state_dict().items())
    assert all(weight.requires_grad for weight in model.discriminator.parameters())


def test_the_dresser_hears_the_discriminator(model: VTONGAN, batch: dict[str, Any]) -> None:
    for name in ("hinge", "feature_matching"):
        terms = dresser_terms(model.discriminator, None, batch, model.dresser(batch))
        model.dresser.zero_grad()
        terms[name].mean().backward()
        assert any(
            weight.grad is not None and weight.grad.any() for weight in model.dresser.generator.parameters()
        )


def test_no_weight_of_the_dresser_learns_from_the_discriminator_s_loss(
    model: VTONGAN, batch: dict[str, Any]
) -> None:
    terms, _ = discriminator_terms(
        model.discriminator, batch, model.dresser(batch).result.detach(), with_r1=True
    )
    weighted(terms, JUDGE_WEIGHTS | {"r1": 1.0}).mean().backward()
    assert all(weight.grad is None for weight in model.dresser.parameters())
    assert all(weight.grad is not None for weight in model.discriminator.parameters())


def test_r1_is_the_squared_slope_of_the_score_at_true_pictures() -> None:
    class Linear(torch.nn.Module):
        def forward(self, agnostic: torch.Tensor, pictures: torch.Tensor) -> list[list[torch.Tensor]]:
            return [[pictures.sum(dim=(1, 2, 3), keepdim=True) * 3]]

    image = torch.zeros(2, 3, 2, 2)
    terms, _ = discriminator_terms(Linear(), {"agnostic": image, "image": image}, image, with_r1=True)
    assert terms["r1"].tolist() == [9.0 * 12] * 2


def test_every_loss_is_that_of_its_own_sample(model: VTONGAN, batch: dict[str, Any]) -> None:
    model.dresser.eval()
    model.discriminator.eval()

    def both(given_: dict[str, Any]) -> dict[str, torch.Tensor]:
        worn = model.dresser(given_)
        terms, seen = discriminator_terms(model.discriminator, given_, worn.result.detach(), with_r1=True)
        return {**dresser_terms(model.discriminator, model.perceptual, given_, worn), **terms, **seen}

    together = both(batch)
    assert {"hinge", "flow_truth", "mask", "d_real"} < together.keys()
    for place in range(3):
        for name, value in both(one_of(batch, place)).items():
            assert torch.allclose(value, together[name][place : place + 1], rtol=1e-3, atol=1e-5), name


def test_losses_are_float32_under_autocast_and_nearly_the_same(model: VTONGAN, batch: dict[str, Any]) -> None:
    worn = model.dresser.eval()(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = dresser_terms(model.discriminator, model.perceptual, batch, worn)
    whole = dresser_terms(model.discriminator, model.perceptual, batch, worn)
    for name, value in whole.items():
        assert half[name].dtype == torch.float32
        if name in (
            "hinge",
            "feature_matching",
        ):  # the discriminator's own convolutions are in half precision
            assert torch.allclose(half[name], value, atol=0.05), name
        else:
            assert torch.equal(half[name], value), name


def test_every_term_has_a_flag_and_every_flag_a_term(model: VTONGAN, batch: dict[str, Any]) -> None:
    worn = model.dresser(batch)
    assert dresser_terms(model.discriminator, model.perceptual, batch, worn).keys() == DRESSER_WEIGHTS.keys()
    assert (
        discriminator_terms(model.discriminator, batch, worn.result, with_r1=True)[0].keys()
        == JUDGE_WEIGHTS.keys()
    )
    with pytest.raises(KeyError, match="unheard_of"):
        weighted({"unheard_of": torch.zeros(1)}, DRESSER_WEIGHTS)


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_shift_stretch_turn_and_shear_bend_nothing(numbers: list[float]) -> None:
    a, b, c, d, e, f = numbers
    x, y = identity_grid(9, 7)[0]
    flow = torch.stack([a * x + b * y + c, d * x + e * y + f]).unsqueeze(0)
    assert second_order(flow).item() < 1e-5
    assert second_order(flow + torch.stack([x * x, y * y])).item() > 1e-3


def test_total_variation_by_hand() -> None:
    flow = torch.tensor([[[[0.0, 1.0], [3.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    across, down = (1 + 0 + 0 + 0) / 4, (3 + 2 + 0 + 0) / 4
    assert total_variation(flow).tolist() == [across + down]


def test_only_the_region_counts() -> None:
    truth, region = torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
    region[..., :2] = 1
    off = torch.zeros(1, 3, 4, 4)
    off[..., 2:] = 1
    assert masked_l1(off, truth, region).item() == 0
    off[..., 0] = 1
    assert masked_l1(off, truth, region).item() == 0.5
    assert masked_l1(off, truth, torch.zeros_like(region)).item() == 0, "an empty region is no error"


def test_the_error_of_a_flow_counts_where_the_true_one_is_known() -> None:
    truth = torch.full((2, 2, 2, 2), torch.nan)
    truth[0, :, 0, 0] = torch.tensor([0.5, -0.25])
    flow = torch.zeros(2, 2, 2, 2).requires_grad_()
    error = flow_error(flow, truth)
    assert error.tolist() == [0.75, 0.0]
    error.sum().backward()
    assert flow.grad is not None
    assert flow.grad.isfinite().all()
    assert flow.grad.abs().sum() == 2


def test_the_true_flow_is_better_than_none_in_every_way_the_warper_is_judged() -> None:
    # Hard garments hang far from where they lay; with fine pictures, so that their pattern tells right from wrong.
    batch = rendered_batch("medium", 0, 8, height=64, width=48, with_truth=True)
    true = torch.where(batch["flow"].isfinite(), batch["flow"], 0.0)
    right, none = (
        warp_terms(batch, seen_by(true, batch)),
        warp_terms(batch, seen_by(torch.zeros_like(true), batch)),
    )
    assert right["flow_truth"].max() < 1e-6
    for name in ("flow_l1", "edge"):
        assert right[name].mean() < 0.8 * none[name].mean(), name


def test_without_knowing_where_it_is_worn_only_what_reaches_too_far_is_wrong(batch: dict[str, Any]) -> None:
    bare = {name: value for name, value in batch.items() if name not in ("worn_mask", "flow")}
    still = torch.zeros(3, 2, HEIGHT, WIDTH)
    terms = warp_terms(bare, seen_by(still, bare))
    assert "flow_truth" not in terms
    beyond = (bare["cloth_mask"] * (1 - bare["agnostic_mask"])).mean(dim=(1, 2, 3))
    assert torch.allclose(terms["mask"], beyond, atol=1e-4)
    assert torch.allclose(
        warp_terms(batch, seen_by(still, batch))["mask"],
        (batch["cloth_mask"] - batch["worn_mask"]).abs().mean(dim=(1, 2, 3)),
        atol=1e-4,
    )


def test_two_scales_count_alike_however_many_patches_they_have() -> None:
    many, few = torch.ones(1, 1, 10, 10), torch.full((1, 1, 1, 1), -1.0)
    assert generator_hinge([many, few]).item() == 0


def test_the_weighted_loss_has_a_gradient_everywhere(batch: dict[str, Any]) -> None:
    torch.manual_seed(0)
    judge = Discriminator(6, width=4, layers=3, scales=1)
    model = build_vtongan("tiny", seed=4)
    bend_at_random(model.dresser.warper)  # at first a flow is zero, which holds back what lies before
    terms = dresser_terms(judge, model.perceptual, batch, model.dresser(batch))
    weighted(terms, DRESSER_WEIGHTS).mean().backward()
    idle = [
        n for n, weight in model.dresser.named_parameters() if weight.grad is None or not weight.grad.any()
    ]
    assert idle == []
