"""Make a data set of tars that exist already: an index for each, and a manifest.

Tars by any WebDataset writer or by plain tar will do; each is read once, and
must be whole. Without --bucket each folder of tars is a bucket. Where the tars
cannot be written to, --destination takes indexes and manifest, which remembers
where the tars are. An interrupted run goes on when the same command is run
again.

Examples:
  curriculum-sampler index data/tars
  curriculum-sampler index data/tars --bucket 'easy=easy-*.tar' --bucket 'hard=hard-*.tar'
  curriculum-sampler index s3://public-bucket/tars --anonymous --destination data/index
  curriculum-sampler index data/tars --dry-run
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

import curriculum_sampler as cs

from ..location_arguments import add_split, add_storage, storage_options
from ..state_folder import state_file
from ..tar_names import matching_tars, patterns_by_bucket, tars_by_folder
from ..terminal import Answer, Terminal, counted, readable_bytes, table

ON_INTERRUPT = "Interrupted; no manifest was written. Run the same command again, and it goes on with the tars that are left."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("tars", metavar="TARS", help="root of the tars: a folder or s3://bucket/prefix")
    parser.add_argument(
        "--bucket",
        action="append",
        default=[],
        metavar="NAME=PATTERN",
        help="tars of a bucket, in name order; may be given more than once (default: a bucket for each folder)",
    )
    parser.add_argument(
        "--destination", metavar="PLACE", help="where indexes and manifest go (default: beside the tars)"
    )
    add_split(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the split if it exists")
    parser.add_argument(
        "--dry-run", action="store_true", help="say which tars are in which bucket, and write nothing"
    )
    add_storage(parser)


def run(arguments: Namespace, terminal: Terminal) -> Answer:
    options = storage_options(arguments)
    tars = cs.open_storage(arguments.tars, **options)
    home = tars if arguments.destination is None else cs.open_storage(arguments.destination, **options)
    patterns = patterns_by_bucket(arguments.bucket)
    buckets = matching_tars(tars, patterns) if patterns else tars_by_folder(tars)
    num_bytes = {name: tars.stat(name).num_bytes for names in buckets.values() for name in names}
    sizes: dict[str, int] = {}
    if not arguments.dry_run:
        with terminal.progress("index") as progress:
            manifest = cs.index_resumably(
                tars,
                buckets,
                record=state_file("index", tars.url, home.url),
                destination=home,
                split=arguments.split,
                overwrite=arguments.overwrite,
                progress=progress,
                **options,
            )
        sizes = manifest.bucket_sizes
    told = [
        {
            "name": bucket,
            "tars": names,
            "bytes": sum(num_bytes[name] for name in names),
            "samples": sizes.get(bucket),
        }
        for bucket, names in buckets.items()
    ]
    rows = [
        (
            bucket,
            counted(len(names), "tar"),
            readable_bytes(sum(num_bytes[name] for name in names)),
            f"{sizes[bucket]:,}" if sizes else "not counted",
            names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}",
        )
        for bucket, names in buckets.items()
    ]
    what = "Would be indexed for" if arguments.dry_run else "Indexed:"
    text = (
        f"{what} split {arguments.split!r} of {home.url}\n"
        f"{table([('bucket', 'tars', 'bytes', 'samples', 'from'), *rows], numbers=[2, 3])}"
    )
    return Answer({"split": arguments.split, "dry_run": arguments.dry_run, "buckets": told}, text)
