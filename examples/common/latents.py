"""From pictures to latents: encoded now, or read from a cache; a batch of either kind will do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from curriculum_sampler.errors import ArgumentError


def pictures_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The pictures of a sample or a batch that a model may want encoded: person, masked person, garment, pose if any."""
    found = {
        "image": batch["image"],
        "masked": batch["image"] * (batch["agnostic_mask"] < 0.5),
        "cloth": batch["cloth"],
    }
    return found | ({"pose": batch["pose"]} if "pose" in batch else {})


@torch.no_grad()
def posteriors(vae: AutoencoderKL, batch: Mapping[str, Any], names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of the latents, each ``float32[len(names), batch, channels, rows, columns]``, unscaled.

    Args:
        vae: Encodes pictures; not asked where the batch comes from a cache.
        batch: Of ``get_vton_dataset``, or of ``cached_latents``.
        names: Of `pictures_of`.

    Raises:
        ArgumentError: The data has no such picture.
    """
    cached = {
        name.removesuffix("_latents"): held for name, held in batch.items() if name.endswith("_latents")
    }
    held = cached or pictures_of(batch)
    missing = [name for name in names if name not in held]
    if missing:
        raise ArgumentError(
            f"The data has no {missing[0]!r} pictures, only {', '.join(sorted(held))}. Leave out the flag that needs them, or use"
            " shards that have them."
        )
    if cached:
        stacked = torch.stack([held[name] for name in names]).float()
        return stacked[:, :, 0], stacked[:, :, 1]
    posterior = vae.encode(torch.cat([held[name] for name in names]).to(vae.dtype)).latent_dist
    shape = (len(names), -1)
    return posterior.mean.float().unflatten(0, shape), posterior.std.float().unflatten(0, shape)


def keyed_normal(shape: Sequence[int], generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """One standard normal tensor per generator, stacked; drawn on the CPU, so a GPU run uses the same noise."""
    drawn = torch.stack([torch.randn(*shape, generator=generator) for generator in generators])
    return drawn.to(like.device, like.dtype)


def vae_digest(vae: AutoencoderKL) -> str:
    """Identify an autoencoder by its weights, in whatever precision they are.

    Rounded to bfloat16 first, so that the same weights loaded in another precision are the same.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in vae.named_parameters():
        rounded = parameter.detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(
            f"{name}{tuple(parameter.shape)}".encode() + rounded.view(torch.int16).numpy().tobytes()
        )
    return digest.hexdigest()
