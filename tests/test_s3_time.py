"""Every operation ends in bounded time, whatever the server does, and says so if that is why."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from curriculum_sampler.errors import StorageError
from curriculum_sampler.in_time import in_time
from curriculum_sampler.retry import Retry
from curriculum_sampler.s3 import S3Storage
from curriculum_sampler.upload import Upload

from .data_fixtures import Clock, patient, s3_endpoint
from .object_server import Answer, ObjectServer, Request, object_server


@pytest.fixture
def server(s3_endpoint: str) -> Iterator[ObjectServer]:
    with object_server() as running:
        running.objects["/data/a.tar"] = bytes(5000)
        yield running


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "ask",
    [
        lambda place: place.stat("a.tar"),
        lambda place: place.exists("a.tar"),
        lambda place: place.list(),
        lambda place: place.write("b.tar", b"x"),
    ],
    ids=["stat", "exists", "list", "write"],
)
def test_an_answer_that_trickles_for_ever_is_given_up_at_the_deadline(
    server: ObjectServer, ask: Callable[[S3Storage], Any]
) -> None:
    def rule(request: Request, answer: Answer) -> Answer:
        answer.drips = True
        return answer

    server.rule = rule
    place = S3Storage("data", endpoint_url=server.url, retry=Retry(deadline_seconds=0.2))
    with pytest.raises(StorageError, match=r"the deadline passed.*Raise deadline_seconds"):
        ask(place)


def test_a_write_has_its_deadline_and_a_second_more_for_every_quarter_mebibyte(server: ObjectServer) -> None:
    ticking = Clock(tick=0.5)
    slow = S3Storage("data", endpoint_url=server.url, retry=patient(ticking, deadline_seconds=1))
    with pytest.raises(StorageError, match=r"b\.tar: the deadline passed"):
        slow.write("b.tar", bytes(1 << 20))
    assert ticking.now < 1 + 4 + 10 * 0.5
    upload = Upload(bytes(1000), patient(Clock(tick=1), deadline_seconds=1).start(extra_seconds=4))
    assert [len(upload.read(100)) for _ in range(4)] == [100] * 4
    with pytest.raises(TimeoutError, match="deadline"):
        upload.read(100)


def test_a_write_is_sent_in_pieces_without_asking_whether_it_may_be(server: ObjectServer) -> None:
    content = bytes(range(256)) * 4096
    S3Storage("data", endpoint_url=server.url).write("b.tar", content)
    assert server.objects["/data/b.tar"] == content
    (request,) = server.asked("PUT")
    assert request.headers["content-length"] == str(len(content))
    assert "expect" not in request.headers


@pytest.mark.parametrize("token", ["", "<NextContinuationToken>again</NextContinuationToken>"])
def test_a_list_that_never_ends_is_found_out(server: ObjectServer, token: str) -> None:
    page = f"<ListBucketResult><Name>data</Name><IsTruncated>true</IsTruncated>{token}</ListBucketResult>"
    server.rule = lambda request, answer: Answer(200, {"Content-Type": "application/xml"}, page.encode())
    with pytest.raises(StorageError, match=r"said to go on, but not where.*another version"):
        S3Storage("data", endpoint_url=server.url).list()
    assert len(server.requests) <= 2


def test_a_body_that_trickles_counts_as_progress_but_not_beyond_the_deadline(server: ObjectServer) -> None:
    clock = Clock(tick=0.5)
    place = S3Storage("data", endpoint_url=server.url, retry=patient(clock, deadline_seconds=30))

    def rule(request: Request, answer: Answer) -> Answer:
        answer.stops_after = 10
        return answer

    server.rule = rule
    with pytest.raises(StorageError, match=r"deadline passed with \d+0 of 5000 bytes received"):
        place.read_into("a.tar", memoryview(bytearray(5000)))
    assert clock.now < 30 + 10 * 0.5
    assert len(server.requests) > 6  # more than a row of attempts without progress


def test_a_call_in_time_gives_what_it_gives() -> None:
    assert in_time(lambda: "answer", 60) == "answer"
    assert in_time(lambda: "answer", float("inf")) == "answer"
    with pytest.raises(ZeroDivisionError):
        in_time(lambda: 1 // 0, 60)


def test_a_call_that_does_not_end_is_left_alone() -> None:
    with object_server() as server, pytest.raises(TimeoutError):
        in_time(server.ended.wait, 0.01)


def test_time_that_never_ends_is_a_deadline_too(server: ObjectServer) -> None:
    place = S3Storage("data", endpoint_url=server.url, retry=Retry(deadline_seconds=float("inf")))
    assert place.stat("a.tar").num_bytes == 5000
