"""What each stage of a training was to be and what it became, from the rows of ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.metrics_rows import Row, of_kind


@dataclass(frozen=True)
class StageOutcome:
    """One stage, as far as it was trained.

    Attributes:
        name: Of the stage.
        first_step: Steps done when it began.
        last_step: Steps done at its end.
        rate: Learning rate at its end.
        planned: Share of each bucket, as declared at its end.
        drawn: Share of each bucket in what was drawn.
        held_out: The last validation in it; empty where there was none.
        waited: Share of its time that the training waited for data.
    """

    name: str
    first_step: int
    last_step: int
    rate: float
    planned: Mapping[str, float]
    drawn: Mapping[str, float]
    held_out: Row
    waited: float


def stage_outcomes(rows: Sequence[Row]) -> list[StageOutcome]:
    """Return the stages in the order in which they were trained.

    >>> rows = [
    ...     {"kind": "train", "step": 4, "stage": "easy", "lr": 0.1, "target_mixture": {"easy": 1.0},
    ...      "samples_by_bucket": {"easy": 8, "hard": 0}, "data_wait_share": 0.0, "samples_per_second": 2.0},
    ...     {"kind": "validation", "step": 4, "stage": "easy", "loss_by_bucket": {"easy": 0.5}},
    ...     {"kind": "train", "step": 6, "stage": "hard", "lr": 0.05, "target_mixture": {"easy": 0.5, "hard": 0.5},
    ...      "samples_by_bucket": {"easy": 10, "hard": 2}, "data_wait_share": 0.0, "samples_per_second": 2.0},
    ... ]
    >>> [(stage.name, stage.first_step, stage.last_step, dict(stage.drawn)) for stage in stage_outcomes(rows)]
    [('easy', 0, 4, {'easy': 1.0, 'hard': 0.0}), ('hard', 4, 6, {'easy': 0.5, 'hard': 0.5})]
    """
    training, validations = of_kind(rows, "train"), of_kind(rows, "validation")
    outcomes: list[StageOutcome] = []
    before: Mapping[str, int] = {}
    first_step = 0
    for name in dict.fromkeys(row["stage"] for row in training):
        own = [row for row in training if row["stage"] == name]
        last = own[-1]
        counts = {
            bucket: count - before.get(bucket, 0) for bucket, count in last["samples_by_bucket"].items()
        }
        held_out = [row for row in validations if row["stage"] == name]
        outcomes.append(
            StageOutcome(
                name,
                first_step,
                last["step"],
                last["lr"],
                last["target_mixture"],
                {bucket: count / max(1, sum(counts.values())) for bucket, count in counts.items()},
                held_out[-1] if held_out else {},
                _waited(own, before),
            )
        )
        before, first_step = last["samples_by_bucket"], last["step"]
    return outcomes


def _waited(rows: Sequence[Row], before: Mapping[str, Any]) -> float:
    """The mean of the rows' shares, by how long each row took."""
    seconds, waited, done = 0.0, 0.0, sum(before.values())
    for row in rows:
        total = sum(row["samples_by_bucket"].values())
        took = (total - done) / row["samples_per_second"] if row["samples_per_second"] else 0.0
        seconds, waited, done = seconds + took, waited + took * row["data_wait_share"], total
    return waited / seconds if seconds else 0.0
