"""Threads make batches ahead, in order, a few at most, and end with their iteration."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.threaded import ThreadedBatches

from .test_fetcher import GUARD_SECONDS, Gate, join, watched


@given(st.lists(st.integers(), max_size=30), st.integers(0, 5), st.integers(1, 4))
def test_batches_come_in_order_whoever_makes_them(
    batches: list[int], num_threads: int, prefetch_factor: int
) -> None:
    made = ThreadedBatches(lambda number: number * 7, batches, num_threads, prefetch_factor)
    assert list(made) == [number * 7 for number in batches]
    assert list(made) == [number * 7 for number in batches]  # and again


@pytest.mark.parametrize(("num_threads", "prefetch_factor"), [(0, 2), (1, 1), (2, 3), (3, 1)])
def test_no_more_are_asked_for_than_the_threads_prefetch(num_threads: int, prefetch_factor: int) -> None:
    asked = list[int]()

    def batches() -> Iterator[int]:
        for number in range(20):
            asked.append(number)
            yield number

    for delivered, number in enumerate(
        ThreadedBatches(abs, batches(), num_threads, prefetch_factor), start=1
    ):
        assert number == delivered - 1
        assert len(asked) == min(20, delivered + num_threads * prefetch_factor)


def test_a_slow_batch_does_not_let_a_quick_one_overtake_it() -> None:
    gates = {0: Gate(), 1: Gate()}

    def make(number: int) -> int:
        if number in gates:
            gates[number]()
        else:
            gates[0].may_end.set()  # the first ends after the third, at the earliest
            gates[1].may_end.set()
        return number

    assert list(ThreadedBatches(make, range(5), num_threads=3, prefetch_factor=2)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("num_threads", [0, 2])
def test_an_error_comes_in_its_batchs_place_with_its_own_traceback(num_threads: int) -> None:
    def make(number: int) -> int:
        if number == 2:
            raise ValueError("broken transform")
        return number

    received = list[int]()
    with watched() as threads, pytest.raises(ValueError, match="broken transform") as caught:
        received.extend(ThreadedBatches(make, range(9), num_threads))
    join(threads)
    assert caught.traceback[-1].name == "make"
    batches = iter(ThreadedBatches(make, range(9), num_threads))
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ValueError, match="broken transform"):
        next(batches)


def test_an_error_of_the_batch_sampler_ends_the_threads() -> None:
    def batches() -> Iterator[int]:
        yield from range(3)
        raise OSError("no more draws")

    with watched() as threads, pytest.raises(OSError, match="no more draws"):
        list(ThreadedBatches(abs, batches(), num_threads=2, prefetch_factor=1))
    join(threads)


def test_threads_end_with_an_iteration_that_is_given_up() -> None:
    gc.disable()
    try:
        with watched() as threads:
            batches = iter(ThreadedBatches(abs, range(100), num_threads=3))
            next(batches)
        assert len(threads) == 3
        del batches  # at once, not when garbage is collected
        join(threads)
    finally:
        gc.enable()


def test_what_was_not_begun_when_the_iteration_was_given_up_is_never_made() -> None:
    made, gate = list[int](), Gate()

    def make(number: int) -> int:
        if number == 1:
            gate()
        made.append(number)
        return number

    with watched() as threads:
        batches = iter(ThreadedBatches(make, range(100), num_threads=1, prefetch_factor=4))
        assert next(batches) == 0
        assert gate.has_begun.wait(GUARD_SECONDS)
    del batches
    gate.may_end.set()
    join(threads)
    assert made == [0, 1]


def test_without_threads_everything_happens_in_the_consumers_thread() -> None:
    makers = ThreadedBatches(lambda batch: threading.current_thread(), range(3), num_threads=0)
    assert set(makers) == {threading.current_thread()}


MIDST = """
import sys, threading
import torch
from curriculum_sampler import fetcher
from curriculum_sampler.threaded import ThreadedBatches

def make(number):
    return torch.stack([torch.ones(3, 512, 384) for _ in range(16)])

batches = iter(ThreadedBatches(make, range(1000), num_threads=3))
next(batches)
"""


@pytest.mark.parametrize(("last", "code", "said"), [("", 0, ""), ("raise KeyError('mine')", 1, "'mine'")])
def test_a_process_that_ends_in_the_midst_of_batches_ends_as_it_would_without_threads(
    last: str, code: int, said: str
) -> None:
    """Threads in torch's C++ code that Python stops by force would abort it."""
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-c", MIDST + last], capture_output=True, text=True, timeout=120, check=False
        )
        assert ended.returncode == code, ended.stderr
        assert ended.stderr.strip().endswith(said)
        assert "terminate" not in ended.stderr


def test_a_process_does_not_wait_for_ever_for_a_batch_that_never_ends() -> None:
    stuck = """
fetcher._GRACE_SECONDS = 0.1
stuck = iter(ThreadedBatches(lambda number: number or threading.Event().wait(), [1, 0, 0], num_threads=2))
assert next(stuck) == 1
"""
    subprocess.run([sys.executable, "-c", MIDST.split("batches =")[0] + stuck], timeout=120, check=True)


def test_a_forked_process_ends_although_its_parents_threads_held_a_lock() -> None:
    forked = """
import os
from curriculum_sampler.fetcher import _BEGUN
(work,) = _BEGUN
is_held, may_end = threading.Event(), threading.Event()

def hold():
    with work._lock:
        is_held.set()
        may_end.wait()

threading.Thread(target=hold).start()
is_held.wait()
child = os.fork()
if not child:
    sys.exit()
may_end.set()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", MIDST + forked], timeout=120, check=True)
