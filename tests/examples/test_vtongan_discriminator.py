"""Laws of judging pictures."""

from __future__ import annotations

import pytest
import torch
from vtongan.discriminator import Discriminator, frozen


def new_discriminator(scales: int = 2) -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(6, width=4, layers=3, scales=scales)


def pictures(count: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, 64, 48, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_each_scale_sees_half_of_the_one_before_and_ends_in_scores() -> None:
    judged = new_discriminator()(pictures(), pictures(seed=1))
    assert [tuple(scale[0].shape) for scale in judged] == [(3, 4, 32, 24), (3, 4, 16, 12)]
    assert all(scale[-1].shape[:2] == (3, 1) for scale in judged)
    assert [len(scale) for scale in judged] == [5, 5]


def test_a_judgement_does_not_depend_on_the_batch() -> None:
    agnostic, image = pictures(), pictures(seed=1)
    together = new_discriminator()(agnostic, image)
    alone = new_discriminator()(agnostic[2:], image[2:])
    for many, one in zip(together, alone, strict=True):
        for batched, single in zip(many, one, strict=True):
            assert torch.allclose(batched[2:], single, atol=1e-4)


def test_the_smallest_pictures_of_the_tiny_preset_can_be_judged() -> None:
    small = pictures()[..., :32, :24]
    scores = new_discriminator(scales=1)(small, small)[0][-1]
    assert scores.shape[-2] * scores.shape[-1] > 1


def test_frozen_it_changes_in_nothing_and_lets_gradients_through() -> None:
    discriminator = new_discriminator().train()
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    painted = pictures(seed=1).requires_grad_()
    with frozen(discriminator):
        judged = discriminator(pictures(), painted)
    sum(scale[-1].mean() for scale in judged).backward()
    assert painted.grad is not None
    assert painted.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    assert all(torch.equal(before[name], value) for name, value in discriminator.state_dict().items())


def test_after_an_error_it_is_no_longer_frozen() -> None:
    discriminator = new_discriminator().train()
    next(discriminator.parameters()).requires_grad_(False)
    with pytest.raises(RuntimeError, match="in between"), frozen(discriminator):
        raise RuntimeError("in between")
    wanted = [parameter.requires_grad for parameter in discriminator.parameters()]
    assert wanted == [False] + [True] * (len(wanted) - 1)
    assert all(module.training for module in discriminator.modules())
