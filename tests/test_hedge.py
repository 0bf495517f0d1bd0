"""A read that is slow to begin is asked for twice; one of the two is taken whole, the other dropped whole."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from curriculum_sampler.errors import ArgumentError, StorageError
from curriculum_sampler.hedge import fill_hedged
from curriculum_sampler.locations import open_storage
from curriculum_sampler.retry import Retry
from curriculum_sampler.s3 import S3Storage
from curriculum_sampler.transfer import Transfer

from .data_fixtures import Clock, patient, s3_endpoint
from .object_server import Answer, ObjectServer, Request, object_server

OLD, NEW = bytes(range(250)) * 4000, bytes(reversed(range(250))) * 4000
AT_ONCE, NEVER = 0.001, 3600


@pytest.fixture
def server(s3_endpoint: str) -> Iterator[ObjectServer]:
    with object_server() as running:
        running.objects["/data/a.tar"] = OLD
        yield running
    no_read_goes_on()


def no_read_goes_on() -> None:
    """A read that was dropped ends with its connection, and leaves no thread."""
    for thread in threading.enumerate():
        if thread.name == "in-time":
            thread.join(30)
            assert not thread.is_alive()


def opened(server: ObjectServer, after: float, **options: float) -> S3Storage:
    return S3Storage(
        "data", endpoint_url=server.url, hedge_after_seconds=after, retry=patient(Clock(), **options)
    )


def read(place: S3Storage, count: int = len(OLD)) -> tuple[bytes, str]:
    buffer = bytearray(count)
    found = place.read_into("a.tar", memoryview(buffer))
    return bytes(buffer), found.etag


class Held:
    """A rule that answers the first GET when let go, as if the object had been replaced after it was sent."""

    def __init__(
        self, server: ObjectServer, late: Answer | None = None, others: Answer | None = None
    ) -> None:
        self.server = server
        whole = Request("GET", "/data/a.tar", {"range": f"bytes=0-{len(OLD) - 1}"})
        self.late = late or server.serve(whole, b"")
        server.objects["/data/a.tar"] = NEW
        self.others = others
        self.let_go = threading.Event()
        server.rule = self

    def __call__(self, request: Request, answer: Answer) -> Answer:
        if request.method != "GET":
            return answer
        if request is self.server.asked("GET")[0]:
            assert self.let_go.wait(60)
            return self.late
        if self.others is not None:
            self.let_go.set()
        return self.others or answer


def test_a_read_that_is_slow_to_begin_is_asked_for_a_second_time(server: ObjectServer) -> None:
    held = Held(server)
    place = opened(server, AT_ONCE)
    content, etag = read(place)
    assert content == NEW  # what the second was answered, whole
    held.let_go.set()
    assert etag == place.stat("a.tar").etag
    assert len(server.asked("GET")) == 2
    assert place.retries == {"hedge": 1}


def test_bytes_of_the_two_never_meet() -> None:
    transfer = Transfer(memoryview(bytearray(4)), 0)
    second_is_taken, first_has_ended = threading.Event(), threading.Event()

    def first(twin: Transfer) -> None:
        twin.buffer[:2] = b"aa"
        second_is_taken.wait(60)
        twin.buffer[:] = b"aaaa"
        first_has_ended.set()

    def second(twin: Transfer) -> None:
        twin.buffer[2:] = b"bb"
        twin.received = 4

    fill_hedged(transfer, first, second, after_seconds=AT_ONCE, budget=Retry().start())
    second_is_taken.set()
    first_has_ended.wait(60)
    assert bytes(transfer.buffer) == b"\0\0bb"


def test_a_read_that_begins_in_time_is_asked_for_once(server: ObjectServer) -> None:
    place = opened(server, NEVER)
    for _ in range(3):
        assert read(place)[0] == OLD
    assert len(server.asked("GET")) == 3
    assert place.retries == {}


@pytest.mark.parametrize(
    "others",
    [
        Answer.error(500, "InternalError"),
        Answer.error(404, "NoSuchKey"),
        Answer(206, {"ETag": '"x"', "Content-Range": f"bytes 0-999999/{len(OLD)}"}, OLD, stops_after=10),
    ],
    ids=["500", "404", "cut"],
)
def test_a_second_request_that_fails_harms_nothing(server: ObjectServer, others: Answer) -> None:
    Held(server, others=others)
    place = opened(server, AT_ONCE)
    assert read(place)[0] == OLD
    assert place.retries["hedge"] == 1


def test_a_read_that_was_dropped_asks_for_nothing_more(server: ObjectServer) -> None:
    held = Held(server, late=Answer.error(500, "InternalError"))
    place = opened(server, AT_ONCE)
    assert read(place)[0] == NEW
    held.let_go.set()
    no_read_goes_on()
    assert len(server.asked("GET")) == 2


def test_a_version_that_was_named_is_the_one_that_comes(server: ObjectServer) -> None:
    place = opened(server, AT_ONCE)
    etag = place.stat("a.tar").etag
    held = Held(server)
    buffer = bytearray(len(OLD))
    reading = threading.Thread(target=place.read_into, args=("a.tar", memoryview(buffer), 0, etag))
    reading.start()
    while len(server.asked("GET")) < 2:  # the second is refused: it is another version by now
        reading.join(0.01)
    held.let_go.set()
    reading.join(60)
    assert bytes(buffer) == OLD


def test_a_read_that_fails_fails_as_if_asked_once(server: ObjectServer) -> None:
    server.rule = lambda request, answer: Answer.error(404, "NoSuchKey")
    for after in (AT_ONCE, NEVER):
        with pytest.raises(StorageError, match=r"a\.tar at offset 0.*404 NoSuchKey.*does not exist"):
            read(opened(server, after))


def test_an_overloaded_server_is_not_asked_twice(server: ObjectServer) -> None:
    place = opened(server, AT_ONCE, max_attempts=3)
    server.rule = lambda request, answer: Answer.error(503, "SlowDown")
    for _ in range(2):
        with pytest.raises(StorageError, match="503 SlowDown"):
            read(place)
    before = len(server.requests)
    with pytest.raises(StorageError, match="503 SlowDown"):
        read(place)
    assert len(server.requests) == before + 3


@pytest.mark.timeout(60)
def test_two_answers_that_trickle_for_ever_are_given_up_at_the_deadline(server: ObjectServer) -> None:
    def rule(request: Request, answer: Answer) -> Answer:
        answer.drips = True
        return answer

    server.rule = rule
    place = opened(server, AT_ONCE)
    place.retry = Retry(deadline_seconds=0.2)
    with pytest.raises(StorageError, match=r"the deadline passed with 0 of 1000000 bytes"):
        read(place)
    server.ended.set()


def test_a_large_read_is_never_asked_for_twice(server: ObjectServer) -> None:
    server.objects["/data/a.tar"] = large = bytes(5 << 20)
    place = opened(server, 1e-9)
    assert read(place, len(large))[0] == large
    assert place.retries == {}


def test_a_time_that_is_none_is_refused() -> None:
    for seconds in (0, -1, float("nan")):
        with pytest.raises(ArgumentError, match=r"hedge_after_seconds=.* must be above 0"):
            open_storage("s3://data", hedge_after_seconds=seconds)
        with pytest.raises(ArgumentError, match=r"stall_timeout_seconds=.* must be above 0"):
            S3Storage("data", stall_timeout_seconds=seconds)
