"""TryOnDiT: a diffusion transformer that has the garment in its context.

Person and garment are cut into patches, and one self-attention runs over both: attention is what lays the garment
onto the body. What comes out, and what is trained on, are the person's tokens alone. The blocks are those of DiT
(Peebles and Xie, arXiv 2212.09748), of any rectangle instead of a square.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from common.factors import CATEGORIES
from common.latents import vae_digest
from common.tiny_vae import new_tiny_vae
from diffusers import AutoencoderKL
from dit.positions import sincos_positions
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from curriculum_sampler.errors import ArgumentError

NO_CATEGORY = len(CATEGORIES)  # one more than there are: the category is not told
TIME_SCALE = 1000.0  # pure noise; 0 is the picture
_TIME_FEATURES = 256

Size = Literal["tiny", "s_2", "b_2", "l_2", "xl_2"]
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"width": 64, "depth": 2, "heads": 4, "patch": 2},
    "s_2": {"width": 384, "depth": 12, "heads": 6, "patch": 2},
    "b_2": {"width": 768, "depth": 12, "heads": 12, "patch": 2},
    "l_2": {"width": 1024, "depth": 24, "heads": 16, "patch": 2},
    "xl_2": {"width": 1152, "depth": 28, "heads": 16, "patch": 2},
}


class Block(nn.Module):
    """Attention and a small network, each scaled and shifted by the condition, and through a gate that starts shut."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = _plain_norm(width), _plain_norm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.query_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.key_norm = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        told = self.modulation(F.silu(condition)).unsqueeze(1).chunk(6, dim=-1)
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = told
        mixed: Tensor = tokens + gate * self.attention(_modulated(self.norm1(tokens), shift, scale))
        return mixed + mlp_gate * self.mlp(_modulated(self.norm2(mixed), mlp_shift, mlp_scale))

    def attention(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # A norm gives float32 even under autocast; attention wants all three alike.
        query, key = self.query_norm(query).to(value.dtype), self.key_norm(key).to(value.dtype)
        mixed = F.scaled_dot_product_attention(query, key, value)
        attended: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return attended


class TryOnDiT(nn.Module):
    """The network: from noisy latents, what is known of the person, and the garment, to a prediction about the noise.

    A new network predicts 0, and none of its blocks does anything yet.

    Args:
        width: Of a token; a multiple of 4 and of ``heads``.
        depth: Blocks.
        heads: Of attention.
        patch: Latent pixels along each side of a token.
        latent_channels: The autoencoder's.
        use_pose: Whether the person comes with latents of a pose picture.
        qk_norm: Normalise queries and keys, which keeps long runs in half precision steady.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        patch: int,
        latent_channels: int = 4,
        use_pose: bool = False,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "width": width,
            "depth": depth,
            "heads": heads,
            "patch": patch,
            "latent_channels": latent_channels,
            "use_pose": use_pose,
            "qk_norm": qk_norm,
        }
        self.width, self.patch, self.latent_channels, self.use_pose = width, patch, latent_channels, use_pose
        # noisy latents, masked person, mask, and pose if any; a garment lies where the noisy latents do
        channels = latent_channels * (3 if use_pose else 2) + 1
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.garment_segment = nn.Parameter(torch.zeros(width))
        self.time_mlp = nn.Sequential(nn.Linear(_TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        self.category = nn.Embedding(NO_CATEGORY + 1, width)
        self.blocks = nn.ModuleList(Block(width, heads, qk_norm) for _ in range(depth))
        self.last_norm = _plain_norm(width)
        self.last_modulation = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, patch * patch * latent_channels)
        self.checkpoints_gradients = False
        self._initialise()

    def forward(
        self, noisy: Tensor, person: Tensor, garment: Tensor, time: Tensor, category: Tensor
    ) -> Tensor:
        """Return the prediction, of the shape of ``noisy``.

        Args:
            noisy: ``[batch, latent_channels, rows, columns]``.
            person: Latents of the masked person, the mask, and latents of the pose with ``use_pose``.
            garment: Latents of the garment; zeros where none is told.
            time: ``[batch]``, from 0 (the picture) to 1000 (pure noise).
            category: ``int[batch]``: a position in ``CATEGORIES``, or ``NO_CATEGORY``.

        Raises:
            ArgumentError: Rows or columns that patches do not fill.
        """
        rows, columns = (side // self.patch for side in noisy.shape[-2:])
        if noisy.shape[-2:] != (rows * self.patch, columns * self.patch):
            raise ArgumentError(
                f"Latents of {noisy.shape[-2]} x {noisy.shape[-1]} cannot be cut into patches of {self.patch}."
                " Choose --height and --width that are multiples of the autoencoder's factor times the patch."
            )
        person_tokens = self._tokens(torch.cat([noisy, person], dim=1), first_column=0)
        padding = (0, 0, 0, 0, 0, person.shape[1])
        # Beside the person in position: rows match, and no two tokens share a place.
        garment_tokens = self._tokens(F.pad(garment, padding), first_column=columns) + self.garment_segment
        tokens = torch.cat([person_tokens, garment_tokens], dim=1)
        condition = self.time_mlp(_time_features(time)) + self.category(category)
        for block in self.blocks:
            if self.checkpoints_gradients and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, condition, use_reentrant=False)
            else:
                tokens = block(tokens, condition)
        shift, scale = self.last_modulation(F.silu(condition)).unsqueeze(1).chunk(2, dim=-1)
        painted = tokens[:, : rows * columns]
        pixels: Tensor = self.last(_modulated(self.last_norm(painted), shift, scale))
        cells = pixels.view(len(noisy), rows, columns, self.patch, self.patch, -1)
        return cells.permute(0, 5, 1, 3, 2, 4).reshape(noisy.shape)

    def enable_gradient_checkpointing(self) -> None:
        """Keep only what enters each block, and compute the rest again for the gradient."""
        self.checkpoints_gradients = True

    def _tokens(self, latents: Tensor, *, first_column: int) -> Tensor:
        patches: Tensor = self.patches(latents)
        rows, columns = patches.shape[-2:]
        positions = sincos_positions(
            rows, columns, self.width, first_column=first_column, device=latents.device
        )
        return patches.flatten(2).transpose(1, 2) + positions

    def _initialise(self) -> None:
        """DiT's first weights: every gate and the last layer at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patches.weight.view(self.width, -1))
        nn.init.zeros_(self.patches.bias)
        nn.init.normal_(self.category.weight, std=0.02)
        for layer in self.time_mlp:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
        gates = [module.modulation for module in self.modules() if isinstance(module, Block)]
        for shut in (*gates, self.last_modulation, self.last):
            nn.init.zeros_(shut.weight)


def _plain_norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def _modulated(tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return tokens * (1 + scale) + shift


def _time_features(time: Tensor) -> Tensor:
    half = _TIME_FEATURES // 2
    frequencies = 10_000 ** -(torch.arange(half, device=time.device) / half)
    angles = time.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


@dataclass
class DiT:
    """The network and the frozen autoencoder of one run.

    Attributes:
        base: What the frozen weights come from, as the user named it; kept in checkpoints.
    """

    network: TryOnDiT
    vae: AutoencoderKL
    base: str

    @property
    def pixel_multiple(self) -> int:
        """What height and width of a picture must be multiples of: a token's side in pixels."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1) * self.network.patch)

    def scaled(self, latents: Tensor) -> Tensor:
        """Latents as the autoencoder gives them, brought to about unit size for the network."""
        unit: Tensor = (latents - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor
        return unit

    def pictures(self, scaled: Tensor) -> Tensor:
        """Pictures in [-1, 1] of scaled latents."""
        latents = scaled / self.vae.config.scaling_factor + (self.vae.config.shift_factor or 0.0)
        decoded: Tensor = self.vae.decode(latents.to(self.vae.dtype)).sample.float()
        return decoded.clamp(-1, 1)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters that training may change, in a fixed order: all of the network's."""
        return self.network.named_parameters()

    def move(self, device: torch.device, half: torch.dtype) -> None:
        """Move to a device and get ready to train: the frozen autoencoder in ``half``, the network in float32."""
        self.network.to(device).train()
        nn.Module.to(self.vae, device, half)

    def frozen_digest(self) -> str:
        """Identify the frozen weights, in whatever precision they were loaded."""
        return vae_digest(self.vae)


def build_dit(
    size: Size,
    *,
    vae: str | None = None,
    base: str | None = None,
    use_pose: bool = False,
    qk_norm: bool = False,
    seed: int = 0,
) -> DiT:
    """Make a new network and load its autoencoder.

    Args:
        size: One of ``SIZES``.
        vae: Folder or hub id of an autoencoder: ``sd-vae-ft-mse``, or for ``tiny`` the one that ``common/tiny_vae.py``
            trained. Without it ``tiny`` has a random one, which tests the code and shows nothing.
        base: Pipeline folder or hub id whose ``vae/`` is taken where ``vae`` is not given.
        use_pose: See `TryOnDiT`.
        qk_norm: See `TryOnDiT`.
        seed: Seeds the first weights.

    Raises:
        ArgumentError: If another size than ``tiny`` has no autoencoder.
    """
    if size != "tiny" and vae is None and base is None:
        raise ArgumentError(
            f"--model_size {size} needs a trained autoencoder and got none. Pass --pretrained_vae_name_or_path"
            " (stabilityai/sd-vae-ft-mse, say), or --model_preset tiny to try the trainer on a CPU."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if vae is not None:
            autoencoder = AutoencoderKL.from_pretrained(vae)
        elif base is not None:
            autoencoder = AutoencoderKL.from_pretrained(base, subfolder="vae")
        else:
            autoencoder = new_tiny_vae()
        network = TryOnDiT(
            **SIZES[size],
            latent_channels=autoencoder.config.latent_channels,
            use_pose=use_pose,
            qk_norm=qk_norm,
        )
    autoencoder.requires_grad_(False).eval()
    return DiT(network, autoencoder, vae or base or "tiny")


def build_by_flags(args: argparse.Namespace) -> DiT:
    """Make the model that the trainer's flags name; see `build_dit`."""
    return build_dit(
        args.model_size,
        vae=args.pretrained_vae_name_or_path,
        base=args.pretrained_model_name_or_path,
        use_pose=args.use_pose,
        qk_norm=args.qk_norm,
        seed=args.seed,
    )
