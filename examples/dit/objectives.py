"""What a DiT is trained on: flow matching, or the noise of DDPM; on the person's latents only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from common.latents import keyed_normal, posteriors
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_snr
from dit.model import NO_CATEGORY, TIME_SCALE, DiT
from torch import Tensor, nn

from curriculum_sampler.errors import ArgumentError


class Objective(Protocol):
    """A way to add noise, and what the network must say about it. Times run from 0, the picture, to 1000, pure noise."""

    def draw_time(self, generator: torch.Generator) -> Tensor:
        """Draw the time of one sample, ``[1]``."""

    def add_noise(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Return the noisy latents."""

    def target(self, clean: Tensor, noise: Tensor) -> Tensor:
        """Return what the network must predict."""

    def noise_share(self, times: Tensor) -> Tensor:
        """Return how much of the noise is in the noisy latents, from 0 to 1."""

    def weight(self, times: Tensor, snr_gamma: float | None) -> Tensor:
        """Return how much the loss at these times counts."""

    def sampler(self, steps: int, device: torch.device) -> Any:
        """Return a deterministic diffusers scheduler with ``timesteps`` set."""


class FlowMatching:
    """Straight lines from picture to noise; the network predicts their direction (arXiv 2209.03003, 2403.03206).

    Times are drawn logit-normally, so that the middle of the way, where there is most to decide, comes up most.
    """

    def draw_time(self, generator: torch.Generator) -> Tensor:
        return torch.randn(1, generator=generator).sigmoid() * TIME_SCALE

    def add_noise(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        share = self.noise_share(times)
        return (1 - share) * clean + share * noise

    def target(self, clean: Tensor, noise: Tensor) -> Tensor:
        return noise - clean

    def noise_share(self, times: Tensor) -> Tensor:
        return (times / TIME_SCALE).view(-1, 1, 1, 1)

    def weight(self, times: Tensor, snr_gamma: float | None) -> Tensor:
        if snr_gamma is not None:
            raise ArgumentError(
                f"--snr_gamma {snr_gamma} weighs the noise levels of DDPM; flow matching weighs them by how often it"
                " draws them. Leave it out, or choose --objective ddpm."
            )
        return torch.ones_like(times)

    def sampler(self, steps: int, device: torch.device) -> FlowMatchEulerDiscreteScheduler:
        scheduler = FlowMatchEulerDiscreteScheduler()
        # The scheduler's own levels end with a step of a thousandth of the way; these are equal steps down to 0.
        scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist(), device=device)
        return scheduler


class DDPM:
    """DiT's own: predict the noise, on the linear schedule of a thousand levels (arXiv 2006.11239)."""

    def __init__(self) -> None:
        self.scheduler = DDPMScheduler(
            beta_schedule="linear", beta_start=1e-4, beta_end=0.02, clip_sample=False
        )

    def draw_time(self, generator: torch.Generator) -> Tensor:
        return torch.randint(int(TIME_SCALE), (1,), generator=generator).float()

    def add_noise(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        noisy: Tensor = self.scheduler.add_noise(clean, noise, times.long())
        return noisy

    def target(self, clean: Tensor, noise: Tensor) -> Tensor:
        return noise

    def noise_share(self, times: Tensor) -> Tensor:
        kept = self.scheduler.alphas_cumprod.to(times.device)[times.long()]
        return (1 - kept).sqrt().view(-1, 1, 1, 1)

    def weight(self, times: Tensor, snr_gamma: float | None) -> Tensor:
        if snr_gamma is None:
            return torch.ones_like(times)
        snr: Tensor = compute_snr(self.scheduler, times.long())
        return snr.clamp_max(snr_gamma) / snr

    def sampler(self, steps: int, device: torch.device) -> DDIMScheduler:
        # "trailing" begins at pure noise, which is what sampling begins with.
        scheduler = DDIMScheduler.from_config(self.scheduler.config, timestep_spacing="trailing")
        scheduler.set_timesteps(steps, device=device)
        return scheduler


OBJECTIVES: dict[str, type[FlowMatching] | type[DDPM]] = {"flow": FlowMatching, "ddpm": DDPM}


@dataclass
class Conditions:
    """What the network is told besides noisy latents and time, of a batch.

    Attributes:
        person: Latents of the masked person, the mask, and latents of the pose if the network takes one.
        garment: Latents of the garment.
        category: Position in ``CATEGORIES``.
    """

    person: Tensor
    garment: Tensor
    category: Tensor

    def hiding(self, garment: Tensor, category: Tensor | None = None) -> Conditions:
        """The same with garment, category or both kept from those samples where the flags are true."""
        kept = self.garment * ~garment.view(-1, 1, 1, 1)
        named = self.category if category is None else self.category.masked_fill(category, NO_CATEGORY)
        return Conditions(self.person, kept, named)


@torch.no_grad()
def conditions_of(model: DiT, batch: Mapping[str, Any]) -> Conditions:
    """Encode what is given: the means of the latents, for there is nothing to guess about them."""
    names = ("masked", "cloth", "pose") if model.network.use_pose else ("masked", "cloth")
    means, _ = posteriors(model.vae, batch, names)
    masked, garment, *pose = model.scaled(means)
    mask = F.interpolate(batch["agnostic_mask"].float(), size=masked.shape[-2:], mode="nearest")
    return Conditions(torch.cat([masked, mask, *pose], dim=1), garment, batch["category"])


@torch.no_grad()
def clean_latents(model: DiT, batch: Mapping[str, Any], generators: Sequence[torch.Generator]) -> Tensor:
    """Encode what is to be painted; each generator supplies the autoencoder's noise of its own sample."""
    (mean,), (std,) = posteriors(model.vae, batch, ("image",))
    return model.scaled(mean + std * keyed_normal(mean.shape[1:], generators, mean))


def dit_loss(
    model: DiT,
    objective: Objective,
    batch: Mapping[str, Any],
    generators: Sequence[torch.Generator],
    *,
    network: nn.Module | None = None,
    times: Tensor | None = None,
    garment_dropout: float = 0.0,
    category_dropout: float = 0.0,
    freq_loss_weight: float = 0.0,
    snr_gamma: float | None = None,
) -> Tensor:
    """Return the loss of each sample.

    Everything random about a sample comes from its own generator, in a fixed order, so the loss depends
    neither on who else is in the batch nor on which rank or worker brought it.

    Args:
        model: Network and autoencoder.
        objective: What to predict.
        batch: ``image``, ``cloth``, perhaps ``pose`` in [-1, 1] and ``agnostic_mask`` in {0, 1}, or their latents from
            ``common/latent_cache.py``; ``category``. On the model's device.
        generators: One CPU generator per sample.
        network: The wrapped network (DDP, compiled) to call instead of ``model.network``.
        times: Fixed times for validation; drawn when None.
        garment_dropout: Probability of hiding the garment, which is what guidance needs later.
        category_dropout: Probability of not telling the category, whether or not the garment is hidden.
        freq_loss_weight: How much `frequency_loss` counts besides.
        snr_gamma: Min-SNR weighting (arXiv 2303.09556) of DDPM when given; 5.0 is usual.
    """
    told = conditions_of(model, batch)
    clean = clean_latents(model, batch, generators)
    device = clean.device
    drawn = torch.cat([objective.draw_time(generator) for generator in generators]).to(device)
    # All numbers are drawn whether or not they are used: a flag must not shift those behind it.
    chances = torch.stack([torch.rand(2, generator=generator) for generator in generators]).to(device)
    noise = keyed_normal(clean.shape[1:], generators, clean)
    times = drawn if times is None else times
    told = told.hiding(chances[:, 0] < garment_dropout, chances[:, 1] < category_dropout)

    noisy = objective.add_noise(clean, noise, times)
    called = model.network if network is None else network  # a compiled one has no truth value
    predicted = called(noisy, told.person, told.garment, times, told.category)
    error = predicted.float() - objective.target(clean, noise)
    per_sample = error.square().flatten(1).mean(1)
    if freq_loss_weight:
        per_sample = per_sample + freq_loss_weight * frequency_loss(objective.noise_share(times) * error)
    return per_sample * objective.weight(times, snr_gamma)


def frequency_loss(gap: Tensor) -> Tensor:
    """Return, of each sample, the squared error of its spectrum, weighted by where the spectrum is most wrong.

    The focal frequency loss (arXiv 2012.12821) of latents. Without the weights it would be the plain squared error.

    Args:
        gap: Error of the picture that is in the noisy latents, ``float32[batch, channels, rows, columns]``.
    """
    with torch.autocast(gap.device.type, enabled=False):
        size = torch.fft.rfft2(gap, norm="ortho").abs()
        weight = size.detach() / size.detach().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12)
        return (weight * size.square()).flatten(1).mean(1)
