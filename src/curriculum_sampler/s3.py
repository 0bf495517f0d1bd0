"""Objects in S3, or in any server that speaks its protocol, through boto3.

boto3 by itself repeats a request that failed before its headers, but not a body that broke, stalled
or ended early, and it accepts a body of the wrong length. So its own retries are off, and one budget
of attempts and time (``Retry``) covers a whole operation, bodies included.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Self, Unpack
from urllib.parse import urlsplit

from .errors import AbsentError, ArgumentError, StorageError
from .hedge import HEDGED_BYTES, fill_hedged
from .in_time import in_time
from .locations import StorageOptions
from .retry import Budget, Retry
from .s3_client import check_endpoint, endpoint_in_use, make_client
from .s3_failure import (
    HELD_BACK,
    NO_BUCKET,
    NO_END,
    NO_S3,
    REQUEST_ERRORS,
    Failure,
    classify,
    out_of_time,
    replaced,
    short_body,
    too_short,
)
from .s3_range import RangeAnswer
from .s3_session import Session
from .storage import ObjectStat, check_key
from .transfer import Transfer
from .upload import SLOWEST_WRITE, Upload


class S3Storage:
    """A bucket and prefix behind the ``Storage`` protocol.

    The client is made at first use and once per process, so an instance may be pickled to spawned
    workers or inherited by forked ones. Credentials come from the standard AWS chain; they are never
    stored here and never appear in a message.

    Args:
        bucket: Name of the S3 bucket.
        prefix: What all keys begin with, without a slash at the end.
        endpoint_url: Scheme, host and port of a server that is not AWS's.
        profile: Profile of the AWS configuration files.
        region: Region of the bucket, where the chain does not tell it.
        anonymous: Whether requests go unsigned, as public buckets allow.
        requester_pays: Whether you accept to pay for the traffic.
        connect_timeout_seconds: Longest wait for a connection.
        stall_timeout_seconds: Longest wait for the next bytes of an answer.
        hedge_after_seconds: A small read that has received nothing by then is asked for a second time; see
            ``open_storage``.
        retry: Budget of one operation, all its attempts and pauses together.

    Every operation ends, well or with an error, in bounded time after it began, whatever the server does:

    - ``stat``, ``exists`` and each page of a ``list`` at the latest at the deadline of ``retry``;
    - ``write`` likewise, but with a second more for every 256 KiB, so that slow lines suffice for large shards;
    - ``read_into`` within the deadline, and the time that a last attempt begun just before may take:
      ``connect_timeout_seconds`` for each address of the host, ``stall_timeout_seconds`` for the first byte
      of the answer and as much for the next of its body. (Only a server that draws out the few headers of
      an answer, byte by byte, could exceed this.)

    >>> S3Storage("my-bucket", "pictures/v1", region="eu-central-1").url
    's3://my-bucket/pictures/v1'
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        profile: str | None = None,
        region: str | None = None,
        anonymous: bool = False,
        requester_pays: bool = False,
        connect_timeout_seconds: float = 10.0,
        stall_timeout_seconds: float = 20.0,
        hedge_after_seconds: float | None = None,
        retry: Retry | None = None,
    ) -> None:
        if not bucket:
            raise ArgumentError("The S3 url names no bucket. Write s3://bucket/prefix.")
        if endpoint_url is not None:
            check_endpoint(endpoint_url)
        for name, seconds in (
            ("connect_timeout_seconds", connect_timeout_seconds),
            ("stall_timeout_seconds", stall_timeout_seconds),
            ("hedge_after_seconds", hedge_after_seconds),
        ):
            if seconds is not None and not seconds > 0:
                raise ArgumentError(f"{name}={seconds!r} must be above 0. Leave it out for the default.")
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self.endpoint_url = endpoint_url
        self.profile = profile
        self.region = region
        self.anonymous = anonymous
        self.requester_pays = requester_pays
        self.connect_timeout_seconds = connect_timeout_seconds
        self.stall_timeout_seconds = stall_timeout_seconds
        self.hedge_after_seconds = hedge_after_seconds
        self.retry = Retry() if retry is None else retry
        self._sessions: dict[int, Session] = {}

    @classmethod
    def from_url(cls, url: str, **options: Unpack[StorageOptions]) -> Self:
        """Make a storage from ``s3://bucket/prefix``; nothing is contacted.

        Raises:
            ArgumentError: No bucket, or more than bucket and prefix: credentials do not belong into a url.

        >>> S3Storage.from_url("s3://my-bucket/pictures/v1", anonymous=True).prefix
        'pictures/v1'
        """
        place = urlsplit(url)
        if "@" in place.netloc or place.query or place.fragment:
            raise ArgumentError(
                "An S3 url is s3://bucket/prefix and nothing more (credentials come from the AWS environment "
                "or profile=..., the server from endpoint_url=...). Remove the rest."
            )
        rest: dict[str, Any] = dict(options)
        deadline = rest.pop("deadline_seconds", None)
        retry = None if deadline is None else Retry(deadline_seconds=deadline)
        return cls(place.netloc, place.path, retry=retry, **rest)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}" if self.prefix else f"s3://{self.bucket}"

    @property
    def parallel_reads(self) -> int:
        return 16

    @property
    def retries(self) -> Mapping[str, int]:
        """How often a request was made again in this process.

        Causes are "503" and other statuses, "reset", "timeout", "short body", "no connection",
        "credentials" (renewed) and "hedge" (asked for twice).
        """
        return self._session.retries

    def exists(self, key: str) -> bool:
        try:
            self.stat(key)
        except AbsentError:
            return False
        return True

    def stat(self, key: str) -> ObjectStat:
        return self._stat(key, self._start())

    def read_into(self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None) -> ObjectStat:
        budget = self._start()
        transfer = Transfer(buffer, offset, etag)
        if self.hedge_after_seconds is not None and 0 < len(buffer) <= HEDGED_BYTES:
            self._fill_hedged(key, transfer, budget, self.hedge_after_seconds)
        elif len(buffer):
            self._fill(key, transfer, budget)
        if transfer.etag is not None and transfer.object_bytes is not None:
            return ObjectStat(transfer.object_bytes, transfer.etag)
        # Nothing was to be read, or this server sends no Content-Range.
        found = self._stat(key, budget)
        if transfer.etag not in (None, found.etag):
            raise self._error(key, replaced(str(transfer.etag), found.etag), budget, transfer)
        if offset + len(buffer) > found.num_bytes:
            raise self._error(key, too_short(transfer.last, found.num_bytes), budget, transfer)
        return found

    def write(self, key: str, data: bytes | bytearray) -> None:
        budget = self._start(extra_seconds=len(data) / SLOWEST_WRITE)
        names = self._names(key)
        self._ask(key, lambda client: client.put_object(**names, Body=Upload(data, budget)), budget, "ETag")

    def list(self, prefix: str = "") -> list[str]:
        root = f"{self.prefix}/" if self.prefix else ""
        query = {"Bucket": self.bucket, "Prefix": root + prefix, **self._payer()}
        keys: list[str] = []
        while True:
            budget = self._start()
            page = self._ask(prefix, lambda client: client.list_objects_v2(**query), budget, proof="Name")
            keys += [entry["Key"].removeprefix(root) for entry in page.get("Contents", [])]
            if not page.get("IsTruncated"):
                return sorted(keys)
            following = page.get("NextContinuationToken")
            if following in (None, query.get("ContinuationToken")):
                raise self._error(prefix, NO_END, budget)
            query["ContinuationToken"] = following

    def _start(self, **options: float) -> Budget:
        """Begin an operation. Making the client, once a process, is not on its time."""
        _ = self._session.client
        return self.retry.start(**options)

    def _stat(self, key: str, budget: Budget) -> ObjectStat:
        names = self._names(key)
        try:
            answer = self._ask(key, lambda client: client.head_object(**names), budget, proof="ETag")
        except AbsentError:
            self._check_bucket(budget)
            raise
        return ObjectStat(int(answer["ContentLength"]), str(answer["ETag"]))

    def _check_bucket(self, budget: Budget) -> None:
        """Tell a missing bucket from a missing object: the answer to a HEAD has no body that would."""
        try:
            self._ask("", lambda client: client.head_bucket(Bucket=self.bucket), budget)
        except AbsentError:
            raise StorageError(f"{self.url}{self._at()}: {NO_BUCKET}") from None

    def _ask(
        self, key: str, request: Callable[[Any], Any], budget: Budget, proof: str | None = None
    ) -> dict[str, Any]:
        """Make a small request; ``proof`` is what every S3 server's answer to it names."""
        answer: dict[str, Any] = {}

        def attempt(client: Any) -> Failure | None:
            try:
                answer.update(in_time(lambda: request(client), budget.left))
            except REQUEST_ERRORS as error:
                return classify(error)
            return None if proof is None or proof in answer else NO_S3

        self._insist(key, attempt, budget)
        return answer

    def _fill(self, key: str, transfer: Transfer, budget: Budget) -> None:
        self._insist(key, lambda client: self._fetch(client, key, transfer, budget), budget, transfer)

    def _fill_hedged(self, key: str, transfer: Transfer, budget: Budget, after_seconds: float) -> None:
        session = self._session

        def ask_again(twin: Transfer) -> None:
            if not session.slow_down.is_on:
                session.count("hedge")
                self._fetch(session.client, key, twin, budget)

        try:
            fill_hedged(
                transfer,
                lambda twin: self._fill(key, twin, budget),
                ask_again,
                after_seconds=after_seconds,
                budget=budget,
            )
        except TimeoutError:
            raise self._error(key, out_of_time(transfer.progress), budget, transfer) from None

    def _fetch(self, client: Any, key: str, transfer: Transfer, budget: Budget) -> Failure | None:
        """Ask once for what is missing; return why it did not all come."""
        if not transfer.is_wanted:
            return None
        wanted = f"bytes={transfer.first}-{transfer.last}"
        try:
            answer = client.get_object(**self._names(key), **transfer.condition, Range=wanted)
            with answer["Body"] as body:
                failure = transfer.begin(RangeAnswer.of(answer))
                if failure is None:
                    transfer.pour(body, budget)
        except REQUEST_ERRORS as error:
            failure = classify(error)
        if failure is None and transfer.missing and transfer.is_wanted:
            failure = short_body(transfer.received, len(transfer.buffer))
        return failure

    def _insist(
        self,
        key: str,
        attempt: Callable[[Any], Failure | None],
        budget: Budget,
        transfer: Transfer | None = None,
    ) -> None:
        """Make attempts until one does not fail, or raise what the last failure means."""
        session = self._session
        is_renewed = self.anonymous
        cause = ""
        while True:
            began = session.slow_down.hold(budget)
            if began is None:
                raise self._error(key, HELD_BACK, budget, transfer)
            if cause:
                session.count(cause)
            client = session.client
            failure = attempt(client)
            if failure is None:
                return session.slow_down.served(began)
            if failure.remedy == "slow down":
                session.slow_down.refused(budget, began)
            if failure.remedy is not None and budget.is_late:
                failure = out_of_time(transfer.progress if transfer else "", failure)
            if failure.remedy == "renew" and not is_renewed:
                session.renew(client)
                is_renewed = True
                budget.attempts += 1
            elif failure.remedy not in ("again", "slow down") or not budget.pause():
                raise self._error(key, failure, budget, transfer)
            cause = failure.cause

    def _error(
        self, key: str, failure: Failure, budget: Budget, transfer: Transfer | None = None
    ) -> StorageError:
        where = f"{self.url}/{key}" if key else self.url
        at_offset = "" if transfer is None else f" at offset {transfer.first}"
        kind = AbsentError if failure.is_absent else StorageError
        return kind(
            f"{where}{at_offset}: {failure.what}{self._at()} "
            f"(attempt {budget.attempts}, {budget.elapsed:.1f} s). {failure.advice}"
        )

    def _names(self, key: str) -> dict[str, str]:
        full = f"{self.prefix}/{check_key(key)}" if self.prefix else check_key(key)
        return {"Bucket": self.bucket, "Key": full, **self._payer()}

    def _payer(self) -> dict[str, str]:
        return {"RequestPayer": "requester"} if self.requester_pays else {}

    def _at(self) -> str:
        endpoint = endpoint_in_use(self.endpoint_url)
        return f" at {endpoint}" if endpoint else " at AWS (or the profile's endpoint)"

    @property
    def _session(self) -> Session:
        process = os.getpid()
        session = self._sessions.get(process)
        if session is None:
            # One step, so that all threads of the process find the same one. What a forked child inherits
            # stays as it is: to close it may need a lock that a thread of the parent held.
            session = self._sessions.setdefault(process, Session(self._connect))
        return session

    def _connect(self) -> Any:
        return make_client(
            endpoint_url=self.endpoint_url,
            profile=self.profile,
            region=self.region,
            anonymous=self.anonymous,
            connect_timeout_seconds=self.connect_timeout_seconds,
            stall_timeout_seconds=self.stall_timeout_seconds,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sessions": {}}

    def __repr__(self) -> str:
        return f"S3Storage({self.bucket!r}, {self.prefix!r}, endpoint_url={self.endpoint_url!r})"
