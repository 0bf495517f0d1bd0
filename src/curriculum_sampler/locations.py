"""From a url to the storage behind it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypedDict, Unpack
from urllib.parse import urlsplit

from .errors import ArgumentError
from .local_storage import LocalStorage
from .memory_storage import MemoryStorage
from .storage import Storage

# A folder path, a url, or a storage that was made already.
Location = str | os.PathLike[str] | Storage

_MEMORIES: dict[str, MemoryStorage] = {}


class StorageOptions(TypedDict, total=False):
    """Options of ``s3://`` urls; the other schemes have none and leave them alone."""

    endpoint_url: str
    """Server to ask instead of AWS (default: ``AWS_ENDPOINT_URL_S3``, then ``AWS_ENDPOINT_URL``)."""
    profile: str
    """Name of a profile in the AWS configuration files."""
    region: str
    """AWS region."""
    anonymous: bool
    """Do not sign requests; for public data."""
    requester_pays: bool
    """Accept that your account is charged for the transfer."""
    deadline_seconds: float
    """Longest time that one read or other request may take, all attempts together (default 120; a write may take a
    second more for every 256 KiB)."""
    hedge_after_seconds: float
    """A read of at most 4 MiB that has received nothing after this time is asked for a second time, and whichever ends
    first is taken (default: reads are asked for once). It cuts the slow tail of a busy store: a time that one read in
    twenty exceeds costs five requests in a hundred more."""


def open_storage(location: Location, **options: Unpack[StorageOptions]) -> Storage:
    """Return the storage for a folder, ``file://``, ``memory://name`` or ``s3://bucket/prefix``.

    Nothing is contacted or created yet. A ``Storage`` object is returned as it is. The same
    ``memory://name`` is the same storage throughout a process.

    Raises:
        ArgumentError: An unknown scheme or option, or no location at all.

    >>> open_storage("memory://demo") is open_storage("memory://demo")
    True
    >>> open_storage("ftp://host/data")
    Traceback (most recent call last):
    curriculum_sampler.errors.ArgumentError: No storage for 'ftp://host/data': the scheme must be one of ...
    """
    unknown = sorted(set(options) - set(StorageOptions.__annotations__))
    if unknown:
        known = ", ".join(StorageOptions.__annotations__)
        raise ArgumentError(f"Unknown storage option {unknown[0]!r}. Known ones: {known}.")
    if isinstance(location, Storage):
        return location
    if not isinstance(location, str | os.PathLike):
        raise ArgumentError(
            f"The location is {location!r}, which is neither a folder, a url nor a storage. "
            "Write it like 'data/v1' or 's3://bucket/prefix'."
        )
    text = os.fspath(location)
    scheme, separator, rest = text.partition("://")
    if not separator:
        if not text:
            raise ArgumentError("The location is empty. Give a folder, or an s3://bucket/prefix url.")
        if text.startswith(("s3:", "file:", "memory:")):
            raise ArgumentError(
                f"The location {text!r} lacks a slash or two. Write it like 's3://bucket/prefix'; a folder of that name is "
                f"'./{text}'."
            )
        return LocalStorage(Path(text).expanduser())
    if scheme == "file":
        return LocalStorage(Path(urlsplit(text).path))
    if scheme == "memory":
        return _MEMORIES.setdefault(rest.rstrip("/"), MemoryStorage(rest.rstrip("/")))
    if scheme == "s3":
        # Optional extra: boto3 is loaded only by those who read from S3.
        from .s3 import S3Storage  # noqa: PLC0415

        return S3Storage.from_url(text, **options)
    raise ArgumentError(
        f"No storage for {text!r}: the scheme must be one of s3, file, memory, or a plain folder path."
    )
