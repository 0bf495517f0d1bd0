"""Laws of bending a garment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from common.synthetic import render_sample
from hypothesis import given
from hypothesis import strategies as st
from vtongan.losses import flow_error, second_order
from vtongan.model import SIZES, person_view
from vtongan.warper import Warped, Warper, correlation, flow_of_places, identity_grid, resized_flow, warp

from .vtongan_pictures import bend_at_random, one_of, rendered_batch

sizes = st.tuples(st.integers(1, 20), st.integers(1, 20))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def new_warper(**changed: Any) -> Warper:
    torch.manual_seed(0)
    return Warper(4, 7, **(SIZES["tiny"]["warper"] | changed))


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    return rendered_batch()


@given(sizes, st.integers(0, 99))
def test_the_identity_flow_is_the_identity_warp(size: tuple[int, int], seed: int) -> None:
    pictures = noise(2, 3, *size, seed=seed)
    assert torch.allclose(warp(pictures, torch.zeros(2, 2, *size)), pictures, atol=1e-4)


@given(sizes, st.integers(-5, 5), st.integers(-5, 5))
def test_a_flow_of_whole_pixels_shifts_the_picture(size: tuple[int, int], right: int, down: int) -> None:
    height, width = size
    pictures = noise(1, 3, height, width)
    flow = torch.tensor([2 * right / width, 2 * down / height]).view(1, 2, 1, 1).expand(1, 2, *size)
    rows = (torch.arange(height) + down).clamp(0, height - 1)
    columns = (torch.arange(width) + right).clamp(0, width - 1)
    assert torch.allclose(warp(pictures, flow), pictures[..., rows, :][..., columns], atol=1e-3)


def test_beyond_the_edge_a_mask_is_empty() -> None:
    far = torch.full((1, 2, 4, 4), 3.0)
    assert warp(torch.ones(1, 1, 4, 4), far, padding="zeros").sum() == 0
    assert warp(torch.ones(1, 1, 4, 4), far).sum() == 16


@pytest.mark.parametrize("level", ["easy", "hard"])
def test_the_true_flow_carries_the_cloth_to_where_it_is_worn(level: str) -> None:
    """Light differs between cloth and person, pattern and colour do not: compare places, by painting the cloth with them."""
    sample = render_sample(level, 3, 17, 64, 48)
    flow = flow_of_places(sample.flow())
    places = identity_grid(64, 48)
    seen = warp(places, flow.nan_to_num().unsqueeze(0))
    known = torch.from_numpy(sample.pieces > 0)
    true = torch.from_numpy(2 * sample.flow() / (48, 64) - 1).float().permute(2, 0, 1)
    assert torch.equal(known, flow.isfinite().all(dim=0))
    assert (seen[0] - true)[:, known].abs().max() < 1e-4
    mask = torch.from_numpy(np.array(sample.cloth_mask) >= 128).float()[None, None]
    landed = warp(mask, flow.nan_to_num().unsqueeze(0), padding="zeros")[0, 0]
    assert landed[known].mean() > 0.95
    assert landed[known].mean() > mask.mean() + 0.3


def test_flow_and_what_it_shows_are_float32_under_autocast(batch: dict[str, Any]) -> None:
    warper = new_warper()
    with torch.no_grad():  # a flow that half precision would round to whole pixels
        for name, weight in warper.named_parameters():
            if name.endswith("last.bias"):
                weight.copy_(torch.tensor([0.3337, -0.1113, 0.5]))
    with torch.autocast("cpu", torch.bfloat16):
        warped = warper(batch["cloth"], batch["cloth_mask"], person_view(batch))
    plain = warper(batch["cloth"], batch["cloth_mask"], person_view(batch))
    for given_, expected in zip([*warped.flows, warped.flow], [*plain.flows, plain.flow], strict=True):
        assert given_.dtype == torch.float32
        assert torch.allclose(given_, expected, atol=1e-6)
    assert warped.garment.dtype == warped.mask.dtype == warped.visible.dtype == torch.float32
    assert torch.allclose(warped.garment, plain.garment, atol=1e-5)


def test_warping_half_precision_features_moves_them_by_parts_of_a_pixel() -> None:
    features = noise(1, 4, 8, 256).bfloat16()
    flow = torch.full((1, 2, 8, 256), 0.3 * 2 / 256)  # bfloat16 has two places for a pixel of this width
    with torch.autocast("cpu", torch.bfloat16):
        moved = warp(features, flow)
    assert moved.dtype == torch.bfloat16
    assert torch.allclose(moved.float(), warp(features.float(), flow), atol=0.01)


def test_a_level_s_correction_is_in_pixels_of_that_level_and_adds_to_the_coarser_ones(
    batch: dict[str, Any],
) -> None:
    warper = new_warper()
    with torch.no_grad():
        for name, weight in warper.named_parameters():
            if name.endswith("last.bias"):
                weight.copy_(torch.tensor([0.3337, -0.1113, 0.5]))
    warped = warper(batch["cloth"], batch["cloth_mask"], person_view(batch))
    across = [0.3337 * 2 * sum(1 / width for width in (3, 6, 12)[:levels]) for levels in (1, 2, 3)]
    down = [-0.1113 * 2 * sum(1 / height for height in (4, 8, 16)[:levels]) for levels in (1, 2, 3)]
    for flow, x, y in zip(warped.flows, across, down, strict=True):
        assert torch.allclose(flow[:, 0], torch.tensor(x), atol=1e-6)
        assert torch.allclose(flow[:, 1], torch.tensor(y), atol=1e-6)
    everywhere = warper(batch["cloth"], torch.ones_like(batch["cloth_mask"]), person_view(batch)).mask
    looks_beyond = identity_grid(32, 24)[0, 0] + across[-1] > 1 + 1 / 24
    assert not everywhere[:, 0, looks_beyond].any(), "beyond the edge of its picture there is no garment"


def test_at_first_a_garment_is_not_bent(batch: dict[str, Any]) -> None:
    warped = new_warper()(batch["cloth"], batch["cloth_mask"], person_view(batch))
    assert not any(flow.any() for flow in warped.flows)
    assert torch.allclose(warped.garment, batch["cloth"], atol=1e-4)
    assert torch.allclose(warped.mask, batch["cloth_mask"], atol=1e-4)
    assert warped.visible.min() > 0.8


def test_flows_come_coarse_to_fine_and_mean_the_same_at_every_size(batch: dict[str, Any]) -> None:
    warped = new_warper()(batch["cloth"], batch["cloth_mask"], person_view(batch))
    assert [tuple(flow.shape) for flow in warped.flows] == [(3, 2, 4, 3), (3, 2, 8, 6), (3, 2, 16, 12)]
    assert warped.flow.shape == (3, 2, 32, 24)
    constant = torch.full((1, 2, 4, 3), 0.25)
    assert torch.allclose(resized_flow(constant, (32, 24)), torch.full((1, 2, 32, 24), 0.25))


def test_bending_one_garment_does_not_depend_on_the_others(batch: dict[str, Any]) -> None:
    warper = new_warper()
    bend_at_random(warper)
    together = warper(batch["cloth"], batch["cloth_mask"], person_view(batch))
    alone = one_of(batch, 1)
    single = warper(alone["cloth"], alone["cloth_mask"], person_view(alone))
    assert together.flow.abs().max() > 0.01
    assert torch.allclose(together.flow[1:2], single.flow, atol=1e-5)
    assert torch.allclose(together.garment[1:2], single.garment, atol=1e-4)


@given(st.integers(-2, 2), st.integers(-2, 2))
def test_correlation_is_highest_where_the_features_went(right: int, down: int) -> None:
    features = noise(1, 16, 9, 9)
    moved = torch.roll(features, (-down, -right), dims=(2, 3))  # moved[y, x] == features[y + down, x + right]
    likeness = correlation(moved, features, radius=2)
    assert likeness.shape == (1, 25, 9, 9)
    inner = likeness[0, :, 2:-2, 2:-2]
    assert (inner.argmax(dim=0) == (down + 2) * 5 + right + 2).all()
    assert torch.allclose(inner.amax(dim=0), torch.ones(5, 5), atol=1e-5)


def test_the_flow_finds_a_known_shift() -> None:
    """The person's picture shows the garment elsewhere. Told only how far pictures differ, the warper finds the way."""
    generator = torch.Generator().manual_seed(1)
    warper = new_warper()
    optimizer = torch.optim.Adam(warper.parameters(), lr=5e-3)

    def pairs(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rough = torch.rand(count, 3, 8, 6, generator=generator) * 2 - 1
        cloth = F.interpolate(rough, size=(32, 24), mode="bicubic").clamp(-1, 1)
        shift = torch.rand(count, 2, 1, 1, generator=generator) * 0.6 - 0.3
        flow = shift.expand(count, 2, 32, 24)
        return cloth, warp(cloth, flow), flow

    def bend(cloth: torch.Tensor, person: torch.Tensor) -> Warped:
        filled = torch.cat([person, torch.zeros(len(person), 4, 32, 24)], dim=1)
        warped: Warped = warper(cloth, torch.ones_like(cloth[:, :1]), filled)
        return warped

    for _ in range(200):
        cloth, person, _flow = pairs(8)
        warped = bend(cloth, person)
        loss = sum(
            (warp(cloth, resized_flow(flow, (32, 24))) - person).abs().mean() + 3 * second_order(flow).mean()
            for flow in warped.flows
        )
        assert isinstance(loss, torch.Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    cloth, person, flow = pairs(32)
    inside = (identity_grid(32, 24) + flow).abs().amax(
        dim=1, keepdim=True
    ) < 1  # beyond the edge all looks alike
    known = torch.where(inside, flow, torch.nan)
    found, unbent = (
        flow_error(one, known).mean() for one in (bend(cloth, person).flow, torch.zeros_like(flow))
    )
    assert found < 0.45 * unbent, f"{found:.3f} after training, {unbent:.3f} without a flow"
