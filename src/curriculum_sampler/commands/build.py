"""Build a data set from samples: score, cut into buckets, shuffle, write.

SOURCE is a folder of files that share their base name (0007.png, 0007.json), a
folder or s3:// url of tars, or module:function, which returns a Source or
samples (module:function:argument calls it with the argument). The current
folder is importable. A build that is interrupted or killed goes on where it
was when the same command is run again. The same seed gives the same bytes,
with any number of processes.

What makes a sample hard is said by --score, more than once for several
signals: json:FIELD, scores.csv:COLUMN (or .parquet, with a column 'key'), or
module:function, called with each decoded sample. Higher is harder.

Examples:
  curriculum-sampler build pictures/ data/v1 --score json:clutter
  curriculum-sampler build pictures/ data/v1 --score my_scores:signals --weight blur=2,size=1 --processes 8
  curriculum-sampler build tars/ s3://my-bucket/v1 --score scores.csv:loss --shares easy=0.5,hard=0.5
  curriculum-sampler build my_data:samples data/v1 --label json:level
  curriculum-sampler build pictures/ data/v1 --score json:clutter --group json:person --splits train=0.9,validation=0.1
  curriculum-sampler build more_pictures/ data/new --score json:clutter --rule data/v1
"""

from __future__ import annotations

import dataclasses
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

import curriculum_sampler as cs

from ..errors import ArgumentError
from ..location_arguments import add_storage, storage_options
from ..named_numbers import named_numbers
from ..terminal import Answer, Terminal, counted, readable_bytes, table

ON_INTERRUPT = (
    "Interrupted; what was done is kept. Run the same command again, and it goes on with what is left."
)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a folder, tars, or module:function")
    parser.add_argument("destination", metavar="DEST", help="a folder or s3://bucket/prefix")
    scores = parser.add_argument_group("difficulty")
    scores.add_argument(
        "--score", action="append", default=[], metavar="SIGNAL", help="what makes a sample hard"
    )
    scores.add_argument(
        "--score-batch", metavar="FUNCTION", help="module:function of a list of samples, for models"
    )
    scores.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="samples in such a list (default: 32)"
    )
    scores.add_argument(
        "--weight",
        metavar="SIGNAL=W,...",
        help="weights of the signals' ranks in the score (default: all alike)",
    )
    scores.add_argument(
        "--category", metavar="FIELD", help="take ranks within the values of this field, json:FIELD"
    )
    cuts = parser.add_argument_group("cut")
    cut = cuts.add_mutually_exclusive_group()
    cut.add_argument(
        "--shares",
        metavar="NAME=SHARE,...",
        help="share of the training samples per bucket, easiest first (default: easy=0.4,medium=0.35,hard=0.25)",
    )
    cut.add_argument(
        "--thresholds", metavar="NAME=SCORE,...", help="lowest score of each bucket, easiest first"
    )
    cut.add_argument("--label", metavar="FIELD", help="the field that names the bucket, such as json:level")
    cut.add_argument("--rule", metavar="DATA", help="cut as this data set was cut")
    cuts.add_argument(
        "--quarantine",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="leave out this share, the hardest (default: none)",
    )
    splits = parser.add_argument_group("splits")
    splits.add_argument(
        "--splits", metavar="NAME=SHARE,...", help="shares of the splits, or a field that names the split"
    )
    splits.add_argument("--group", metavar="FIELD", help="samples alike in this field stay in one split")
    work = parser.add_argument_group("work")
    work.add_argument("--require", metavar="EXT,...", help="extensions that every sample must have")
    work.add_argument(
        "--seed", type=int, default=0, metavar="N", help="decides shuffle and splits (default: 0)"
    )
    work.add_argument("--samples-per-shard", type=int, metavar="N", help="most samples in a shard")
    work.add_argument(
        "--max-shard-mib",
        type=int,
        default=64,
        metavar="N",
        help="about how large a shard may be (default: 64)",
    )
    work.add_argument(
        "--processes", type=int, default=1, metavar="N", help="score and write in N processes (default: 1)"
    )
    work.add_argument(
        "--engine", default="local", metavar="NAME", help="local, ray, or a ray:// address (default: local)"
    )
    work.add_argument(
        "--work-dir", metavar="FOLDER", help="where the journal of the build is kept until it is done"
    )
    work.add_argument("--overwrite", action="store_true", help="replace splits that exist")
    work.add_argument("--dry-run", action="store_true", help="score and cut, and write nothing")
    add_storage(parser)


def run(arguments: Namespace, terminal: Terminal) -> Answer:
    with terminal.progress("build", unit="sample") as show:
        report = cs.build_dataset(
            arguments.source,
            arguments.destination,
            score=arguments.score or None,
            score_batch=arguments.score_batch,
            batch_size=arguments.batch_size,
            weights=_numbers(arguments.weight),
            category=arguments.category,
            shares=_numbers(arguments.shares),
            thresholds=_numbers(arguments.thresholds),
            label=arguments.label,
            rule=arguments.rule,
            quarantine=arguments.quarantine,
            group=arguments.group,
            splits=_splits(arguments.splits),
            require=None if arguments.require is None else arguments.require.split(","),
            seed=arguments.seed,
            samples_per_shard=arguments.samples_per_shard,
            max_shard_bytes=_mebibytes(arguments.max_shard_mib),
            processes=arguments.processes,
            engine=arguments.engine,
            work_dir=arguments.work_dir,
            overwrite=arguments.overwrite,
            dry_run=arguments.dry_run,
            progress=lambda now: show(now.done, now.total or 0, now.part),
            **storage_options(arguments),
        )
    return Answer(
        {"destination": arguments.destination} | dataclasses.asdict(report), _text(arguments, report)
    )


def _text(arguments: Namespace, report: Any) -> str:
    rows = []
    for split, sizes in report.bucket_sizes.items():
        for bucket, size in sizes.items():
            found = report.difficulties.get(split, {}).get(bucket)
            stated = "not scored" if found is None else "{:.4g} to {:.4g}".format(*found)
            rows.append((split, bucket, f"{size:,}", f"{size / sum(sizes.values()):.1%}", stated))
    lines = [table([("split", "bucket", "samples", "share", "difficulty"), *rows], numbers=[2, 3]), ""]
    if report.quarantined:
        lines.append(f"{counted(report.quarantined, 'sample')} left out (quarantine).")
    if report.dry_run:
        lines.append(
            f"Nothing was written to {arguments.destination}; about {readable_bytes(report.num_bytes)} would be."
        )
    else:
        seconds = sum(report.seconds.values())
        lines.append(
            f"{arguments.destination}: {counted(report.num_shards, 'shard')}, {readable_bytes(report.num_bytes)}, in "
            f"{seconds:.1f} s ({counted(report.scored, 'sample')} scored and {counted(report.written, 'shard')} written by "
            "this call)."
        )
    return "\n".join(lines)


def _numbers(text: str | None) -> Mapping[str, float] | None:
    return None if text is None else named_numbers(text)


def _splits(text: str | None) -> Mapping[str, float] | str | None:
    """Return shares, or the field that names the split (``json:FIELD``, ``FILE.csv:COLUMN``)."""
    return text if text is None or "=" not in text else named_numbers(text)


def _mebibytes(number: int) -> int:
    if number < 1:
        raise ArgumentError(f"--max-shard-mib: got {number}, but it is 1 or more. Correct it.")
    return number << 20
