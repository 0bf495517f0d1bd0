"""Counts and losses between two rows of the metrics, by bucket and over all ranks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from common.ranks import Ranks
from torch import Tensor

_SMOOTHING = 0.7  # share of the older value in a bucket's running loss, per row


class Tally:
    """Adds up micro-batches, and turns them into a row.

    Args:
        buckets: Every bucket of the data, in a fixed order that all ranks share.
        ranks: Whose counts are added up.

    Attributes:
        samples_seen: Samples of each bucket since the start of training, over all ranks; right after ``row``.
        loss: Running loss of each bucket seen, likewise.
    """

    def __init__(self, buckets: Sequence[str], ranks: Ranks) -> None:
        self.buckets = tuple(buckets)
        self._place = {bucket: place for place, bucket in enumerate(self.buckets)}
        self._ranks = ranks
        self.samples_seen: dict[str, int] = dict.fromkeys(self.buckets, 0)
        self.loss: dict[str, float] = {}
        self._begin()

    def add(self, buckets: Sequence[str], losses: Tensor, waited_seconds: float) -> None:
        """Count a micro-batch of this rank: the loss of each sample, and how long its data kept us waiting."""
        self._waited += waited_seconds
        places = torch.tensor([self._place[bucket] for bucket in buckets])
        self._losses.index_add_(0, places, losses.detach().double().cpu())
        self._counts.index_add_(0, places, torch.ones(len(buckets), dtype=torch.float64))

    def row(self) -> dict[str, Any]:
        """Sum over ranks, begin anew, and return what a row says. All ranks must call it together."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        losses, counts = self._ranks.sum(torch.stack([self._losses, self._counts])).tolist()
        total = sum(counts)
        for bucket, loss, count in zip(self.buckets, losses, counts, strict=True):
            if count:
                now, before = loss / count, self.loss.get(bucket)
                self.loss[bucket] = now if before is None else _SMOOTHING * before + (1 - _SMOOTHING) * now
                self.samples_seen[bucket] += round(count)
        row = {
            "loss": sum(losses) / max(total, 1.0),
            "loss_by_bucket": dict(self.loss),
            "samples_by_bucket": dict(self.samples_seen),
            "observed_mixture": {
                bucket: count / max(total, 1.0) for bucket, count in zip(self.buckets, counts, strict=True)
            },
            "samples_per_second": round(total / seconds, 3),
            "data_wait_share": round(self._waited / seconds, 5),
        }
        self._begin()
        return row

    def _begin(self) -> None:
        self._losses = torch.zeros(len(self.buckets), dtype=torch.float64)
        self._counts = torch.zeros(len(self.buckets), dtype=torch.float64)
        self._waited = 0.0
        self._since = time.monotonic()
