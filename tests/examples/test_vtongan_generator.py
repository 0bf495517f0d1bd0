"""Laws of painting a person."""

from __future__ import annotations

import pytest
import torch
from vtongan.generator import Generator, Spade

CHANNELS = 11


def new_generator(width: int = 8, halvings: int = 3) -> Generator:
    torch.manual_seed(0)
    return Generator(CHANNELS, width=width, most_width=32, halvings=halvings, hidden=12)


@pytest.mark.parametrize("size", [(32, 24), (16, 16), (24, 64)])
def test_any_picture_of_whole_halves_is_painted_in_its_size(size: tuple[int, int]) -> None:
    render, share = new_generator()(torch.randn(2, CHANNELS, *size))
    assert render.shape == (2, 3, *size)
    assert share.shape == (2, 1, *size)
    assert render.abs().max() <= 1
    assert 0 <= share.min() <= share.max() <= 1


def test_a_painting_does_not_depend_on_the_batch() -> None:
    generator, condition = new_generator().train(), torch.randn(3, CHANNELS, 32, 24)
    together = generator(condition)
    generator = new_generator().train()
    alone = generator(condition[1:2])
    for batched, single in zip(together, alone, strict=True):
        assert torch.allclose(batched[1:2], single, atol=1e-5)


def test_pictures_are_float32_under_autocast() -> None:
    generator = new_generator()
    with torch.autocast("cpu", torch.bfloat16):
        render, share = generator(torch.randn(1, CHANNELS, 16, 16))
    assert render.dtype == share.dtype == torch.float32


def test_a_colour_that_normalisation_wipes_out_comes_back_through_the_condition() -> None:
    torch.manual_seed(0)
    spade, features = Spade(4, 3, 8), torch.randn(1, 4, 8, 8)
    condition = torch.zeros(1, 3, 8, 8)
    assert torch.allclose(spade(features + 5, condition), spade(features, condition), atol=1e-4)
    assert not torch.allclose(spade(features, condition + 1), spade(features, condition), atol=1e-2)


def test_every_weight_takes_part() -> None:
    generator = new_generator()
    render, share = generator(torch.randn(2, CHANNELS, 32, 24))
    (render.square().mean() + share.square().mean()).backward()
    idle = [
        name for name, weight in generator.named_parameters() if weight.grad is None or not weight.grad.any()
    ]
    assert idle == []
