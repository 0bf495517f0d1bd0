"""Render the demo's pictures once, and write them as bucketed shards into an S3 bucket.

    python fill_store.py --cache .demo --destination s3://vton-demo/v1

The rendered shards stay in the cache, since the demo's S3 server forgets. What is written is the same, byte for byte,
each time: a training that was interrupted goes on with the very samples it would have had.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions

import curriculum_sampler as cs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.bucketed_shards import write_bucketed_shards
from common.factors import LEVELS
from common.synthetic import GENERATOR_VERSION


def main() -> None:
    """Render what the cache lacks, then fill the store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder for the rendered shards")
    parser.add_argument("--destination", required=True, help="s3://bucket/prefix, or a folder")
    parser.add_argument("--train", type=int, default=320, help="training pictures per level")
    parser.add_argument("--val", type=int, default=24, help="validation pictures per level")
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--seed", type=int, default=17)
    args = parser.parse_args()

    # Whatever changes the pictures is in the name, so a cache is never out of date.
    name = f"pictures-v{GENERATOR_VERSION}-{args.seed}-{args.height}x{args.width}-{args.train}-{args.val}"
    cache = args.cache / name
    for split, count in (("train", args.train), ("val", args.val)):
        if not _is_written(str(cache), split):
            started = time.monotonic()
            counts = {split: dict.fromkeys(LEVELS, count)}
            write_bucketed_shards(
                str(cache), counts, seed=args.seed, height=args.height, width=args.width, samples_per_shard=64
            )
            print(
                f"rendered {split}: {count} pictures per level in {time.monotonic() - started:.0f} s",
                flush=True,
            )
        if not _is_written(args.destination, split):
            manifest = copy_split(str(cache), args.destination, split)
            sizes = ", ".join(f"{bucket} {size}" for bucket, size in manifest.bucket_sizes.items())
            print(f"wrote {split} into {args.destination}: {sizes}", flush=True)


def copy_split(source: str, destination: str, split: str) -> cs.Manifest:
    """Write the samples of a split from one place into another, with the same shards."""
    if destination.startswith("s3://"):
        _make_bucket(destination.removeprefix("s3://").split("/")[0])
    held = cs.CurriculumDataset(cs.Manifest.load(source, split=split), decode=None)
    buckets = {bucket: _bucket(held, bucket, size) for bucket, size in held.manifest.bucket_sizes.items()}
    return cs.write_shards(
        destination,
        buckets,
        split=split,
        samples_per_shard=64,
        difficulties=held.manifest.difficulties,
    )


def _bucket(held: cs.CurriculumDataset, bucket: str, size: int) -> Iterator[dict[str, Any]]:
    for first in range(0, size, 64):
        yield from held.__getitems__(
            [cs.Draw(bucket, index) for index in range(first, min(first + 64, size))]
        )


def _is_written(place: str, split: str) -> bool:
    """Whether the split is complete: a manifest is written last, and names it."""
    try:
        cs.Manifest.load(place, split=split)
    except (cs.StorageError, cs.ArgumentError):
        return False
    return True


def _make_bucket(name: str) -> None:
    client = boto3.client("s3")
    try:
        client.head_bucket(Bucket=name)
    except botocore.exceptions.ClientError:
        client.create_bucket(Bucket=name)


if __name__ == "__main__":
    main()
