"""Several at a time gives what one at a time gives."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.parallel import in_parallel


@given(st.lists(st.integers(), max_size=30), st.integers(1, 8))
def test_results_come_in_the_order_of_the_items(items: list[int], threads: int) -> None:
    assert in_parallel(lambda item: item * 2, items, threads) == [item * 2 for item in items]


def test_as_many_run_at_once_as_were_allowed() -> None:
    together = threading.Barrier(4, timeout=60)  # passes only when four wait at it at the same time
    assert len(in_parallel(lambda _: together.wait(), range(8), threads=4)) == 8


def test_the_first_failure_in_order_is_raised_and_no_thread_stays() -> None:
    before = threading.active_count()

    def fail(item: int) -> int:
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        in_parallel(fail, range(20), threads=4)
    assert threading.active_count() == before
