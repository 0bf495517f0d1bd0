"""The one idea: everything about draw number ``n`` is a pure function of (plan, seed, n)."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .draws import Draws
from .keys import derive
from .permutation import LARGEST_SORTED, Permutation, shuffled_rows
from .plan import LARGEST_WINDOW, Era, Plan
from .segment import Segment

Int64s: TypeAlias = NDArray[np.int64]


class Order:
    """The global sequence of draws of a plan under a seed.

    Nothing is stored but what is cheap to recompute: any range of draws may be asked for at any time, in any
    order, with the same answer.

    >>> from curriculum_sampler import Stage, StageSchedule
    >>> plan = StageSchedule([Stage("a", {"x": 1, "y": 1}, steps=9)]).plan({"x": 4, "y": 4}, batch_size=4)
    >>> order = Order(plan, seed=17)
    >>> order.draws(0, 36)[20:24] == order.draws(20, 24)
    True
    """

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.seed = seed
        self.names = tuple(sorted(plan.bucket_sizes))
        self._window_key = derive(seed, "window")
        self._ids = {name: number for number, name in enumerate(self.names)}
        self._streams = {name: BucketStream(plan, seed, name) for name in self.names}

    def draws(self, start: int, stop: int) -> Draws:
        """Return global draws ``start ... stop - 1`` of the plan."""
        num = stop - start
        ids = np.empty(num, dtype=np.uint16)
        indices = np.empty(num, dtype=np.int64)
        passes = np.empty(num, dtype=np.int64)
        at = start
        while at < stop:
            segment = self.plan.segment_at(at)
            end = min(stop, segment.stop, at + LARGEST_WINDOW)
            here = slice(at - start, end - start)
            ids[here], indices[here], passes[here] = self._within(segment, at, end)
            at = end
        for array in (ids, indices, passes):
            array.setflags(write=False)
        return Draws(self.names, ids, indices, passes, self.seed)

    def _within(self, segment: Segment, start: int, stop: int) -> tuple[NDArray[np.uint16], Int64s, Int64s]:
        """Answer for a range inside one segment by way of the whole windows that cover it."""
        stride = segment.window_stride(self.plan.window)
        first = start - (start - segment.start) % stride
        last = min(segment.stop, stop + (segment.start - stop) % stride)
        names = segment.quota.names
        in_quota_order = segment.quota.deal(first - segment.start, last - segment.start)
        buckets = in_quota_order[self._shuffled_positions(segment, first, last)]
        # Ordinals are handed out in stream order, after the shuffle, so that a pass ends before the next begins.
        by_bucket = np.argsort(buckets, kind="stable")
        indices = np.empty(last - first, dtype=np.int64)
        passes = np.empty(last - first, dtype=np.int64)
        before, within = self.plan.ordinals_at_start(segment), segment.quota.counts(first - segment.start)
        done = 0
        for name, num in zip(names, np.bincount(buckets, minlength=len(names)).tolist(), strict=True):
            ordinal = before.get(name, 0) + within[name]
            positions = by_bucket[done : done + num]
            indices[positions], passes[positions] = self._streams[name].samples(ordinal, ordinal + num)
            done += num
        ids = np.array([self._ids[name] for name in names], dtype=np.uint16)[buckets]
        here = slice(start - first, stop - first)
        return ids[here], indices[here], passes[here]

    def _shuffled_positions(self, segment: Segment, first: int, last: int) -> Int64s:
        """Return which place in quota order each draw takes, counted from ``first``, a window's edge.

        The raw quota order is periodic and would marry ranks and positions to buckets, so each window is
        shuffled. A last, partial window keeps the raw order: shuffled, its counts would not hold. In a ramp windows
        begin anew with every step and are no longer than one: a draw may not leave the step whose mixture it follows.
        """
        positions = np.arange(last - first)
        if segment.is_ramp:
            window = min(self.plan.window, segment.step_draws)
            per_step = segment.step_draws // window
            steps = positions.reshape(-1, segment.step_draws)
            rows = shuffled_rows(
                derive(self._window_key, "ramp"),
                first // segment.step_draws * per_step,
                len(steps) * per_step,
                window,
            ).reshape(len(steps), per_step, window)
            rows += np.arange(per_step)[:, None] * window
            steps[:, : per_step * window] = steps[:, :1] + rows.reshape(len(steps), per_step * window)
            return positions
        window = self.plan.window
        num_windows = (last - first) // window
        if num_windows:
            # Keyed by the draw that a window starts at, whatever segment it is in.
            rows = shuffled_rows(
                derive(self._window_key, first % window), first // window, num_windows, window
            )
            windows = positions[: num_windows * window].reshape(num_windows, window)
            rows += windows[:, :1]
            windows[:] = rows
        return positions


class BucketStream:
    """A bucket's endless stream of samples: pass after pass, each a new permutation of the bucket.

    Consecutive samples are grouped into *runs*, worth one good read; a pass takes the runs in random order and
    shuffles sample by sample within each *block* of some tens of runs. With runs of one sample it is the
    uniform shuffle of the whole bucket.
    """

    def __init__(self, plan: Plan, seed: int, bucket: str) -> None:
        self._plan = plan
        self._bucket = bucket
        self._key = derive(seed, "bucket", bucket)
        self._small_key = derive(self._key, "small")
        self._run_size = plan.run_sizes[bucket]
        self._latest: tuple[int, _Pass] | None = None

    def samples(self, start: int, stop: int) -> tuple[Int64s, Int64s]:
        """Return sample index and pass number of ordinals ``start ... stop - 1``."""
        samples = np.empty(stop - start, dtype=np.int64)
        passes = np.empty(stop - start, dtype=np.int64)
        eras = self._plan.eras(self._bucket)
        at = start
        while at < stop:
            number, era = next(
                (n, era) for n, era in reversed(list(enumerate(eras))) if era.first_ordinal <= at
            )
            end = min(stop, eras[number + 1].first_ordinal) if number + 1 < len(eras) else stop
            several = self._run_size == 1 and era.size <= LARGEST_SORTED
            if not several:
                end = min(end, at + era.size - (at - era.first_ordinal) % era.size)
            first, ordinal = divmod(at - era.first_ordinal, era.size)
            here = slice(at - start, end - start)
            if several:
                samples[here], passes[here] = self._small_passes(era, first, ordinal, end - at)
            else:
                passes[here] = era.first_pass + first
                samples[here] = self._pass(era.first_pass + first, era.size)(ordinal, ordinal + end - at)
            at = end
        return samples, passes

    def _small_passes(self, era: Era, first: int, ordinal: int, num: int) -> tuple[Int64s, Int64s]:
        """Answer for many passes over a small bucket at once: each is a row of one table."""
        num_passes = -(-(ordinal + num) // era.size)
        rows = shuffled_rows(self._small_key, era.first_pass + first, num_passes, era.size)
        numbers = np.repeat(np.arange(num_passes) + (era.first_pass + first), era.size)
        here = slice(ordinal, ordinal + num)
        return rows.ravel()[here], numbers[here]

    def _pass(self, number: int, size: int) -> _Pass:
        if self._latest is None or self._latest[0] != number:
            key = derive(self._key, "pass", number)
            self._latest = (number, _Pass(key, size, self._run_size, self._plan.block_runs))
        return self._latest[1]


class _Pass:
    """One pass over a bucket: a permutation of ``range(size)`` that keeps runs together.

    All runs hold ``run_size`` samples but the last of the bucket, the short one. It is given a random place
    among the full runs, which are permuted among themselves: every order of the runs is equally likely, and where
    a block begins is still plain arithmetic.
    """

    def __init__(self, key: int, size: int, run_size: int, block_runs: int) -> None:
        self._key = key
        self._size = size
        self._run_size = run_size
        self._block_size = block_runs * run_size
        num_full, self._short = divmod(size, run_size)
        self._full_runs = Permutation(derive(key, "runs"), num_full) if num_full else None
        self._short_run = num_full
        self._short_place = derive(key, "short") % (num_full + 1)
        # The samples that the short run lacks; every later ordinal moves up by as many.
        self._gap = run_size - self._short if self._short else 0
        self._num_places = num_full + (self._short > 0)
        self._block_runs = block_runs
        self._block: tuple[int, Permutation, Int64s] | None = None

    def __call__(self, start: int, stop: int) -> Int64s:
        """Return the samples at ordinals ``start ... stop - 1`` of the pass."""
        if self._run_size == 1:
            assert self._full_runs is not None
            return self._full_runs(start, stop)
        samples = np.empty(stop - start, dtype=np.int64)
        at = start
        while at < stop:
            block = self._block_of(at)
            first, last = self._block_start(block), self._block_start(block + 1)
            end = min(stop, last)
            shuffle, runs = self._opened(block, last - first)
            samples[at - start : end - start] = self._samples(
                block, runs, first + shuffle(at - first, end - first)
            )
            at = end
        return samples

    def _block_start(self, block: int) -> int:
        """Return the first ordinal of a block of run places."""
        start = block * self._block_size
        if self._gap and start > self._short_place * self._run_size:
            start -= self._gap
        return min(start, self._size)

    def _block_of(self, ordinal: int) -> int:
        block = ordinal // self._block_size
        return block if ordinal < self._block_start(block + 1) else block + 1

    def _opened(self, block: int, size: int) -> tuple[Permutation, Int64s]:
        """Return a block's shuffle and the runs at its places."""
        if self._block is None or self._block[0] != block:
            self._block = (block, Permutation(derive(self._key, "block", block), size), self._runs(block))
        return self._block[1:]

    def _runs(self, block: int) -> Int64s:
        first = block * self._block_runs
        last = min(first + self._block_runs, self._num_places)
        place = self._short_place if self._gap else last
        # Before the short run the full runs keep their place, after it they move down by one.
        before = self._full(first, min(last, place)) if first < place else np.empty(0, np.int64)
        after = self._full(max(first, place + 1) - 1, last - 1) if place < last - 1 else np.empty(0, np.int64)
        short = [self._short_run] if first <= place < last else []
        return np.concatenate([before, np.array(short, dtype=np.int64), after])

    def _full(self, start: int, stop: int) -> Int64s:
        assert self._full_runs is not None
        return self._full_runs(start, stop)

    def _samples(self, block: int, runs: Int64s, ordinals: Int64s) -> Int64s:
        """Return the samples at ordinals of a block, before its shuffle."""
        if self._gap:
            ordinals[ordinals >= self._short_place * self._run_size + self._short] += self._gap
        places, offsets = np.divmod(ordinals, self._run_size)
        places -= block * self._block_runs
        return runs[places] * self._run_size + offsets
