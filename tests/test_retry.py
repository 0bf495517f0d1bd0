"""Trying again ends: by attempts, and by time."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.errors import ArgumentError
from curriculum_sampler.retry import Retry

from .data_fixtures import Clock


@given(
    attempts=st.integers(1, 30),
    deadline=st.floats(0.1, 100),
    jitters=st.lists(st.floats(0, 1), min_size=40, max_size=40),
    progress=st.sets(st.integers(0, 39)),
)
def test_no_pause_ends_after_the_deadline_and_no_row_of_failures_is_too_long(
    attempts: int, deadline: float, jitters: list[float], progress: set[int]
) -> None:
    clock = Clock()
    values = iter(jitters)
    retry = Retry(
        max_attempts=attempts,
        deadline_seconds=deadline,
        clock=clock,
        sleep=clock.sleep,
        jitter=lambda: next(values),
    )
    budget, in_a_row = retry.start(), 0
    for number in range(40):
        if number in progress:
            budget.progressed()
            in_a_row = 0
        before = clock.now
        in_a_row += 1
        went_on = budget.pause()
        longest = min(8.0, 0.2 * 2 ** (in_a_row - 1))
        if not went_on:
            assert clock.now == before
            assert in_a_row >= attempts or before + longest >= deadline - 1e-9
            return
        assert in_a_row < attempts
        assert longest / 2 - 1e-9 <= clock.now - before <= longest + 1e-9
        assert clock.now < deadline
    assert budget.attempts == 41


def test_pauses_differ_between_workers_and_leave_global_randomness_alone() -> None:
    state = random.getstate()
    clock = Clock()
    pauses = set()
    for _ in range(20):
        before = clock.now
        Retry(clock=clock, sleep=clock.sleep).start().pause()
        pauses.add(clock.now - before)
    assert len(pauses) > 10
    assert random.getstate() == state


def test_a_pause_after_very_many_refusals_is_the_longest_and_not_infinite() -> None:
    assert Retry(jitter=lambda: 1.0).pause_seconds(10**6) == 8.0


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"max_attempts": 0}, "max_attempts=0 must be at least 1"),
        ({"deadline_seconds": 0}, "deadline_seconds=0 must be above 0"),
        ({"deadline_seconds": float("nan")}, "deadline_seconds=nan must be above 0"),
        (
            {"first_pause_seconds": 9.0},
            "first_pause_seconds=9.0 must lie between 0 and longest_pause_seconds=8.0",
        ),
        ({"first_pause_seconds": -1.0}, "first_pause_seconds=-1.0 must lie between 0"),
    ],
)
def test_a_budget_that_allows_nothing_is_refused(budget: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Retry(**budget)
