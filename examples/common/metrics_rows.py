"""Read back what a trainer wrote into ``metrics.jsonl``."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

BUCKET_ORDER = ("easy", "medium", "hard")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics file; a last line that was cut off in writing is passed over.

    Raises:
        ValueError: If another line is not JSON; the message names it.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(
                    f"{path}, line {number} is not JSON: {line[:60]!r}. Remove that line."
                ) from error
    return rows


def of_kind(rows: Sequence[Row], kind: str) -> list[Row]:
    """Return the rows of one kind, by rising step.

    >>> [row["step"] for row in of_kind([{"kind": "train", "step": 2}, {"kind": "stage"}, {"kind": "train", "step": 1}], "train")]
    [1, 2]
    """
    return sorted((row for row in rows if row["kind"] == kind), key=lambda row: int(row["step"]))


def in_bucket_order(names: Sequence[str]) -> list[str]:
    """Sort buckets from easy to hard, others after them by name.

    >>> in_bucket_order(["hard", "extra", "easy"])
    ['easy', 'hard', 'extra']
    """
    known = {name: place for place, name in enumerate(BUCKET_ORDER)}
    return sorted(names, key=lambda name: (known.get(name, len(known)), name))


def realised_shares(rows: Sequence[Row]) -> list[tuple[float, dict[str, float]]]:
    """Return, for each training row, the middle of the steps it speaks of and the share of each bucket drawn in them.

    A row speaks of the steps since the row before it. Trainers write one at the end of every stage, so no row speaks
    of two stages.

    >>> rows = [
    ...     {"step": 4, "samples_by_bucket": {"easy": 8}},
    ...     {"step": 10, "samples_by_bucket": {"easy": 14, "hard": 2}},
    ... ]
    >>> realised_shares(rows)
    [(2.0, {'easy': 1.0}), (7.0, {'easy': 0.75, 'hard': 0.25})]
    """
    found = []
    nothing: Row = {"step": 0, "samples_by_bucket": {}}
    for before, after in itertools.pairwise([nothing, *rows]):
        drawn = {
            name: count - before["samples_by_bucket"].get(name, 0)
            for name, count in after["samples_by_bucket"].items()
        }
        total = sum(drawn.values())
        if total > 0:
            middle = (before["step"] + after["step"]) / 2
            found.append((middle, {name: count / total for name, count in drawn.items()}))
    return found
