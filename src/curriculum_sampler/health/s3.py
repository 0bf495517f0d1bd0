"""Whether S3 can be reached: where, as whom (without a word of the credentials), and by one harmless request."""

from __future__ import annotations

import os
import socket
import time
from typing import Any
from urllib.parse import urlsplit

from ..errors import AbsentError, CurriculumError, StorageError
from ..extras import missing
from ..in_time import in_time
from ..locations import StorageOptions
from ..manifest_file import MANIFEST
from ..retry import Retry
from ..s3 import S3Storage
from ..s3_client import make_client
from ..s3_failure import NO_S3, REQUEST_ERRORS, classify
from ..terminal import counted
from . import Finding, sentence

try:
    import boto3
except ImportError as error:
    raise missing("boto3", "s3") from error

_CONNECT_SECONDS, _ANSWER_SECONDS, _DEADLINE_SECONDS = 3.0, 5.0, 8.0

# What botocore calls the places where credentials may come from.
_SOURCES = {
    "env": "environment variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)",
    "shared-credentials-file": "the shared credentials file",
    "config-file": "the AWS configuration file",
    "custom-process": "a program (credential_process)",
    "assume-role": "an assumed role",
    "assume-role-with-web-identity": "a web identity",
    "sso": "single sign-on",
    "container-role": "the role of this container",
    "iam-role": "the role of this machine",
}


def look_at_s3(url: str | None, options: StorageOptions) -> Finding:
    """Return endpoint, region, source of the credentials, and the answer to one request.

    Args:
        url: ``s3://bucket/prefix``: one byte of its manifest is read. Without it the buckets are listed.
        options: ``endpoint_url``, ``profile``, ``region``, ``anonymous``, ``requester_pays``.
    """
    told: dict[str, Any] = dict.fromkeys(("url", "endpoint", "region", "credentials", "seconds"))
    rows: list[tuple[str, str]] = []
    faults: list[str] = []
    try:
        if url is not None:
            storage = _patience(S3Storage.from_url(url, **options))
            told["url"] = storage.url
        client = _client(options)
        told["endpoint"] = _bare(client.meta.endpoint_url)
        told["region"] = client.meta.region_name
        told["credentials"] = _source(options)
        rows += [
            ("endpoint", f"{told['endpoint']} ({_endpoint_source(options)})"),
            ("region", told["region"] or "none is set"),
            ("credentials", told["credentials"]),
        ]
        began = time.monotonic()
        answer = _ask_for_a_byte(storage) if url is not None else _ask_for_buckets(client)
        told["seconds"] = round(time.monotonic() - began, 3)
        rows.append(("answer", f"{answer}, in {told['seconds'] * 1000:.0f} ms"))
    except Exception as error:
        faults.append(_unknown_host(told["endpoint"]) or sentence(error))
    return Finding("s3", rows, told, faults)


def _patience(storage: S3Storage) -> S3Storage:
    storage.connect_timeout_seconds, storage.stall_timeout_seconds = _CONNECT_SECONDS, _ANSWER_SECONDS
    storage.retry = Retry(max_attempts=2, deadline_seconds=_DEADLINE_SECONDS)
    return storage


def _client(options: StorageOptions) -> Any:
    return make_client(
        endpoint_url=options.get("endpoint_url"),
        profile=options.get("profile"),
        region=options.get("region"),
        anonymous=options.get("anonymous", False),
        connect_timeout_seconds=_CONNECT_SECONDS,
        stall_timeout_seconds=_ANSWER_SECONDS,
    )


def _ask_for_a_byte(storage: S3Storage) -> str:
    try:
        storage.read_into(MANIFEST, memoryview(bytearray(1)))
    except AbsentError:
        return f"{storage.url} can be read, and holds no {MANIFEST}"
    return f"{storage.url} can be read"


def _ask_for_buckets(client: Any) -> str:
    try:
        answer = in_time(client.list_buckets, _DEADLINE_SECONDS)
        failure = None if "Buckets" in answer else NO_S3
    except REQUEST_ERRORS as error:
        if getattr(error, "response", {}).get("Error", {}).get("Code") == "AccessDenied":
            return (
                "the server knows these credentials, which may not list S3 buckets (nothing here needs that)"
            )
        failure = classify(error)
    if failure is not None:
        raise StorageError(f"{failure.what}. {failure.advice}")
    return f"the server accepts these credentials; they see {counted(len(answer['Buckets']), 'S3 bucket')}"


def _source(options: StorageOptions) -> str:
    if options.get("anonymous"):
        return "none: requests are not signed"
    try:
        found = boto3.session.Session(profile_name=options.get("profile")).get_credentials()
    except Exception as error:
        raise CurriculumError(
            f"The credentials cannot be read ({type(error).__name__}). Check the AWS configuration files, and profile."
        ) from None
    if found is None:
        return "none were found"
    return _SOURCES.get(found.method, str(found.method))


def _endpoint_source(options: StorageOptions) -> str:
    if options.get("endpoint_url"):
        return "as given"
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if os.environ.get(name):
            return name
    return "AWS, or the profile's"


def _bare(url: str) -> str:
    """Return scheme, host and port; a profile's endpoint might carry credentials."""
    place = urlsplit(url)
    return f"{place.scheme}://{place.hostname}{f':{place.port}' if place.port else ''}"


def _unknown_host(endpoint: str | None) -> str | None:
    host = urlsplit(endpoint or "").hostname
    if not host:
        return None
    try:
        in_time(lambda: socket.getaddrinfo(host, None), _CONNECT_SECONDS)
    except socket.gaierror:
        return (
            f"The name {host!r} of the endpoint is not known (DNS). Check its spelling in endpoint_url or AWS_ENDPOINT_URL, "
            "and the network."
        )
    except OSError:
        pass
    return None
