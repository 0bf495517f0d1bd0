"""CatVTON as diffusers parts: an inpainting UNet that sees person and garment side by side in one latent.

There is no text encoder, no garment encoder and no pose: the garment is a second half of the picture, below
the person, and self-attention alone carries it over. So of the whole network only the ``attn1`` modules are
trained (Chong et al., CatVTON, arXiv 2407.15886).
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from common.tiny_vae import new_tiny_vae
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from curriculum_sampler.errors import ArgumentError

UNET_CHANNELS = 9  # 4 noisy latent + 1 mask + 4 condition latent

TINY_UNET: dict[str, Any] = {
    "in_channels": UNET_CHANNELS,
    "out_channels": 4,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 4,
    "cross_attention_dim": 8,
    "norm_num_groups": 8,
}
# A short run learns colours only if the steps near pure noise must name them: hence v-prediction on a
# schedule that ends in pure noise. `full` keeps whatever schedule its base was trained with.
TINY_SCHEDULER: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}


class SkippedCrossAttention(nn.Module):
    """Stands where cross-attention was and returns its input.

    That is no no-op: the transformer block adds what comes back, so it computes ``h + LayerNorm(h)``. The
    published CatVTON weights were trained with exactly this, and are another network without it.
    """

    def forward(self, hidden_states: Tensor, **_: Any) -> Tensor:
        return hidden_states


def skip_cross_attention(unet: nn.Module, *, compatible: bool = True) -> None:
    """Take cross-attention (44 M parameters in SD 1.5) out of every transformer block.

    Args:
        unet: Changed in place.
        compatible: True computes ``h + LayerNorm(h)`` like the published weights, False leaves ``h`` as it is.
    """
    for module in unet.modules():
        if getattr(module, "attn2", None) is not None:
            module.attn2 = SkippedCrossAttention() if compatible else None
            if not compatible:
                module.norm2 = (
                    None  # the block skips it then; left in, its weights would never get a gradient
                )


def widen_conv_in(unet: UNet2DConditionModel, channels: int = UNET_CHANNELS) -> None:
    """Let a text-to-image UNet take mask and condition: new input channels start at zero, so at first they change nothing.

    Raises:
        ArgumentError: If the UNet takes neither 4 nor ``channels`` input channels.
    """
    old = unet.conv_in
    if old.in_channels == channels:
        return
    if old.in_channels != 4:
        raise ArgumentError(
            f"The base UNet takes {old.in_channels} input channels; CatVTON starts from {channels} (inpainting) or 4."
            " Choose another --pretrained_model_name_or_path."
        )
    wide = nn.Conv2d(channels, old.out_channels, old.kernel_size, padding=old.padding)
    with torch.no_grad():
        wide.weight.zero_()
        wide.weight[:, :4] = old.weight
        wide.bias.copy_(old.bias)
    unet.conv_in = wide
    unet.register_to_config(in_channels=channels)


def choose_trainable(unet: nn.Module, *, train_all: bool) -> None:
    """Freeze everything but self-attention; with ``train_all`` freeze nothing."""
    unet.requires_grad_(train_all)
    for name, module in unet.named_modules():
        if name.endswith("attn1"):
            module.requires_grad_(True)


@dataclass
class CatVTON:
    """The network, the frozen autoencoder and the noise schedule of one run.

    Attributes:
        base: What the weights started from, as the user named it; kept in checkpoints.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    noise_scheduler: DDPMScheduler
    base: str

    @property
    def vae_factor(self) -> int:
        """Pixels per latent pixel along one axis: 8 for Stable Diffusion, 2 for a VAE of two levels."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def sampler(self) -> DDIMScheduler:
        """A fresh DDIM sampler on the training noise schedule."""
        return DDIMScheduler.from_config(self.noise_scheduler.config, clip_sample=False)

    def trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters that training may change, in a fixed order."""
        return ((name, p) for name, p in self.unet.named_parameters() if p.requires_grad)

    def move(self, device: torch.device, half: torch.dtype) -> None:
        """Move to a device and get ready to train: frozen weights in ``half``, trained ones in float32.

        An update is too small for a half-precision weight to notice.
        """
        for part in (self.unet, self.vae):
            for parameter in part.parameters():
                parameter.data = parameter.data.to(device, torch.float32 if parameter.requires_grad else half)
            nn.Module.to(part, device)  # buffers; diffusers' own `to` is about dtypes
        self.unet.train()

    def frozen_digest(self) -> str:
        """Identify the frozen weights of UNet and VAE by shapes and a few values of each tensor.

        Rounded to bfloat16 first, so that the same base loaded in another precision is the same base.
        """
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.unet, self.vae):
            for name, parameter in part.named_parameters():
                if not parameter.requires_grad:
                    flat = parameter.detach().flatten()
                    some = flat[:: max(1, len(flat) // 64)].to("cpu", torch.bfloat16).float()
                    digest.update(f"{name}{tuple(parameter.shape)}".encode() + some.numpy().tobytes())
        return digest.hexdigest()


def build_catvton(
    preset: Literal["full", "tiny"],
    *,
    base: str | None = None,
    vae: str | None = None,
    train_all: bool = False,
    compatible: bool = True,
    seed: int = 0,
) -> CatVTON:
    """Make the model: ``full`` from a pretrained pipeline folder or hub id, ``tiny`` from a few numbers.

    Args:
        preset: ``full`` loads UNet, VAE and noise schedule from the subfolders of ``base``. ``tiny`` needs no
            base: a network of some hundred thousand parameters for a CPU.
        base: Pipeline in the Stable Diffusion layout (``unet/``, ``vae/``, ``scheduler/``).
        vae: Another autoencoder: ``sd-vae-ft-mse`` for ``full``; for ``tiny`` the one that ``common/tiny_vae.py``
            trained. Without it ``tiny`` has a random VAE, which tests the code and shows nothing.
        train_all: Train every weight; a random ``tiny`` network can learn nothing through attention alone.
        compatible: See `skip_cross_attention`.
        seed: Seeds the random weights of ``tiny``.

    Raises:
        ArgumentError: If ``full`` has no base.
    """
    if preset == "tiny" and base is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = UNet2DConditionModel(**TINY_UNET)
            autoencoder = AutoencoderKL.from_pretrained(vae) if vae else new_tiny_vae()
        noise_scheduler = DDPMScheduler(**TINY_SCHEDULER)
    else:
        if base is None:
            raise ArgumentError(
                "--model_preset full needs a pretrained base and got none."
                " Pass --pretrained_model_name_or_path (a Stable Diffusion 1.5 inpainting pipeline), or"
                " --model_preset tiny to try the trainer on a CPU."
            )
        unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet")
        autoencoder = (
            AutoencoderKL.from_pretrained(vae)
            if vae
            else AutoencoderKL.from_pretrained(base, subfolder="vae")
        )
        noise_scheduler = DDPMScheduler.from_pretrained(base, subfolder="scheduler")
    widen_conv_in(unet)
    skip_cross_attention(unet, compatible=compatible)
    choose_trainable(unet, train_all=train_all)
    autoencoder.requires_grad_(False).eval()
    return CatVTON(unet, autoencoder, noise_scheduler, base or preset)


def build_by_flags(args: argparse.Namespace) -> CatVTON:
    """Make the model that the trainer's flags name; see `build_catvton`."""
    return build_catvton(
        args.model_preset,
        base=args.pretrained_model_name_or_path,
        vae=args.pretrained_vae_name_or_path,
        train_all=args.train_all,
        compatible=args.cross_attention == "compatible",
        seed=args.seed,
    )
