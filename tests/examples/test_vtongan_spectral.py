"""Laws of the convolution whose spectral norm is 1."""

from __future__ import annotations

import pytest
import torch
from vtongan.spectral import SpectralConv2d


def norm(layer: SpectralConv2d) -> float:
    return float(torch.linalg.matrix_norm(layer.normalised_weight().detach().flatten(1), ord=2))


def layer(seed: int = 0) -> SpectralConv2d:
    torch.manual_seed(seed)
    return SpectralConv2d(6, 12, 3, padding=1)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_norm_is_one_whatever_the_size_of_the_weight(scale: float) -> None:
    conv = layer()
    with torch.no_grad():
        conv.weight *= scale
    assert norm(conv) == pytest.approx(1, abs=0.02)


def test_the_norm_stays_within_bounds_while_training_pulls_at_it() -> None:
    """One iteration a step runs after the weight and lags a little; without any, the norm is above 50 after these steps."""
    conv = layer()
    optimizer = torch.optim.Adam(conv.parameters(), lr=4e-4)
    pictures = torch.randn(2, 6, 8, 8)
    for _ in range(150):
        optimizer.zero_grad()
        (-conv(pictures).square().mean()).backward()
        optimizer.step()
        conv.advance()
        assert 0.98 < norm(conv) < 1.25


def test_computing_moves_nothing_and_an_update_moves_the_singular_vector() -> None:
    conv = layer().train()
    before, picture = conv.left.clone(), torch.randn(1, 6, 4, 4)
    assert torch.equal(conv(picture), conv(picture))
    assert torch.equal(conv.left, before)
    conv.advance()
    assert not torch.equal(conv.left, before)


def test_the_same_weights_go_on_alike_after_a_load() -> None:
    one, other = layer(0), layer(1)
    for _ in range(3):
        one.advance()
    other.load_state_dict(one.state_dict())
    for _ in range(2):
        assert torch.equal(one.normalised_weight(), other.normalised_weight())
        one.advance()
        other.advance()


def test_no_gradient_stretches_the_weight() -> None:
    """The output does not depend on the weight's length, so its gradient stands at a right angle to it."""
    conv = layer().eval()
    for _ in range(200):
        conv.advance()
    conv(torch.randn(2, 6, 5, 5)).square().mean().backward()
    assert conv.weight.grad is not None
    assert (conv.weight.grad * conv.weight).sum().abs() < 1e-5 * conv.weight.grad.norm() * conv.weight.norm()


def test_the_division_is_in_float32_under_autocast() -> None:
    conv = layer().eval()
    plain = conv.normalised_weight()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv.normalised_weight(), plain)
        assert conv(torch.randn(1, 6, 4, 4)).dtype == torch.bfloat16
