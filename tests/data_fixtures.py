"""What the tests of the data half share: storages, tars made by others, and samples."""

from __future__ import annotations

import gc
import hashlib
import io
import itertools
import os
import tarfile
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import numpy as np
import pytest
import webdataset

from curriculum_sampler.local_storage import LocalStorage
from curriculum_sampler.memory_storage import MemoryStorage
from curriculum_sampler.retry import Retry
from curriculum_sampler.s3 import S3Storage
from curriculum_sampler.storage import ObjectStat, Storage

from .s3_server import FaultProxy, fault_proxy, moto_server

_NUMBERS = itertools.count()


class Clock:
    """Time that passes only when somebody sleeps, and by ``tick`` for a thread that asks for it."""

    def __init__(self, tick: float = 0.0) -> None:
        self.slept = 0.0
        self.tick = tick
        self._asked: Counter[int] = Counter()

    @property
    def now(self) -> float:
        """The time of this thread: the work of one never uses up the time of another."""
        return self.slept + self.tick * self._asked[threading.get_ident()]

    def __call__(self) -> float:
        self._asked[threading.get_ident()] += 1
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


class WatchedStorage(MemoryStorage):
    """A storage that remembers which keys were touched and which ranges were read."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        super().__init__("watched", objects)
        self.touched: list[str] = []
        self.reads: list[tuple[str, int, int]] = []

    def stat(self, key: str) -> ObjectStat:
        self.touched.append(key)
        return super().stat(key)

    def read_into(self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None) -> ObjectStat:
        self.touched.append(key)
        self.reads.append((key, offset, len(buffer)))
        return super().read_into(key, buffer, offset, etag)


class FarStorage(WatchedStorage):
    """A storage whose reads are worth their threads, as those of an object store."""

    parallel_reads = 4


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 store in this process, with credentials for it and no other AWS configuration."""
    with pytest.MonkeyPatch.context() as patch, moto_server() as url:
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", "test-key-id")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        yield url


@pytest.fixture
def s3_bucket(s3_endpoint: str) -> str:
    """A fresh, empty bucket."""
    name = f"data-{next(_NUMBERS)}"
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket=name)
    client.close()
    return name


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    """A proxy before the store, without faults yet."""
    with fault_proxy(s3_endpoint) as running:
        yield running


@pytest.fixture(params=["memory", "local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Any) -> Storage:
    """Each kind of storage in turn, empty."""
    if request.param == "memory":
        return MemoryStorage("test")
    if request.param == "local":
        return LocalStorage(tmp_path / "root")
    endpoint = request.getfixturevalue("s3_endpoint")
    return S3Storage(request.getfixturevalue("s3_bucket"), "some/prefix", endpoint_url=endpoint)


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """No rights beyond those of the file modes, also where the tests are run by root."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    yield
    os.seteuid(me)


def _half() -> float:
    return 0.5


def patient(clock: Clock, **budget: Any) -> Retry:
    """A retry budget that waits on ``clock``; picklable, as loader processes need it (each with a clock of its own)."""
    return Retry(clock=clock, sleep=clock.sleep, jitter=_half, **budget)


def tar_bytes(members: Mapping[str, bytes], format: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar by the standard library; names that end in a slash become directories."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def labelled(count: int, first: int = 0, size: int = 40) -> list[dict[str, Any]]:
    """Small samples that say who they are."""
    return [
        {"__key__": f"{number:05}", "cls": number, "npy": np.full(size, number % 256, np.uint8)}
        for number in range(first, first + count)
    ]


def unlike(bucket: str, count: int) -> list[dict[str, Any]]:
    """Samples of 1 to 4 KiB that are all different, the same in every run."""
    rng = np.random.Generator(np.random.Philox(list(bucket.encode())))
    return [
        {
            "__key__": f"{bucket}-{number:05}",
            "cls": number,
            "bin": rng.bytes(int(rng.integers(1 << 10, 4 << 10))),
        }
        for number in range(count)
    ]


def told(sample: Mapping[str, Any]) -> tuple[str, int, str]:
    """Bucket, index and a digest of all content of a sample read with ``decode=None``."""
    content = hashlib.blake2b(digest_size=8)
    for name, value in sorted(sample.items()):
        content.update(repr((name, value)).encode())
    return sample["__bucket__"], sample["__index__"], content.hexdigest()


def read_by_webdataset(urls: list[str], *decoders: str) -> list[dict[str, Any]]:
    """The samples of plain ``webdataset.WebDataset(urls)``, which leaves the files it opened unclosed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        pipeline = webdataset.WebDataset(urls, shardshuffle=False)
        found = list(pipeline.decode(*decoders) if decoders else pipeline)
        del pipeline
        gc.collect()
    return found
