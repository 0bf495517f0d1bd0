"""What a training wrote into ``metrics.jsonl``, read back as a timeline and as what was drawn.

A row is a JSON object; those of ``"kind": "train"`` are read, and have ``step`` (optimiser updates done), ``stage``,
``target_mixture`` (bucket -> share, in force since the row before), ``samples_by_bucket`` (bucket -> draws since the start of
the run) and, where there is one, ``lr``. Other keys and other rows may be there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from .errors import ArgumentError
from .timeline import Drawn, Stretch, Timeline

Row: TypeAlias = Mapping[str, Any]

_NEEDED: dict[str, Any] = {
    "step": (int, float),
    "stage": str,
    "target_mixture": Mapping,
    "samples_by_bucket": Mapping,
}
# More dots than this cannot be told apart.
_MOST_DOTS = 150


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a file; a last line that was cut off in writing is passed over.

    Raises:
        ArgumentError: Another line is not a JSON object; the message names it.
    """
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif number < len(lines):
            raise ArgumentError(
                f"{path}, line {number} is not a JSON object: {line[:60]!r}. Remove that line."
            )
    return rows


def training_rows(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of training, by rising step; of several for one step (a restart wrote it again) the last.

    Raises:
        ArgumentError: There is none, or one lacks what a picture needs.

    >>> row = {"kind": "train", "stage": "easy", "target_mixture": {"a": 1.0}, "samples_by_bucket": {"a": 8}}
    >>> [row["step"] for row in training_rows([row | {"step": 2}, {"kind": "stage"}, row | {"step": 1}])]
    [1, 2]
    """
    found: dict[float, Row] = {}
    for row in rows:
        if row.get("kind") != "train":
            continue
        for key, kind in _NEEDED.items():
            if not isinstance(row.get(key), kind):
                raise ArgumentError(
                    f"A row of training has {key}={row.get(key)!r}: {str(dict(row))[:80]}. Each needs {', '.join(_NEEDED)}."
                )
        found[row["step"]] = row
    if not found:
        raise ArgumentError(
            "No row is of kind 'train', so there is nothing to draw. Train a few steps first."
        )
    return [found[step] for step in sorted(found)]


def timeline_of(training: Sequence[Row]) -> Timeline:
    """Return stages, mixtures and rates; a row's hold since the row before, or since step 0.

    >>> row = {"step": 5, "stage": "easy", "target_mixture": {"a": 1.0}, "samples_by_bucket": {"a": 8}, "lr": 0.1}
    >>> timeline_of([row, row | {"step": 9}]).stretches
    (Stretch(stage='easy', start=0, end=9, mixtures=({'a': 1.0}, {'a': 1.0}), rates=(0.1, 0.1)),)
    """
    stretches: list[Stretch] = []
    done = 0
    for row in training:
        mixture, rate = dict(row["target_mixture"]), row.get("lr")
        told = Stretch(
            row["stage"], done, row["step"], (mixture, mixture), None if rate is None else (rate, rate)
        )
        if stretches and stretches[-1]._replace(start=0, end=0) == told._replace(start=0, end=0):
            stretches[-1] = stretches[-1]._replace(end=told.end)
        elif told.end > told.start:
            stretches.append(told)
        done = row["step"]
    # All rows are of step 0: what they name is about to begin.
    return Timeline("steps", tuple(stretches) or (told._replace(end=1),))


def drawn_of(training: Sequence[Row]) -> list[Drawn]:
    """Return what was drawn between rows; neighbours of one stage are joined where there are too many for a picture.

    >>> rows = [
    ...     {"step": 4, "stage": "easy", "samples_by_bucket": {"easy": 8}},
    ...     {"step": 10, "stage": "easy", "samples_by_bucket": {"easy": 14, "hard": 2}},
    ... ]
    >>> drawn_of(rows)[1]
    Drawn(start=4, end=10, counts={'easy': 6, 'hard': 2})
    """
    least = training[-1]["step"] / _MOST_DOTS
    found: list[Drawn] = []
    start, before = 0, dict[str, int]()
    for place, row in enumerate(training):
        ends_stage = place + 1 == len(training) or training[place + 1]["stage"] != row["stage"]
        if row["step"] - start < least and not ends_stage:
            continue
        counts = {name: count - before.get(name, 0) for name, count in row["samples_by_bucket"].items()}
        if row["step"] > start and sum(counts.values()) > 0:
            found.append(Drawn(start, row["step"], counts))
        start, before = row["step"], row["samples_by_bucket"]
    return found
