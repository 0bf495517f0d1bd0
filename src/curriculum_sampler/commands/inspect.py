"""Show what is in a data set: buckets, counts, bytes, difficulties, members.

Where scores are known (build recorded them, or --scores) a histogram shows how
they are spread over the buckets. --preview draws a contact sheet: a row of
samples per bucket, the easiest bucket on top, so that you see whether the
difficulty is real.

Examples:
  curriculum-sampler inspect data/v1
  curriculum-sampler inspect data/v1 --scores json:clutter --preview sheet.png
  curriculum-sampler inspect s3://my-bucket/pictures/v1 --split validation --json
  curriculum-sampler inspect data/v1 --preview sheet.png --member mask.png --order easy,medium,hard
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import curriculum_sampler as cs

from ..difficulty_arguments import add_order, add_scores, given_order, known_scores
from ..errors import ArgumentError
from ..location_arguments import add_data, storage_options
from ..terminal import Answer, Terminal, counted, readable_bytes, table

_BARS = " ▁▂▃▄▅▆▇█"
_BINS = 40


def add_arguments(parser: ArgumentParser) -> None:
    add_data(parser)
    add_scores(parser)
    add_order(parser)
    parser.add_argument(
        "--look-at", type=int, default=16, metavar="N", help="samples per bucket to read (default: 16)"
    )
    sheet = parser.add_argument_group("contact sheet")
    sheet.add_argument("--preview", type=Path, metavar="FILE.png", help="draw one")
    sheet.add_argument("--samples", type=int, default=8, metavar="N", help="samples in a row (default: 8)")
    sheet.add_argument("--height", type=int, default=128, metavar="PIXELS", help="of a sample (default: 128)")
    sheet.add_argument("--member", metavar="EXT", help="image to show (default: png, jpg, ... or image.*)")


def run(arguments: Namespace, terminal: Terminal) -> Answer:
    if arguments.look_at < 0:
        raise ArgumentError(f"--look-at: got {arguments.look_at}, but it is 0 or more. Correct it.")
    manifest = cs.Manifest.load(arguments.data, split=arguments.split, **storage_options(arguments))
    order = given_order(arguments)
    buckets = cs.survey_buckets(manifest, look_at=arguments.look_at, order=order)
    told: dict[str, Any] = {
        "split": manifest.split,
        "fingerprint": manifest.fingerprint,
        "samples": len(manifest),
        "bytes": manifest.num_bytes,
        "buckets": [_told(bucket) for bucket in buckets],
    }
    parts = [_summary(manifest, terminal), _buckets(buckets), _members(buckets)]
    difficulties = known_scores(arguments, manifest)
    if difficulties is not None:
        counts, edges = _histogram(manifest, [bucket.name for bucket in buckets], difficulties)
        told["histogram"] = {"edges": edges, "counts": counts}
        parts.append(_drawn(counts, edges))
    if arguments.preview is not None:
        sheet = cs.contact_sheet(
            manifest,
            samples_per_bucket=arguments.samples,
            height=arguments.height,
            member=arguments.member,
            order=order,
            difficulties=difficulties,
        )
        try:
            sheet.save(arguments.preview)
        except ValueError as error:
            raise ArgumentError(f"--preview {arguments.preview}: {error}. Call it something.png.") from error
        told["preview"] = str(arguments.preview)
        parts.append(f"Contact sheet: {arguments.preview}")
    return Answer(told, "\n\n".join(part for part in parts if part))


def _summary(manifest: cs.Manifest, terminal: Terminal) -> str:
    samples, buckets = counted(len(manifest), "sample"), counted(len(manifest.buckets), "bucket")
    size = f"{samples} in {buckets}, {readable_bytes(manifest.num_bytes)}"
    return f"{terminal.strong(manifest.split)}: {size}. Fingerprint {manifest.fingerprint}."


def _buckets(buckets: Sequence[Any]) -> str:
    total = sum(bucket.samples for bucket in buckets)
    rows: list[Sequence[object]] = [
        ("bucket", "samples", "share", "shards", "bytes", "a sample", "difficulty")
    ]
    for bucket in buckets:
        stated = "not stated" if bucket.difficulty is None else "{:.4g} to {:.4g}".format(*bucket.difficulty)
        rows.append(
            (
                bucket.name,
                f"{bucket.samples:,}",
                f"{bucket.samples / total:.1%}",
                f"{bucket.shards:,}",
                readable_bytes(bucket.num_bytes),
                readable_bytes(bucket.num_bytes / bucket.samples),
                stated,
            )
        )
    return table(rows, numbers=range(1, 6))


def _members(buckets: Sequence[Any]) -> str:
    rows: list[Sequence[object]] = [("bucket", "member", "mean", "in")]
    for bucket in buckets:
        for extension, found in bucket.members.items():
            seen = f"{found.samples} of {bucket.looked_at} looked at"
            rows.append((bucket.name, extension, readable_bytes(found.mean_bytes), seen))
    return table(rows, numbers=[2]) if len(rows) > 1 else ""


def _told(bucket: Any) -> dict[str, Any]:
    return {
        "name": bucket.name,
        "samples": bucket.samples,
        "shards": bucket.shards,
        "bytes": bucket.num_bytes,
        "difficulty": bucket.difficulty,
        "looked_at": bucket.looked_at,
        "members": {name: found._asdict() for name, found in bucket.members.items()},
    }


def _histogram(
    manifest: cs.Manifest, names: Sequence[str], difficulties: Mapping[str, float]
) -> tuple[dict[str, list[int]], list[float]]:
    columns = {}
    for name in names:
        keys = list(cs.sample_keys(manifest, name))
        absent = [key for key in keys if key not in difficulties]
        if absent:
            raise ArgumentError(
                f"Sample {absent[0]!r} of bucket {name!r} has no score ({len(absent)} have none). Give one for every sample."
            )
        columns[name] = np.array([difficulties[key] for key in keys])
    _, edges = np.histogram(np.concatenate(list(columns.values())), _BINS)
    counts = {name: np.histogram(column, edges)[0].tolist() for name, column in columns.items()}
    return counts, edges.tolist()


def _drawn(counts: Mapping[str, Sequence[int]], edges: Sequence[float]) -> str:
    most = max(max(column) for column in counts.values())
    width = max(map(len, counts))
    lines = [
        f"Difficulty, from {edges[0]:.4g} to {edges[-1]:.4g} (the highest bar is {counted(most, 'sample')}):"
    ]
    for name, column in counts.items():
        # A bin with any sample shows, however tall the others are.
        bars = "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in column)
        lines.append(f"  {name:{width}}  |{bars}|")
    return "\n".join(lines)
