"""Reading from S3 gives the same bytes or a clear error in bounded time, whatever the network does."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import multiprocessing
import pickle
from collections import deque

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curriculum_sampler.errors import ArgumentError, StorageError
from curriculum_sampler.retry import Retry
from curriculum_sampler.s3 import S3Storage
from curriculum_sampler.storage import read_all

from .data_fixtures import Clock, patient, proxy, s3_bucket, s3_endpoint
from .s3_server import Fault, FaultProxy, web_server

CONTENT = bytes(i * 7 % 251 for i in range(5000))


def stored(
    bucket: str, endpoint: str, clock: Clock | None = None, stall: float = 0.2, **budget: float
) -> S3Storage:
    """A storage that holds CONTENT as ``a.tar`` and never really waits long."""
    clock = Clock() if clock is None else clock
    place = S3Storage(
        bucket, "v1", endpoint_url=endpoint, stall_timeout_seconds=stall, retry=patient(clock, **budget)
    )
    place.write("a.tar", CONTENT)
    return place


def read(place: S3Storage, offset: int = 0, count: int = len(CONTENT)) -> bytes:
    buffer = bytearray(count)
    place.read_into("a.tar", memoryview(buffer), offset)
    return bytes(buffer)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=503, code="SlowDown"),
        Fault("status", status=500, code="InternalError"),
        Fault("status", status=429, code="TooManyRequests"),
        Fault("reset", after=0),
        Fault("reset", after=1234),
        Fault("cut", after=0),
        Fault("cut", after=1234),
        Fault("stall", after=0),
        Fault("stall", after=1234),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.after or fault.status}",
)
def test_a_passing_fault_costs_only_time(s3_bucket: str, proxy: FaultProxy, fault: Fault) -> None:
    place = stored(s3_bucket, proxy.url)
    proxy.faults.append(fault)
    assert read(place, 100, 4000) == CONTENT[100:4100]
    assert len(proxy.ranges) == 2


@pytest.mark.parametrize("kind", ["cut", "stall"])
def test_a_broken_body_is_resumed_from_the_last_byte_received(
    s3_bucket: str, proxy: FaultProxy, kind: str
) -> None:
    place = stored(s3_bucket, proxy.url)
    proxy.faults.extend([Fault(kind, after=1000), Fault(kind, after=500)])
    assert read(place, 10, 3000) == CONTENT[10:3010]
    assert proxy.ranges == ["bytes=10-3009", "bytes=1010-3009", "bytes=1510-3009"]


FAULTS = st.builds(
    Fault,
    kind=st.sampled_from(["status", "reset", "cut", "before"]),
    after=st.integers(0, 900),
    status=st.sampled_from([503, 500, 429, 403, 404]),
)


@pytest.fixture
def place(s3_bucket: str, proxy: FaultProxy) -> S3Storage:
    return stored(s3_bucket, proxy.url)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(faults=st.lists(FAULTS, max_size=12))
def test_any_mix_of_faults_gives_the_same_bytes_or_a_clear_error(
    place: S3Storage, proxy: FaultProxy, faults: list[Fault]
) -> None:
    clock = Clock()
    place.retry = patient(clock, deadline_seconds=60)
    proxy.faults = deque(faults)
    try:
        assert read(place, 77, 4000) == CONTENT[77:4077]
    except StorageError as error:
        message = str(error)
        assert f"{place.url}/a.tar at offset" in message
        assert "attempt" in message
        assert proxy.url in message
    assert clock.now <= 60


def test_an_object_replaced_between_two_attempts_is_an_error_and_not_a_mixture(
    s3_bucket: str, proxy: FaultProxy
) -> None:
    place = stored(s3_bucket, proxy.url)
    etag = place.stat("a.tar").etag
    proxy.faults.extend(
        [Fault("cut", after=1000), Fault("before", action=lambda: place.write("a.tar", bytes(5000)))]
    )
    with pytest.raises(StorageError, match=r"412.*replaced while it was being read"):
        place.read_into("a.tar", memoryview(bytearray(5000)), 0, etag)


def test_a_server_that_stays_down_is_given_up_after_a_bounded_time(s3_bucket: str, proxy: FaultProxy) -> None:
    clock = Clock()
    place = stored(s3_bucket, proxy.url, clock, max_attempts=4)
    proxy.faults.extend([Fault("status")] * 50)
    with pytest.raises(
        StorageError, match=r"offset 0: the server answered 503 SlowDown.*attempt 4.*try later"
    ):
        read(place)
    assert len(proxy.ranges) == 4
    assert clock.now < 10


def test_a_server_that_answers_a_byte_at_a_time_cannot_hold_a_read_beyond_its_deadline(
    s3_bucket: str, proxy: FaultProxy
) -> None:
    place = stored(s3_bucket, proxy.url)
    place.retry = Retry(deadline_seconds=0.25)
    proxy.faults.append(Fault("drip"))  # 25 seconds for the whole body, which the read would return
    with pytest.raises(StorageError, match=r"deadline passed with (?!5000)\d+ of 5000 bytes"):
        read(place)


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (404, "NoSuchKey"), (400, "BadRequest")])
def test_a_refusal_is_never_asked_again(s3_bucket: str, proxy: FaultProxy, status: int, code: str) -> None:
    place = stored(s3_bucket, proxy.url)
    proxy.faults.append(Fault("status", status=status, code=code))
    with pytest.raises(StorageError, match=f"answered {status} {code}.*attempt 1,"):
        read(place)
    assert len(proxy.ranges) == 1


def test_a_server_that_ignores_ranges_is_found_out_unless_the_range_is_all(
    s3_bucket: str, proxy: FaultProxy
) -> None:
    place = stored(s3_bucket, proxy.url)
    proxy.faults.extend([Fault("whole")] * 2)
    assert read(place) == CONTENT
    with pytest.raises(StorageError, match=r"sent 5000 bytes.*supports ranged reads"):
        read(place, 0, 100)


def test_denied_access_says_what_to_check(s3_bucket: str, proxy: FaultProxy) -> None:
    place = stored(s3_bucket, proxy.url)
    proxy.faults.append(Fault("status", status=403, code="AccessDenied"))
    with pytest.raises(StorageError, match=r"Access is denied: check the credentials, profile"):
        read(place)


def test_a_missing_bucket_is_told_from_a_missing_object(s3_bucket: str, s3_endpoint: str) -> None:
    with pytest.raises(StorageError, match=f"s3://{s3_bucket}/v2/a.tar: .*404.*The object does not exist"):
        S3Storage(s3_bucket, "v2", endpoint_url=s3_endpoint).stat("a.tar")
    absent = S3Storage("no-such-bucket", "v1", endpoint_url=s3_endpoint)
    for ask in (absent.stat, absent.exists, absent.list, lambda key: absent.write(key, b"")):
        with pytest.raises(StorageError, match="bucket does not exist at this endpoint"):
            ask("a.tar")


def test_a_wrong_endpoint_is_named_with_the_next_move() -> None:
    clock = Clock()
    place = S3Storage("data", endpoint_url="http://127.0.0.1:9", retry=patient(clock))
    with pytest.raises(
        StorageError, match=r"no connection to the endpoint at http://127\.0\.0\.1:9.*AWS_ENDPOINT_URL"
    ):
        place.stat("a.tar")
    assert clock.now < 30


REQUESTS = (
    lambda place: place.stat("a.tar"),
    lambda place: place.exists("a.tar"),
    read,
    lambda place: place.write("a.tar", b"x"),
    lambda place: place.list(),
)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_an_endpoint_that_redirects_is_an_error_that_says_where_to(s3_endpoint: str, status: int) -> None:
    headers = {"Location": "https://me:hunter2@store.example/data/a.tar?token=hunter2"}
    with web_server(status, headers) as server:
        place = S3Storage("data", "v1", endpoint_url=server.url)
        for request in REQUESTS:
            with pytest.raises(
                StorageError, match=rf"redirects to https://store\.example \({status}\).*region.*scheme"
            ) as caught:
                request(place)
            assert server.url in str(caught.value)
            assert "hunter2" not in str(caught.value)
        assert server.requests == len(REQUESTS)


def test_a_redirect_into_another_region_is_followed_once_and_then_names_the_region(s3_endpoint: str) -> None:
    with web_server(301, {"x-amz-bucket-region": "eu-west-3"}) as server:
        with pytest.raises(StorageError, match="lies in region 'eu-west-3': pass region='eu-west-3'"):
            S3Storage("data", endpoint_url=server.url).stat("a.tar")
        assert server.requests == 2


@pytest.mark.parametrize("body", [b"", b"<html><p>Welcome<br></html>", b"<html><p>Welcome</p></html>", b"{}"])
def test_a_web_server_is_told_from_an_s3_endpoint(s3_endpoint: str, body: bytes) -> None:
    with web_server(200, body=body) as server:
        place = S3Storage("data", "v1", endpoint_url=server.url)
        for request in REQUESTS:
            with pytest.raises(StorageError, match=r"this is no S3 endpoint.*Check host and port") as caught:
                request(place)
            assert server.url in str(caught.value)
        assert server.requests == len(REQUESTS)


def test_a_list_cut_short_is_asked_for_again(s3_endpoint: str) -> None:
    with web_server(200, {"Content-Type": "application/xml"}, b"<ListBucketResult><Name>da") as server:
        place = S3Storage("data", "v1", endpoint_url=server.url, retry=patient(Clock(), max_attempts=3))
        with pytest.raises(StorageError, match=r"answered 500.*attempt 3"):
            place.list()
        assert server.requests == 3


def test_the_endpoint_may_come_from_the_environment(
    s3_bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(s3_bucket, s3_endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
    assert read(S3Storage(s3_bucket, "v1")) == CONTENT


def test_without_credentials_the_error_says_how_to_get_some(
    s3_bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(s3_bucket, s3_endpoint)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match=r"no usable credentials.*anonymous=True"):
        read(S3Storage(s3_bucket, "v1", endpoint_url=s3_endpoint))
    with pytest.raises(ArgumentError, match=r"profile='nobody'.*ProfileNotFound"):
        read(S3Storage(s3_bucket, "v1", endpoint_url=s3_endpoint, profile="nobody"))


def test_public_data_needs_no_credentials(
    s3_bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(s3_bucket, s3_endpoint)
    boto3.client("s3", endpoint_url=s3_endpoint).put_object_acl(
        Bucket=s3_bucket, Key="v1/a.tar", ACL="public-read"
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert read(S3Storage(s3_bucket, "v1", endpoint_url=s3_endpoint, anonymous=True)) == CONTENT


def test_paying_for_the_transfer_is_said_only_when_agreed_to(s3_bucket: str, proxy: FaultProxy) -> None:
    read(stored(s3_bucket, proxy.url))
    read(S3Storage(s3_bucket, "v1", endpoint_url=proxy.url, requester_pays=True))
    assert proxy.payers == ["", "requester"]


def test_credentials_never_reach_a_message(s3_bucket: str, proxy: FaultProxy) -> None:
    place = stored(s3_bucket, proxy.url)
    for fault in (
        Fault("status", status=403, code="InvalidAccessKeyId"),
        Fault("status", status=404, code="NoSuchKey"),
    ):
        proxy.faults.clear()
        proxy.faults.extend([fault] * 2)
        with pytest.raises(StorageError) as caught:
            read(place)
        assert "test-key-id" not in str(caught.value) + repr(place) + str(place.__getstate__())
        assert "test-secret" not in str(caught.value) + repr(place) + str(place.__getstate__())


@pytest.mark.slow
def test_a_thousand_and_more_keys_are_listed_whole(s3_bucket: str, s3_endpoint: str) -> None:
    place = S3Storage(s3_bucket, "many", endpoint_url=s3_endpoint)
    keys = [f"{number:04}.tar" for number in range(1005)]
    for key in keys:
        place.write(key, b"")
    assert place.list() == keys


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_storage_used_before_works_in_a_child_process(
    s3_bucket: str, s3_endpoint: str, method: str
) -> None:
    place = stored(s3_bucket, s3_endpoint)
    assert read(place) == CONTENT
    plain = S3Storage(s3_bucket, "v1", endpoint_url=s3_endpoint)
    read(plain)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.starmap(read_all, [(plain, "a.tar")] * 4) == [CONTENT] * 4
    assert read(place) == CONTENT


def test_a_forked_child_does_not_share_its_parents_connection(s3_bucket: str, proxy: FaultProxy) -> None:
    place = stored(s3_bucket, proxy.url, stall=20)
    assert proxy.connections == 1
    child = multiprocessing.get_context("fork").Process(target=read, args=(place,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert proxy.connections == 2


def test_errors_survive_the_way_out_of_a_worker(s3_bucket: str, s3_endpoint: str) -> None:
    place = S3Storage(s3_bucket, endpoint_url=s3_endpoint)
    with pytest.raises(StorageError) as caught:
        place.stat("missing.tar")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is type(caught.value)
    assert str(copy) == str(caught.value)


def test_a_whole_run_of_reads_uses_one_connection(s3_bucket: str, proxy: FaultProxy) -> None:
    place = stored(s3_bucket, proxy.url, stall=20)
    for start in range(0, 4000, 200):
        assert read(place, start, 200) == CONTENT[start : start + 200]
    assert proxy.connections == 1


def test_of_an_answer_to_a_read_only_what_is_looked_at_is_parsed(s3_bucket: str, s3_endpoint: str) -> None:
    place = stored(s3_bucket, s3_endpoint)
    answer = place._session.client.get_object(Bucket=s3_bucket, Key="v1/a.tar", Range="bytes=0-9")
    answer["Body"].close()
    assert {"Body", "ETag", "ContentLength", "ContentRange"} < set(answer)
    assert "LastModified" not in answer  # its date alone would cost a tenth of a small read
