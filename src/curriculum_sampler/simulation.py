"""What the sampler really draws, window by window, beside what was planned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .checks import whole
from .errors import ArgumentError
from .order import Order
from .plan import Plan
from .sampler import MixtureSampler
from .segment import Segment
from .timeline import Drawn

MOST_DRAWS = 1 << 24
"""Draws that are looked at unless more are asked for: seconds."""

_USUAL_WINDOWS = 16
_MOST_WINDOWS = 10_000
_BLOCK_DRAWS = 1 << 18
# One byte remembers whether a sample was seen.
_MOST_SAMPLES = 1 << 28


@dataclass(frozen=True)
class Simulation:
    """What was drawn, and how far from the plan.

    Attributes:
        plan: What was simulated.
        seed: Under which seed.
        windows: What was drawn in each window, or in the first steps of it where ``is_whole`` is false.
        deviations: For each window and bucket, draws more than planned (less, if negative).
        largest_in_batch: Largest deviation in a single global batch; None where the mixture does not hold batch by batch,
            because ``window=`` of the plan is no divisor of the batch.
        distinct: Different samples seen of each bucket; None where not all draws were looked at, or where there are too
            many samples to remember.
        is_whole: Whether all draws were looked at.

    >>> from curriculum_sampler import Stage, StageSchedule
    >>> schedule = StageSchedule([Stage("all", {"easy": 1, "hard": 3}, steps=10)])
    >>> found = simulate(schedule.plan({"easy": 50, "hard": 50}, batch_size=8), seed=17)
    >>> found.draws, found.largest, found.distinct["hard"], found.keeps_its_promise
    ({'easy': 20, 'hard': 60}, 0.0, 50, True)
    """

    plan: Plan
    seed: int
    windows: tuple[Drawn, ...]
    deviations: tuple[dict[str, float], ...]
    largest_in_batch: float | None
    distinct: dict[str, int] | None
    is_whole: bool

    @property
    def draws(self) -> dict[str, int]:
        """Draws looked at of each bucket that is drawn from."""
        found: dict[str, int] = {}
        for window in self.windows:
            for name, count in window.counts.items():
                found[name] = found.get(name, 0) + count
        return found

    @property
    def largest(self) -> float:
        """Largest deviation of a window, in draws."""
        return max(abs(off) for each in self.deviations for off in each.values())

    @property
    def keeps_its_promise(self) -> bool:
        """Whether every deviation is below the bound that the plan promises (``Plan.bound``; 0 means none at all)."""
        worst = max(self.largest, self.largest_in_batch or 0.0)
        # The shares of a ramp are rounded to multiples of 2**-40.
        return worst < self.plan.bound or worst <= self.plan.total_draws * 2.0**-38


def simulate(
    plan: Plan, seed: int, *, window_steps: int | None = None, most_draws: int = MOST_DRAWS
) -> Simulation:
    """Draw a plan with the real sampler, and count.

    Memory is bounded: draws are counted in blocks, and of the samples only whether they were seen is kept.

    Args:
        plan: The plan.
        seed: The sampler's seed.
        window_steps: Steps to count together, rounded up to whole windows of the plan. Default: about a sixteenth of the
            plan, so that equal windows fill every stage.
        most_draws: Where the plan has more draws, only the first steps of every window are looked at, at least one.

    Raises:
        ArgumentError: A number out of range.

    >>> from curriculum_sampler import Stage, StageSchedule
    >>> schedule = StageSchedule([Stage("hard", {"easy": 1, "hard": 3}, steps=10)])
    >>> found = simulate(schedule.plan({"easy": 5, "hard": 5}, batch_size=6), seed=17, window_steps=5)
    >>> found.windows[0], found.deviations[0], found.distinct
    (Drawn(start=0, end=5, counts={'easy': 7, 'hard': 23}), {'easy': -0.5, 'hard': 0.5}, {'easy': 5, 'hard': 5})
    """
    steps = None if window_steps is None else whole("window_steps", window_steps, least=1)
    most = whole("most_draws", most_draws, least=1)
    if steps is not None and plan.total_steps > steps * _MOST_WINDOWS:
        raise ArgumentError(
            f"window_steps: got {steps}, but that cuts {plan.total_steps:,} steps into more than {_MOST_WINDOWS:,} windows. "
            f"Give {-(-plan.total_steps // _MOST_WINDOWS)} or more."
        )
    order = MixtureSampler(plan, seed).order
    is_whole = plan.total_draws <= most
    seen = _Seen(plan, order) if is_whole and sum(plan.bucket_sizes.values()) <= _MOST_SAMPLES else None
    windows: list[Drawn] = []
    deviations: list[dict[str, float]] = []
    in_batch = 0.0
    for segment, start, stop in _windows(plan, steps):
        looked_at = stop
        if not is_whole:
            part = max(1, (stop - start) * most // (plan.total_draws * plan.batch_size))
            looked_at = min(stop, start + _aligned(part, segment, plan) * plan.batch_size)
        counts, furthest = _counted(plan, order, segment, start, looked_at, seen)
        in_batch = max(in_batch, furthest)
        windows.append(Drawn(start // plan.batch_size, looked_at // plan.batch_size, counts))
        planned = _planned(segment, start, looked_at)
        deviations.append({name: float(counts[name] - planned[name]) for name in counts})
    return Simulation(
        plan=plan,
        seed=order.seed,
        windows=tuple(windows),
        deviations=tuple(deviations),
        largest_in_batch=in_batch if plan.batch_size % plan.window == 0 else None,
        distinct=None if seen is None else seen.distinct(),
        is_whole=is_whole,
    )


def _windows(plan: Plan, steps: int | None) -> Iterator[tuple[Segment, int, int]]:
    """Yield the windows as ranges of draws; each lies in one segment, where the quota counts from the start."""
    for segment in plan.segments:
        if steps is None:
            length = (segment.stop - segment.start) // plan.batch_size
            stride = -(-length // max(1, round(length * _USUAL_WINDOWS / plan.total_steps)))
        else:
            stride = steps
        stride = _aligned(stride, segment, plan) * plan.batch_size
        for start in range(segment.start, segment.stop, stride):
            yield segment, start, min(start + stride, segment.stop)


def _aligned(steps: int, segment: Segment, plan: Plan) -> int:
    """Return the least number of steps, ``steps`` or more, that ends on an edge of the plan's windows."""
    stride = segment.window_stride(plan.window)
    least = int(np.lcm(stride, plan.batch_size)) // plan.batch_size
    return -(-steps // least) * least


def _planned(segment: Segment, start: int, stop: int) -> dict[str, Fraction]:
    """Return the exact number of draws that each bucket is due in whole steps ``start <= draw < stop``."""
    if not segment.is_ramp:
        return {name: share * (stop - start) for name, share in segment.shares.items()}
    # A straight line: the mean of its first and last step, times the draws.
    first, last = segment.shares_at(start), segment.shares_at(stop - segment.step_draws)
    return {name: (first[name] + last[name]) / 2 * (stop - start) for name in first}


def _counted(
    plan: Plan, order: Order, segment: Segment, start: int, stop: int, seen: _Seen | None
) -> tuple[dict[str, int], float]:
    """Return what was drawn in ``start <= draw < stop``, and how far a single global batch was off at most."""
    size = plan.batch_size
    numbers = {name: order.names.index(name) for name in segment.names}
    counts = dict.fromkeys(segment.names, 0)
    furthest = 0.0
    block = max(1, _BLOCK_DRAWS // size) * size
    for first in range(start, stop, block):
        draws = order.draws(first, min(first + block, stop))
        by_step = draws.bucket_ids.reshape(-1, size)
        for name, number in numbers.items():
            drawn = np.count_nonzero(by_step == number, axis=1)
            counts[name] += int(drawn.sum())
            planned = _shares_of_steps(segment, name, first, len(by_step)) * size
            furthest = max(furthest, float(np.abs(drawn - planned).max()))
        if seen is not None:
            seen.mark(draws.bucket_ids, draws.indices)
    return counts, furthest


def _shares_of_steps(segment: Segment, name: str, first: int, num_steps: int) -> NDArray[np.float64]:
    share = float(segment.shares_at(first).get(name, 0))
    rise = (
        float(segment.shares_at(first + segment.step_draws).get(name, 0)) - share if segment.is_ramp else 0.0
    )
    shares: NDArray[np.float64] = share + rise * np.arange(num_steps, dtype=np.float64)
    return shares


class _Seen:
    """Which samples were seen: one flag each, bucket after bucket."""

    def __init__(self, plan: Plan, order: Order) -> None:
        self._names = order.names
        sizes = [plan.bucket_sizes[name] for name in order.names]
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self._starts = self._ends - sizes
        self._flags = np.zeros(int(self._ends[-1]), dtype=np.bool_)
        self._drawn = {name for segment in plan.segments for name in segment.names}

    def mark(self, bucket_ids: NDArray[np.uint16], indices: NDArray[np.int64]) -> None:
        """Remember draws."""
        self._flags[self._starts[bucket_ids] + indices] = True

    def distinct(self) -> dict[str, int]:
        """Return how many samples were seen of each bucket that is drawn from."""
        spans = zip(self._names, self._starts.tolist(), self._ends.tolist(), strict=True)
        return {
            name: int(np.count_nonzero(self._flags[start:end]))
            for name, start, end in spans
            if name in self._drawn
        }
