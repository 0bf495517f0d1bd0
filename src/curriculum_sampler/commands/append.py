"""Append new shards to the end of buckets.

A running curriculum keeps its current pass as it is, and takes the new size
from the next pass on: tell it with loader.grow(...), as this command prints.
Either another data set is copied (one that was built by the same rule: 'build
... --rule DATA'), or tars that lie below the data set's root already are
indexed where they are. Nothing that is there moves; the manifest is written
last.

Examples:
  curriculum-sampler append data/v1 data/new
  curriculum-sampler append s3://my-bucket/pictures/v1 data/new --dry-run
  curriculum-sampler append data/v1 --bucket 'easy=new/easy-*.tar' --bucket hard=new/hard-0.tar
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

import curriculum_sampler as cs

from ..errors import ArgumentError
from ..location_arguments import add_data, storage_options
from ..manifest import read_manifest, tars_of
from ..tar_names import matching_tars, patterns_by_bucket
from ..terminal import Answer, Terminal, counted, readable_bytes, table

ON_INTERRUPT = (
    "Interrupted; the data set is as it was. Run the same command again, and it goes on with what is left."
)


def add_arguments(parser: ArgumentParser) -> None:
    add_data(parser, what="the data set that grows")
    parser.add_argument("addition", nargs="?", metavar="FROM", help="a data set to append")
    parser.add_argument("--from-split", metavar="NAME", help="the split of FROM (default: that of --split)")
    parser.add_argument(
        "--bucket",
        action="append",
        default=[],
        metavar="NAME=PATTERN",
        help="instead: tars below the root of DATA for a bucket, in name order; may be given more than once",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and write nothing")


def run(arguments: Namespace, terminal: Terminal) -> Answer:
    if (arguments.addition is None) == (not arguments.bucket):
        raise ArgumentError(
            "Say what to append: a data set FROM, or --bucket NAME=PATTERN (one of these two)."
        )
    options = storage_options(arguments)
    with terminal.progress("append") as progress:
        if arguments.addition is not None:
            report = cs.append_shards(
                arguments.data,
                arguments.addition,
                split=arguments.split,
                addition_split=arguments.from_split,
                dry_run=arguments.dry_run,
                progress=progress,
                **options,
            )
        else:
            home = cs.open_storage(arguments.data, **options)
            tars = tars_of(home, read_manifest(home), **options)
            report = cs.append_tars(
                home,
                matching_tars(tars, patterns_by_bucket(arguments.bucket)),
                split=arguments.split,
                dry_run=arguments.dry_run,
                progress=progress,
                **options,
            )
    rows = [
        (
            name,
            f"{grown.before:,}",
            f"{grown.after:,}",
            counted(grown.shards, "new shard"),
            readable_bytes(grown.num_bytes),
        )
        for name, grown in report.buckets.items()
    ]
    what = "Would be appended to" if report.dry_run else "Appended to"
    text = (
        f"{what} {report.url}, split {report.split!r}:\n"
        f"{table([('bucket', 'before', 'after', 'shards', 'bytes'), *rows], numbers=[1, 2, 4])}\n\n"
        f"In a running curriculum: loader.grow({report.sizes}, reason='...'), save its state, and load that over this data."
    )
    told = {
        "url": report.url,
        "split": report.split,
        "dry_run": report.dry_run,
        "buckets": {name: grown._asdict() for name, grown in report.buckets.items()},
    }
    return Answer(told, text)
