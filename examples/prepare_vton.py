"""Turn a VITON-HD or Dress Code tree into shards cut by difficulty, with the licence notice beside them.

    python prepare_vton.py viton-hd /data/zalando-hd-resized s3://my-bucket/vton/v1
    python prepare_vton.py dress-code /data/DressCode shards --accept-license --processes 8

Training and validation samples come from the tree's train split, so that no garment is in both; the test split is cut by the
rule measured on training samples. Killed or interrupted, the same command goes on where it stopped. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common.arguments import with_underscores
from common.data_licences import DRESS_CODE, NOTICE_FILE, VITON_HD, DataLicence
from common.difficulty import WEIGHTS

import curriculum_sampler as cs
from curriculum_sampler.command_line import main as curriculum_sampler
from curriculum_sampler.locations import open_storage
from curriculum_sampler.manifest import read_manifest
from curriculum_sampler.manifest_file import MANIFEST
from curriculum_sampler.storage import Storage, read_all

_LICENCES = {"viton-hd": VITON_HD, "dress-code": DRESS_CODE}


def main(argv: Sequence[str] | None = None) -> int:
    """Leave the notice, so that no shard lies there without it, and build the splits; return an exit code."""
    args = _arguments(argv)
    options = {} if args.endpoint_url is None else {"endpoint_url": args.endpoint_url}
    try:
        licence = _LICENCES[args.data_set]
        licence.check(accepted=args.accept_license)
        home = open_storage(args.destination, **options)
        leave_notice(home, licence)
        there = read_manifest(home).splits if home.exists(MANIFEST) else {}
    except cs.CurriculumError as error:
        print(f"prepare_vton: {error}", file=sys.stderr)
        return 2
    # What an earlier call finished stays; when nothing is left to do, the build says so.
    left = [split for split in args.splits if args.overwrite or split not in there] or args.splits
    for split in left:
        code = curriculum_sampler(["build", *build_arguments(args, split)])
        if code:
            return code
    return 0


def build_arguments(args: argparse.Namespace, split: str) -> list[str]:
    """Return what ``curriculum-sampler build`` is called with for a split of the tree."""
    module = args.data_set.replace("-", "_")
    options = f"split={split}" + (",accept-license" if args.accept_license and module == "dress_code" else "")
    words = [f"common.{module}:source:{args.root},{options}", args.destination]
    words += [
        "--score",
        "common.difficulty:signals",
        "--category",
        "json:category",
        "--group",
        "json:garment",
    ]
    if split == "train":
        words += ["--weight", ",".join(f"{name}={weight}" for name, weight in WEIGHTS.items())]
        words += ["--splits", f"train={1 - args.validation_share},val={args.validation_share}"]
    else:
        words += ["--rule", args.destination, "--splits", f"{split}=1"]
    words += ["--seed", str(args.seed), "--processes", str(args.processes)]
    words += ["--overwrite"] if args.overwrite else []
    return words + ([] if args.endpoint_url is None else ["--endpoint-url", args.endpoint_url])


def leave_notice(home: Storage, licence: DataLicence) -> None:
    """Write the licence notice beside the shards, below those of other data that lie there already."""
    told = read_all(home, NOTICE_FILE).decode() if home.exists(NOTICE_FILE) else ""
    if licence.notice not in told:
        home.write(NOTICE_FILE, "\n".join(filter(None, (told, licence.notice))).encode())


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("data_set", choices=("viton-hd", "dress-code"))
    parser.add_argument("root", type=Path, help="folder where the data set was unpacked")
    parser.add_argument("destination", help="folder or s3:// prefix for the shards")
    parser.add_argument("--splits", nargs="+", choices=("train", "test"), default=("train", "test"))
    parser.add_argument(
        "--validation_share", type=float, default=0.05, help="share of the train split for val"
    )
    parser.add_argument(
        "--accept_license", action="store_true", help="say that you hold Dress Code's licence"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--overwrite", action="store_true", help="replace splits that are there")
    parser.add_argument(
        "--endpoint_url", help="S3 endpoint, when it is neither AWS nor named by AWS_ENDPOINT_URL"
    )
    args = parser.parse_args(with_underscores(argv))
    # Whatever the order they were named in: the rule that cuts the test split is measured on the train split.
    args.splits = [split for split in ("train", "test") if split in args.splits]
    return args


if __name__ == "__main__":
    sys.exit(main())
