"""Draw what a training was to draw, and what it has drawn so far.

It reads the metrics.jsonl that a JsonlReporter or the example trainers write;
that of a running job will do. A row of training is a JSON object with "kind":
"train", and step, stage, lr, target_mixture and samples_by_bucket.

Examples:
  curriculum-sampler plot checkpoints/metrics.jsonl mixture.png
  curriculum-sampler plot checkpoints/metrics.jsonl mixture.html --title "run 7"
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import curriculum_sampler as cs

from ..terminal import Answer, Terminal


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("metrics", type=Path, metavar="METRICS", help="a metrics.jsonl")
    parser.add_argument(
        "picture", type=Path, metavar="PICTURE", help="a .png, .svg, .pdf, or a page in .html"
    )
    parser.add_argument("--title", metavar="TEXT", help="above the picture (default: the folder's name)")


def run(arguments: Namespace, terminal: Terminal) -> Answer:
    title = arguments.metrics.absolute().parent.name if arguments.title is None else arguments.title
    cs.plot_metrics(arguments.metrics, arguments.picture, title=title)
    return Answer({"picture": str(arguments.picture)}, f"Picture: {arguments.picture}")
