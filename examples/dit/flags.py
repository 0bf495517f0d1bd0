"""DiT's flags, and what its two presets set. Loads neither torch nor diffusers, so ``--help`` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.arguments import CURRICULA, parse_with_presets, shared_parser

from curriculum_sampler.errors import ArgumentError

PRESETS: dict[str, dict[str, Any]] = {
    "full": {
        "model_size": "l_2",
        "curriculum_config": "dit",
        "height": 512,
        "width": 384,
        "train_batch_size": 32,
        "gradient_accumulation_steps": 8,
        "gradient_checkpointing": True,
        "dataloader_num_workers": 4,
        "flip_probability": 0.5,
        "adam_weight_decay": 0.0,
        "ema_decay": 0.9999,
        "mixed_precision": "bf16",
        "allow_tf32": True,
        "checkpointing_steps": 1000,
        "validation_steps": 1000,
        "num_validation_inference_steps": 28,
        "logging_steps": 10,
        "guidance_scale": 2.0,
    },
    "tiny": {
        "model_size": "tiny",
        "curriculum_config": CURRICULA / "dit_tiny.toml",
        "height": 64,
        "width": 48,
        "train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "dataloader_num_workers": 1,
        "cpu_threads": 1,  # two make a network this small slower
        "adam_weight_decay": 0.0,
        "ema_decay": 0.99,
        "mixed_precision": "no",
        "checkpointing_steps": 200,
        "validation_steps": 250,
        "num_validation_inference_steps": 12,
        "logging_steps": 20,
        "guidance_scale": 1.5,
    },
}


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the shared flags and DiT's own.

    Raises:
        ArgumentError: Numbers out of range, or flags that contradict each other.
    """
    parser = shared_parser("Train a try-on DiT through a curriculum, in one process or stage by stage.")
    own = parser.add_argument_group("dit")
    own.add_argument("--model_size", choices=["tiny", "s_2", "b_2", "l_2", "xl_2"], help="full is l_2")
    own.add_argument(
        "--init_from", type=Path, help="official DiT weights (.pt) of the same size, to begin with"
    )
    own.add_argument("--objective", choices=["flow", "ddpm"], default="flow", help="flow matching, or noise")
    own.add_argument("--use_pose", action="store_true", help="tell the network the pose picture too")
    own.add_argument("--qk_norm", action="store_true", help="normalise queries and keys")
    own.add_argument("--cond_dropout_prob", type=float, default=0.1, help="how often the garment is hidden")
    own.add_argument("--category_dropout_prob", type=float, default=0.1, help="how often the category is")
    own.add_argument("--freq_loss_weight", type=float, default=0.0, help="of the focal frequency loss")
    own.add_argument("--guidance_scale", type=float, help="of validation pictures")
    own.add_argument("--cache_latents", help="folder or s3:// place that common/cache_latents.py wrote")
    own.add_argument(
        "--fsdp",
        action="store_true",
        help="each rank keeps its part of weights, gradients, moments and averages; docs/many_gpus.md",
    )
    own.add_argument("--num_epochs", type=int, help="total of the whole run, not of this call")
    own.add_argument(
        "--samples_per_epoch", type=int, help="draws of an epoch; the curriculum's epoch_size by default"
    )
    parser.set_defaults(output_dir=Path("checkpoints_dit_curriculum"), wandb_project="dit-curriculum")
    args = parse_with_presets(parser, PRESETS, argv)
    _check(args)
    return args


def _check(args: argparse.Namespace) -> None:
    if not 0 <= args.category_dropout_prob <= 1:
        raise ArgumentError(
            f"--category_dropout_prob {args.category_dropout_prob}: it is a number from 0 to 1. Correct it."
        )
    if args.freq_loss_weight < 0:
        raise ArgumentError(
            f"--freq_loss_weight {args.freq_loss_weight}: it is a number of 0 or more. Correct it."
        )
    for name in ("num_epochs", "samples_per_epoch"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ArgumentError(
                f"--{name} {value}: it is a number of 1 or more. Leave the flag out for its default."
            )
    if args.num_epochs is not None and args.max_train_steps is not None:
        raise ArgumentError(
            f"--num_epochs {args.num_epochs} and --max_train_steps {args.max_train_steps} both say how long to train."
            " Keep the one you mean."
        )
    if args.fsdp and args.mixed_precision == "fp16":
        raise ArgumentError(
            "--fsdp --mixed_precision fp16: the loss scale of fp16 asks whether any gradient overflowed, and each rank sees"
            " its part of them only. Say --mixed_precision bf16, or leave --fsdp out."
        )
    if args.fsdp and args.use_8bit_adam:
        raise ArgumentError(
            "--fsdp --use_8bit_adam: 8-bit moments in parts are not supported. Leave one of the two out; from 5 ranks on,"
            " moments in parts take less memory than whole 8-bit ones."
        )
    if args.snr_gamma is not None and args.objective == "flow":
        raise ArgumentError(
            f"--snr_gamma {args.snr_gamma} weighs the noise levels of DDPM; flow matching weighs them by how often it"
            " draws them. Leave it out, or choose --objective ddpm."
        )
