"""Scoring as tasks: each is some samples in a row, and its result one line of a journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .sample_reading import read_samples
from .scoring import Scoring
from .source import Entry, Source

# Samples in a task: enough that sending it costs little, few enough that little is lost with a killed process.
_SAMPLES = 64


class ScoreTask(NamedTuple):
    """Samples ``first ...`` of the listing."""

    first: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class ScoreWork:
    """What all tasks of scoring share."""

    source: Source
    scoring: Scoring
    require: Sequence[str]

    @property
    def samples_per_task(self) -> int:
        """A multiple of the batch size, so that batches are the same however the work is shared out."""
        batch = self.scoring.batch_size
        return -(-_SAMPLES // batch) * batch


def score(work: ScoreWork, task: ScoreTask) -> list[dict[str, Any]]:
    """Return what ``Scoring.of_samples`` tells of each sample of a task; it reads them only if that must look at them."""
    if not work.scoring.reads_samples:
        return work.scoring.of_samples([(entry.key, {}) for entry in task.entries])
    samples = read_samples(work.source, task.entries, work.require)
    return work.scoring.of_samples([(sample["__key__"], sample) for sample in samples])
