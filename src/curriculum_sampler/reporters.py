"""Who is told what a training does: one small interface, and its simplest kind, a file of JSON lines."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Reporter(Protocol):
    """Is told rows by a ``TrainingReport``, on the first rank only.

    A row is a dict with ``kind``, ``step`` (optimiser updates done) and ``stage``. One of kind ``stage`` opens a stage
    and has ``target_mixture``, ``lr``, ``first_step`` and ``end_step``; one of kind ``train`` has what ``TrainingReport``
    says. Numbers that are not finite are None.

    >>> class Printed:
    ...     def open(self, step): print("from step", step)
    ...     def log(self, row): print(row["kind"], row["step"], row["stage"])
    ...     def close(self): print("done")
    >>> reporter: Reporter = Printed()
    >>> reporter.open(0); reporter.log({"kind": "train", "step": 50, "stage": "easy"}); reporter.close()
    from step 0
    train 50 easy
    done
    """

    def open(self, step: int) -> None:
        """Begin, or go on, at a step: what an earlier run told beyond it is going to be told again."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Take a row; it is not changed afterwards."""

    def close(self) -> None:
        """End."""


class JsonlReporter:
    """Appends rows to a file, one JSON object a line, as ``plot_metrics`` reads them.

    Rows beyond the step at which a run goes on are dropped, and so is a last line that a kill cut off in writing. From
    step 0 the file begins anew.

    Args:
        path: The file; its folder is made.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run" / "metrics.jsonl"
    >>> reporter = JsonlReporter(path)
    >>> reporter.open(0)
    >>> for step in (5, 10):
    ...     reporter.log({"kind": "train", "step": step, "stage": "easy"})
    >>> reporter.open(5)
    >>> path.read_text()
    '{"kind": "train", "step": 5, "stage": "easy"}\\n'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    def open(self, step: int) -> None:
        """See ``Reporter``."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = self._path.read_text(encoding="utf-8").splitlines() if step and self._path.exists() else []
        kept = [line for line in lines if _step_of(line) <= step]
        partial = self._path.with_name(self._path.name + ".partial")
        partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(partial, self._path)

    def log(self, row: Mapping[str, Any]) -> None:
        """See ``Reporter``."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row), allow_nan=False) + "\n")

    def close(self) -> None:
        """Nothing is open between rows."""


def numbers_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row by slash-separated names that begin with its kind, as services group them.

    >>> numbers_of({"kind": "train", "step": 5, "stage": "easy", "loss": 0.5, "loss_by_bucket": {"easy": 0.5}})
    {'train/loss': 0.5, 'train/loss_by_bucket/easy': 0.5}
    """
    return {
        name: value
        for name, value in flat_numbers(str(row["kind"]), row).items()
        if name.partition("/")[2] not in ("step", "kind", "stage")
    }


def flat_numbers(prefix: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers in nested values by slash-separated names.

    >>> flat_numbers("train", {"loss": 0.5, "by_bucket": {"easy": 0.25}, "stage": "easy"})
    {'train/loss': 0.5, 'train/by_bucket/easy': 0.25}
    """
    flat: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_numbers(f"{prefix}/{name}", value)
        elif isinstance(value, int | float):
            flat[f"{prefix}/{name}"] = value
    return flat


def _step_of(line: str) -> float:
    """Return the step of a row; infinity where the line is none."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf
