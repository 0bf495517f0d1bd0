"""Train a small autoencoder on the try-on pictures, for trainers that must run on a CPU without downloads.

    python tiny_vae.py --s3_prefixes s3://my-bucket/vton/v1 --output_dir checkpoints_tiny_vae

Saved in the diffusers layout, so that whoever needs it loads it by ``AutoencoderKL.from_pretrained``. Some hundred
steps are enough, because it begins as a working one: the first weights carry the colours of a coarser picture through
unchanged, and training adds the detail. From random weights the same steps leave grey ghosts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from common.vton_data import get_vton_dataset
from diffusers import AutoencoderKL
from torch import Tensor, nn

import curriculum_sampler as cs

CHANNELS = (16, 32, 32)  # three levels: a latent pixel is 4 x 4 picture pixels
LATENT_CHANNELS = 4
_STEADY = 2.0


def new_tiny_vae(channels: Sequence[int] = CHANNELS) -> AutoencoderKL:
    """Return an untrained autoencoder that already carries colours; see `_carry_colours`."""
    vae = AutoencoderKL(
        block_out_channels=tuple(channels),
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        layers_per_block=1,
        norm_num_groups=1,
        latent_channels=LATENT_CHANNELS,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )
    _carry_colours(vae)
    return vae


@torch.no_grad()
def _carry_colours(vae: AutoencoderKL) -> None:
    """Set first weights with which red, green and blue pass through the whole network.

    Convolutions copy their input channels; residual branches start at zero. Group normalisation would still
    divide each picture by its own contrast, and so lose what colour it was: constant channels, far larger than
    the colours, make it divide all pictures by the same number. The posterior gets a small fixed width, for there
    is no time to learn one.
    """
    for name, module in vae.named_modules():
        last = name.rpartition(".")[2]
        if not isinstance(module, nn.Conv2d) or last == "conv1":
            continue
        nn.init.zeros_(module.bias)
        if last == "conv2":
            nn.init.zeros_(module.weight)
        else:
            nn.init.dirac_(module.weight)
    for part in (vae.encoder, vae.decoder):
        half = len(part.conv_in.bias) // 2
        part.conv_in.bias[:half] = _STEADY
        part.conv_in.bias[half:] = -_STEADY
    vae.quant_conv.weight[LATENT_CHANNELS:] = 0.0
    vae.quant_conv.bias[LATENT_CHANNELS:] = -8.0


@torch.no_grad()
def fit_last_layer(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Solve for the last convolution, pixel by pixel, by least squares: colours come out as they went in."""
    held: list[Tensor] = []
    hook = vae.decoder.conv_out.register_forward_pre_hook(lambda _, inputs: held.append(inputs[0]))
    vae.decode(vae.encode(pictures).latent_dist.mode())
    hook.remove()
    features = F.pad(held[0].permute(0, 2, 3, 1).flatten(0, 2), (0, 1), value=1.0)
    colours = pictures.permute(0, 2, 3, 1).flatten(0, 2)
    gram = features.T @ features / len(features) + 1e-4 * torch.eye(features.shape[1])
    solved = torch.linalg.solve(gram, features.T @ colours / len(features))
    nn.init.zeros_(vae.decoder.conv_out.weight)
    vae.decoder.conv_out.weight[:, :, 1, 1] = solved[:-1].T
    vae.decoder.conv_out.bias.copy_(solved[-1])


@torch.no_grad()
def whiten_latents(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Fold mean and spread of each latent channel into the two 1 x 1 convolutions around it.

    Decoded pictures stay the same; diffusion finds latents of mean 0 and deviation 1, as it expects.
    """
    latents = vae.encode(pictures).latent_dist.mode()
    mean, spread = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    into, out_of = vae.quant_conv, vae.post_quant_conv
    into.weight[:LATENT_CHANNELS] /= spread.view(-1, 1, 1, 1)
    into.bias[:LATENT_CHANNELS] = (into.bias[:LATENT_CHANNELS] - mean) / spread
    out_of.bias += out_of.weight[:, :, 0, 0] @ mean
    out_of.weight *= spread.view(1, -1, 1, 1)


def train_tiny_vae(
    dataset: cs.CurriculumDataset,
    *,
    steps: int = 600,
    batch_size: int = 4,
    learning_rate: float = 5e-4,
    seed: int = 42,
) -> tuple[AutoencoderKL, float]:
    """Train on persons and garments of all buckets alike.

    Args:
        dataset: Samples with ``image`` and ``cloth`` in [-1, 1].
        steps: Optimiser steps.
        batch_size: Samples of a step; each gives two pictures.
        learning_rate: Highest rate of the one cycle. Much higher ones destroy the first weights.
        seed: Decides weights and order.

    Returns:
        The autoencoder, and the mean absolute error of the last tenth of the steps.
    """
    mixture = {bucket: 1 for bucket, size in dataset.manifest.bucket_sizes.items() if size}
    schedule = cs.StageSchedule([cs.Stage("pictures", mixture, steps=steps)])
    loader = cs.CurriculumLoader(dataset, schedule, batch_size=batch_size, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = new_tiny_vae()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    errors: list[float] = []
    recent: deque[Tensor] = deque(maxlen=16)
    started = time.monotonic()
    for batch in loader:
        pictures = torch.cat([batch["image"], batch["cloth"]])
        if loader.step == 0:
            fit_last_layer(vae, pictures)
        latents = vae.encode(pictures).latent_dist.mode()
        error = F.l1_loss(vae.decode(latents).sample, pictures)
        optimizer.zero_grad(set_to_none=True)
        (error + 1e-4 * latents.square().mean()).backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        rates.step()
        errors.append(error.item())
        recent.append(pictures)
        if loader.steps_done % 50 == 0:
            error_now, seconds = sum(errors[-50:]) / 50, time.monotonic() - started
            print(f"step {loader.steps_done}/{steps}  error {error_now:.4f}  {seconds:.0f} s", flush=True)
    whiten_latents(vae, torch.cat(list(recent)))
    tail = errors[-max(1, steps // 10) :]
    return vae.eval(), sum(tail) / len(tail)


def save_whole(vae: AutoencoderKL, folder: Path) -> None:
    """Save so that the folder is complete or absent."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    vae.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Train and save, unless the folder holds one already."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--s3_prefixes", nargs="+", default=[], help="s3:// or local places with bucketed shards"
    )
    parser.add_argument("--data_root", help="one more place")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args(argv)
    if (args.output_dir / "config.json").exists():
        print(f"{args.output_dir} holds a trained VAE already. Remove the folder to train another.")
        return
    torch.set_num_threads(1)  # two make a network this small slower
    dataset = get_vton_dataset(
        s3_prefixes=args.s3_prefixes, data_root=args.data_root, height=args.height, width=args.width
    )
    vae, error = train_tiny_vae(dataset, steps=args.steps, seed=args.seed)
    save_whole(vae, args.output_dir)
    print(f"Saved {args.output_dir}: pictures come back within {error:.3f} on a scale of 2.")


if __name__ == "__main__":
    main()
