"""What went wrong with an S3 request, whether it may pass, and what a person should do about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from .extras import missing

try:
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError
    from urllib3 import exceptions as http
except ImportError as error:
    raise missing("boto3", "s3") from error

# Everything that a request, or the reading of its body, may raise.
REQUEST_ERRORS = (boto.ClientError, boto.BotoCoreError, ResponseParserError, http.HTTPError, OSError)

NO_BUCKET = "The S3 bucket does not exist at this endpoint: check its name and endpoint_url."
REPLACED = "The object was replaced while it was being read: start the run again."
TOO_SHORT = "The object is shorter than its index says: upload or write it again."

_PASSING_STATUSES = {408, 429, 500, 502, 503, 504}
_PASSING_CODES = {"RequestTimeout", "InternalError"}
_OVERLOAD_CODES = {
    *("SlowDown", "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled"),
    *("TooManyRequests", "TooManyRequestsException", "RequestLimitExceeded", "BandwidthLimitExceeded"),
}
_CREDENTIAL_CODES = {
    *("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"),
    *("InvalidToken", "InvalidTokenId", "InvalidAccessKeyId"),
}

_DENIED = (
    "Access is denied: check the credentials, profile and bucket policy (and requester_pays). Reading needs "
    "the rights s3:GetObject and s3:ListBucket, writing s3:PutObject too."
)
_EXPIRED = (
    "The server does not or no longer accept the credentials, also when read again from the environment or "
    "profile: renew them, then start the run again."
)
_SPECIAL_ADVICE = {
    "NoSuchBucket": NO_BUCKET,
    "SignatureDoesNotMatch": "Access is denied: the secret key is not the one that belongs to the access key.",
    "RequestTimeTooSkewed": "Access is denied: this machine's clock is wrong. Set it.",
}
_CHECK = "Check the S3 url, the region, the storage options, and that the credentials have not expired."
_OVERLOAD = "The server is overloaded or failing: try later or with fewer workers."


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt.

    Attributes:
        what: Short description; never the text of the response, which may hold credentials.
        advice: The next move for a person.
        remedy: The next move for us. None: give up. "again": the same request may succeed later.
            "slow down": so it may, but all threads should hold back. "renew": other credentials are needed.
        cause: What repetitions because of it are counted as.
        is_absent: Whether the server answered that the object is not there, or ends too early.
    """

    what: str
    advice: str
    remedy: Literal["again", "slow down", "renew"] | None = None
    cause: str = ""
    is_absent: bool = False


NO_S3 = Failure(
    "the server answered, but not as S3 does: this is no S3 endpoint",
    "Check host and port of endpoint_url (or AWS_ENDPOINT_URL).",
)
NO_END = Failure(
    "the list of objects is said to go on, but not where",
    "The server has a fault in ListObjectsV2: use another version of it.",
)
HELD_BACK = Failure(
    "the server asks to slow down, and this request was held back until its deadline",
    _OVERLOAD,
)


def short_body(received: int, expected: int) -> Failure:
    """A body that ended early without any other sign."""
    what = f"the body ended after {received} of {expected} bytes"
    return Failure(what, "Check the network and the server.", "again", "short body")


def replaced(expected: str, found: str) -> Failure:
    """An answer from another version of the object than the one that is being read."""
    return Failure(f"its ETag is {found}, not {expected}", REPLACED)


def no_range(first: int, last: int, length: int, told: str) -> Failure:
    """An answer that is not the range asked for."""
    return Failure(
        f"bytes {first}-{last} were asked for, but the server sent {length} bytes ({told or 'no Content-Range'})",
        "Use a server that supports ranged reads.",
    )


def too_short(last: int, num_bytes: int | None) -> Failure:
    """An object that ends within the range asked for."""
    told = "" if num_bytes is None else f" (it has {num_bytes} bytes)"
    return Failure(f"the object ends before byte {last}{told}", TOO_SHORT, is_absent=True)


def out_of_time(progress: str, last: Failure | None = None) -> Failure:
    """An operation that would go on, but whose deadline has passed; ``last`` is what went wrong in it before."""
    before = f" ({last.what})" if last else ""
    advice = f"{last.advice} " if last else ""
    return Failure(
        f"the deadline passed{progress}{before}",
        f"{advice}Raise deadline_seconds if the network is merely slow.",
    )


def classify(error: Exception) -> Failure:
    """Turn what boto3 raised into a ``Failure``.

    Refusals (403, 404, 412 and other 4xx) are final: asking again costs money and changes nothing.
    Only where the credentials may be to blame is it worth asking once more, with new ones.
    """
    if isinstance(error, boto.ClientError):
        return _answered(error)
    if isinstance(error, ResponseParserError):
        return NO_S3
    if isinstance(
        error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.CredentialRetrievalError
    ):
        return Failure(
            "no usable credentials were found",
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, choose profile=..., "
            "or pass anonymous=True for public data.",
        )
    if isinstance(error, boto.SSLError):
        return Failure("the TLS handshake failed", "Check that endpoint_url has the right scheme and host.")
    if isinstance(error, boto.EndpointConnectionError | boto.ConnectTimeoutError | boto.ProxyConnectionError):
        return Failure(
            "no connection to the endpoint",
            "Check endpoint_url (or AWS_ENDPOINT_URL), the network, and that the server runs.",
            "again",
            "no connection",
        )
    if isinstance(error, boto.HTTPClientError | http.HTTPError | OSError):
        advice = "Check the network and the server."
        return Failure(f"the connection broke ({type(error).__name__})", advice, "again", _cause(error))
    advice = "Check the S3 url and the storage options."
    return Failure(f"the request could not be made ({type(error).__name__})", advice)


def _cause(error: Exception) -> str:
    if isinstance(error, boto.ReadTimeoutError | http.TimeoutError | TimeoutError):
        return "timeout"
    return "short body" if isinstance(error, http.IncompleteRead) else "reset"


def _answered(error: boto.ClientError) -> Failure:
    code = str(error.response.get("Error", {}).get("Code", "unknown"))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    what = f"the server answered {status} {code}" if code != str(status) else f"the server answered {status}"
    if code in _SPECIAL_ADVICE:
        return Failure(what, _SPECIAL_ADVICE[code])
    if 300 <= status < 400:
        return _redirected(error.response)
    # The answer to a HEAD has no body to name the code in.
    if code in _CREDENTIAL_CODES and status in (400, 401, 403):
        return Failure(what, _EXPIRED, "renew", "credentials")
    if code == str(status) and status in (400, 401, 403):
        return Failure(what, _CHECK if status == 400 else _DENIED, "renew", "credentials")
    if status == 404:
        advice = "The object does not exist: check the url, or whether the data set was uploaded whole."
        return Failure(what, advice, is_absent=True)
    if status in (401, 403):
        return Failure(what, _DENIED)
    if status == 412:
        return Failure(what, REPLACED)
    if status == 416:
        return Failure(what, TOO_SHORT, is_absent=True)
    if status in (429, 503) or code in _OVERLOAD_CODES:
        return Failure(what, _OVERLOAD, "slow down", str(status))
    if status in _PASSING_STATUSES or code in _PASSING_CODES:
        return Failure(what, _OVERLOAD, "again", str(status))
    return Failure(what, _CHECK)


def _redirected(response: Any) -> Failure:
    headers = response["ResponseMetadata"].get("HTTPHeaders", {})
    # Scheme and host are what helps; user, path and query of a redirect may hold credentials.
    target = re.match(r"(https?://)(?:[^/?#]*@)?([^/?#@]+)", headers.get("location", ""))
    place = f" to {target[1]}{target[2]}" if target else ""
    region = headers.get("x-amz-bucket-region")
    advice = (
        f"The S3 bucket lies in region {region!r}: pass region={region!r}" if region else "Check its region"
    )
    return Failure(
        f"the endpoint redirects{place} ({response['ResponseMetadata']['HTTPStatusCode']})",
        f"{advice}, and check scheme (http or https) and host of endpoint_url.",
    )
