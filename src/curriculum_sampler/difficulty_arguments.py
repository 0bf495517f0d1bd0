"""The arguments that say how hard samples and buckets are, the same for every command."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

import curriculum_sampler as cs


def add_scores(parser: ArgumentParser, *, default: str = "what build recorded") -> None:
    """Add ``--scores``."""
    parser.add_argument(
        "--scores",
        metavar="COLUMN",
        help="the difficulty of every sample: json:FIELD, FILE.csv:COLUMN or FILE.jsonl:COLUMN "
        f"(default: {default})",
    )


def add_order(parser: ArgumentParser) -> None:
    """Add ``--order``."""
    parser.add_argument("--order", metavar="A,B,C", help="all buckets, easiest first")


def known_scores(arguments: Namespace, manifest: cs.Manifest) -> dict[str, float] | None:
    """Return key -> score as it was given, else as it was recorded, if it was."""
    if arguments.scores is None:
        return cs.recorded_scores(manifest)
    return cs.sample_numbers(manifest, arguments.scores)


def given_order(arguments: Namespace) -> list[str] | None:
    """Return the buckets, easiest first, if they were given."""
    return None if arguments.order is None else str(arguments.order).split(",")
