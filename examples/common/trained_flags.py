"""Flags of the scripts that use what was trained. Loads no torch, so ``--help`` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from common.arguments import with_underscores
from common.factors import CATEGORIES

from curriculum_sampler.errors import ArgumentError

_ONE_PICTURE = ("person", "cloth", "mask", "cloth_mask", "pose", "category")
_SPLIT = ("s3_prefixes", "data_root", "limit")


def infer_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the flags of ``infer.py``.

    Raises:
        ArgumentError: Not exactly one model; neither a picture nor a data set to dress, or both.
    """
    parser = _parser("Dress a person, or the samples of a data set, with a trained model.")
    _add_model(parser)
    one = parser.add_argument_group("one picture")
    one.add_argument("--person", type=Path, help="picture of the person")
    one.add_argument("--cloth", type=Path, help="picture of the garment, flat on white")
    one.add_argument("--mask", type=Path, help="white where to paint; of the person's size")
    one.add_argument("--cloth_mask", type=Path, help="white where the garment is; a VTON-GAN needs it")
    one.add_argument("--pose", type=Path, help="body surfaces; for models that look at them")
    one.add_argument("--category", choices=CATEGORIES, help="kind of garment, for a DiT; not told by default")
    _add_data(parser)
    parser.add_argument(
        "--output", type=Path, required=True, help="a picture; of a data set a folder, or a .png for a sheet"
    )
    parser.add_argument("--repaint", action="store_true", help="keep the original pixels outside the mask")
    args = parser.parse_args(with_underscores(argv))
    _check_model(args)
    given = [name for name in _ONE_PICTURE if getattr(args, name) is not None]
    several = [name for name in _SPLIT if getattr(args, name)]
    if given and several:
        raise ArgumentError(
            f"--{given[0]} is of one picture and --{several[0]} of a data set. Dress one or the other."
        )
    missing = [name for name in ("person", "cloth", "mask") if name not in given]
    if not several and missing:
        raise ArgumentError(
            f"Nothing to dress: --{missing[0]} is missing. Give --person, --cloth and --mask, or a data set by --s3_prefixes"
            " or --data_root."
        )
    if several:
        _check_data(args)
    return args


def evaluate_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the flags of ``evaluate.py``.

    Raises:
        ArgumentError: Not exactly one model, no data, or flags that need others.
    """
    parser = _parser("Measure a trained model on a test set, bucket by bucket and over all.")
    _add_model(parser)
    _add_data(parser)
    measures = parser.add_argument_group("measures, besides SSIM, PSNR and masked L1")
    measures.add_argument(
        "--fid_extractor", type=Path, help="TorchScript file with an Inception network, for FID and KID"
    )
    measures.add_argument(
        "--fid_size", type=int, default=299, help="pictures are brought to this size for the extractor"
    )
    measures.add_argument("--force", action="store_true", help="FID of few samples too")
    measures.add_argument("--lpips", action="store_true", help="LPIPS (squeeze); needs torchvision")
    measures.add_argument(
        "--unpaired", action="store_true", help="other garments too, by a fixed order: FID and KID only"
    )
    measures.add_argument(
        "--repaint", action="store_true", help="also with the original pixels outside the mask"
    )
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    args = parser.parse_args(with_underscores(argv))
    _check_model(args)
    _check_data(args)
    if args.fid_extractor is None and (args.unpaired or args.force):
        flag = "unpaired" if args.unpaired else "force"
        raise ArgumentError(
            f"--{flag} is about FID and KID, which need features of pictures. Pass --fid_extractor with a TorchScript file"
            " (inception-2015-12-05.pt, say), or leave it out."
        )
    if args.output is not None and args.output.is_dir():
        raise ArgumentError(f"--output {args.output} is a folder. Name the JSON file in it.")
    if args.fid_extractor is not None and not args.fid_extractor.is_file():
        raise ArgumentError(f"--fid_extractor {args.fid_extractor}: there is no such file. Correct the path.")
    return args


def _parser(description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("model; what is not given is as in its training")
    model.add_argument(
        "checkpoint", type=Path, nargs="?", help="of any trainer: a .pt file, or a run's folder"
    )
    model.add_argument("--weights", choices=["ema", "trained"], default="ema", help="averages, or the last")
    model.add_argument(
        "--attention_weights", type=Path, help="instead of a checkpoint: CatVTON's published weights"
    )
    model.add_argument("--pretrained_model_name_or_path", help="where the base is now")
    model.add_argument("--pretrained_vae_name_or_path", help="where the autoencoder is now")
    model.add_argument("--height", type=int)
    model.add_argument("--width", type=int)
    model.add_argument("--steps", type=int, help="denoising steps")
    model.add_argument("--guidance_scale", type=float)
    model.add_argument("--mixed_precision", choices=["no", "fp16", "bf16"])
    model.add_argument("--device", help="cuda where there is one, by default")
    model.add_argument("--seed", type=int, default=42, help="of the noise that pictures begin with")


def _add_data(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data set")
    data.add_argument("--s3_prefixes", nargs="+", action="extend", default=[], help="s3:// or local")
    data.add_argument("--data_root", help="folder with bucketed shards")
    data.add_argument("--endpoint_url", help="S3 server other than AWS's")
    data.add_argument("--split", default="test")
    data.add_argument("--limit", type=int, help="first samples of each bucket")
    data.add_argument("--batch_size", type=int, default=8)
    data.add_argument("--dataloader_num_workers", type=int, default=0)


def _check_model(args: argparse.Namespace) -> None:
    if (args.checkpoint is None) == (args.attention_weights is None):
        got = "neither" if args.checkpoint is None else "both"
        raise ArgumentError(f"Which model? Got {got} a checkpoint and --attention_weights. Give one of them.")
    for name in ("height", "width", "steps"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ArgumentError(
                f"--{name} {value}: it is a number of 1 or more. Leave it out for its default."
            )


def _check_data(args: argparse.Namespace) -> None:
    if not args.s3_prefixes and args.data_root is None:
        raise ArgumentError(
            "No data: got neither --s3_prefixes nor --data_root. Name where the bucketed shards are,"
            " for example --s3_prefixes s3://my-bucket/vton/v1."
        )
    for name in ("limit", "batch_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ArgumentError(
                f"--{name} {value}: it is a number of 1 or more. Leave it out for its default."
            )
