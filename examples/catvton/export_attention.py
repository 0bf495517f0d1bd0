"""Write what a CatVTON run has trained as safetensors, for others' code: self-attention in the published layout.

    python export_attention.py checkpoints_catvton_curriculum --output exported/mix-48k-1024/attention

The averaged weights, unless told otherwise. Neither base nor autoencoder is needed. ``--layout plain`` names tensors as
diffusers' UNet does, and holds all that was trained.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from catvton.attention_weights import FILE, save_attention, save_tensors
from common.trained import Weights, saved_at
from diffusers import UNet2DConditionModel
from torch import Tensor

import curriculum_sampler as cs


def trained_weights(saved: Mapping[str, Any], weights: Weights) -> dict[str, Tensor]:
    """Return a CatVTON checkpoint's weights by the UNet's names.

    Raises:
        ArgumentError: Averages are asked for where there are none.
    """
    if weights == "trained":
        return dict(saved["model"])
    if saved["ema"] is None:
        raise cs.ArgumentError(
            "The checkpoint has no averaged weights: it was trained with --no_ema. Pass --weights trained."
        )
    return dict(zip(saved["model"], saved["ema"]["shadow_params"], strict=True))


def main(argv: Sequence[str] | None = None) -> None:
    """Write one file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a .pt file, or the folder of a run")
    parser.add_argument(
        "--output", type=Path, required=True, help=f"a .safetensors file, or a folder for {FILE}"
    )
    parser.add_argument("--weights", choices=["ema", "trained"], default="ema")
    parser.add_argument("--layout", choices=["attention", "plain"], default="attention")
    args = parser.parse_args(argv)
    saved = saved_at(args.checkpoint)
    if saved["trainer"] != "catvton":
        raise cs.ArgumentError(
            f"{args.checkpoint} is a checkpoint of {saved['trainer']}, whose weights have no published layout."
            " Give one of a CatVTON run."
        )
    weights = trained_weights(saved, args.weights)
    path = args.output if args.output.suffix == ".safetensors" else args.output / FILE
    if args.layout == "plain":
        save_tensors(path, weights)
    else:
        network: Any = UNet2DConditionModel
        with torch.device("meta"):  # only the names of its modules are wanted
            unet = network.from_config(saved["model_config"]["unet"])
        save_attention(path, unet, weights)
    count = sum(tensor.numel() for tensor in weights.values())
    print(
        f"{path}: {count:,} weights of step {saved['global_step']:,}, {args.weights}, layout {args.layout}."
    )


if __name__ == "__main__":
    try:
        main()
    except cs.CurriculumError as error:
        sys.exit(f"error: {error}")
