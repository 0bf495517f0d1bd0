"""From a batch of draws to what the training loop receives, together with a report of what it cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .tally import Report


class Delivered(NamedTuple):
    """A collated batch, and what reading has cost the process that made it since its last one."""

    batch: Any
    report: Report | None


class Deliver:
    """Collates samples and adds the report of their dataset, in whichever process or thread that happens.

    A dataset of the user's own that reports nothing is fine.
    """

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any]) -> None:
        self._dataset = dataset
        self._collate = collate

    def __call__(self, samples: list[Any]) -> Delivered:
        take_report = getattr(self._dataset, "take_report", None)
        report = take_report() if take_report else None
        if report is not None:
            # Of this very batch, whichever thread made others meanwhile.
            report.bad = getattr(samples, "bad", [])
        return Delivered(self._collate(samples), report)

    def make(self, draws: Any) -> Delivered:
        """Read and deliver a batch of draws."""
        return self(self._dataset.__getitems__(draws))
