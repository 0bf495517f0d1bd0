"""A sampler's batches, each with the runs that its reader shall fetch for later ones."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from .errors import ArgumentError
from .foreseen import ForeseenDraws, Run
from .foresight import Foresight
from .manifest import Manifest
from .plan import Plan
from .sampler import MixtureSampler

# Runs that one batch brings: several workers share the work, and the first batches come before the first runs.
_RUNS_PER_BATCH = 8

# New runs after which the cache is trimmed, since looking through a folder takes time: so many, or this share of the
# budget if that is less. By so much it may be exceeded.
_RUNS_PER_TRIM = 8
_SHARE_PER_TRIM = 1 / 16


@dataclass(slots=True)
class Progress:
    """How many micro-batches of a rank the training loop has received."""

    delivered: int = 0


class Reader(Protocol):
    """A data set that caches what it is told to fetch."""

    @property
    def manifest(self) -> Manifest: ...

    def trim_cache(self, needed: Iterable[Run], run_sizes: Mapping[str, int]) -> None: ...


class ForeseeingBatches:
    """Iterates a sampler of ``Draws`` and adds what it foresees. A change at run time is foreseen from then on.

    Args:
        sampler: Whose batches to yield.
        reader: Told which runs are needed whenever that changes.
        cache_bytes: How much may be at hand or on its way; None for the default of ``check_cache_bytes``.
        progress: Knows the number of this rank's batches that are done with.
    """

    def __init__(
        self, sampler: MixtureSampler, reader: Reader, cache_bytes: int | None, progress: Progress
    ) -> None:
        self._sampler = sampler
        self._reader = reader
        self._cache_bytes = cache_bytes
        self._progress = progress

    def __iter__(self) -> Iterator[ForeseenDraws]:
        sampler, manifest = self._sampler, self._reader.manifest
        foresight, order = None, None
        coming: deque[Run] = deque()
        untold: list[Run] = []
        for batch in sampler:
            done = self._progress.delivered // sampler.grad_accumulation * sampler.plan.batch_size
            if foresight is None or order is not sampler.order:
                order, plan = sampler.order, sampler.plan
                budget = check_cache_bytes(plan, manifest, self._cache_bytes)
                each = run_bytes(plan, manifest)
                foresight = Foresight(order, done, each, budget)
                most_untold = _SHARE_PER_TRIM * budget
                coming.clear()
            new = foresight.advance(done, -(-sampler.position // sampler.grad_accumulation) * plan.batch_size)
            coming.extend(new)
            untold += new
            if len(untold) >= _RUNS_PER_TRIM or sum(each[name] for name, _ in untold) > most_untold:
                self._reader.trim_cache(foresight.needed, plan.run_sizes)
                untold.clear()
            runs = tuple(coming.popleft() for _ in range(min(_RUNS_PER_BATCH, len(coming))))
            yield ForeseenDraws(batch, plan.run_sizes, runs)


def run_bytes(plan: Plan, manifest: Manifest) -> dict[str, float]:
    """Return bucket -> bytes of one run, on average."""
    return {name: size * manifest.mean_sample_bytes(name) for name, size in plan.run_sizes.items()}


def check_cache_bytes(plan: Plan, manifest: Manifest, cache_bytes: int | None) -> int:
    """Return the budget of a cache for a plan: twice what must be at hand, unless one is given.

    At hand must be one block of every bucket: a block is what is shuffled sample by sample. As much again lets the
    next blocks come while those are used up.

    Raises:
        ArgumentError: The budget given cannot hold the blocks.
    """
    blocks = _block_bytes(plan.block_runs, plan, manifest)
    if cache_bytes is None:
        return int(2 * blocks) + 1
    if cache_bytes < blocks:
        fitting = [n for n in range(1, plan.block_runs) if _block_bytes(n, plan, manifest) <= cache_bytes]
        smaller = (
            f"shuffle in smaller blocks: plan_options={{'block_runs': {fitting[-1]}}}"
            if fitting
            else "read in smaller runs: plan_options={'run_sizes': ...}"
        )
        raise ArgumentError(
            f"cache_bytes={cache_bytes} cannot hold one block of {plan.block_runs} runs of each bucket, together "
            f"{math.ceil(blocks)} bytes, so the same runs would be fetched again and again. Raise it (twice that is "
            f"best), or {smaller}."
        )
    return cache_bytes


def _block_bytes(block_runs: int, plan: Plan, manifest: Manifest) -> float:
    """Return the bytes of one block of each bucket."""
    return sum(
        manifest.mean_sample_bytes(name) * min(block_runs * plan.run_sizes[name], size)
        for name, size in manifest.bucket_sizes.items()
    )
