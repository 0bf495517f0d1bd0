"""What CatVTON is trained on: latents side by side, noise on both halves, one prediction error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from catvton.model import CatVTON
from diffusers.training_utils import compute_snr
from torch import Tensor

from curriculum_sampler.errors import ArgumentError

HEIGHT = -2  # person above, garment below: the axis of the published weights
LossRegion = Literal["full", "person", "masked"]


def keyed_normal(shape: Sequence[int], generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """One standard normal tensor per generator, stacked; drawn on the CPU, so a GPU run uses the same noise."""
    drawn = torch.stack([torch.randn(*shape, generator=generator) for generator in generators])
    return drawn.to(like.device, like.dtype)


@dataclass
class Latents:
    """A batch as the UNet sees it, person half above garment half.

    Attributes:
        clean: Latents of person and garment, what denoising should arrive at.
        condition: Latents of masked person and garment, given to the network as they are.
        mask: 1 where the person is to be repainted; 0 on the whole garment half.
    """

    clean: Tensor
    condition: Tensor
    mask: Tensor

    def without_garment(self, dropped: Tensor) -> Tensor:
        """The condition with its garment half zeroed where ``dropped`` is true: the unconditional branch of guidance.

        Only here. Zeroing the garment half of the *noisy* latent as well darkens results as guidance grows.
        """
        person, garment = self.condition.chunk(2, dim=HEIGHT)
        return torch.cat([person, garment * ~dropped.view(-1, 1, 1, 1)], dim=HEIGHT)


@torch.no_grad()
def encode(model: CatVTON, batch: Mapping[str, Any], generators: Sequence[torch.Generator]) -> Latents:
    """Encode a batch of pictures in [-1, 1]; each generator supplies the VAE noise of its own sample."""
    image, cloth, mask = batch["image"], batch["cloth"], batch["agnostic_mask"]
    masked = image * (mask < 0.5)
    pictures = torch.cat([image, masked, cloth]).to(dtype=model.vae.dtype)
    posterior = model.vae.encode(pictures).latent_dist
    noise = (
        keyed_normal((3, *posterior.mean.shape[1:]), generators, posterior.mean).transpose(0, 1).flatten(0, 1)
    )
    sampled = (posterior.mean + posterior.std * noise) * model.vae.config.scaling_factor
    person, agnostic, garment = sampled.float().chunk(3)
    small = F.interpolate(mask.float(), size=person.shape[-2:], mode="nearest")
    return Latents(
        clean=torch.cat([person, garment], dim=HEIGHT),
        condition=torch.cat([agnostic, garment], dim=HEIGHT),
        mask=torch.cat([small, torch.zeros_like(small)], dim=HEIGHT),
    )


def region_weight(region: LossRegion, latents: Latents) -> Tensor:
    """Where the error counts: the whole concatenated latent, the person half, or the part to repaint."""
    if region == "full":
        return torch.ones_like(latents.mask)
    if region == "masked":
        return latents.mask
    person, garment = latents.mask.chunk(2, dim=HEIGHT)
    return torch.cat([torch.ones_like(person), torch.zeros_like(garment)], dim=HEIGHT)


def catvton_loss(
    model: CatVTON,
    batch: Mapping[str, Any],
    generators: Sequence[torch.Generator],
    *,
    unet: torch.nn.Module | None = None,
    timesteps: Tensor | None = None,
    dropout: float = 0.0,
    region: LossRegion = "full",
    snr_gamma: float | None = None,
) -> Tensor:
    """Return the loss of each sample.

    Everything random about a sample comes from its own generator, in a fixed order, so the loss depends
    neither on who else is in the batch nor on which rank or worker brought it.

    Args:
        model: Network, autoencoder, noise schedule.
        batch: ``image``, ``cloth`` in [-1, 1] and ``agnostic_mask`` in {0, 1}, on the model's device.
        generators: One CPU generator per sample.
        unet: The wrapped network (DDP, compiled) to call instead of ``model.unet``.
        timesteps: Fixed noise levels for validation; drawn uniformly when None.
        dropout: Probability of hiding the garment from a sample, which is what guidance needs later.
        region: See `region_weight`.
        snr_gamma: Min-SNR weighting (arXiv 2303.09556) when given; 5.0 is usual.
    """
    latents = encode(model, batch, generators)
    device, scheduler = latents.clean.device, model.noise_scheduler
    if timesteps is None:
        levels = scheduler.config.num_train_timesteps
        timesteps = torch.cat([torch.randint(levels, (1,), generator=g) for g in generators]).to(device)
    dropped = torch.cat([torch.rand(1, generator=g) < dropout for g in generators]).to(device)
    noise = keyed_normal(latents.clean.shape[1:], generators, latents.clean)

    noisy = scheduler.add_noise(latents.clean, noise, timesteps)
    network_input = torch.cat([noisy, latents.mask, latents.without_garment(dropped)], dim=1)
    predicted = (unet or model.unet)(network_input, timesteps, encoder_hidden_states=None, return_dict=False)[
        0
    ]

    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        target = noise
    elif kind == "v_prediction":
        target = scheduler.get_velocity(latents.clean, noise, timesteps)
    else:
        raise ArgumentError(
            f"The base's noise schedule has prediction_type {kind!r}; CatVTON is trained with epsilon or v_prediction."
            " Choose another base."
        )
    weight = region_weight(region, latents).expand_as(target)
    error = F.mse_loss(predicted.float(), target.float(), reduction="none") * weight
    per_sample = error.flatten(1).sum(1) / weight.flatten(1).sum(1).clamp_min(1.0)
    if snr_gamma is not None:
        snr = compute_snr(scheduler, timesteps)
        divisor = snr if kind == "epsilon" else snr + 1
        per_sample = per_sample * snr.clamp_max(snr_gamma) / divisor
    return per_sample
