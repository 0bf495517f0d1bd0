"""Dress a person: from noise along the sampler of the objective, guided towards the garment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from common.latents import keyed_normal
from dit.model import DiT
from dit.objectives import Objective, conditions_of
from torch import Tensor


@torch.no_grad()
def generate(
    model: DiT,
    objective: Objective,
    batch: Mapping[str, Any],
    generators: Sequence[torch.Generator],
    *,
    steps: int = 28,
    guidance: float = 2.0,
) -> Tensor:
    """Return pictures ``[batch, 3, height, width]`` in [-1, 1] of each person in the garment beside them.

    Args:
        model: Network and autoencoder.
        objective: The one that the network was trained on.
        batch: As for the loss; of ``image`` only what the mask leaves visible is used.
        generators: One per sample: the same ones give the same picture, whatever else is in the batch.
        steps: Denoising steps.
        guidance: How far to go beyond the prediction without garment; at 1 that one is not computed. Both know the
            category, so that what is stressed is this garment, not its kind.
    """
    told = conditions_of(model, batch)
    branches = [told]
    if guidance != 1:
        hidden = torch.ones(len(told.garment), dtype=torch.bool, device=told.garment.device)
        branches.append(told.hiding(hidden))
    person = torch.cat([branch.person for branch in branches])
    garment = torch.cat([branch.garment for branch in branches])
    category = torch.cat([branch.category for branch in branches])

    current = keyed_normal(told.garment.shape[1:], generators, told.garment)
    scheduler = objective.sampler(steps, current.device)
    for time in scheduler.timesteps:
        noisy = current.repeat(len(branches), 1, 1, 1)
        predicted = model.network(noisy, person, garment, time.expand(len(noisy)), category).float()
        if guidance != 1:
            with_garment, without = predicted.chunk(2)
            predicted = without + guidance * (with_garment - without)
        current = scheduler.step(predicted, time, current).prev_sample
    return model.pictures(current)
