"""Whatever breaks between a store and the training loop: the same samples in the same order, or one clear error.

Every fault meets every way to read. Nothing here waits for a clock: pauses pass on an injected one, in each process its
own, and a hang is found by the generous limit of this file. What a fault-free run of a local copy delivers is expected.
"""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import errno
import gc
import itertools
import multiprocessing
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from types import MappingProxyType
from typing import Any

import boto3
import pytest

import curriculum_sampler as cs
from curriculum_sampler.index import INDEX_SUFFIX
from curriculum_sampler.local_storage import UNFINISHED
from curriculum_sampler.s3 import S3Storage

from .data_fixtures import Clock, patient, proxy, s3_endpoint, told, unlike
from .fault_mix import FaultMix
from .s3_server import Fault, FaultProxy

pytestmark = pytest.mark.timeout(60)

SIZES = {"easy": 40, "medium": 30, "hard": 24}
BATCH = 16
SCHEDULE = cs.StageSchedule(
    [
        cs.Stage("easy", {"easy": 1}, steps=5),
        cs.Stage("medium", {"easy": 3, "medium": 7}, steps=4),
        cs.Stage("hard", {"easy": 1, "medium": 1, "hard": 2}, steps=5),
    ]
)
READERS: dict[str, dict[str, Any]] = {
    "0 workers": {},
    "2 threads": {"num_workers": 2, "workers": "threads"},
    "2 processes": {"num_workers": 2, "workers": "processes"},
}
# A read ends at the latest that long after its deadline.
DEADLINE_SECONDS, STALL_SECONDS = 60.0, 20.0

Told = tuple[str, int, str]
_COPIES = itertools.count()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set, on disk."""
    home = tmp_path_factory.mktemp("shards")
    cs.write_shards(home, {name: unlike(name, size) for name, size in SIZES.items()}, samples_per_shard=12)
    return home


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[Told]:
    """What a run without faults delivers."""
    received, error = delivered(loader_over(cs.Manifest.load(folder)))
    assert error is None
    assert len(received) == 14 * BATCH
    return received


@dataclass
class Store:
    """A copy of the data set in S3, and the proxy through which it is read."""

    proxy: FaultProxy
    client: Any
    bucket: str
    clock: Clock = field(default_factory=Clock)

    def manifest(self, stall_timeout_seconds: float = STALL_SECONDS, tick: float = 0.0) -> cs.Manifest:
        """Load the manifest, to read through the proxy by the clock."""
        self.clock.tick = tick
        return cs.Manifest.load(
            S3Storage(
                self.bucket,
                "v1",
                endpoint_url=self.proxy.url,
                stall_timeout_seconds=stall_timeout_seconds,
                retry=patient(self.clock, deadline_seconds=DEADLINE_SECONDS),
            )
        )

    def lasting(self, fault: Fault, key: str) -> None:
        """From now on every request of ``fault.method`` for such a key meets it."""
        self.proxy.decide = lambda number, method, asked, wanted: (
            fault if method == fault.method and fnmatch(asked, key) else None
        )

    def change(self, key: str, change: Callable[[bytes], bytes | None]) -> None:
        """Replace an object by what is made of it, or delete it for None."""
        name = {"Bucket": self.bucket, "Key": f"v1/{key}"}
        data = change(self.client.get_object(**name)["Body"].read())
        if data is None:
            self.client.delete_object(**name)
        else:
            self.client.put_object(**name, Body=data)


@pytest.fixture(scope="module")
def client(s3_endpoint: str) -> Any:
    """One client of the store itself, past the proxy."""
    return boto3.client("s3", endpoint_url=s3_endpoint)


@pytest.fixture
def store(client: Any, proxy: FaultProxy, folder: Path) -> Store:
    bucket = f"faults-{next(_COPIES)}"
    client.create_bucket(Bucket=bucket)
    for path in folder.rglob("*"):
        if path.is_file():
            key = f"v1/{path.relative_to(folder).as_posix()}"
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    return Store(proxy, client, bucket)


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest, cache: Path) -> dict[str, Any]:
    """Options of a loader, for each way to read."""
    return READERS[request.param] | ({"cache_dir": cache} if "processes" in request.param else {})


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """Where processes share what they fetched; nothing half-written is left there."""
    folder = tmp_path / "cache"
    yield folder
    assert not list(folder.glob(f"{UNFINISHED}*"))


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """After every test: no process, no thread, no temporary file that was not there before."""
    room = tmp_path / "temporary"
    room.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(room))
    before = set(threading.enumerate())
    yield
    for _ in range(20):
        late = [thread for thread in threading.enumerate() if thread not in before]
        ours = [thread for thread in late if "process_request" not in thread.name]  # others are the servers'
        if not ours and not multiprocessing.active_children():
            break
        gc.collect()  # an error holds the frames that it went through
        if ours:
            ours[0].join(0.5)
    else:
        pytest.fail(f"still there: {ours} {multiprocessing.active_children()}")
    assert not [path for path in room.rglob("*") if not path.name.startswith("pymp-")]


def loader_over(
    manifest: cs.Manifest,
    on_bad: Mapping[str, Any] = MappingProxyType({"on_bad_sample": "raise"}),
    schedule: cs.StageSchedule = SCHEDULE,
    **options: Any,
) -> cs.CurriculumLoader:
    """A loader whose runs and cache are small, so that it must read again and again."""
    return cs.CurriculumLoader(
        cs.CurriculumDataset(manifest, decode=None, **on_bad),
        schedule,
        batch_size=BATCH,
        seed=17,
        collate=list,
        cache_bytes=80_000,
        plan_options={"run_sizes": dict.fromkeys(SIZES, 4), "block_runs": 1},
        **options,
    )


def delivered(
    loader: cs.CurriculumLoader, after: int = 0, action: Callable[[], Any] | None = None
) -> tuple[list[Told], Exception | None]:
    """Read to the end or to an error; after so many batches do something."""
    received: list[Told] = []
    try:
        for batch in loader:
            received += map(told, batch)
            if action is not None and len(received) == after * BATCH:
                action()
    except Exception as error:
        return received, error.with_traceback(None)
    return received, None


def check_stopped(received: list[Told], error: Exception | None, expected: list[Told], message: str) -> None:
    """What came before the error is right, and the error is clear and in time."""
    assert error is not None
    assert re.search(message, str(error), re.DOTALL), str(error)
    assert isinstance(error, cs.CurriculumError)
    assert received == expected[: len(received)]
    assert len(received) < len(expected)
    for seconds in re.findall(r"attempt \d+, ([\d.]+) s", str(error)):
        assert float(seconds) <= DEADLINE_SECONDS + STALL_SECONDS


PASSING = {
    "status": 0.6,
    "hangup": 0.4,
    "reset": 0.5,
    "cut": 0.5,
    "drip": 0.2,
    "flip": 0.5,
    "silent": 0.08,
    "stall": 0.08,
}


@pytest.mark.parametrize("kind", PASSING)
def test_faults_that_pass_change_no_sample(
    store: Store, expected: list[Told], reader: dict[str, Any], kind: str
) -> None:
    waits = kind in ("silent", "stall")
    manifest = store.manifest(stall_timeout_seconds=0.25 if waits else STALL_SECONDS)
    store.proxy.decide = FaultMix(17, {kind: PASSING[kind]})
    received, error = delivered(loader_over(manifest, **reader))
    assert error is None
    assert received == expected
    assert store.proxy.met[kind] >= (1 if waits else 5)


LASTING = {
    # threads that wait by one clock add up their pauses: then the deadline may come before the last attempt
    "503": (Fault("status"), r"hard-\d+\.tar at offset \d+: .*the server answered 503 SlowDown.*attempt \d.*try later"),
    "hangup": (Fault("hangup"), r"hard-\d+\.tar at offset \d+: .*the connection broke"),
    "reset": (Fault("reset"), r"hard-\d+\.tar at offset \d+: .*the connection broke"),
    "cut": (Fault("cut"), r"hard-\d+\.tar at offset \d+: .*the body ended after 0 of \d+ bytes"),
    "silent": (Fault("silent"), r"hard-\d+\.tar at offset \d+: the connection broke \(ReadTimeoutError\)"),
    "stall": (Fault("stall"), r"hard-\d+\.tar at offset \d+: the connection broke \(ReadTimeoutError\)"),
    "drip": (Fault("drip"), r"hard-\d+\.tar at offset \d+: the deadline passed with \d+ of \d+ bytes"),
    "flip": (Fault("flip", after=700), r"hard-\d+\.tar: sample '\S+' at offset \d+ is damaged.*twice in a row"),
    "403": (Fault("status", status=403, code="AccessDenied"), r"hard-\d+\.tar.*Access is denied: check the credentials"),
    "404": (Fault("status", status=404, code="NoSuchKey"), r"hard-\d+\.tar.*404.*does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LASTING)
def test_faults_that_last_are_one_clear_error_in_bounded_time(
    store: Store, expected: list[Told], reader: dict[str, Any], kind: str
) -> None:
    fault, message = LASTING[kind]
    manifest = store.manifest(
        stall_timeout_seconds=0.1 if kind in ("silent", "stall") else STALL_SECONDS,
        tick=2.0 if kind == "drip" else 0,
    )
    store.lasting(fault, "*/hard-*.tar")
    received, error = delivered(loader_over(manifest, **reader))
    check_stopped(received, error, expected, message)
    assert len(received) >= 5 * BATCH  # all that needs no shard of this bucket was there


def inverted(data: bytes) -> bytes:
    return bytes(byte ^ 255 for byte in data)


HARD = "train/hard/hard-000000.tar"
CHANGES: dict[str, tuple[str, Callable[[bytes], bytes | None], str]] = {
    "replaced": (HARD, inverted, r"hard-000000\.tar.*(damaged|replaced)"),
    "cut short": (HARD, lambda tar: tar[: len(tar) // 2], r"hard-000000\.tar.*(has \d+ bytes, but was indexed with|ends before)"),
    "deleted": (HARD, lambda tar: None, r"hard-000000\.tar.*404.*does not exist"),
    "index flipped": (HARD + INDEX_SUFFIX, inverted, r"hard-000000\.tar\.curriculum\.idx is not the index"),
    "index cut short": (HARD + INDEX_SUFFIX, lambda index: index[:70], r"hard-000000\.tar\.curriculum\.idx.*(is not|ends before)"),
    "index deleted": (HARD + INDEX_SUFFIX, lambda index: None, r"hard-000000\.tar\.curriculum\.idx.*404"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_objects_changed_before_they_are_opened_are_one_clear_error(
    store: Store, expected: list[Told], reader: dict[str, Any], change: str
) -> None:
    key, changed, message = CHANGES[change]
    loader = loader_over(store.manifest(), **reader)
    received, error = delivered(loader, after=1, action=lambda: store.change(key, changed))
    check_stopped(received, error, expected, message)


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_objects_changed_while_they_are_read_are_never_mixed_with_what_they_were(
    store: Store, folder: Path, reader: dict[str, Any], change: str
) -> None:
    """Every shard is open by then. What was not yet fetched is an error; ahead of the loop, it may be that all was."""
    schedule = cs.StageSchedule([cs.Stage("easy", {"easy": 1}, steps=40)])
    expected, _ = delivered(loader_over(cs.Manifest.load(folder), schedule=schedule))

    def act() -> None:
        for number in range(4):
            store.change(f"train/easy/easy-{number:06}.tar", CHANGES[change][1])

    received, error = delivered(
        loader_over(store.manifest(), schedule=schedule, **reader), after=5, action=act
    )
    if reader and error is None:
        assert received == expected
    else:
        message = r"easy-\d+\.tar.*(replaced while it was being read|does not exist)"
        check_stopped(received, error, expected, message)


def test_reading_never_lists_so_a_list_that_omits_a_shard_changes_nothing(
    store: Store, expected: list[Told], reader: dict[str, Any]
) -> None:
    store.lasting(Fault("omit", method="LIST", omits="easy-000001.tar"), "*")
    received, error = delivered(loader_over(store.manifest(), **reader))
    assert (received, error) == (expected, None)
    assert "LIST" not in {method for method, _ in store.proxy.requests}


def test_a_killed_worker_is_an_error_and_no_early_end(
    store: Store, expected: list[Told], cache: Path
) -> None:
    def kill() -> None:
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)

    received, error = delivered(
        loader_over(store.manifest(), **READERS["2 processes"], cache_dir=cache), after=2, action=kill
    )
    assert re.search("killed by signal|exited unexpectedly", str(error))
    assert received == expected[: len(received)]
    assert len(received) < len(expected)


def test_a_cache_folder_deleted_while_running_changes_no_sample(
    store: Store, expected: list[Told], cache: Path
) -> None:
    loader = loader_over(store.manifest(), **READERS["2 processes"], cache_dir=cache)
    assert delivered(loader, after=3, action=lambda: shutil.rmtree(cache)) == (expected, None)


@pytest.mark.filterwarnings("ignore:The cache takes no more")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_full_disk_under_the_cache_changes_no_sample(
    store: Store, expected: list[Told], cache: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    def full(source: Any, target: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))

    monkeypatch.setattr("curriculum_sampler.cache_folder.os.rename", full)
    loader = loader_over(
        store.manifest(),
        num_workers=num_workers,
        workers="processes",
        cache_dir=cache,
        **({"multiprocessing_context": "fork"} if num_workers else {}),
    )
    assert delivered(loader) == (expected, None)
    assert not list(cache.glob("*.piece"))


def test_expired_credentials_that_are_renewed_change_no_sample(
    store: Store,
    expected: list[Told],
    reader: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    profile = tmp_path / "credentials"

    def renew(key_id: str) -> None:
        profile.write_text(f"[default]\naws_access_key_id = {key_id}\naws_secret_access_key = secret\n")
        store.proxy.valid_key_id = key_id

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    renew("first")
    loader = loader_over(store.manifest(), **reader)
    assert delivered(loader, after=1, action=lambda: renew("second")) == (expected, None)
    assert store.proxy.met["status"] > 0


def test_expired_credentials_that_are_not_renewed_are_one_clear_error(
    store: Store, expected: list[Told], reader: dict[str, Any]
) -> None:
    def expire() -> None:
        store.proxy.valid_key_id = "another"

    received, error = delivered(loader_over(store.manifest(), **reader), after=1, action=expire)
    check_stopped(received, error, expected, "400 ExpiredToken")


def read_all_of(manifest: cs.Manifest, cache: Path, answer: Any) -> None:
    answer.send(delivered(loader_over(manifest, cache_dir=cache)))


def test_two_processes_on_one_cache_each_read_the_right_samples(
    store: Store, expected: list[Told], cache: Path
) -> None:
    context = multiprocessing.get_context("fork")
    manifest = store.manifest()
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    readers = [context.Process(target=read_all_of, args=(manifest, cache, into)) for _, into in pipes]
    for process in readers:
        process.start()
    assert [out.recv() for out, _ in pipes] == [(expected, None)] * 2
    for process in readers:
        process.join()


def die_while_publishing(manifest: cs.Manifest, cache: Path) -> None:
    os.rename = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    delivered(loader_over(manifest, cache_dir=cache))


def test_a_process_killed_while_it_publishes_leaves_a_good_cache_that_is_cleaned(
    store: Store, expected: list[Told], cache: Path
) -> None:
    manifest = store.manifest()
    victim = multiprocessing.get_context("fork").Process(target=die_while_publishing, args=(manifest, cache))
    victim.start()
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    assert list(cache.glob(f"{UNFINISHED}*"))
    assert delivered(loader_over(manifest, cache_dir=cache)) == (expected, None)


def damaged_first_sample(tar: bytes) -> bytes:
    return tar[:600] + bytes([tar[600] ^ 1]) + tar[601:]


def test_a_damaged_sample_is_replaced_by_the_same_other_whoever_reads_and_told(
    store: Store, expected: list[Told], reader: dict[str, Any]
) -> None:
    store.change(HARD, damaged_first_sample)
    loader = loader_over(store.manifest(), {"max_bad_fraction": 0.01}, **reader)
    neighbour = next(one for one in expected if one[:2] == ("hard", 1))
    instead = [neighbour if one[:2] == ("hard", 0) else one for one in expected]
    assert instead != expected
    assert delivered(loader) == (instead, None)
    (bad,) = loader.stats()["bad_samples"]
    assert (bad["bucket"], bad["index"]) == ("hard", 0)
    assert "hard-000000.tar" in bad["reason"]


def test_more_bad_samples_than_may_be_are_one_clear_error(
    store: Store, expected: list[Told], reader: dict[str, Any]
) -> None:
    store.change(HARD, damaged_first_sample)
    received, error = delivered(loader_over(store.manifest(), {"max_bad_fraction": 0.0}, **reader))
    check_stopped(received, error, expected, r"Bucket 'hard' has 1 bad samples, but max_bad_fraction=0\.0")
