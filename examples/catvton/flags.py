"""CatVTON's flags, and what its two presets set. Loads neither torch nor diffusers, so ``--help`` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.arguments import CURRICULA, parse_with_presets, shared_parser

PRESETS: dict[str, dict[str, Any]] = {
    "full": {
        "curriculum_config": "catvton",
        "height": 512,
        "width": 384,
        "train_batch_size": 16,
        "gradient_accumulation_steps": 8,
        "dataloader_num_workers": 4,
        "ema_decay": 0.9995,
        "mixed_precision": "bf16",
        "checkpointing_steps": 1000,
        "validation_steps": 1000,
        "num_validation_inference_steps": 50,
        "logging_steps": 10,
        "guidance_scale": 2.5,
        "eta": 1.0,
        "dream_training": True,
    },
    "tiny": {
        "curriculum_config": CURRICULA / "catvton_tiny.toml",
        "height": 64,
        "width": 48,
        "train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "dataloader_num_workers": 1,
        "cpu_threads": 1,  # two make a network this small slower
        "ema_decay": 0.99,
        "mixed_precision": "no",
        "checkpointing_steps": 200,
        "validation_steps": 250,
        "num_validation_inference_steps": 12,
        "logging_steps": 20,
        "guidance_scale": 1.5,
        "eta": 0.0,
        "train_all": True,
    },
}


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the shared flags and CatVTON's own."""
    parser = shared_parser("Train CatVTON through a curriculum, in one process or stage by stage.")
    own = parser.add_argument_group("catvton")
    own.add_argument("--train_all", action="store_true", help="all weights, not only self-attention")
    own.add_argument(
        "--attention_weights", type=Path, help="begin with published self-attention: a file, or its folder"
    )
    own.add_argument("--cond_dropout_prob", type=float, default=0.1, help="how often the garment is hidden")
    own.add_argument("--loss_region", choices=["full", "person", "masked"], default="full")
    own.add_argument(
        "--cross_attention",
        choices=["compatible", "none"],
        default="compatible",
        help="compatible: h + LayerNorm(h), as in the published weights",
    )
    own.add_argument(
        "--dream_training",
        action="store_true",
        help="a second forward pass teaches the network to mend its own errors (DREAM); the default of full",
    )
    own.add_argument("--no_dream_training", dest="dream_training", action="store_false", help="one pass only")
    own.add_argument(
        "--dream_detail_preservation",
        type=float,
        default=10.0,
        help="the higher, the less is mended at low noise",
    )
    own.add_argument(
        "--cache_latents", help="train on latents that common/cache_latents.py has written, here or on s3://"
    )
    own.add_argument("--guidance_scale", type=float, help="of validation pictures")
    own.add_argument("--eta", type=float, help="of the DDIM sampler for validation pictures")
    parser.set_defaults(output_dir=Path("checkpoints_catvton_curriculum"), wandb_project="catvton-curriculum")
    return parse_with_presets(parser, PRESETS, argv)
