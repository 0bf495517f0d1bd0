"""Say whether the buckets mean anything, by the losses of a model.

Losses are of single samples, from any model, for all samples or a part of
them; early in training, or on samples that the model was not trained on. The
file has a column 'key', which names the samples as 'curriculum-sampler cat'
shows them. --probe fits a small model of how pictures look, in seconds; it
finds busy and unusual pictures, and knows nothing of your task. The exit code
is 1 when the buckets mean nothing to the model, or their order is the wrong
way round.

Examples:
  curriculum-sampler check-difficulty data/v1 --losses losses.csv
  curriculum-sampler check-difficulty data/v1 --probe
  curriculum-sampler check-difficulty data/v1 --losses run.jsonl:loss --scores json:clutter
  curriculum-sampler check-difficulty data/v1 --losses losses.csv --order easy,medium,hard --json
"""

from __future__ import annotations

import dataclasses
import math
from argparse import ArgumentParser, Namespace

import curriculum_sampler as cs

from ..difficulty_arguments import add_order, add_scores, given_order, known_scores
from ..easiest_first import easiest_first
from ..errors import ArgumentError
from ..location_arguments import add_data, storage_options
from ..terminal import Answer, Terminal, counted, table


def add_arguments(parser: ArgumentParser) -> None:
    add_data(parser)
    losses = parser.add_mutually_exclusive_group(required=True)
    losses.add_argument("--losses", metavar="COLUMN", help="FILE.csv, FILE.csv:COLUMN or FILE.jsonl:COLUMN")
    losses.add_argument(
        "--probe",
        action="store_true",
        help="instead: a small model of how pictures look, fitted here and now",
    )
    parser.add_argument("--member", metavar="EXT", help="picture for the probe (default: that of inspect)")
    add_scores(parser, default="what build recorded, else buckets are compared only")
    add_order(parser)


def run(arguments: Namespace, terminal: Terminal) -> Answer:
    manifest = cs.Manifest.load(arguments.data, split=arguments.split, **storage_options(arguments))
    names, is_known = easiest_first(manifest, given_order(arguments))
    if not is_known:
        raise ArgumentError(
            f"The data set does not state which of its buckets is easier ({', '.join(names)}). "
            f"Say it: --order {','.join(names)}."
        )
    losses = (
        cs.picture_losses(manifest, member=arguments.member)
        if arguments.probe
        else cs.sample_numbers(manifest, arguments.losses)
    )
    members = {name: list(cs.sample_keys(manifest, name)) for name in names}
    found = cs.check_difficulty(members, losses, scores=known_scores(arguments, manifest))
    told = dataclasses.asdict(found) | {
        "spearman": None if math.isnan(found.spearman) else found.spearman,
        "buckets": [bucket._asdict() for bucket in found.buckets],
        "overlaps": [pair._asdict() | {"clear": pair.is_clear} for pair in found.overlaps],
    }
    medians = table(
        [
            ("bucket", "losses", "median", "middle half"),
            *(
                (
                    one.bucket,
                    f"{one.samples:,}",
                    f"{one.median:.4g}",
                    f"{one.lower_quartile:.4g} to {one.upper_quartile:.4g}",
                )
                for one in found.buckets
            ),
        ],
        numbers=[1, 2],
    )
    pairs = "\n".join(
        f"A sample of {pair.harder!r} has the larger loss than one of {pair.easier!r} in {pair.auc:.0%} of pairs "
        f"(50% is chance, give or take {3 * pair.noise:.0%})."
        for pair in found.overlaps
    )
    left_out = (
        f"; {counted(found.without_loss, 'sample')} without loss left out" if found.without_loss else ""
    )
    correlation = f"Spearman correlation of {found.by} and loss: {found.spearman:.2f} ({counted(found.samples, 'sample')}{left_out})."
    means_something = found.meaning in ("all", "some")
    verdict = terminal.good(found.verdict) if means_something else terminal.bad(found.verdict)
    return Answer(told, f"{medians}\n\n{pairs}\n{correlation}\n\n{verdict}", 0 if means_something else 1)
