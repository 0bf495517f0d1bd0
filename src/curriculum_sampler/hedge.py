"""A read that is slow to begin is asked for a second time, and the first of the two to end is taken."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait

from .in_time import begin
from .retry import Budget
from .transfer import Transfer

# A longer read would cost more twice than the wait for its first byte.
HEDGED_BYTES = 4 << 20


def fill_hedged(
    transfer: Transfer,
    first: Callable[[Transfer], object],
    second: Callable[[Transfer], object],
    *,
    after_seconds: float,
    budget: Budget,
) -> None:
    """Fill ``transfer`` by ``first`` or, where that has received nothing after a while, also by ``second``.

    Each fills a buffer of its own, so their bytes never meet. What the other one still receives is
    dropped, and its connection closed, as soon as it stirs.

    Raises:
        TimeoutError: Neither has ended when the budget has.
        Exception: What ``first`` raised, if ``second`` did not fill its buffer either.
    """
    runs: dict[Future[object], Transfer] = {}

    def enter(fill: Callable[[Transfer], object]) -> Future[object]:
        twin = transfer.twin()
        run = begin(lambda: fill(twin))
        runs[run] = twin
        return run

    leader = enter(first)
    try:
        wait([leader], timeout=after_seconds)
        if not leader.done() and not runs[leader].received:
            enter(second)
        pending = set(runs)
        while pending:
            done, pending = wait(pending, timeout=max(0.0, budget.left), return_when=FIRST_COMPLETED)
            if not done:
                raise TimeoutError("neither of two reads ended in time")
            for run in done:
                if run.exception() is None and not runs[run].missing:
                    return transfer.take(runs[run])
        leader.result()
    finally:
        for twin in runs.values():
            twin.is_wanted = False
