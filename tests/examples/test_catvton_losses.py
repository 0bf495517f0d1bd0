"""Laws of the CatVTON loss and of dressing a person."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from catvton.generate import generate
from catvton.losses import Latents, catvton_loss, encode, rectified_noise, region_weight
from catvton.model import CatVTON, build_catvton
from common.randomness import sample_generators
from diffusers import AutoencoderKL, DDPMScheduler
from diffusers.training_utils import compute_dream_and_update_latents
from torch import Tensor

import curriculum_sampler as cs

from .test_latent_cache import both, cache, shards, vae

__all__ = ["cache", "shards", "vae"]  # fixtures

KEYS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def model() -> CatVTON:
    return build_catvton("tiny", train_all=True, seed=3)


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(2, 3, 3, 32, 24, generator=generator) * 2 - 1
    mask = torch.zeros(3, 1, 32, 24)
    mask[:, :, 8:20, 6:18] = 1
    return {"image": pictures[0], "cloth": pictures[1], "agnostic_mask": mask, "sample_id": KEYS}


def generators(step: int = 0) -> list[torch.Generator]:
    return sample_generators(17, "test", step, KEYS)


def part(batch: dict[str, Any], place: int) -> dict[str, Any]:
    return {name: value[place : place + 1] for name, value in batch.items()}


def test_person_and_garment_share_one_latent_and_the_mask_covers_the_person_only(
    model: CatVTON, batch: dict[str, Any]
) -> None:
    latents = encode(model, batch, generators())
    assert latents.clean.shape == latents.condition.shape == (3, 4, 16, 6)
    assert latents.mask.shape == (3, 1, 16, 6)
    assert latents.mask[:, :, :8].any()
    assert not latents.mask[:, :, 8:].any()
    assert torch.equal(latents.clean[:, :, 8:], latents.condition[:, :, 8:])


def test_what_is_under_the_mask_never_reaches_the_condition(model: CatVTON, batch: dict[str, Any]) -> None:
    other = batch | {"image": torch.where(batch["agnostic_mask"] > 0.5, -batch["image"], batch["image"])}
    one, two = encode(model, batch, generators()), encode(model, other, generators())
    assert torch.equal(one.condition, two.condition)
    assert not torch.equal(one.clean, two.clean)


def test_dropout_touches_only_the_garment_half_of_the_condition() -> None:
    latents = Latents(
        clean=torch.ones(2, 4, 6, 3), condition=torch.ones(2, 4, 6, 3), mask=torch.zeros(2, 1, 6, 3)
    )
    kept = latents.without_garment(torch.tensor([True, False]))
    assert torch.equal(kept[0, :, :3], torch.ones(4, 3, 3))
    assert not kept[0, :, 3:].any()
    assert torch.equal(kept[1], latents.condition[1])
    assert latents.clean.all()
    assert latents.condition.all()


def test_dropout_reaches_the_network_as_a_hidden_garment_and_nothing_else(
    model: CatVTON, batch: dict[str, Any]
) -> None:
    seen: list[torch.Tensor] = []

    class Spy(torch.nn.Module):
        def forward(self, inputs: torch.Tensor, *args: Any, **values: Any) -> tuple[torch.Tensor]:
            seen.append(inputs)
            return (torch.zeros_like(inputs[:, :4]),)

    for dropout in (0.0, 1.0):
        catvton_loss(model, batch, generators(), unet=Spy(), dropout=dropout)
    differs = (seen[0] != seen[1]).any(dim=(0, 3))
    assert not differs[:5].any(), "noisy latent and mask are the same"
    assert not differs[5:, :8].any(), "the person's condition is the same"
    assert differs[5:, 8:].all()
    assert not seen[1][:, 5:, 8:].any()


def test_the_loss_of_a_sample_does_not_depend_on_its_batch(model: CatVTON, batch: dict[str, Any]) -> None:
    together = catvton_loss(model, batch, generators(), dropout=0.5)
    for place, key in enumerate(KEYS):
        alone = catvton_loss(model, part(batch, place), sample_generators(17, "test", 0, [key]), dropout=0.5)
        assert torch.allclose(together[place : place + 1], alone, rtol=1e-4)


def test_noise_is_another_at_every_step(model: CatVTON, batch: dict[str, Any]) -> None:
    assert not torch.allclose(
        catvton_loss(model, batch, generators(0)), catvton_loss(model, batch, generators(1))
    )


@pytest.mark.parametrize(("region", "share"), [("full", 1.0), ("person", 0.5), ("masked", 0.125)])
def test_the_region_of_the_loss_is_what_it_says(region: Any, share: float) -> None:
    mask = torch.zeros(1, 1, 8, 4)
    mask[:, :, :2, :2] = 1
    latents = Latents(clean=torch.zeros(1, 4, 8, 4), condition=torch.zeros(1, 4, 8, 4), mask=mask)
    weight = region_weight(region, latents)
    assert weight.mean().item() == share
    if region != "full":
        assert not weight[:, :, 4:].any()


def test_snr_weighting_never_weighs_an_epsilon_loss_up(model: CatVTON, batch: dict[str, Any]) -> None:
    plain = catvton_loss(model, batch, generators(), timesteps=torch.tensor([10, 300, 700]))
    weighted = catvton_loss(model, batch, generators(), timesteps=torch.tensor([10, 300, 700]), snr_gamma=5.0)
    assert (weighted <= plain).all()


def test_the_target_follows_the_schedule_of_the_base(batch: dict[str, Any]) -> None:
    model = build_catvton("tiny", seed=3)

    class Still(torch.nn.Module):
        def forward(self, inputs: torch.Tensor, *args: Any, **values: Any) -> tuple[torch.Tensor]:
            return (torch.zeros_like(inputs[:, :4]),)

    def loss(kind: str, level: int) -> torch.Tensor:
        model.noise_scheduler.register_to_config(prediction_type=kind)
        return catvton_loss(model, batch, generators(), unet=Still(), timesteps=torch.full((3,), level))

    clean = encode(model, batch, generators()).clean.square().mean(dim=(1, 2, 3))
    assert torch.allclose(loss("v_prediction", 999), clean, rtol=1e-3), (
        "pure noise: the velocity is the picture"
    )
    assert torch.allclose(loss("v_prediction", 0), loss("epsilon", 0), rtol=0.05), "no noise: it is the noise"
    with pytest.raises(cs.ArgumentError, match="prediction_type 'sample'"):
        loss("sample", 0)


class Wrong(torch.nn.Module):
    """A network that sees all channels and is wrong about the noise. It notes what it saw, and whether it would learn."""

    def __init__(self) -> None:
        super().__init__()
        self.share = torch.nn.Parameter(torch.tensor(0.3))
        self.seen: list[Tensor] = []
        self.learns: list[bool] = []

    def forward(self, inputs: Tensor, *args: Any, **values: Any) -> tuple[Tensor]:
        self.seen.append(inputs)
        self.learns.append(torch.is_grad_enabled())
        return (self.share * inputs[:, :4] + 0.1 * inputs[:, 5:],)


class OfFourChannels(torch.nn.Module):
    """The first four channels of the other network, as a network of its own."""

    def __init__(self, network: torch.nn.Module, rest: Tensor) -> None:
        super().__init__()
        self.network, self.rest = network, rest

    def forward(self, noisy: Tensor, *args: Any) -> Any:
        return SimpleNamespace(sample=self.network(torch.cat([noisy, self.rest], dim=1))[0])


def noise_schedule(kind: str) -> DDPMScheduler:
    return DDPMScheduler(beta_schedule="scaled_linear", prediction_type=kind)


@pytest.mark.parametrize("preservation", [0.0, 1.0, 10.0])
def test_dream_is_that_of_diffusers_on_the_noisy_channels(preservation: float) -> None:
    torch.manual_seed(0)
    clean, noise, rest = torch.randn(3, 4, 8, 4), torch.randn(3, 4, 8, 4), torch.randn(3, 5, 8, 4)
    scheduler, timesteps = noise_schedule("epsilon"), torch.tensor([5, 400, 990])
    network = OfFourChannels(Wrong(), rest)
    noisy = scheduler.add_noise(clean, noise, timesteps)
    their_noisy, their_target = compute_dream_and_update_latents(
        network, scheduler, timesteps, noise, noisy, noise.clone(), None, preservation
    )
    ours = rectified_noise(
        scheduler, lambda seen: network(seen).sample, clean, noise, timesteps, preservation
    )
    assert torch.allclose(ours, their_target, atol=1e-5)
    assert torch.allclose(scheduler.add_noise(clean, ours, timesteps), their_noisy, atol=1e-5)
    assert not torch.allclose(ours, noise)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_a_network_that_makes_no_error_leaves_nothing_to_rectify(kind: str) -> None:
    torch.manual_seed(0)
    clean, noise = torch.randn(3, 4, 8, 4), torch.randn(3, 4, 8, 4)
    scheduler, timesteps = noise_schedule(kind), torch.tensor([0, 400, 999])
    right = noise if kind == "epsilon" else scheduler.get_velocity(clean, noise, timesteps)
    assert torch.allclose(
        rectified_noise(scheduler, lambda noisy: right, clean, noise, timesteps, 0.0), noise, atol=1e-5
    )
    wrong = rectified_noise(scheduler, lambda noisy: right + 1, clean, noise, timesteps, 0.0)
    assert not torch.allclose(wrong, noise, atol=1e-2)


def test_preservation_spares_low_noise_and_moves_high_noise() -> None:
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 4, 8, 4), torch.randn(2, 4, 8, 4)
    timesteps = torch.tensor([50, 990])
    scheduler = noise_schedule("epsilon")
    moved = rectified_noise(scheduler, torch.zeros_like, clean, noise, timesteps, 10.0) - noise
    low, high = moved.abs().mean(dim=(1, 2, 3)) / noise.abs().mean(dim=(1, 2, 3))
    assert low < 1e-4
    assert high > 0.9


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_dream_moves_the_noisy_channels_alone_and_learns_from_the_second_pass_alone(
    kind: str, batch: dict[str, Any]
) -> None:
    model = build_catvton("tiny", seed=3)
    model.noise_scheduler.register_to_config(prediction_type=kind)
    network, plain = Wrong(), Wrong()
    given = {"timesteps": torch.tensor([300, 600, 900])}
    loss = catvton_loss(model, batch, generators(), unet=network, dream=1.0, **given)
    without = catvton_loss(model, batch, generators(), unet=plain, **given)
    assert network.learns == [False, True]
    assert plain.learns == [True]
    first, second = network.seen
    assert torch.equal(first, plain.seen[0]), "the first pass sees what a training without DREAM sees"
    assert torch.equal(first[:, 4:], second[:, 4:])
    assert not torch.isclose(first[:, :4], second[:, :4]).all(dim=1).any()
    assert not torch.allclose(loss, without)
    loss.sum().backward()
    found = network.share.grad
    assert found is not None
    # By hand, with the second input and its target as given numbers.
    share = torch.tensor(0.3, requires_grad=True)
    clean = encode(model, batch, generators()).clean
    kept = model.noise_scheduler.alphas_cumprod[given["timesteps"]].view(-1, 1, 1, 1)
    noise = (second[:, :4] - kept.sqrt() * clean) / (1 - kept).sqrt()
    target = (
        noise if kind == "epsilon" else model.noise_scheduler.get_velocity(clean, noise, given["timesteps"])
    )
    by_hand = (share * second[:, :4] + 0.1 * second[:, 5:] - target).square().mean(dim=(1, 2, 3))
    assert torch.allclose(loss, by_hand, rtol=1e-3)
    by_hand.sum().backward()
    assert torch.allclose(found, share.grad, rtol=1e-3)


@pytest.mark.parametrize("dream", [None, 10.0])
def test_a_loss_on_cached_latents_is_the_loss_on_pictures(
    dream: float | None, shards: Path, cache: Path, vae: AutoencoderKL
) -> None:
    """Sampling from the posterior, dropping and noise included."""
    model = build_catvton("tiny", train_all=True, seed=3)
    model.vae = vae
    pictures, latents = both(shards, cache, vae)
    seen = [
        encode(model, given, sample_generators(3, "x", 0, given["sample_id"]))
        for given in (pictures, latents)
    ]
    for name in ("clean", "condition", "mask"):
        assert torch.allclose(getattr(seen[0], name), getattr(seen[1], name), atol=3e-3), name
    losses = [
        catvton_loss(
            model,
            given,
            sample_generators(3, "training", 0, given["sample_id"]),
            dropout=0.5,
            region="masked",
            dream=dream,
        )
        for given in (pictures, latents)
    ]
    assert torch.allclose(*losses, rtol=2e-3)
    assert not torch.allclose(losses[0][:-1], losses[0][1:], rtol=1e-2), "samples differ by more than that"


def test_a_dressed_person_depends_on_its_own_generator_only(model: CatVTON, batch: dict[str, Any]) -> None:
    for eta in (0.0, 1.0):
        together = generate(model, batch, generators(), steps=2, eta=eta)
        alone = generate(model, part(batch, 1), sample_generators(17, "test", 0, ["b"]), steps=2, eta=eta)
        assert together.shape == (3, 3, 32, 24)
        assert together.abs().max() <= 1
        assert torch.allclose(together[1:2], alone, atol=1e-4)


def test_dressing_never_looks_under_the_mask(model: CatVTON, batch: dict[str, Any]) -> None:
    hidden = batch | {"image": torch.where(batch["agnostic_mask"] > 0.5, 0.3, batch["image"])}
    one, two = (generate(model, given, generators(), steps=2) for given in (batch, hidden))
    assert torch.equal(one, two)
