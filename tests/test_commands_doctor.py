"""``doctor`` says what is there, what is broken and what to do about it, and no secret."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import curriculum_sampler as cs
from curriculum_sampler.cache_folder import FolderCache
from curriculum_sampler.health import installed
from curriculum_sampler.testing import synthetic_manifest

from .command_fixtures import Commands, Ran, command
from .data_fixtures import proxy, s3_bucket, s3_endpoint, unprivileged
from .s3_server import Fault, FaultProxy, web_server

SECRETS = ("test-key-id", "test-secret", "hunter2")


@pytest.fixture
def doctor(command: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run it; whatever it says, it tells no secret and ends with 0 or 1."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))

    def run(*words: object) -> Ran:
        ran = command("doctor", *words)
        assert ran.exit_code == ("fault." in ran.out or "faults." in ran.out or bool(faults(ran)))
        assert ran.err == ""
        assert not [secret for secret in SECRETS if secret in ran.out]
        return ran

    return run


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that does not speak of AWS."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def store(s3_endpoint: str, s3_bucket: str) -> str:
    """The url of a data set on S3."""
    url = f"s3://{s3_bucket}/v1"
    synthetic_manifest({"easy": 5, "hard": 3}, storage=cs.open_storage(url, endpoint_url=s3_endpoint))
    return url


def faults(ran: Ran) -> list[str]:
    """The faults that ``--json`` told."""
    if not ran.out.startswith("{"):
        return []
    return [fault for part in ran.told.values() for fault in part["faults"]]


def test_where_nothing_is_broken_it_says_so(doctor: Callable[..., Ran], nothing_set: None) -> None:
    ran = doctor()
    assert ran.exit_code == 0
    assert ran.out.endswith("Nothing is broken.\n")
    assert f"curriculum-sampler  {cs.__version__}, order version" in ran.out
    assert f"python              {sys.version.split()[0]}, " in ran.out
    assert "not asked: nothing here names a server" in ran.out
    assert "curriculum-sampler (made at first use)" in ran.out


def test_a_data_set_on_s3_is_read_as_far_as_a_sample(
    doctor: Callable[..., Ran], store: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    ran = doctor(store)
    assert ran.exit_code == 0
    assert f"endpoint     {s3_endpoint} (AWS_ENDPOINT_URL)" in ran.out
    assert "region       us-east-1" in ran.out
    assert "credentials  environment variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)" in ran.out
    assert f"answer       {store} can be read, in " in ran.out
    assert "8 samples in 2 buckets" in ran.out
    assert "'easy-000000' (cls, json, npy) read and verified, in " in ran.out
    told = doctor(store, "--json").told
    assert list(told) == ["versions", "extras", "s3", "cache", "data"]
    assert told["data"]["buckets"] == {"easy": 5, "hard": 3}
    assert told["s3"]["url"] == store
    assert told["versions"]["order_version"] >= 1


def test_a_server_is_asked_without_a_data_set_too(
    doctor: Callable[..., Ran], store: str, s3_endpoint: str, proxy: FaultProxy
) -> None:
    ran = doctor("--endpoint-url", s3_endpoint)
    assert ran.exit_code == 0
    assert f"{s3_endpoint} (as given)" in ran.out
    assert "the server accepts these credentials; they see " in ran.out
    proxy.decide = lambda *_: Fault("status", status=403, code="AccessDenied")
    ran = doctor("--endpoint-url", proxy.url)
    assert ran.exit_code == 0
    assert "the server knows these credentials, which may not list S3 buckets" in ran.out
    assert proxy.requests.total() == 1


@pytest.mark.parametrize("with_data", [True, False])
@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "SignatureDoesNotMatch", "the secret key is not the one that belongs to the access key"),
        (403, "InvalidAccessKeyId", "does not or no longer accept the credentials"),
        (403, "RequestTimeTooSkewed", "this machine's clock is wrong"),
    ],
)
def test_a_refusal_is_told_with_its_reason(
    doctor: Callable[..., Ran], proxy: FaultProxy, with_data: bool, status: int, code: str, message: str
) -> None:
    proxy.decide = lambda *_: Fault("status", status=status, code=code)
    words = ["s3://bucket/v1"] if with_data else []
    (fault,) = faults(doctor(*words, "--endpoint-url", proxy.url, "--json"))
    assert f"the server answered {status} {code}" in fault
    assert message in fault


def test_access_denied_to_the_data_is_a_fault(doctor: Callable[..., Ran], proxy: FaultProxy) -> None:
    proxy.decide = lambda *_: Fault("status", status=403, code="AccessDenied")
    (fault,) = faults(doctor("s3://bucket/v1", "--endpoint-url", proxy.url, "--json"))
    assert "Access is denied: check the credentials, profile and bucket policy" in fault


def test_no_credentials_are_a_fault_that_says_where_they_could_come_from(
    doctor: Callable[..., Ran], s3_endpoint: str, nothing_set: None
) -> None:
    for words in (["s3://bucket/v1"], []):
        ran = doctor(*words, "--endpoint-url", s3_endpoint)
        assert "credentials  none were found" in ran.out
        assert "! " in ran.out
        assert "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, choose profile=..." in ran.out


def test_credentials_of_a_profile_are_told_by_their_place(
    doctor: Callable[..., Ran],
    store: str,
    s3_endpoint: str,
    nothing_set: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "credentials").write_text(
        "[trainer]\naws_access_key_id = test-key-id\naws_secret_access_key = test-secret\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    ran = doctor(store, "--endpoint-url", s3_endpoint, "--profile", "trainer", "--region", "eu-west-1")
    assert ran.exit_code == 0
    assert "credentials  the shared credentials file" in ran.out
    assert "region       eu-west-1" in ran.out
    ran = doctor(store, "--endpoint-url", s3_endpoint, "--anonymous")
    assert "credentials  none: requests are not signed" in ran.out
    ran = doctor(store, "--endpoint-url", s3_endpoint, "--profile", "nobody")
    assert "profile='nobody', region=None (ProfileNotFound). Check these three." in ran.out


def test_an_unknown_host_is_told_from_a_server_that_is_down(
    doctor: Callable[..., Ran], s3_endpoint: str
) -> None:
    (fault,) = faults(
        doctor("s3://bucket/v1", "--endpoint-url", "http://no-such-host.invalid:9000", "--json")
    )
    assert fault.startswith(
        "The name 'no-such-host.invalid' of the endpoint is not known (DNS). Check its spelling"
    )
    (fault,) = faults(doctor("s3://bucket/v1", "--endpoint-url", "http://127.0.0.1:9", "--json"))
    assert "no connection to the endpoint at http://127.0.0.1:9" in fault
    assert "Check endpoint_url (or AWS_ENDPOINT_URL), the network, and that the server runs." in fault


def test_a_bucket_or_a_data_set_that_is_not_there_is_told(
    doctor: Callable[..., Ran], s3_endpoint: str, s3_bucket: str
) -> None:
    (fault,) = faults(doctor("s3://no-such-bucket/v1", "--endpoint-url", s3_endpoint, "--json"))
    assert "The S3 bucket does not exist at this endpoint: check its name and endpoint_url." in fault
    ran = doctor(f"s3://{s3_bucket}/nothing", "--endpoint-url", s3_endpoint)
    assert f"s3://{s3_bucket}/nothing can be read, and holds no manifest.json" in ran.out
    assert f"! There is no manifest.json at s3://{s3_bucket}/nothing. Check the url" in ran.out


def test_a_web_server_is_no_s3(doctor: Callable[..., Ran], s3_endpoint: str) -> None:
    for words in (["s3://bucket/v1"], []):
        with web_server(200, body=b"<html>Welcome</html>") as running:
            (fault,) = faults(doctor(*words, "--endpoint-url", running.url, "--json"))
        assert "this is no S3 endpoint" in fault


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["s3://key:hunter2@bucket/v1"], "An S3 url is s3://bucket/prefix and nothing more"),
        (["s3://bucket/v1", "--endpoint-url", "http://key:hunter2@host"], "endpoint_url holds credentials"),
        (["--endpoint-url", "http://key:hunter2@host"], "endpoint_url holds credentials"),
        (["--endpoint-url", "host:9000"], "must be like https://host"),
        (["ftp://host/data"], "the scheme must be one of s3"),
        (["nowhere"], "There is no manifest.json at "),
    ],
)
def test_what_is_written_wrongly_is_told(
    doctor: Callable[..., Ran], s3_endpoint: str, nothing_set: None, words: list[str], message: str
) -> None:
    (fault,) = faults(doctor(*words, "--json"))
    assert message in fault


def test_credentials_in_the_endpoint_of_a_profile_are_not_shown(
    doctor: Callable[..., Ran], nothing_set: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("[profile trainer]\nendpoint_url = http://key:hunter2@127.0.0.1:9\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert "http://127.0.0.1:9 " in doctor("--profile", "trainer").out


def test_a_damaged_sample_is_a_fault(doctor: Callable[..., Ran], tmp_path: Path, nothing_set: None) -> None:
    synthetic_manifest({"easy": 5}, storage=cs.open_storage(tmp_path / "data"))
    assert doctor(tmp_path / "data").exit_code == 0
    (shard,) = (tmp_path / "data").rglob("*.tar")
    shard.write_bytes(shard.read_bytes().replace(b'"index": 0', b'"index": 9'))
    (fault,) = faults(doctor(tmp_path / "data", "--json"))
    assert shard.name in fault
    shutil.rmtree(shard.parent)
    assert doctor(tmp_path / "data").exit_code == 1


def test_the_cache_is_told_and_left_as_it_is(
    doctor: Callable[..., Ran], tmp_path: Path, nothing_set: None
) -> None:
    cache = FolderCache(tmp_path / "home" / "curriculum-sampler", 1 << 30)
    for key in ("a" * 32, "b" * 32):
        cache.obtain(key, lambda allocate: allocate(3 << 20))
    for name in (".unfinished-0123", ".unfinished-89ab"):
        (cache.folder / name).write_bytes(b"half")
    with open(cache.folder / ".unfinished-4567", "wb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        before = sorted(cache.folder.iterdir())
        ran = doctor("--cache-bytes", 1 << 20)
    assert ran.exit_code == 0
    assert f"folder     {cache.folder}\n" in ran.out
    assert "holds      2 pieces, 6.0 MiB" in ran.out
    assert "left over  2 unfinished files of processes that are gone" in ran.out
    assert "in use     nobody is fetching" in ran.out
    assert "budget     1.0 MiB" in ran.out
    assert sorted(cache.folder.iterdir()) == before


def test_a_fetch_in_progress_is_told(doctor: Callable[..., Ran], tmp_path: Path, nothing_set: None) -> None:
    cache = FolderCache(tmp_path / "cache", 1 << 30)
    hold = (
        "import fcntl, sys; file = open(sys.argv[1], 'r+b'); fcntl.lockf(file, fcntl.LOCK_EX, 1, 12345);"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, cache.folder / ".lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert "a process is fetching right now" in doctor("--cache-dir", cache.folder).out
        holder.communicate()
    assert "nobody is fetching" in doctor("--cache-dir", cache.folder).out


def test_a_cache_that_cannot_be_used_is_a_fault(
    doctor: Callable[..., Ran], tmp_path: Path, nothing_set: None
) -> None:
    (tmp_path / "file").write_text("x")
    (fault,) = faults(doctor("--cache-dir", tmp_path / "file", "--json"))
    assert f"{tmp_path / 'file'}" in fault
    assert "is a file, not a folder" in fault
    (fault,) = faults(doctor("--cache-bytes", 1 << 62, "--json"))
    assert "The cache may grow to 4096.0 PiB, but its disk has room for " in fault


def test_a_cache_that_may_not_be_written_to_is_a_fault(unprivileged: None, nothing_set: None) -> None:
    from curriculum_sampler.health.cache import look_at_cache

    (fault,) = look_at_cache(Path("/proc/curriculum-sampler"), None).faults
    assert fault.startswith("/proc cannot be written to. Change its permissions, or pass cache_dir=")


def test_an_extra_is_told_with_its_versions_or_the_command_that_installs_it(
    doctor: Callable[..., Ran], nothing_set: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    have = {"boto3": None, "pillow": None, "torch": "2.5.1+cpu"}
    known = installed._version
    monkeypatch.setattr(installed, "_version", lambda package: have.get(package, known(package)))
    ran = doctor()
    lines = {line.split()[0]: line for line in ran.out.splitlines() if line.startswith("  ")}
    assert lines["s3"].endswith('not installed: pip install "curriculum-sampler[s3]"')
    assert lines["data"].endswith('without pillow: pip install "curriculum-sampler[data]"')
    assert lines["torch"].endswith(
        'torch 2.5.1+cpu is older than 2.6: pip install "curriculum-sampler[torch]"'
    )
    assert lines["wandb"].endswith(f"wandb {known('wandb')}")
    assert not {"all", "test", "docs"} & lines.keys()
    assert ran.exit_code == 0


def run_without(absent: list[str], *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    hide = f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
    code = (
        f"{hide}from curriculum_sampler.command_line import main\nsys.exit(main(['doctor', *sys.argv[1:]]))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_it_works_with_numpy_alone(nothing_set: None, tmp_path: Path) -> None:
    absent = ["boto3", "botocore", "xxhash", "PIL", "safetensors", "torch", "tqdm", "rich", "matplotlib"]
    ran = run_without(absent, XDG_CACHE_HOME=str(tmp_path))
    assert (ran.returncode, ran.stderr) == (0, "")
    ran = run_without(absent, XDG_CACHE_HOME=str(tmp_path), AWS_ENDPOINT_URL="http://other:9000")
    assert ran.returncode == 0
    assert (
        'not asked. This needs boto3, which is not installed. Run: pip install "curriculum-sampler[s3]"'
        in ran.stdout
    )
    ran = run_without(absent, "s3://bucket/v1", XDG_CACHE_HOME=str(tmp_path))
    assert (ran.returncode, ran.stderr) == (1, "")
    assert (
        '! This needs boto3, which is not installed. Run: pip install "curriculum-sampler[s3]"' in ran.stdout
    )
    synthetic_manifest({"easy": 3}, storage=cs.open_storage(tmp_path / "data"))
    ran = run_without(absent, str(tmp_path / "data"), "--json", XDG_CACHE_HOME=str(tmp_path))
    assert (ran.returncode, ran.stderr) == (1, "")
    told = json.loads(ran.stdout)["data"]
    assert told["samples"] == 3
    assert 'pip install "curriculum-sampler[data]"' in told["faults"][0]


def test_what_should_not_happen_is_told_without_its_text(
    doctor: Callable[..., Ran], nothing_set: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("https://key:hunter2@host")

    monkeypatch.setattr(cs.Manifest, "load", fail)
    (fault,) = faults(doctor(tmp_path, "--json"))
    assert fault == "RuntimeError, which should not happen. Please report it, with this output."
