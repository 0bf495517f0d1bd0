"""Which runs the coming draws need, in order of need, as far ahead as a byte budget reaches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from .foreseen import Run
from .order import Order

# Draws looked at in one step, which takes about a millisecond: enough to stay ahead of any training loop, few
# enough that the first batch need not wait for the whole horizon.
_STEP_DRAWS = 4096


@dataclass(slots=True)
class _Need:
    """A run that a pass needs from its draw ``first`` to its draw ``last``, as far as was looked."""

    run: Run
    first: int
    last: int


class Foresight:
    """A horizon that moves along an order of draws.

    Every run that a draw between the position and the horizon needs is *needed*: fetched or about to be. The horizon
    is as far ahead as the needed runs fit into the budget together; as draws are done with, it moves on.

    Args:
        order: The draws.
        position: The first draw not done with.
        run_bytes: Bucket -> bytes of a run.
        num_bytes: The budget.

    >>> from curriculum_sampler import Stage, StageSchedule
    >>> plan = StageSchedule([Stage("a", {"x": 1}, steps=10)]).plan({"x": 40}, batch_size=4, run_sizes=10, block_runs=2)
    >>> foresight = Foresight(Order(plan, seed=17), 0, {"x": 100}, num_bytes=300)
    >>> len(foresight.advance(0)), len(foresight.needed)
    (3, 3)
    """

    def __init__(self, order: Order, position: int, run_bytes: Mapping[str, float], num_bytes: int) -> None:
        self._order = order
        self._run_bytes = run_bytes
        self._budget = num_bytes
        self._horizon = self._forgotten = self._looked = position
        self._held = 0.0
        self._last_need: dict[Run, int] = {}
        # Beyond the horizon, but looked at: each draw is looked at once, however slowly the horizon moves.
        self._in_view: deque[_Need] = deque()
        self._latest: dict[tuple[Run, int], _Need] = {}

    @property
    def needed(self) -> set[Run]:
        """Runs (bucket, number) that draws between position and horizon need."""
        return set(self._last_need)

    def advance(self, position: int, handed_out: int = 0) -> list[Run]:
        """Move on, and return the runs that come into sight.

        Args:
            position: The draws before it are done with.
            handed_out: The draws before it are wanted at once: the horizon is at least there, whatever the budget.
        """
        total, start = self._order.plan.total_draws, max(self._looked, position)
        if self._looked < min(total, max(self._horizon + _STEP_DRAWS, position + _STEP_DRAWS, handed_out)):
            self._look(start, min(total, max(start + _STEP_DRAWS, handed_out)))
        # Only then: what is needed again soon is known, and not forgotten.
        if self._horizon < position or self._held > self._budget:
            self._forget(position)
        coming = []
        while self._in_view:
            need = self._in_view[0]
            run = need.run
            if self._is_too_much(run) and self._forgotten < position:
                self._forget(position)
            if self._is_too_much(run) and need.first >= handed_out:
                break
            self._in_view.popleft()
            if need.last < position:
                continue
            if run not in self._last_need:
                self._held += self._run_bytes[run[0]]
                coming.append(run)
            self._last_need[run] = max(need.last, self._last_need.get(run, need.last))
        self._horizon = self._in_view[0].first if self._in_view else self._looked
        return coming

    def _is_too_much(self, run: Run) -> bool:
        more = 0.0 if run in self._last_need else self._run_bytes[run[0]]
        return self._held + more > self._budget

    def _forget(self, position: int) -> None:
        self._forgotten = position
        self._horizon = max(self._horizon, position)
        for run in [run for run, last in self._last_need.items() if last < position]:
            del self._last_need[run]
            self._held -= self._run_bytes[run[0]]

    def _look(self, start: int, stop: int) -> None:
        """Take these draws into view; what the draws before them needed in the same pass goes on."""
        before, self._latest = self._latest, {}
        for need, in_pass in self._needs(start, stop):
            known = before.get((need.run, in_pass))
            if known is None:
                self._in_view.append(need)
            else:
                known.last = need.last
                if known.first < self._horizon and need.run in self._last_need:
                    self._last_need[need.run] = max(need.last, self._last_need[need.run])
            self._latest[need.run, in_pass] = known or need
        self._looked = stop

    def _needs(self, start: int, stop: int) -> Iterator[tuple[_Need, int]]:
        """Yield what each pass needs, and the pass, in order of first need."""
        if start >= stop:
            return
        draws = self._order.draws(start, stop)
        sizes = np.array([self._order.plan.run_sizes[name] for name in draws.names])
        runs = draws.indices // sizes[draws.bucket_ids]
        # Passes are told apart: where they are short the next one needs the same runs again, but not yet.
        together = (draws.passes * (int(runs.max()) + 1) + runs) * len(draws.names) + draws.bucket_ids
        # Each one's first and last draw, by sorting. (np.unique would do, but its first call imports numpy.ma.)
        order = np.argsort(together, kind="stable")
        begins = np.flatnonzero(np.diff(together[order], prepend=-1))
        first, last = order[begins], order[np.append(begins[1:], len(order)) - 1]
        for at in np.argsort(first).tolist():
            draw = first[at]
            run = draws.names[draws.bucket_ids[draw]], int(runs[draw])
            yield _Need(run, start + int(draw), start + int(last[at])), int(draws.passes[draw])
