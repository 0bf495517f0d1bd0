"""Each thing once, what is needed first before the rest, and no thread that outlives its purpose."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.fetcher import ClosedError, Fetcher

from .data_fixtures import Clock

# Longer than anything here takes; only what hangs gets there.
GUARD_SECONDS = 60


class Gate:
    """Something to fetch that comes when it is told to."""

    def __init__(self) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.has_begun.set()
        assert self.may_end.wait(GUARD_SECONDS)
        return "through the gate"


@contextmanager
def busy(fetcher: Fetcher[str], threads: int = 1) -> Iterator[list[Gate]]:
    """Keep the threads of a fetcher busy, so that what is asked for meanwhile waits in the queue."""
    gates = [Gate() for _ in range(threads)]
    for number, gate in enumerate(gates):
        fetcher.ask(f"gate {number}", gate)
    for gate in gates:
        assert gate.has_begun.wait(GUARD_SECONDS)
    try:
        yield gates
    finally:
        for gate in gates:
            gate.may_end.set()


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(GUARD_SECONDS)
        assert not thread.is_alive()


def fetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fetch"]


@contextmanager
def watched() -> Iterator[list[threading.Thread]]:
    """Give the list that the threads begun meanwhile are put in at the end."""
    before, begun = set(fetch_threads()), list[threading.Thread]()
    yield begun
    begun.extend(thread for thread in fetch_threads() if thread not in before)


def test_a_key_is_fetched_once_however_many_ask_at_the_same_time() -> None:
    fetcher: Fetcher[str] = Fetcher(4)
    fetched = Counter[str]()
    start = threading.Barrier(8)
    results = list[str]()

    def fetch(key: str) -> str:
        fetched[key] += 1
        gate.has_begun.wait(GUARD_SECONDS)
        return key.upper()

    def ask() -> None:
        start.wait(GUARD_SECONDS)
        futures = [fetcher.ask(key, lambda key=key: fetch(key)) for key in "abc"]  # type: ignore[misc]
        asked.release()
        results.extend(future.result(GUARD_SECONDS) for future in futures)

    gate, asked = Gate(), threading.Semaphore(0)
    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    for _ in askers:
        asked.acquire()
    gate.has_begun.set()
    join(askers)
    assert fetched == Counter("abc")
    assert Counter(results) == {"A": 8, "B": 8, "C": 8}
    fetcher.close()


def test_what_was_delivered_is_fetched_again_when_asked_for_again() -> None:
    fetcher: Fetcher[int] = Fetcher(1)
    answers = iter(range(3))
    assert [fetcher.ask("a", lambda: next(answers)).result(GUARD_SECONDS) for _ in range(3)] == [0, 1, 2]
    fetcher.close()


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=20))
def test_urgent_requests_overtake_those_ahead_and_each_kind_keeps_its_order(
    requests: list[tuple[str, bool]],
) -> None:
    fetcher: Fetcher[str] = Fetcher(1)
    order = list[str]()
    with busy(fetcher):
        futures = [
            fetcher.ask(key, lambda key=key: order.append(key) or key, ahead=ahead)  # type: ignore[misc, func-returns-value]
            for key, ahead in requests
        ]
    assert [future.result(GUARD_SECONDS) for future in futures] == [key for key, _ in requests]
    # A key is urgent from the first time that somebody waits for it.
    urgent = list(dict.fromkeys(key for key, ahead in requests if not ahead))
    ahead = list(dict.fromkeys(key for key, _ in requests if key not in urgent))
    assert order == urgent + ahead
    fetcher.close()


def test_some_threads_are_kept_for_what_is_waited_for() -> None:
    fetcher: Fetcher[str] = Fetcher(2, threads_ahead=1)
    gate, order = Gate(), list[str]()
    ahead = fetcher.ask("gate", gate, ahead=True)
    assert gate.has_begun.wait(GUARD_SECONDS)
    later = fetcher.ask("later", lambda: order.append("later") or "later", ahead=True)  # type: ignore[func-returns-value]
    assert fetcher.ask("now", lambda: "now").result(GUARD_SECONDS) == "now"
    assert (order, later.done()) == ([], False)  # nobody waits for it yet
    assert fetcher.ask("later", lambda: "never called").result(GUARD_SECONDS) == "later"
    gate.may_end.set()
    assert ahead.result(GUARD_SECONDS) == "through the gate"
    fetcher.close()


def test_where_fetches_are_slow_all_threads_fetch_ahead_and_where_quick_again_few() -> None:
    clock = Clock()
    fetcher: Fetcher[str] = Fetcher(3, threads_ahead=1, clock=clock)

    def second_begins_before_the_first_ends(is_slow: bool) -> bool:
        gates = [Gate(), Gate()]
        futures = [fetcher.ask(f"ahead {n}", gate, ahead=True) for n, gate in enumerate(gates)]
        assert gates[0].has_begun.wait(GUARD_SECONDS)
        fetcher.ask("urgent", lambda: "a thread had time").result(GUARD_SECONDS)
        begun = gates[1].has_begun.wait(GUARD_SECONDS if is_slow else 0)
        for gate, future in zip(gates, futures, strict=True):
            gate.may_end.set()
            future.result(GUARD_SECONDS)
        return begun

    assert not second_begins_before_the_first_ends(is_slow=False)
    fetcher.ask("slow", lambda: clock.sleep(60) or "slow").result(GUARD_SECONDS)  # type: ignore[func-returns-value]
    assert second_begins_before_the_first_ends(is_slow=True)
    for number in range(50):
        fetcher.ask(f"quick {number}", lambda: "quick").result(GUARD_SECONDS)
    assert not second_begins_before_the_first_ends(is_slow=False)
    fetcher.close()


def test_something_has_begun_from_its_first_moment_to_its_end() -> None:
    fetcher: Fetcher[str] = Fetcher(1)
    with busy(fetcher) as (gate,):
        waiting = fetcher.ask("a", lambda: "a", ahead=True)
        assert fetcher.has_begun("gate 0")
        assert not fetcher.has_begun("a")
        assert not fetcher.has_begun("never asked for")
        gate.may_end.set()
        waiting.result(GUARD_SECONDS)
    assert not fetcher.has_begun("gate 0")
    fetcher.close()


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt, RuntimeWarning])
def test_a_failure_is_told_to_all_who_wait_and_then_forgotten(kind: type[BaseException]) -> None:
    fetcher: Fetcher[str] = Fetcher(1)

    def fail() -> str:
        raise kind("the cable is loose")

    with busy(fetcher):
        waiting = [fetcher.ask("a", fail) for _ in range(3)]
    for future in waiting:
        with pytest.raises(kind, match="the cable is loose"):
            future.result(GUARD_SECONDS)
    assert fetcher.ask("a", lambda: "good again").result(GUARD_SECONDS) == "good again"
    fetcher.close()


def test_closing_begins_nothing_more_and_leaves_nobody_waiting() -> None:
    fetcher: Fetcher[str] = Fetcher(2, threads_ahead=1)
    begun = list[str]()

    def note(key: str) -> Callable[[], str]:
        return lambda: begun.append(key) or key  # type: ignore[func-returns-value]

    with watched() as threads, busy(fetcher, threads=2) as gates:
        waiting = [fetcher.ask("urgent", note("urgent")), fetcher.ask("ahead", note("ahead"), ahead=True)]
        in_progress = fetcher.ask("gate 0", note("gate 0"))
        fetcher.close()
        late = fetcher.ask("late", note("late"))
        for gate in gates:
            gate.may_end.set()
        assert in_progress.result(GUARD_SECONDS) == "through the gate"
        for future in (*waiting, late):
            assert isinstance(future.exception(GUARD_SECONDS), ClosedError)
    join(threads)
    assert begun == []


def test_a_fetcher_closed_before_its_first_request_leaves_nobody_waiting() -> None:
    fetcher: Fetcher[str] = Fetcher(1)
    fetcher.close()
    assert isinstance(fetcher.ask("a", lambda: "a").exception(GUARD_SECONDS), ClosedError)


def test_threads_begin_with_the_first_request_and_end_with_the_last_reference() -> None:
    with watched() as none:
        fetcher: Fetcher[str] = Fetcher(5, threads_ahead=3)
    assert none == []
    with watched() as threads:
        fetcher.ask("a", lambda: "a").result(GUARD_SECONDS)
    assert len(threads) == 5
    gc.disable()
    try:
        del fetcher  # at once, not when garbage is collected
        join(threads)
    finally:
        gc.enable()


def test_a_thread_keeps_a_result_alive_until_its_next_fetch_at_most() -> None:
    class Result:
        pass

    fetcher: Fetcher[Result] = Fetcher(1)
    ended = threading.Event()
    result = fetcher.ask("a", Result).result(GUARD_SECONDS)
    weakref.finalize(result, ended.set)
    del result
    fetcher.ask("b", Result).result(GUARD_SECONDS)
    assert ended.wait(GUARD_SECONDS)
    fetcher.close()


FORKS = """
import os, sys, threading
from curriculum_sampler.build import write_shards
from curriculum_sampler.cache import MemoryCache
from curriculum_sampler.draws import Draw, Draws
from curriculum_sampler.foreseen import ForeseenDraws
from curriculum_sampler.memory_storage import MemoryStorage
from curriculum_sampler.reader import SampleReader

class Far(MemoryStorage):
    parallel_reads = 4

manifest = write_shards(Far(), {"easy": [{"__key__": str(n), "cls": n} for n in range(40)]}, samples_per_shard=10)
reader = SampleReader(manifest, lambda: MemoryCache(1 << 20))
batch = ForeseenDraws(Draws.of([Draw("easy", n) for n in range(40)]), {"easy": 4}, tuple(("easy", n) for n in range(10)))

def read():
    with reader.read_batch(batch) as found:
        return [bytes(sample) for sample in found]

expected = read()
assert any(thread.name == "fetch" for thread in threading.enumerate())
child = os.fork()
if child == 0:
    same = read() == expected and reader.take_report().num_bytes["easy"] > 0
    os._exit(7 if same else 8)
assert read() == expected
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_reader_has_threads_of_its_own() -> None:
    child = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (child.stdout, child.stderr) == ("7\n", "")


def test_a_thread_that_lets_go_of_the_last_reference_as_it_looks_for_work_ends_too() -> None:
    """What became urgent stands in both lists; who drops the second entry may drop the fetcher with it."""
    fetcher: Fetcher[str] = Fetcher(1)
    with watched() as threads, busy(fetcher):

        def fetch(held: Fetcher[str] = fetcher) -> str:
            return "fetched"

        fetcher.ask("a", fetch, ahead=True)
        future = fetcher.ask("a", fetch)
        del fetcher, fetch
    assert future.result(GUARD_SECONDS) == "fetched"
    del future
    join(threads)
