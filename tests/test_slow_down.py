"""A server that asks for less gets less, from all threads of the process, and is not given up for it."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.errors import StorageError
from curriculum_sampler.retry import Retry
from curriculum_sampler.s3 import S3Storage
from curriculum_sampler.slow_down import SlowDown

from .data_fixtures import Clock, patient, s3_endpoint
from .object_server import Answer, ObjectServer, Request, object_server
from .virtual_time import VirtualTime

THREADS = 16


@pytest.fixture
def server(s3_endpoint: str) -> Iterator[ObjectServer]:
    with object_server() as running:
        running.objects["/data/a.tar"] = bytes(1000)
        yield running


def refusing(times: int) -> Callable[[Request, Answer], Answer]:
    """Refuse so many requests, then serve."""
    left = iter(range(times))

    def rule(request: Request, answer: Answer) -> Answer:
        return answer if next(left, None) is None else Answer.error(503, "SlowDown")

    return rule


def read_by_all(server: ObjectServer, time: VirtualTime, **budget: float) -> tuple[list[str], S3Storage]:
    """Read by many threads at once, and return the errors that they got."""
    jitter = random.Random(7).random
    place = S3Storage(
        "data",
        endpoint_url=server.url,
        retry=Retry(clock=time, sleep=time.sleep, jitter=jitter, **budget),
    )
    errors: list[str] = []

    def read() -> None:
        try:
            place.read_into("a.tar", memoryview(bytearray(100)))
        except StorageError as error:
            errors.append(str(error))

    time.run([read] * THREADS)
    return errors, place


def test_many_threads_ask_an_overloaded_server_little_more_often_than_one_would(server: ObjectServer) -> None:
    server.rule = refusing(THREADS + 4)
    time = VirtualTime()
    errors, place = read_by_all(server, time)
    assert errors == []
    # All were refused at once, then one in turn tried for all, four times in vain.
    assert len(server.requests) <= 2 * THREADS + 8
    assert place.retries == {"503": THREADS + 4}


def test_a_server_that_stays_overloaded_is_not_hammered_and_given_up_in_time(server: ObjectServer) -> None:
    server.rule = refusing(10**9)
    time = VirtualTime()
    errors, _ = read_by_all(server, time, deadline_seconds=120)
    assert len(errors) == THREADS
    assert all("503 SlowDown" in error or "held back until its deadline" in error for error in errors)
    assert time.now <= 120
    # Each on its own would have asked six times within 13 seconds.
    assert len(server.requests) <= 3 * THREADS


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (429, "TooManyRequests"), (400, "RequestLimitExceeded")]
)
def test_every_way_to_ask_for_less_is_heard(server: ObjectServer, status: int, code: str) -> None:
    answers = iter([Answer.error(status, code)])
    server.rule = lambda request, answer: next(answers, answer)
    errors, place = read_by_all(server, VirtualTime())
    assert errors == []
    assert place.retries == {str(status): 1}


def test_a_server_that_refuses_now_and_then_is_asked_again_soon_each_time(server: ObjectServer) -> None:
    clock = Clock()
    place = S3Storage("data", endpoint_url=server.url, retry=patient(clock))
    server.rule = lambda request, answer: (
        Answer.error(503, "SlowDown") if len(server.requests) % 2 else answer
    )
    for _ in range(12):
        place.read_into("a.tar", memoryview(bytearray(100)))
    assert place.retries == {"503": 12}
    assert clock.now <= 12 * 0.2 * 1.5


def refusals(slow_down: SlowDown, clock: Clock, count: int) -> list[float]:
    """Refuse ``count`` times in a row, and return how long each pause lasted."""
    budget = patient(clock, deadline_seconds=1e9).start()
    pauses = []
    for _ in range(count):
        began = slow_down.hold(budget)
        assert began is not None
        slow_down.refused(budget, began)
        before = clock.now
        slow_down.hold(budget)
        pauses.append(clock.now - before)
    return pauses


def test_pauses_grow_with_refusals_and_shrink_with_success() -> None:
    slow_down, clock = SlowDown(), Clock()
    pauses = refusals(slow_down, clock, 12)
    assert pauses == sorted(pauses)
    assert pauses[4] > 10 * pauses[0]
    assert pauses[-1] == pytest.approx(pauses[-2])  # no longer than the longest
    budget = patient(clock).start()
    for _ in range(12):
        began = slow_down.hold(budget)
        assert began is not None
        assert slow_down.is_on
        slow_down.served(began)
    assert not slow_down.is_on
    assert refusals(slow_down, clock, 1) == [pytest.approx(pauses[0])]


@given(refused=st.integers(1, 40), served=st.integers(0, 40))
def test_requests_that_were_under_way_when_the_pause_began_change_nothing(refused: int, served: int) -> None:
    slow_down, clock = SlowDown(), Clock()
    budget = patient(clock).start()
    began = slow_down.hold(budget)
    assert began is not None
    for _ in range(refused):
        slow_down.refused(budget, began)
    for _ in range(served):
        slow_down.served(began)
    assert slow_down.is_on
    slow_down.hold(budget)
    assert clock.now <= 0.2 * 1.5


def test_nobody_is_held_back_beyond_a_deadline() -> None:
    slow_down, clock = SlowDown(), Clock()
    refusals(slow_down, clock, 8)
    budget = patient(clock, deadline_seconds=1).start()
    began = slow_down.hold(budget)
    assert began is not None
    slow_down.refused(budget, began)
    before = clock.now
    assert slow_down.hold(budget) is None
    assert clock.now == before


def test_threads_return_from_a_pause_one_after_the_other() -> None:
    slow_down, time = SlowDown(), VirtualTime()
    retry = Retry(clock=time, sleep=time.sleep)
    slow_down.refused(retry.start(), 0.0)
    returned: list[float] = []
    lock = threading.Lock()

    def wait() -> None:
        moment = slow_down.hold(retry.start())
        assert moment is not None
        with lock:
            returned.append(moment)

    time.run([wait] * THREADS)
    assert len(set(returned)) == THREADS
    assert min(returned) >= 0.1
    assert max(returned) <= 0.2 * 1.5
