"""Cut a data set into other buckets, without writing what need not be written.

Buckets that are joined or renamed cost nothing: their shards are listed anew.
A shard whose samples part company is taken apart, and its samples are copied,
byte for byte, into new shards; --dry-run tells how many. The old cut stays
beside the new one as a split of its own, unless --into names it. No tar is
deleted.

Examples:
  curriculum-sampler rebucket data/v1 --into train-5 --shares a=1,b=1,c=1,d=1,e=1 --dry-run
  curriculum-sampler rebucket data/v1 --into train-2 --scores json:clutter --thresholds easy=0,hard=0.5
  curriculum-sampler rebucket data/v1 --into train --overwrite --scores losses.csv:loss --shares easy=0.5,hard=0.5
"""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser, Namespace

import curriculum_sampler as cs

from ..difficulty_arguments import add_scores
from ..location_arguments import add_data, storage_options
from ..named_numbers import named_numbers
from ..terminal import Answer, Terminal, counted, readable_bytes, table

ON_INTERRUPT = "Interrupted; the data set is as it was. Run the same command again: what was written is not written twice."


def add_arguments(parser: ArgumentParser) -> None:
    add_data(parser)
    parser.add_argument("--into", required=True, metavar="NAME", help="the split that has the new cut")
    add_scores(parser)
    cut = parser.add_mutually_exclusive_group(required=True)
    cut.add_argument(
        "--shares", metavar="NAME=SHARE,...", help="share of the samples per bucket, easiest first"
    )
    cut.add_argument(
        "--thresholds", metavar="NAME=SCORE,...", help="lowest score of each bucket, easiest first"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the split --into if it exists")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and write nothing")


def run(arguments: Namespace, terminal: Terminal) -> Answer:
    options = storage_options(arguments)
    manifest = cs.Manifest.load(arguments.data, split=arguments.split, **options)
    with terminal.progress("rebucket") as progress:
        report = cs.rebucket(
            arguments.data,
            None if arguments.scores is None else cs.sample_numbers(manifest, arguments.scores),
            into=arguments.into,
            shares=None if arguments.shares is None else named_numbers(arguments.shares),
            thresholds=None if arguments.thresholds is None else named_numbers(arguments.thresholds),
            split=arguments.split,
            overwrite=arguments.overwrite,
            dry_run=arguments.dry_run,
            progress=progress,
            **options,
        )
    rows = [
        (name, f"{size:,}", "{:.4g} to {:.4g}".format(*report.difficulties[name]))
        for name, size in report.bucket_sizes.items()
    ]
    would = "would be " if report.dry_run else ""
    costs = (
        f"{counted(report.rewritten_samples, 'sample')} ({readable_bytes(report.rewritten_bytes)} of shards that had to be "
        f"taken apart) {would}copied into new shards"
    )
    text = (
        f"Split {report.split!r} of {report.url}{' (nothing was written)' if report.dry_run else ''}:\n"
        f"{table([('bucket', 'samples', 'difficulty'), *rows], numbers=[1])}\n\n"
        f"{counted(report.moved, 'sample')} in a bucket of another name than before. "
        f"{counted(report.kept_shards, 'shard')} {would}kept as {'it is' if report.kept_shards == 1 else 'they are'}, "
        f"{costs if report.rewritten_samples else 'and no sample copied'}."
    )
    return Answer(dataclasses.asdict(report), text)
