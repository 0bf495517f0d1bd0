"""The boto3 client, told to leave to us what we do better, and to skip what nobody here asks for."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from .errors import ArgumentError
from .extras import missing

try:
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, PartialCredentialsError
    from botocore.parsers import ResponseParserError
except ImportError as error:
    raise missing("boto3", "s3") from error

# What a ranged read looks at in the headers of an answer, spelt as in botocore's model of S3.
_READ = ("ETag", "Content-Length", "Content-Range")


def make_client(
    *,
    endpoint_url: str | None,
    profile: str | None,
    region: str | None,
    anonymous: bool,
    connect_timeout_seconds: float,
    stall_timeout_seconds: float,
) -> Any:
    """Make a client with the credentials that the standard AWS chain gives at this moment.

    Raises:
        ArgumentError: These options make no client.
    """
    config = Config(
        connect_timeout=connect_timeout_seconds,
        read_timeout=stall_timeout_seconds,
        retries={"total_max_attempts": 1, "mode": "standard"},
        # Several readers of 16 threads each keep their connections.
        max_pool_connections=64,
        # Other servers than AWS know no trailing checksums; samples carry their own.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        parameter_validation=False,
        **({"signature_version": UNSIGNED} if anonymous else {}),
    )
    endpoint = endpoint_in_use(endpoint_url)
    try:
        session = boto3.session.Session(profile_name=profile, region_name=region)
        # The endpoint of a profile is found by boto3 itself when none is given here.
        client = session.client("s3", endpoint_url=endpoint, config=config)
    except PartialCredentialsError as error:
        raise ArgumentError(
            f"No S3 client: {error.kwargs['cred_var']} is missing (credentials of {error.kwargs['provider']}). Set it beside "
            "the other, or remove both."
        ) from None
    except (BotoCoreError, ValueError) as error:
        raise ArgumentError(
            f"No S3 client with endpoint_url={endpoint!r}, profile={profile!r}, region={region!r} "
            f"({type(error).__name__}). Check these three."
        ) from None
    events = client.meta.events
    events.register("response-received.s3", refuse_strangers)
    events.register("before-send.s3.PutObject", never_expect)
    events.register_first("before-parse.s3.GetObject", parse_little)
    return client


def endpoint_in_use(endpoint_url: str | None) -> str | None:
    """Return the endpoint given or, without one, that of the environment; None for that of the profile."""
    found = endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if found:
        check_endpoint(found)
    return found


def check_endpoint(url: str) -> None:
    """Refuse an endpoint that is no web address, or that carries credentials (without repeating them)."""
    place = urlsplit(url)
    if place.username is not None or place.password is not None:
        raise ArgumentError(
            "endpoint_url holds credentials. Keep only scheme, host and port, and give the credentials "
            "through the AWS environment or profile=..."
        )
    if place.scheme not in ("http", "https") or not place.hostname:
        raise ArgumentError(
            f"endpoint_url={url!r} (or AWS_ENDPOINT_URL) must be like https://host or http://host:port."
        )


def refuse_strangers(event_name: str, response_dict: Any, parsed_response: Any, **_: Any) -> None:
    """Hook of botocore: raise at once, where it would ask a server again that is no S3 endpoint.

    A redirect that names no region: botocore would ask the same endpoint for the region, be redirected
    again, and so on until Python's recursion limit. (AWS names the region, and is followed.)
    A page instead of XML with status 200: botocore takes it for an answer cut short, a passing fault.
    """
    if parsed_response is None:  # no answer came
        return
    status, told = response_dict["status_code"], parsed_response["ResponseMetadata"]
    if 300 <= status < 400 and "x-amz-bucket-region" not in told["HTTPHeaders"]:
        raise ClientError(parsed_response, event_name)
    is_unreadable = status == 200 and told["HTTPStatusCode"] != 200
    if is_unreadable and "xml" not in told["HTTPHeaders"].get("content-type", ""):
        raise ResponseParserError("The body is no XML.")


def never_expect(request: Any, **_: Any) -> None:
    """Hook of botocore: send a file at once, without asking first whether it may be sent.

    A server that answers ``100 Continue`` and is gone would make botocore look for the end of that answer
    for ever; one that knows no such question costs a second.
    """
    request.headers.pop("Expect", None)


def parse_little(response_dict: Any, **_: Any) -> None:
    """Hook of botocore: parse three headers, not forty. Of a small read's time this saves a sixth."""
    headers = response_dict["headers"]
    if response_dict["status_code"] < 300:
        response_dict["headers"] = {name: headers[name] for name in _READ if name in headers}
