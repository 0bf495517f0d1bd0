"""Flags that all trainers share: diffusers' names, where diffusers has one. ``-`` and ``_`` mean the same."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import curriculum_sampler as cs
from curriculum_sampler.errors import ArgumentError

CURRICULA = Path(__file__).resolve().parent / "curricula"


def shared_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the shared flags; a trainer adds its own and the defaults of its presets."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model_preset", choices=["full", "tiny"], default="full", help="tiny runs on a CPU in minutes"
    )
    model.add_argument("--pretrained_model_name_or_path", help="pipeline folder or hub id")
    model.add_argument("--pretrained_vae_name_or_path", help="another autoencoder than the pipeline's")
    model.add_argument("--gradient_checkpointing", action="store_true", help="less memory, a fifth slower")
    model.add_argument("--torch_compile", action="store_true", help="compile the network at the first step")

    data = parser.add_argument_group("data")
    data.add_argument("--data_root", help="folder with bucketed shards")
    data.add_argument(
        "--s3_prefixes",
        nargs="+",
        action="extend",
        default=[],
        help="s3:// or local; repeatable, brace patterns",
    )
    data.add_argument("--endpoint_url", help="S3 server other than AWS's; AWS_ENDPOINT_URL does the same")
    data.add_argument(
        "--curriculum_config", type=Path, help="TOML file with the stages, or catvton, dit, vtongan"
    )
    data.add_argument("--difficulty", help="train this one stage only (a stage's name, not a bucket's)")
    data.add_argument("--height", type=int)
    data.add_argument("--width", type=int)
    data.add_argument(
        "--train_batch_size",
        type=int,
        help="samples of a forward pass, over all ranks: with more GPUs each takes fewer, and nothing else changes",
    )
    data.add_argument("--dataloader_num_workers", type=int)
    data.add_argument(
        "--flip_probability", type=float, default=0.0, help="mirror all pictures of a sample alike"
    )

    optimiser = parser.add_argument_group("optimiser")
    optimiser.add_argument("--learning_rate", type=float, help="rate of the stage that --difficulty names")
    optimiser.add_argument(
        "--lr_scheduler",
        choices=["constant", "constant_with_warmup", "cosine"],
        default="constant",
        help="counted from the start of each stage",
    )
    optimiser.add_argument("--lr_warmup_steps", type=int, default=0, help="at the start of each stage")
    optimiser.add_argument(
        "--gradient_accumulation_steps",
        type=int,
        help="the global batch is --train_batch_size times this; with 1 process or 8",
    )
    optimiser.add_argument("--max_grad_norm", type=float, default=1.0)
    optimiser.add_argument("--adam_beta1", type=float, default=0.9)
    optimiser.add_argument("--adam_beta2", type=float, default=0.999)
    optimiser.add_argument("--adam_weight_decay", type=float, default=1e-2)
    optimiser.add_argument("--adam_epsilon", type=float, default=1e-8)
    optimiser.add_argument("--use_8bit_adam", action="store_true", help="needs bitsandbytes")
    optimiser.add_argument(
        "--no_ema", dest="use_ema", action="store_false", help="keep no average of weights"
    )
    optimiser.add_argument(
        "--use_ema", dest="use_ema", action="store_true", default=True, help="on by default"
    )
    optimiser.add_argument("--ema_decay", type=float)
    optimiser.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"])
    optimiser.add_argument("--allow_tf32", action="store_true", help="faster on Ampere and later")
    optimiser.add_argument(
        "--deterministic", action="store_true", help="GPU kernels that give the same bits every time; slower"
    )
    optimiser.add_argument("--snr_gamma", type=float, help="Min-SNR loss weighting; 5.0 is usual")
    optimiser.add_argument("--seed", type=int, default=42)

    run = parser.add_argument_group("run")
    run.add_argument("--output_dir", type=Path)
    run.add_argument("--max_train_steps", type=int, help="total of the whole run, not of this call")
    run.add_argument("--max_steps_this_run", type=int, help="save and leave after so many: time-boxed jobs")
    run.add_argument("--checkpointing_steps", type=int)
    run.add_argument("--checkpoints_total_limit", type=int, default=3, help="finals of stages do not count")
    run.add_argument("--resume_from_checkpoint", help="a path, or `latest` of --output_dir")
    run.add_argument("--validation_steps", type=int, help="also at step 0 and at the end of every stage")
    run.add_argument(
        "--plateau_patience",
        type=int,
        help="end a stage early when so many validations in a row brought no gain in held-out loss",
    )
    run.add_argument(
        "--plateau_least_gain", type=float, default=0.01, help="share of the loss that is a gain"
    )
    run.add_argument("--num_validation_samples", type=int, default=2, help="rows of the sheet per bucket")
    run.add_argument("--num_validation_inference_steps", type=int)
    run.add_argument("--logging_steps", type=int)
    run.add_argument(
        "--log_sample_ids", action="store_true", help="put every sample's key into metrics.jsonl"
    )
    run.add_argument(
        "--report_to",
        choices=["auto", "wandb", "tensorboard", "jsonl", "none"],
        default="auto",
        help="besides metrics.jsonl and training.log, which are always written; auto: wandb if installed",
    )
    run.add_argument("--wandb_project")
    run.add_argument("--wandb_run_name", help="default: PROJECT-stageN-NAME, one run per stage")
    run.add_argument("--wandb_group", help="default: the name of --output_dir")
    run.add_argument("--cpu_threads", type=int, help="of torch, in each process; its own choice by default")
    run.add_argument("--dry_run", action="store_true", help="print the plan, read one batch, leave")
    run.add_argument("--print_config", action="store_true", help="print all flags as JSON and leave")
    return parser


def parse_with_presets(
    parser: argparse.ArgumentParser,
    presets: Mapping[str, Mapping[str, Any]],
    argv: Sequence[str] | None = None,
) -> argparse.Namespace:
    """Parse; a preset's values are defaults, so a flag given by hand wins over them.

    Args:
        parser: With ``--model_preset`` among its flags.
        presets: Values of other flags by preset.
        argv: The command line; None takes the process's.

    Raises:
        ArgumentError: Numbers out of range, or flags that contradict each other.

    >>> parser = shared_parser("")
    >>> words = ["--data_root", "shards", "--model-preset=tiny", "--lr-warmup-steps", "5"]
    >>> args = parse_with_presets(parser, {"tiny": {"height": 64}}, words)
    >>> args.height, args.lr_warmup_steps
    (64, 5)
    """
    words = with_underscores(argv)
    chosen = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chosen.add_argument("--model_preset", default="full")
    preset = chosen.parse_known_args(words)[0].model_preset
    parser.set_defaults(**presets.get(preset, {}))
    args = parser.parse_args(words)
    _check(args)
    return args


def as_text(args: argparse.Namespace) -> str:
    """The flags as JSON, for ``--print_config``, logs and checkpoints."""
    return json.dumps(vars(args), indent=2, sort_keys=True, default=str)


def with_underscores(argv: Sequence[str] | None) -> list[str]:
    """Write flags as the parsers know them; values are left alone. None takes the process's words.

    >>> with_underscores(["--lr-warmup-steps=5", "--output-dir", "a-b"])
    ['--lr_warmup_steps=5', '--output_dir', 'a-b']
    """
    result = []
    for word in sys.argv[1:] if argv is None else argv:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            word = "--" + name.replace("-", "_") + equals + value
        result.append(word)
    return result


def _check(args: argparse.Namespace) -> None:
    positive = (
        "height",
        "width",
        "train_batch_size",
        "gradient_accumulation_steps",
        "max_train_steps",
        "max_steps_this_run",
        "checkpointing_steps",
        "checkpoints_total_limit",
        "validation_steps",
        "plateau_patience",
        "logging_steps",
        "cpu_threads",
    )
    for name in positive:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ArgumentError(
                f"--{name} {value}: it is a number of 1 or more. Leave the flag out for its default."
            )
    for name, least, largest in (
        ("cond_dropout_prob", 0, 1),
        ("ema_decay", 0, 1),
        ("flip_probability", 0, 1),
        ("plateau_least_gain", 0, 1),
        ("dataloader_num_workers", 0, 1024),
    ):
        value = getattr(args, name, None)
        if value is not None and not least <= value <= largest:
            raise ArgumentError(f"--{name} {value}: it is a number from {least} to {largest}. Correct it.")
    config = args.curriculum_config
    if config is not None and str(config) not in cs.StageSchedule.presets() and not Path(config).is_file():
        raise ArgumentError(
            f"--curriculum_config {config}: there is no such file, and the curricula that need none are"
            f" {', '.join(cs.StageSchedule.presets())}. Correct the path."
        )
    if args.learning_rate is not None and args.difficulty is None:
        raise ArgumentError(
            f"--learning_rate {args.learning_rate} came without --difficulty, but rates belong to stages."
            " Name the stage, or set lr in the curriculum file."
        )
    if args.plateau_patience is not None and args.difficulty is not None:
        raise ArgumentError(
            f"--plateau_patience {args.plateau_patience} moves on from stage to stage, but --difficulty {args.difficulty}"
            " trains one alone. Leave out --difficulty and train the curriculum in one process."
        )
    if not args.s3_prefixes and args.data_root is None and not args.print_config:
        raise ArgumentError(
            "No data: got neither --s3_prefixes nor --data_root. Name where the bucketed shards are,"
            " for example --s3_prefixes s3://my-bucket/vton/v1."
        )
