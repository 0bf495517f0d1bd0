"""Dress a person: DDIM with guidance, starting from noise on both halves of the latent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from catvton.losses import HEIGHT, encode
from catvton.model import CatVTON
from common.latents import keyed_normal
from torch import Tensor


@torch.no_grad()
def generate(
    model: CatVTON,
    batch: Mapping[str, Any],
    generators: Sequence[torch.Generator],
    *,
    steps: int,
    guidance: float = 2.5,
    eta: float = 1.0,
) -> Tensor:
    """Return pictures ``[batch, 3, height, width]`` in [-1, 1] of each person in the garment beside them.

    Args:
        model: Network, autoencoder, noise schedule.
        batch: As for the loss; of ``image`` only what the mask leaves visible is used.
        generators: One per sample: the same ones give the same picture, whatever else is in the batch.
        steps: Denoising steps.
        guidance: How far to go beyond the unconditional prediction; at 1 it is not computed.
        eta: Noise added on the way: 1 like the published sampler, 0 is deterministic.
    """
    latents = encode(model, batch, generators)
    scheduler = model.sampler()
    scheduler.set_timesteps(steps, device=latents.clean.device)
    shape = latents.clean.shape[1:]
    current = keyed_normal(shape, generators, latents.clean)
    dropped = torch.ones(len(current), dtype=torch.bool, device=current.device)
    conditions = (
        [latents.condition] if guidance == 1 else [latents.without_garment(dropped), latents.condition]
    )
    for timestep in scheduler.timesteps:
        inputs = torch.cat([torch.cat([current, latents.mask, condition], dim=1) for condition in conditions])
        predicted = model.unet(inputs, timestep, encoder_hidden_states=None, return_dict=False)[0].float()
        if guidance != 1:
            without, with_garment = predicted.chunk(2)
            predicted = without + guidance * (with_garment - without)
        noise = keyed_normal(shape, generators, current) if eta > 0 else None
        current = scheduler.step(predicted, timestep, current, eta=eta, variance_noise=noise).prev_sample
    person = current.chunk(2, dim=HEIGHT)[0] / model.vae.config.scaling_factor
    return model.vae.decode(person.to(model.vae.dtype)).sample.float().clamp(-1, 1)
