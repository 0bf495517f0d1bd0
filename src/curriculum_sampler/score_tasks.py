"""Scoring as tasks: each is some samples in a row, and its result one line of a journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .sample_reading import read_samples
from .scoring import Scoring
from .source import Entry, Source


class ScoreTask(NamedTuple):
    """Samples ``first ...`` of the listing."""

    first: int
    entries: tuple[Entry, ...]


class ScoredTask(NamedTuple):
    """What ``Scoring.of_samples`` tells of each sample of a task, and how long it took."""

    samples: list[dict[str, Any]]
    seconds: float


@dataclass(frozen=True)
class ScoreWork:
    """What all tasks of scoring share."""

    source: Source
    scoring: Scoring
    require: Sequence[str]
    clock: Callable[[], float] = time.monotonic


def score(work: ScoreWork, task: ScoreTask) -> ScoredTask:
    """Score the samples of a task; they are read only if a score must look at them."""
    begun = work.clock()
    if work.scoring.reads_samples:
        read = read_samples(work.source, task.entries, work.require)
        samples = [(sample["__key__"], sample) for sample in read]
    else:
        samples = [(entry.key, {}) for entry in task.entries]
    return ScoredTask(work.scoring.of_samples(samples), work.clock() - begun)
