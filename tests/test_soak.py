"""The short form of ``benchmarks/soak.py``: a few seeds of random faults, and every sample right and in its place."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .data_fixtures import s3_endpoint
from .fault_mix import EVERY_KIND, FaultMix

pytestmark = pytest.mark.timeout(120)

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def soak() -> Iterator[Any]:
    """The benchmark as a module."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import soak

        yield soak
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def world(soak: Any, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The data set on disk, and the proxy before its copy in a store."""
    with soak.data_set(tmp_path_factory.mktemp("soak")) as made:
        yield made


# Replay one with: python benchmarks/soak.py --first-seed SEED --samples 1 --reader READER
@pytest.mark.parametrize(("seed", "reader"), [(101, "0 workers"), (102, "2 threads"), (103, "2 processes")])
def test_random_mixes_of_faults_change_no_sample(
    soak: Any, world: Any, tmp_path: Path, seed: int, reader: str
) -> None:
    told = soak.soak(*world, seed, reader, tmp_path / "cache")
    print(told)
    assert told["error"] is None, told
    assert told["different"] == 0, told
    assert told["samples"] == 1024
    assert sum(told["faults"].values()) > 20
    assert sum(told["retries"].values()) > 10
    assert not list(tmp_path.rglob(".unfinished-*"))


def asked(mix: FaultMix, order: list[int]) -> dict[int, list[str]]:
    """What 200 requests of one object meet, each made three times, in some order."""
    met: dict[int, list[str]] = {}
    for number, start in enumerate(order * 3):
        fault = mix(number, "GET", "a.tar", f"bytes={start}-{start + 99}")
        met.setdefault(start, []).append("" if fault is None else fault.kind)
    return met


def test_a_seed_names_its_faults_whatever_the_order_of_requests() -> None:
    order = list(range(0, 4_000_000, 20_000))
    assert asked(FaultMix(5), order) == asked(FaultMix(5), order[::-1])
    assert asked(FaultMix(5), order) != asked(FaultMix(6), order)
    kinds = {
        kind for met in asked(FaultMix(5, dict.fromkeys(EVERY_KIND, 0.1)), order).values() for kind in met
    }
    assert kinds == {"", *EVERY_KIND}


def test_every_fault_of_a_mix_passes() -> None:
    mix = FaultMix(5, {"cut": 1.0})
    assert [mix(n, "GET", "a.tar", "bytes=0-9") is None for n in range(8)] == [False, False, False, True] * 2
    flips = FaultMix(5, {"flip": 1.0})
    fault = flips(0, "GET", "a.tar", "bytes=100-199")
    assert fault is not None
    assert fault.kind == "flip"
    place = 100 + fault.after
    assert flips(1, "GET", "a.tar", f"bytes={place}-{place}") is None
    assert flips(1, "GET", "a.tar", f"bytes={place + 1}-{place + 99}") is None  # the rest of a sample
    assert flips(1, "GET", "a.tar", f"bytes={place + 20_000}-{place + 20_099}") is not None
    assert flips(2, "GET", "b.tar", f"bytes={place}-{place}") is not None
    assert flips(3, "GET", "manifest.json", "bytes=0-99") is None
