"""What a loader says it did is what the storage and the loop saw."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import curriculum_sampler as cs
from curriculum_sampler.build import write_shards
from curriculum_sampler.dataset import CurriculumDataset
from curriculum_sampler.manifest import Manifest
from curriculum_sampler.tally import BadSample, Report, Tally
from curriculum_sampler.telemetry import Telemetry

from .data_fixtures import FarStorage, WatchedStorage, proxy, s3_bucket, s3_endpoint, unlike  # noqa: F401
from .s3_server import Fault, FaultProxy

SCHEDULE = cs.StageSchedule(
    [cs.Stage("easy", {"easy": 1}, steps=10), cs.Stage("both", {"easy": 1, "hard": 1}, steps=10)]
)
counts = st.dictionaries(st.sampled_from(["easy", "hard"]), st.integers(1, 1000)).map(Counter)
reports = st.builds(
    Report,
    counts,
    counts,
    st.integers(0, 99),
    st.integers(0, 99),
    counts,
    st.lists(st.builds(BadSample, st.just("easy"), st.integers(0, 9), st.just("damaged")), max_size=3),
)


def data(kind: type[WatchedStorage]) -> tuple[WatchedStorage, Manifest]:
    home = kind()
    manifest = write_shards(
        home, {"easy": unlike("easy", 60), "hard": unlike("hard", 60)}, samples_per_shard=25
    )
    home.reads.clear()
    return home, manifest


def loader(manifest: Manifest, **options: Any) -> cs.CurriculumLoader:
    return cs.CurriculumLoader(
        CurriculumDataset(manifest, decode=None),
        SCHEDULE,
        **{  # type: ignore[arg-type]
            "batch_size": 8,
            "seed": 17,
            "collate": list,
            "plan_options": {"run_sizes": 8, "block_runs": 2},
            **options,
        },
    )


def received_by_storage(home: WatchedStorage) -> dict[str, tuple[int, int]]:
    """Bucket -> bytes and requests of its tars."""
    tars = [(key.split("/")[1], count) for key, _, count in home.reads if key.endswith(".tar")]
    return {
        bucket: (
            sum(count for name, count in tars if name == bucket),
            len([1 for name, _ in tars if name == bucket]),
        )
        for bucket in ("easy", "hard")
    }


@given(st.lists(reports, max_size=5))
def test_reports_add_up_in_any_order(several: list[Report]) -> None:
    def added(several: list[Report]) -> Report:
        total = Report()
        for report in several:
            total.add(report)
        return total

    total, backwards = added(several), added(several[::-1])
    assert total.num_bytes == backwards.num_bytes == sum((one.num_bytes for one in several), Counter())
    assert total.requests == backwards.requests == sum((one.requests for one in several), Counter())
    assert total.retries == backwards.retries == sum((one.retries for one in several), Counter())
    assert (total.hits, total.misses) == (backwards.hits, backwards.misses)
    assert len(total.bad) == len(backwards.bad) == sum(len(one.bad) for one in several)


def test_no_count_is_lost_or_told_twice_between_threads() -> None:
    tally, total = Tally(), Report()
    threads = [
        threading.Thread(
            target=lambda: [(tally.fetched("easy", 3), tally.served(hits=2, misses=1)) for _ in range(2000)]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        total.add(tally.take())
    total.add(tally.take())
    assert (total.num_bytes, total.requests) == ({"easy": 24_000}, {"easy": 8000})
    assert (total.hits, total.misses) == (16_000, 8000)
    assert tally.take() == Report()


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_waits_are_told_by_their_last_median_percentile_and_sum(waits: list[float]) -> None:
    telemetry = Telemetry()
    for wait in waits:
        telemetry.waited(wait)
    told = telemetry.stats()
    assert told["batches"] == len(waits)
    seconds = told["wait_seconds"]
    assert seconds["total"] == pytest.approx(sum(waits))
    assert seconds["longest"] == max(waits, default=0.0)
    assert seconds["last"] == (waits[-1] if waits else 0.0)
    assert seconds["median"] == pytest.approx(np.median(waits or [0.0]))
    assert seconds["median"] <= seconds["p99"] <= seconds["longest"]


def test_percentiles_are_of_the_latest_waits_and_sums_of_all() -> None:
    telemetry = Telemetry()
    for wait in [5.0] + [1.0] * 10_000:
        telemetry.waited(wait)
    seconds = telemetry.stats()["wait_seconds"]
    assert (seconds["longest"], seconds["total"], seconds["p99"]) == (5.0, 10_005.0, 1.0)


@pytest.mark.parametrize("kind", [WatchedStorage, FarStorage], ids=["near", "far"])
@pytest.mark.parametrize("options", [{}, {"num_workers": 3}], ids=["alone", "threads"])
def test_bytes_and_requests_are_those_that_the_storage_counted(
    kind: type[WatchedStorage], options: dict[str, Any]
) -> None:
    home, manifest = data(kind)
    run = loader(manifest, **options)
    for _ in run:
        pass
    told, counted = run.stats(), received_by_storage(home)
    assert told["batches"] == 20
    # A far run may still be on its way when the last batch has come: its bytes nobody was told of.
    a_run = 0 if kind is WatchedStorage else 8 * 4500
    for bucket, (num_bytes, requests) in counted.items():
        assert num_bytes - 4 * a_run <= told["bytes"][bucket] <= num_bytes
        assert requests - (4 if a_run else 0) <= told["requests"][bucket] <= requests
    served = told["cache"]["hits"] + told["cache"]["misses"]
    assert served == (160 if kind is FarStorage else 0)
    assert told["retries"] == {}
    assert told["bad_samples"] == []


def test_a_fresh_loader_has_done_nothing() -> None:
    _, manifest = data(FarStorage)
    told = loader(manifest).stats()
    assert (told["batches"], told["bytes"], told["requests"], told["bad_samples"]) == (0, {}, {}, [])
    assert set(told["wait_seconds"].values()) == {0.0}


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_what_workers_did_is_told_as_plain_json(tmp_path: Path, workers: str) -> None:
    _, manifest = data(FarStorage)
    run = loader(manifest, num_workers=2, workers=workers, cache_dir=tmp_path)
    used = Counter[str]()
    for batch in run:
        for sample in batch:
            used[sample["__bucket__"]] += 1
        told = run.stats()
        assert told["batches"] == run.step + 1
    assert json.loads(json.dumps(told)) == told
    assert told["cache"]["hits"] + told["cache"]["misses"] == 160 == used.total()
    for bucket in used:
        # All data was used, so all was fetched; in the second pass, where the cache is too small, again.
        size = manifest.mean_sample_bytes(bucket) * 60
        assert 0.6 * size <= told["bytes"][bucket] <= 2.2 * size
        assert 0 < told["requests"][bucket] <= 2 * used[bucket]
    seconds = told["wait_seconds"]
    assert 0 < seconds["median"] <= seconds["p99"] <= seconds["longest"] <= seconds["total"]


def test_counts_go_on_over_iterations_and_resumptions() -> None:
    _, manifest = data(FarStorage)
    run = loader(manifest)
    batches = iter(run)
    next(batches)
    state = run.state_dict()
    next(batches)
    before = run.stats()
    run.load_state_dict(state)
    assert len(list(run)) == 19
    told = run.stats()
    assert told["batches"] == 21
    assert told["bytes"]["easy"] >= before["bytes"]["easy"] > 0


def test_requests_made_again_are_counted_by_cause(s3_bucket: str, proxy: FaultProxy) -> None:  # noqa: F811
    url = f"s3://{s3_bucket}/v1"
    write_shards(url, {"easy": unlike("easy", 60), "hard": unlike("hard", 60)}, endpoint_url=proxy.url)
    run = loader(Manifest.load(url, endpoint_url=proxy.url))
    proxy.faults.extend([Fault("status", key="*.tar"), Fault("cut", after=100, key="*.tar")])
    assert len(list(run)) == 20
    told = run.stats()
    assert proxy.met == {"status": 1, "cut": 1}
    assert sum(told["retries"].values()) >= 2
    assert json.loads(json.dumps(told)) == told
