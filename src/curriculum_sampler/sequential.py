"""Every sample once, in order: the evaluation side of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from .draws import Draws
from .errors import ArgumentError

# Samples read together while iterating: enough for few requests, little enough to hold.
_CHUNK = 64


class BatchReader(Protocol):
    """What is needed of a data set: a batch of draws to a list of samples."""

    def __getitems__(self, draws: Draws, /) -> list[Any]: ...


class SequentialSamples:
    """One rank's consecutive part of all samples, in order of bucket name and index.

    Iterate it, or give it to a ``DataLoader(..., batch_size=8, num_workers=2)`` as a map-style data
    set. A transform's ``rng`` is that of seed 0, pass 0, so an evaluation repeats itself exactly.

    >>> from curriculum_sampler import CurriculumDataset, write_shards
    >>> samples = [{"__key__": f"{n}", "cls": n} for n in range(5)]
    >>> dataset = CurriculumDataset(write_shards("memory://in-order", {"easy": samples}))
    >>> [[sample["cls"] for sample in dataset.sequential(rank, 2)] for rank in (0, 1)]
    [[0, 1], [2, 3, 4]]
    """

    def __init__(
        self, dataset: BatchReader, bucket_sizes: Mapping[str, int], rank: int = 0, world_size: int = 1
    ) -> None:
        if not 0 <= rank < world_size:
            raise ArgumentError(f"rank={rank} must be in [0, world_size={world_size}). Ranks count from 0.")
        self._dataset = dataset
        self._names = tuple(sorted(bucket_sizes))
        self._ends = np.cumsum([bucket_sizes[name] for name in self._names], dtype=np.int64)
        total = int(self._ends[-1])
        self._first, self._stop = rank * total // world_size, (rank + 1) * total // world_size

    def __len__(self) -> int:
        return self._stop - self._first

    def __getitem__(self, position: int) -> Any:
        # IndexError, since this is a plain sequence: iteration protocols rest on it.
        if not 0 <= position < len(self):
            raise IndexError(f"Position {position} is outside [0, {len(self)}).")
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Any]:
        return self._dataset.__getitems__(self._draws(np.asarray(positions, np.int64)))

    def __iter__(self) -> Iterator[Any]:
        for first in range(0, len(self), _CHUNK):
            yield from self.__getitems__(range(first, min(first + _CHUNK, len(self))))

    def _draws(self, positions: np.ndarray[Any, np.dtype[np.int64]]) -> Draws:
        numbers = positions + self._first
        bucket_ids = np.searchsorted(self._ends, numbers, side="right")
        starts = np.concatenate([np.zeros(1, np.int64), self._ends[:-1]])
        indices = numbers - starts[bucket_ids]
        return Draws(self._names, bucket_ids.astype(np.uint16), indices, np.zeros_like(indices), 0)
