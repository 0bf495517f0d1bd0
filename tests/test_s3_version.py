"""A read is of one version of an object, and says which, without asking twice."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curriculum_sampler.errors import StorageError
from curriculum_sampler.s3 import S3Storage
from curriculum_sampler.storage import ObjectStat

from .data_fixtures import Clock, patient, s3_endpoint
from .object_server import Answer, ObjectServer, Request, object_server

OLD, NEW = bytes(range(250)) * 20, bytes(reversed(range(250))) * 20


@pytest.fixture
def server(s3_endpoint: str) -> Iterator[ObjectServer]:
    with object_server() as running:
        running.objects["/data/a.tar"] = OLD
        yield running


@pytest.fixture
def place(server: ObjectServer) -> S3Storage:
    return S3Storage("data", endpoint_url=server.url, stall_timeout_seconds=5, retry=patient(Clock()))


def without(*names: str):
    def rule(request: Request, answer: Answer) -> Answer:
        for name in names:
            answer.headers.pop(name, None)
        return answer

    return rule


def read(place: S3Storage, offset: int, count: int, etag: str | None = None) -> tuple[bytes, ObjectStat]:
    buffer = bytearray(count)
    found = place.read_into("a.tar", memoryview(buffer), offset, etag)
    return bytes(buffer), found


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(offset=st.integers(0, len(OLD)), count=st.integers(0, len(OLD)), data=st.data())
def test_a_read_says_which_object_it_was_of_whatever_the_range(
    place: S3Storage, server: ObjectServer, offset: int, count: int, data: st.DataObject
) -> None:
    count = min(count, len(OLD) - offset)
    server.rule = without("Content-Range") if data.draw(st.booleans()) else without()
    content, found = read(place, offset, count)
    assert content == OLD[offset : offset + count]
    assert found == place.stat("a.tar")


def test_the_answer_itself_tells_so_one_request_is_all(place: S3Storage, server: ObjectServer) -> None:
    _, found = read(place, 7, 100)
    assert found.num_bytes == len(OLD)
    assert [request.method for request in server.requests] == ["GET"]


def test_a_server_that_sends_no_content_range_is_asked_for_the_length(
    place: S3Storage, server: ObjectServer
) -> None:
    server.rule = without("Content-Range")
    assert read(place, 7, 100) == (OLD[7:107], place.stat("a.tar"))
    assert [request.method for request in server.requests] == ["GET", "HEAD", "HEAD"]


def replaced_after(received: int, server: ObjectServer) -> None:
    """The first body breaks off after ``received`` bytes, and then the object is another one."""

    def rule(request: Request, answer: Answer) -> Answer:
        if len(server.asked("GET")) == 1:
            server.objects["/data/a.tar"] = NEW
            answer.stops_after = received
        return answer

    server.rule = rule


@pytest.mark.parametrize("received", [0, 1000])
def test_a_read_that_named_no_version_is_still_of_one_version_only(
    place: S3Storage, server: ObjectServer, received: int
) -> None:
    replaced_after(received, server)
    with pytest.raises(StorageError, match=r"a\.tar.*its ETag is .*replaced while it was being read"):
        read(place, 0, 5000)
    first, again = server.asked("GET")
    assert "if-match" not in first.headers
    assert again.headers["if-match"]


def test_a_version_that_was_named_is_compared_also_where_the_server_ignores_if_match(
    place: S3Storage, server: ObjectServer
) -> None:
    etag = place.stat("a.tar").etag
    assert read(place, 0, 100, etag)[0] == OLD[:100]
    server.objects["/data/a.tar"] = NEW
    for count in (100, 0):
        with pytest.raises(StorageError, match=r"its ETag is .*replaced while it was being read"):
            read(place, 0, count, etag)


def test_a_length_asked_for_later_is_that_of_the_same_version(place: S3Storage, server: ObjectServer) -> None:
    def rule(request: Request, answer: Answer) -> Answer:
        server.objects["/data/a.tar"] = NEW
        return without("Content-Range")(request, answer)

    server.rule = rule
    with pytest.raises(StorageError, match="replaced while it was being read"):
        read(place, 0, 100)


def test_a_weak_etag_is_compared_as_it_is_and_never_sent_as_a_condition_it_cannot_meet(
    place: S3Storage, server: ObjectServer
) -> None:
    def rule(request: Request, answer: Answer) -> Answer:
        answer.headers["ETag"] = "W/" + answer.headers["ETag"]
        if request.method == "GET" and len(server.asked("GET")) == 1:
            answer.stops_after = 1000
        return answer

    server.rule = rule
    etag = place.stat("a.tar").etag
    content, found = read(place, 0, 5000)
    assert (content, found.etag) == (OLD, etag)
    assert etag.startswith('W/"')
    assert not [request for request in server.requests if "if-match" in request.headers]
    server.objects["/data/a.tar"] = NEW
    with pytest.raises(StorageError, match="its ETag is W/"):
        read(place, 0, 100, etag)


@pytest.mark.parametrize("ranged", [True, False])
def test_a_whole_object_is_never_taken_for_the_range_asked_for(
    place: S3Storage, server: ObjectServer, ranged: bool
) -> None:
    server.objects["/data/a.tar"] = OLD[:100]

    def rule(request: Request, answer: Answer) -> Answer:
        told = {"Content-Range": "bytes 0-99/100"} if ranged else {}
        return Answer(200, {"ETag": '"x"', **told}, OLD[:100])

    server.rule = rule
    with pytest.raises(
        StorageError, match=r"supports ranged reads|ends before byte 149 \(it has 100 bytes\)"
    ):
        read(place, 50, 100)
