"""A storage counts what it had to ask for again, by cause, in this process and no other."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from curriculum_sampler.errors import StorageError
from curriculum_sampler.s3 import S3Storage

from .data_fixtures import Clock, patient, proxy, s3_bucket, s3_endpoint
from .object_server import Answer, object_server
from .s3_server import Fault, FaultProxy


def stored(bucket: str, endpoint: str, stall: float = 0.2) -> S3Storage:
    place = S3Storage(
        bucket, "v1", endpoint_url=endpoint, stall_timeout_seconds=stall, retry=patient(Clock())
    )
    place.write("a.tar", bytes(5000))
    return place


def read(place: S3Storage) -> None:
    place.read_into("a.tar", memoryview(bytearray(5000)))


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault("status", status=503), "503"),
        (Fault("status", status=429, code="TooManyRequests"), "429"),
        (Fault("status", status=500, code="InternalError"), "500"),
        (Fault("hangup"), "reset"),
        (Fault("reset", after=100), "reset"),
        (Fault("silent"), "timeout"),
        (Fault("stall", after=100), "timeout"),
        (Fault("cut", after=100), "short body"),
        (Fault("status", status=400, code="ExpiredToken"), "credentials"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.kind}-{value.after or value.status}",
)
def test_a_request_made_again_is_counted_under_its_cause(
    s3_bucket: str, proxy: FaultProxy, fault: Fault, cause: str
) -> None:
    place = stored(s3_bucket, proxy.url)
    assert place.retries == {}
    proxy.faults.append(fault)
    read(place)
    assert place.retries == {cause: 1}
    read(place)
    assert place.retries == {cause: 1}


def test_what_is_not_asked_again_is_not_counted(s3_bucket: str, proxy: FaultProxy) -> None:
    place = stored(s3_bucket, proxy.url)
    proxy.faults.append(Fault("status", status=404, code="NoSuchKey"))
    with pytest.raises(StorageError):
        read(place)
    assert place.retries == {}
    proxy.faults.extend([Fault("status", status=500)] * 6)
    with pytest.raises(StorageError, match="attempt 6"):
        read(place)
    assert place.retries == {"500": 5}


def test_a_place_without_a_server_is_counted_too(s3_endpoint: str) -> None:
    place = S3Storage("data", endpoint_url="http://127.0.0.1:9", retry=patient(Clock(), max_attempts=3))
    with pytest.raises(StorageError):
        place.stat("a.tar")
    assert place.retries == {"no connection": 2}


def test_no_count_of_many_threads_is_lost(s3_endpoint: str) -> None:
    with object_server() as server:
        server.objects["/data/a.tar"] = bytes(5000)
        place = S3Storage("data", endpoint_url=server.url, retry=patient(Clock(), max_attempts=20))
        server.rule = lambda request, answer: (
            answer if len(server.requests) % 2 else Answer.error(500, "InternalError")
        )
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: read(place), range(64)))
        assert place.retries == {"500": len(server.requests) - 64}


def report(place: S3Storage, counts: Any) -> None:
    """In a forked child: what is counted before and after a read."""
    before = dict(place.retries)
    read(place)
    counts.send((before, dict(place.retries)))


def test_a_child_process_counts_for_itself(s3_bucket: str, proxy: FaultProxy) -> None:
    place = stored(s3_bucket, proxy.url, stall=20)
    proxy.faults.append(Fault("status", status=500))
    read(place)
    assert place.retries == {"500": 1}
    assert pickle.loads(pickle.dumps(place)).retries == {}
    proxy.faults.append(Fault("status", status=503))
    processes = multiprocessing.get_context("fork")
    ours, theirs = processes.Pipe()
    child = processes.Process(target=report, args=(place, theirs))
    child.start()
    assert ours.recv() == ({}, {"503": 1})
    child.join()
    assert place.retries == {"500": 1}
