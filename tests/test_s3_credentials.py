"""Credentials that run out in mid-run are read again once, and are never shown to anybody."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import json
import logging
import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from curriculum_sampler.errors import ArgumentError, StorageError
from curriculum_sampler.s3 import S3Storage

from .data_fixtures import Clock, patient, s3_endpoint
from .object_server import Answer, ObjectServer, Request, object_server

OLD, NEW = "OLDKEYID", "NEWKEYID"


@pytest.fixture
def server(s3_endpoint: str) -> Iterator[ObjectServer]:
    """A server that accepts the key ``valid`` names, and tells others that they have expired."""
    with object_server() as running:
        running.objects["/data/a.tar"] = bytes(range(250))
        yield running


def only(key: str, status: int = 400, code: str = "ExpiredToken") -> Callable[[Request, Answer], Answer]:
    """Accept one access key and refuse all others."""

    def rule(request: Request, answer: Answer) -> Answer:
        return answer if request.access_key == key else Answer.error(status, code)

    return rule


@pytest.fixture
def sign_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_endpoint: str, request: pytest.FixtureRequest
) -> Callable[[str], None]:
    """Change the credentials that the profile "trainer" gives, by a file or by a program as asked."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    config, secrets, told = tmp_path / "config", tmp_path / "credentials", tmp_path / "told.json"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(secrets))
    by_program = getattr(request, "param", "file") == "program"
    program = f"""{sys.executable} -c "print(open('{told}').read())\""""
    config.write_text(f"[profile trainer]\ncredential_process = {program}\n" if by_program else "")
    secrets.write_text("")

    def change(key: str) -> None:
        secret, token = f"secret-of-{key}", f"token-of-{key}"
        if by_program:
            words = {"AccessKeyId": key, "SecretAccessKey": secret, "SessionToken": token}
            told.write_text(json.dumps({"Version": 1, **words}))
        else:
            secrets.write_text(
                f"[trainer]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
                f"aws_session_token = {token}\n"
            )

    change(OLD)
    return change


def opened(server: ObjectServer) -> S3Storage:
    return S3Storage(
        "data", endpoint_url=server.url, profile="trainer", region="us-east-1", retry=patient(Clock())
    )


def read(place: S3Storage) -> bytes:
    buffer = bytearray(250)
    place.read_into("a.tar", memoryview(buffer))
    return bytes(buffer)


ASKS: list[Callable[[S3Storage], object]] = [
    read,
    lambda place: place.stat("a.tar"),
    lambda place: place.write("b.tar", b"x"),
]


@pytest.mark.parametrize("sign_in", ["file", "program"], indirect=True)
@pytest.mark.parametrize("ask", ASKS, ids=["read", "stat", "write"])
def test_credentials_renewed_outside_are_found_when_the_old_ones_expire(
    server: ObjectServer, sign_in: Callable[[str], None], ask: Callable[[S3Storage], object]
) -> None:
    place = opened(server)
    server.rule = only(OLD)
    ask(place)
    server.rule = only(NEW)
    sign_in(NEW)
    ask(place)
    keys = [request.access_key for request in server.requests]
    # Told nothing by the answer to a HEAD, boto3 looks whether the region is wrong before it gives up.
    assert keys in ([OLD, OLD, NEW], [OLD, OLD, OLD, NEW])
    assert place.retries == {"credentials": 1}


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "ExpiredToken"), (400, "InvalidToken"), (403, "RequestExpired"), (403, "InvalidAccessKeyId")],
)
def test_credentials_that_stay_expired_are_a_clear_error_after_one_more_request(
    server: ObjectServer, sign_in: Callable[[str], None], status: int, code: str
) -> None:
    place = opened(server)
    server.rule = only(NEW, status, code)
    with pytest.raises(StorageError, match=rf"{status} {code}.*attempt 2,.*no longer accept.*renew them"):
        read(place)
    assert len(server.requests) == 2


def test_a_client_is_renewed_once_for_all_threads(
    server: ObjectServer, sign_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = opened(server)
    made = []
    connect = S3Storage._connect
    monkeypatch.setattr(S3Storage, "_connect", lambda self: made.append(connect(self)) or made[-1])
    server.rule = only(OLD)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: read(place), range(8)))
        server.rule = only(NEW)
        sign_in(NEW)
        list(pool.map(lambda _: read(place), range(8)))
    assert len(made) == 2


def test_denied_access_is_not_taken_for_expired_credentials(
    server: ObjectServer, sign_in: Callable[[str], None]
) -> None:
    place = opened(server)
    server.rule = only(NEW, 403, "AccessDenied")
    with pytest.raises(StorageError, match="Access is denied"):
        read(place)
    assert len(server.requests) == 1


def test_nothing_secret_is_ever_shown(
    server: ObjectServer, sign_in: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    place = opened(server)
    caplog.set_level(logging.INFO)
    shown = []
    for status, code in [(400, "ExpiredToken"), (403, "AccessDenied"), (404, "NoSuchKey"), (503, "SlowDown")]:
        server.rule = only("nobody", status, code)
        for ask in ASKS:
            with pytest.raises(StorageError) as caught:
                ask(place)
            chain = [caught.value, caught.value.__cause__, caught.value.__context__]
            shown += [repr(error) for error in chain]
    shown += [caplog.text, repr(place), str(vars(place)), str(pickle.dumps(place))]
    for secret in (OLD, "secret-of-", "token-of-"):
        assert not [text for text in shown if secret in text]


def test_half_of_the_credentials_is_told_by_its_other_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "hunter2")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    with pytest.raises(ArgumentError, match="AWS_SECRET_ACCESS_KEY is missing") as caught:
        S3Storage("data", endpoint_url="http://localhost:1", region="us-east-1").stat("a.tar")
    assert "hunter2" not in str(caught.value)
