"""webdataset: a source whose samples come in the order of our draws, for the stages of a pipeline."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from copy import copy
from typing import Any

from ..errors import ArgumentError, CurriculumError
from ..extras import missing
from ..sampler import MixtureSampler

try:
    from torch.utils.data import IterableDataset, get_worker_info
except ImportError as error:
    raise missing("torch", "torch") from error


class DrawnSamples(IterableDataset[Any]):
    """First stage of a ``webdataset.DataPipeline``: this rank's samples, batch after batch, from the sampler's position.

    Samples are those of ``dataset``: with a ``CurriculumDataset`` verified and decoded dicts with ``__key__`` (bytes for
    ``webdataset.decode`` with ``decode=None``). Where several ``DataLoader`` workers run the pipeline, worker ``w`` of ``W`` makes
    the batches ``w, w + W, ...``: with ``webdataset.batched(sampler.batch_size)`` in it and ``DataLoader(pipeline, batch_size=None)``
    around it, batches come in the order of the draws for any number of workers. The source knows its rank by the sampler:
    add no stage that splits by node or worker.

    It is read from where the sampler stands, and leaves it there: after ``k`` batches the state is
    ``sampler.state_dict(step=k)`` (``k`` optimiser steps), and to go on, load it and iterate anew.

    Args:
        dataset: A ``CurriculumDataset``, or any with ``__getitem__`` for what the sampler yields.
        sampler: Whose draws.

    >>> from curriculum_sampler import Stage, StageSchedule
    >>> schedule = StageSchedule([Stage("only", {"a": 1}, steps=2)])
    >>> sampler = MixtureSampler.from_labels(schedule, ["a", "b", "a"], batch_size=2, seed=17)
    >>> sorted(DrawnSamples(["x", "y", "z"], sampler))
    ['x', 'x', 'z', 'z']
    """

    def __init__(self, dataset: Any, sampler: MixtureSampler) -> None:
        super().__init__()
        if not isinstance(sampler, MixtureSampler):
            raise ArgumentError(
                f"sampler: got {sampler!r}, but the order comes from a MixtureSampler. Make one of a plan."
            )
        self.dataset = dataset
        self.sampler = sampler
        self._was_begun_in_worker = False

    def __iter__(self) -> Iterator[Any]:
        """Yield the samples of this rank, or of this worker's batches of them.

        Raises:
            CurriculumError: A second iteration by the same worker, whose copy of the sampler is that of the first.
        """
        worker = get_worker_info()
        if self._was_begun_in_worker:
            raise CurriculumError(
                "A persistent worker would begin again where its copy of the sampler stood at first. Leave out "
                "persistent_workers=True."
            )
        self._was_begun_in_worker = worker is not None
        first, number = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for batch in itertools.islice(copy(self.sampler), first, None, number):
            if hasattr(self.dataset, "__getitems__"):
                yield from self.dataset.__getitems__(batch)
            else:
                yield from (self.dataset[draw] for draw in batch)
