"""The proxy that damages answers does what the tests of faults rely on, and leaves nothing behind."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import http.client
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import boto3
import pytest

from curriculum_sampler.errors import StorageError
from curriculum_sampler.retry import Retry
from curriculum_sampler.s3 import S3Storage
from curriculum_sampler.storage import read_all

from .data_fixtures import Clock, patient, proxy, s3_bucket, s3_endpoint
from .s3_server import Fault, FaultProxy, fault_proxy

CONTENT = bytes(i * 7 % 251 for i in range(5000))


@pytest.fixture
def place(s3_bucket: str, proxy: FaultProxy) -> S3Storage:
    """Three objects behind the proxy, read without waiting."""
    stored = S3Storage(
        s3_bucket, "v1", endpoint_url=proxy.url, stall_timeout_seconds=0.3, retry=patient(Clock())
    )
    for key in ("a.tar", "b.tar", "c.tar.idx"):
        stored.write(key, CONTENT)
    return stored


def read(place: S3Storage, key: str) -> bytes:
    buffer = bytearray(len(CONTENT))
    place.read_into(key, memoryview(buffer))
    return bytes(buffer)


def test_a_fault_waits_for_its_key_and_method_and_the_others_pass(
    place: S3Storage, proxy: FaultProxy
) -> None:
    proxy.faults.extend([Fault("cut", key="*/b.tar"), Fault("status", method="HEAD", key="*.idx")])
    assert read(place, "a.tar") == CONTENT
    assert len(proxy.faults) == 2
    assert read(place, "b.tar") == read(place, "c.tar.idx") == CONTENT
    assert place.stat("c.tar.idx").num_bytes == len(CONTENT)
    assert not proxy.faults
    assert proxy.met == {"cut": 1, "status": 1}
    assert proxy.requests["GET", "v1/b.tar"] == proxy.requests["GET", "v1/a.tar"] + 1


def test_what_is_decided_comes_before_what_is_queued_and_requests_are_numbered(
    place: S3Storage, proxy: FaultProxy
) -> None:
    asked = []
    proxy.requests.clear()
    proxy.faults.append(Fault("cut"))
    proxy.decide = lambda *request: asked.append(request) or (Fault("flip") if len(asked) == 1 else None)
    assert read(place, "a.tar") == bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
    assert len(proxy.faults) == 1
    assert read(place, "b.tar") == CONTENT
    assert not proxy.faults
    assert asked[0] == (0, "GET", "v1/a.tar", "bytes=0-4999")
    assert [number for number, *_ in asked] == list(range(len(asked)))


def test_a_list_may_omit_one_key(place: S3Storage, proxy: FaultProxy) -> None:
    proxy.faults.append(Fault("omit", method="LIST", omits="b.tar"))
    assert place.list() == ["a.tar", "c.tar.idx"]
    assert place.list() == ["a.tar", "b.tar", "c.tar.idx"]


@pytest.mark.parametrize("kind", ["hangup", "silent", "reset", "cut", "stall"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "LIST"])
def test_every_kind_of_request_can_break(place: S3Storage, proxy: FaultProxy, kind: str, method: str) -> None:
    proxy.faults.append(Fault(kind, after=200, method=method))
    assert read(place, "a.tar") == CONTENT
    assert place.stat("a.tar").num_bytes == len(CONTENT)
    assert place.list() == ["a.tar", "b.tar", "c.tar.idx"]
    assert not proxy.faults


def test_the_end_of_a_body_may_drip(place: S3Storage, proxy: FaultProxy) -> None:
    proxy.faults.append(Fault("drip", after=-3))
    assert read(place, "a.tar") == CONTENT
    assert proxy.met == {"drip": 1}


def test_expired_credentials_are_told_as_s3_tells_them(place: S3Storage, proxy: FaultProxy) -> None:
    proxy.valid_key_id = "test-key-id"
    assert read(place, "a.tar") == CONTENT
    proxy.valid_key_id = "another"
    with pytest.raises(StorageError, match="400 ExpiredToken"):
        read(place, "a.tar")


def test_a_slow_network_is_slow_per_connection_and_delivers_all(place: S3Storage, proxy: FaultProxy) -> None:
    """No clock of the wall: what the proxy waits is added up."""
    waited: list[float] = []
    proxy.closing.wait = waited.append  # type: ignore[assignment, method-assign]
    proxy.latency_seconds, proxy.bytes_per_second = 0.5, 1000
    assert read(place, "a.tar") == CONTENT
    assert waited.count(0.5) == proxy.requests.total() - 3
    assert 4 < max(waited) <= 5


def test_the_end_of_the_proxy_ends_its_threads_whatever_they_wait_for(s3_endpoint: str) -> None:
    with fault_proxy(s3_endpoint) as proxy:
        before = threading.active_count()
        waiting = [http.client.HTTPConnection("127.0.0.1", proxy.server_address[1]) for _ in range(3)]
        proxy.faults.extend([Fault("silent", key="silent"), Fault("silent", key="silent")])
        for connection, key in zip(waiting, ("silent", "silent", "told"), strict=True):
            connection.request("GET", f"/nothing/{key}")
        waiting[2].getresponse().read()
        assert threading.active_count() >= before + 3
    assert not [thread for thread in threading.enumerate() if "process_request" in thread.name]
    for connection in waiting:
        connection.close()
