"""Whether a stage has taught what it can: the specification's "if a stage converges early, move to the next"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.metrics_rows import Row


def stage_losses(rows: Sequence[Row], stage: str, mixture: Mapping[str, float]) -> list[float]:
    """Return the held-out losses of a stage, oldest first: of each validation the mean over buckets, weighted by mixture.

    A bucket without held-out samples counts nothing.

    >>> rows = [
    ...     {"kind": "validation", "stage": "medium", "loss_by_bucket": {"easy": 0.2, "medium": 0.4, "hard": 0.9}},
    ...     {"kind": "validation", "stage": "hard", "loss_by_bucket": {"easy": 0.1}},
    ... ]
    >>> [round(loss, 3) for loss in stage_losses(rows, "medium", {"easy": 0.25, "medium": 0.75})]
    [0.35]
    """
    losses = []
    for row in rows:
        if row["kind"] == "validation" and row["stage"] == stage:
            found = row["loss_by_bucket"]
            shares = {bucket: share for bucket, share in mixture.items() if bucket in found}
            total = sum(shares.values())
            if total:
                losses.append(sum(share * found[bucket] for bucket, share in shares.items()) / total)
    return losses


def is_plateau(losses: Sequence[float], patience: int, least_gain: float) -> bool:
    """Whether the last ``patience`` losses brought no gain: none is below the best before them by that share of it.

    >>> is_plateau([1.0, 0.5, 0.499, 0.5], patience=2, least_gain=0.01)
    True
    >>> is_plateau([1.0, 0.5, 0.499, 0.4], patience=2, least_gain=0.01)
    False
    >>> is_plateau([1.0, 1.0], patience=2, least_gain=0.01)
    False
    """
    before, since = losses[:-patience], losses[-patience:]
    return bool(before) and min(since) > min(before) * (1 - least_gain)
