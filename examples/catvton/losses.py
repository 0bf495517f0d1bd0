"""What CatVTON is trained on: latents side by side, noise on both halves, one prediction error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from catvton.model import CatVTON
from common.latents import keyed_normal, posteriors
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

from curriculum_sampler.errors import ArgumentError

HEIGHT = -2  # person above, garment below: the axis of the published weights
LossRegion = Literal["full", "person", "masked"]


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
    """Encode a batch of pictures in [-1, 1], or take its cached latents; each generator supplies the VAE noise of its own
    sample."""
    means, deviations = posteriors(model.vae, batch, ("image", "masked", "cloth"))
    noise = keyed_normal((3, *means.shape[2:]), generators, means).transpose(0, 1)
    person, agnostic, garment = (means + deviations * noise) * model.vae.config.scaling_factor
    small = F.interpolate(batch["agnostic_mask"].float(), size=person.shape[-2:], mode="nearest")
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
    dream: float | None = None,
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
        dream: How strongly details are preserved by `rectified_noise` when given; 10.0 is usual.

    Raises:
        ArgumentError: The schedule is of a kind that CatVTON is not trained with.
    """
    kind = model.noise_scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise ArgumentError(
            f"The base's noise schedule has prediction_type {kind!r}; CatVTON is trained with epsilon or v_prediction."
            " Choose another base."
        )
    latents = encode(model, batch, generators)
    device, scheduler = latents.clean.device, model.noise_scheduler
    if timesteps is None:
        levels = scheduler.config.num_train_timesteps
        timesteps = torch.cat([torch.randint(levels, (1,), generator=g) for g in generators]).to(device)
    dropped = torch.cat([torch.rand(1, generator=g) < dropout for g in generators]).to(device)
    noise = keyed_normal(latents.clean.shape[1:], generators, latents.clean)

    condition = latents.without_garment(dropped)
    network = model.unet if unet is None else unet  # a compiled one has no truth value

    def predict(noisy: Tensor) -> Tensor:
        seen = torch.cat([noisy, latents.mask, condition], dim=1)  # only `noisy` is ever rectified
        predicted: Tensor = network(seen, timesteps, encoder_hidden_states=None, return_dict=False)[0]
        return predicted.float()

    if dream is not None:
        noise = rectified_noise(scheduler, predict, latents.clean, noise, timesteps, dream)
    predicted = predict(scheduler.add_noise(latents.clean, noise, timesteps))
    target = noise if kind == "epsilon" else scheduler.get_velocity(latents.clean, noise, timesteps)
    weight = region_weight(region, latents).expand_as(target)
    error = F.mse_loss(predicted, target.float(), reduction="none") * weight
    per_sample = error.flatten(1).sum(1) / weight.flatten(1).sum(1).clamp_min(1.0)
    if snr_gamma is not None:
        snr = compute_snr(scheduler, timesteps)
        divisor = snr if kind == "epsilon" else snr + 1
        per_sample = per_sample * snr.clamp_max(snr_gamma) / divisor
    return per_sample


@torch.no_grad()
def rectified_noise(
    scheduler: DDPMScheduler,
    predict: Callable[[Tensor], Tensor],
    clean: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    preservation: float,
) -> Tensor:
    """Return the noise moved away from what the network makes of it: DREAM (arXiv 2312.00210).

    A sampler meets its own errors, a training never does. So the network is asked once without gradient, and of its error
    ``noise - predicted`` the share ``sqrt(1 - alpha_bar) ** preservation`` is added to the noise: latents and target
    follow. The more preservation, the less is moved at low noise levels, where details are made.

    Args:
        scheduler: Noise schedule.
        predict: Noisy latents to what the schedule's ``prediction_type`` asks for.
        clean: Latents without noise.
        noise: Of the same shape.
        timesteps: One per sample.
        preservation: 0 moves all levels alike, 10 is what CatVTON was trained with.
    """
    kept = scheduler.alphas_cumprod.to(clean.device)[timesteps].view(-1, 1, 1, 1)
    noisy = scheduler.add_noise(clean, noise, timesteps)
    found = predict(noisy)
    if scheduler.config.prediction_type == "v_prediction":
        found = kept.sqrt() * found + (1 - kept).sqrt() * noisy  # the noise that this velocity speaks of
    return noise + (1 - kept).sqrt() ** preservation * (noise - found)
