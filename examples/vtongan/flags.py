"""VTON-GAN's flags, and what its two presets set. Loads no torch, so ``--help`` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.arguments import CURRICULA, parse_with_presets, shared_parser

from curriculum_sampler.errors import ArgumentError

DRESSER_WEIGHTS = {
    "hinge": 1.0,
    "feature_matching": 10.0,
    "perceptual": 10.0,
    "l1": 5.0,
    "flow_l1": 10.0,
    "flow_truth": 10.0,
    "edge": 2.0,
    "smooth": 6.0,
    "tv": 0.01,
    "mask": 1.0,
}
"""Terms of warper and generator, with their default weights; `losses.py` says what each is."""

JUDGE_WEIGHTS = {"judge_hinge": 1.0, "r1": 0.0}
"""Terms of the discriminator."""

ADVERSARIAL_TERMS = ("hinge", "feature_matching")
"""Terms in which the dresser listens to the discriminator."""

PRESETS: dict[str, dict[str, Any]] = {
    "full": {
        "curriculum_config": "vtongan",
        "height": 512,
        "width": 384,
        "train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "dataloader_num_workers": 4,
        "ema_decay": 0.999,
        "mixed_precision": "bf16",
        "checkpointing_steps": 1000,
        "validation_steps": 1000,
        "logging_steps": 10,
        "perceptual": "vgg",
        "warper_rate_factor": 0.5,
    },
    "tiny": {
        "curriculum_config": CURRICULA / "vtongan_tiny.toml",
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
        "logging_steps": 20,
        "perceptual": "gradient",
        "warper_rate_factor": 1.0,
    },
}

_MEANINGLESS = {
    "pretrained_model_name_or_path": "it starts from nothing",
    "pretrained_vae_name_or_path": "it paints pixels, without an autoencoder",
    "gradient_checkpointing": "recomputing is not built into its networks",
    "snr_gamma": "it has no noise levels",
    "num_validation_inference_steps": "it paints in one step",
}
_FACTORS = ("generator_rate_factor", "discriminator_rate_factor", "warper_rate_factor")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the shared flags and VTON-GAN's own.

    Raises:
        ArgumentError: Flags that contradict each other, are out of range, or mean nothing to this model.
    """
    parser = shared_parser("Train VTON-GAN through a curriculum, in one process or stage by stage.")
    own = parser.add_argument_group("vtongan")
    own.add_argument(
        "--perceptual",
        choices=["vgg", "gradient", "none", "random-vgg"],
        help="vgg needs --vgg_weights; random-vgg is for tests only",
    )
    own.add_argument("--vgg_weights", help="file of torchvision's vgg19, or the word torchvision")
    own.add_argument("--no_ttur", action="store_true", help="one rate for generator and discriminator")
    own.add_argument("--generator_rate_factor", type=float, help="of the stage's rate; by default 0.5")
    own.add_argument("--discriminator_rate_factor", type=float, help="of the stage's rate; by default 2")
    own.add_argument("--warper_rate_factor", type=float, help="of the generator's rate")
    own.add_argument(
        "--d_warmup_steps",
        type=int,
        default=0,
        help="first steps of the run in which the generator does not listen to the discriminator",
    )
    for name, weight in {**DRESSER_WEIGHTS, **JUDGE_WEIGHTS}.items():
        own.add_argument(f"--{name}_weight", type=float, default=weight)
    parser.set_defaults(
        output_dir=Path("checkpoints_vtongan_curriculum"),
        wandb_project="vtongan-curriculum",
        adam_weight_decay=0.0,
        adam_beta1=None,
        adam_beta2=None,
    )
    args = parse_with_presets(parser, PRESETS, argv)
    two_rates = {
        "generator_rate_factor": 0.5,
        "discriminator_rate_factor": 2.0,
        "adam_beta1": 0.0,
        "adam_beta2": 0.9,
    }
    one_rate = {
        "generator_rate_factor": 1.0,
        "discriminator_rate_factor": 1.0,
        "adam_beta1": 0.5,
        "adam_beta2": 0.999,
    }
    for name, value in (one_rate if args.no_ttur else two_rates).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    _check(args)
    return args


def dresser_weights(args: argparse.Namespace) -> dict[str, float]:
    """The weights that the flags give to the terms of warper and generator."""
    return {name: getattr(args, f"{name}_weight") for name in DRESSER_WEIGHTS}


def judge_weights(args: argparse.Namespace) -> dict[str, float]:
    """The weights that the flags give to the terms of the discriminator."""
    return {name: getattr(args, f"{name}_weight") for name in JUDGE_WEIGHTS}


def remarks(args: argparse.Namespace) -> list[str]:
    """What a log must say aloud about these flags."""
    if args.perceptual != "random-vgg":
        return []
    return [
        "WARNING: --perceptual random-vgg has weights that know nothing. It is for tests; a model trained on it is not to be used."
    ]


def _check(args: argparse.Namespace) -> None:
    for name, why in _MEANINGLESS.items():
        if getattr(args, name) not in (None, False):
            raise ArgumentError(f"--{name} means nothing to VTON-GAN: {why}. Leave it out.")
    for name in (*(f"{term}_weight" for term in (*DRESSER_WEIGHTS, *JUDGE_WEIGHTS)), "d_warmup_steps"):
        if not getattr(args, name) >= 0:
            raise ArgumentError(f"--{name} {getattr(args, name)}: it is a number of 0 or more. Correct it.")
    for name in _FACTORS:
        if not getattr(args, name) > 0:
            raise ArgumentError(f"--{name} {getattr(args, name)}: it is a number above 0. Correct it.")
    if args.perceptual == "vgg" and args.vgg_weights is None and not args.print_config:
        raise ArgumentError(
            "--perceptual vgg needs the weights of VGG-19 and got none. Pass --vgg_weights with a file of torchvision's"
            " vgg19, or the word torchvision where that is installed; --perceptual gradient needs no weights."
        )
    if args.perceptual != "vgg" and args.vgg_weights is not None:
        raise ArgumentError(
            f"--vgg_weights {args.vgg_weights} came with --perceptual {args.perceptual}, which takes none."
            " Leave one of them out."
        )
