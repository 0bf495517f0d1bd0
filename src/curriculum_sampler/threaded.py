"""Batches made ahead of the training loop by threads of its own process.

Nothing is pickled and nothing crosses a pipe, and all threads share one cache. It pays where the work releases the
interpreter's lock: reading, checksums, Pillow's decoders, most of numpy and torch. Where a transform is Python code
through and through, processes are faster.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from .fetcher import Fetcher


class ThreadedBatches:
    """``make(batch)`` for each batch of a ``batch_sampler``, in its order, up to a few ahead of the consumer.

    Args:
        make: From a batch of draws to what is delivered; called in the threads.
        batch_sampler: Asked in the consumer's thread, ``num_threads * prefetch_factor`` batches ahead.
        num_threads: With 0 each batch is made when it is asked for, in the consumer's thread.
        prefetch_factor: Batches ahead per thread.

    >>> list(ThreadedBatches(sum, [[1, 2], [3], [4, 5]], num_threads=2))
    [3, 3, 9]
    """

    def __init__(
        self,
        make: Callable[[Any], Any],
        batch_sampler: Iterable[Any],
        num_threads: int,
        prefetch_factor: int = 2,
    ) -> None:
        self._make = make
        self._batch_sampler = batch_sampler
        self._num_threads = num_threads
        self._ahead = num_threads * prefetch_factor

    def __iter__(self) -> Iterator[Any]:
        if not self._num_threads:
            yield from map(self._make, self._batch_sampler)
            return
        threads: Fetcher[Any] = Fetcher(self._num_threads)
        try:
            made: deque[Any] = deque()
            for number, batch in enumerate(self._batch_sampler):
                made.append(threads.ask(str(number), partial(self._make, batch)))
                if len(made) > self._ahead:
                    yield made.popleft().result()
            while made:
                yield made.popleft().result()
        finally:
            threads.close()
