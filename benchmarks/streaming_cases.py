"""What ``streaming.py`` measures, one case to a process: a pass, its content, a resume, a stage switch."""

import contextlib
import gc
import pickle
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import metadata
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from order import peak_rss, reset_peak_rss
from process_cost import cpu_seconds, descendants, private_bytes
from streaming_ceilings import CEILINGS
from streaming_data import BATCH, BUCKETS, Data
from streaming_obstore import OursOverObstore
from streaming_peers import OURS, PEERS, Ours, Place, Reader
from streaming_repeated import repeated_manifest

OVER_OBSTORE = "ours, over obstore"
READERS: dict[str, type[Reader]] = {**CEILINGS, **OURS, **PEERS, OVER_OBSTORE: OursOverObstore}

_COMPARED = 3  # batches that a resumed run must have in common with the uninterrupted one
_AFTER_STEPS = 20  # those after a switch


def one_pass(name: str, place: Place, num_workers: int, started: float) -> dict[str, Any]:
    """Take one pass and count CPU seconds, wall seconds, bytes and memory; ``started`` is when the process was."""
    reader = READERS[name](place, num_workers)
    gc.collect()  # what the imports left behind is not to be cleared away while one is timed
    rss, cpu, opening = reset_peak_rss(), cpu_seconds(), time.monotonic()
    reader.connect()
    ready = time.monotonic()
    batches = reader.batches()
    num_bytes = float(reader.num_bytes(next(batches)))
    first = time.monotonic()
    workers_bytes, looked = 0, False
    for batch in batches:
        num_bytes += reader.num_bytes(batch)
        if not looked and num_bytes > place.data.num_bytes / 2:
            workers_bytes, looked = sum(map(private_bytes, descendants())), True
    last = time.monotonic()
    spent = cpu_seconds() - cpu
    return {
        "order": reader.order,
        "versions": {package: metadata.version(package) for package in reader.packages},
        "bytes": num_bytes,
        "cpu_seconds_per_gb": spent / num_bytes * 1e9,
        "mb_per_second": num_bytes / 1e6 / (last - ready),
        "first_seconds": first - ready,
        "first_seconds_with_client": first - opening,
        "first_seconds_from_start": first - started,
        "memory_mb": (peak_rss() - rss + workers_bytes) / 1e6,
    }


def content(name: str, place: Place, num_workers: int) -> dict[str, Any]:
    """Take one pass and compare every sample with what was written."""
    import xxhash

    expected = place.data.digests
    reader = READERS[name](place, num_workers)
    reader.connect()
    found: Counter[str] = Counter()
    wrong = 0
    for batch in reader.batches():
        for sample in reader.samples(batch):
            key = _key(sample)
            found[key] += 1
            wrong += xxhash.xxh3_64_hexdigest(sample["bin"]) != expected.get(key)
    return {
        "missing": len(expected.keys() - found.keys()),
        "repeated": sum(count - 1 for count in found.values()),
        "wrong": wrong,
    }


def save(name: str, place: Place, num_workers: int, file: Path) -> dict[str, Any]:
    """Run to the middle of a pass, save the state and what comes next, for ``resume`` in another process."""
    reader = READERS[name](place, num_workers)
    if not reader.has_state:
        raise NotImplementedError("has no state")
    reader.connect()
    batches = reader.batches()
    for _ in islice(batches, place.data.num_steps // 2):
        pass
    # Plain pickle, since some of them keep tuples or objects in it; the file is ours.
    state = pickle.dumps(reader.state())
    file.write_bytes(pickle.dumps((state, _keys(reader, batches))))
    return {"state_bytes": len(state)}


def resume(name: str, place: Place, num_workers: int, file: Path) -> dict[str, Any]:
    """Time from a saved state to the first sample, and say whether what follows is what would have followed."""
    state, expected = pickle.loads(file.read_bytes())
    reader = READERS[name](place, num_workers)
    reader.connect()
    gc.collect()
    started = time.monotonic()
    reader.resume(pickle.loads(state))
    batches = reader.batches()
    first = next(batches, None)
    seconds = time.monotonic() - started
    if first is None:
        raise NotImplementedError("nothing came after the state was loaded")
    keys = [_keys_of(reader, first), *_keys(reader, batches, _COMPARED - 1)]
    return {"resume_seconds": seconds, "is_exact": keys == expected}


def start(name: str, place: Place, num_workers: int) -> dict[str, Any]:
    """Time to the first batch of a reader that has no state: a ceiling of ``resume``."""
    reader = READERS[name](place, num_workers)
    reader.connect()
    gc.collect()
    started = time.monotonic()
    next(reader.batches())
    return {"resume_seconds": time.monotonic() - started}


def resume_large(name: str, place: Place, num_workers: int, num_samples: int) -> dict[str, Any]:
    """Resume ours in the middle of a manifest of so many samples: the same shards under many names.

    Timed are the loader's construction, the loading of the state and the first batch. What a manifest is loaded or
    asked for once, digests included, is told apart. That the samples are the right ones is told by the sampler's
    draws of that step and the samples' keys.
    """
    reader = READERS[name](place, num_workers)
    assert isinstance(reader, Ours)
    started = time.monotonic()
    reader.manifest = repeated_manifest(place.data, num_samples)
    sizes = reader.manifest.bucket_sizes
    _ = reader.manifest.fingerprint
    manifest_seconds = time.monotonic() - started
    stages = {"all": dict.fromkeys(BUCKETS, 1)}
    steps = sum(sizes.values()) // BATCH
    before = reader.make_loader(stages, steps)
    state = before.sampler.state_dict(step=steps // 2)
    draws = [before.sampler.draws(steps // 2 + number) for number in range(_COMPARED)]
    expected = [
        [f"{draw.bucket}-{draw.index % place.data.bucket_size:06}" for draw in batch] for batch in draws
    ]
    del before
    gc.collect()
    started = time.monotonic()
    loader = reader.make_loader(stages, steps)
    loader.load_state_dict(state)
    batches = iter(loader)
    first = next(batches)
    seconds = time.monotonic() - started
    keys = [_keys_of(reader, first), *_keys(reader, batches, _COMPARED - 1)]
    return {
        "samples": sum(sizes.values()),
        "manifest_seconds": manifest_seconds,
        "resume_seconds": seconds,
        "is_exact": keys == expected,
    }


def switch(name: str, place: Place, num_workers: int, steps: int, step_seconds: float) -> dict[str, Any]:
    """Time the wait for each batch of a run whose second stage draws from a bucket that the first never opened.

    Between batches it sleeps, as long as a training step would last that leaves the throttled server a little time to
    spare. The first third of the first stage is the run's start, when the first block comes, and told apart.
    """
    reader = READERS[name](place, num_workers)
    assert isinstance(reader, Ours)
    reader.connect()
    loader = reader.make_loader({"easy": {"easy": 1}, "hard": {"hard": 1}}, steps)
    batches = iter(loader)
    waits = []
    for _ in range(2 * steps):
        asked = time.monotonic()
        next(batches)
        waits.append(time.monotonic() - asked)
        time.sleep(step_seconds)
    after = waits[steps : steps + _AFTER_STEPS]
    elsewhere = waits[steps // 3 : steps] + waits[steps + _AFTER_STEPS :]
    return {
        "step_ms": 1000 * step_seconds,
        "first_ms": 1000 * waits[0],
        "median_ms": 1000 * median(elsewhere),
        "p99_elsewhere_ms": 1000 * _p99(elsewhere),
        "p99_after_switch_ms": 1000 * _p99(after),
        "largest_elsewhere_ms": 1000 * max(elsewhere),
        "waits_ms": [round(1000 * wait, 2) for wait in waits],
    }


def _p99(values: list[float]) -> float:
    """Return the value that 99 of 100 do not exceed; of 20 values that is the largest.

    >>> _p99([3.0, 1.0, 2.0]), _p99(list(map(float, range(1, 201))))
    (3.0, 198.0)
    """
    ordered = sorted(values)
    return ordered[-(-99 * len(ordered) // 100) - 1]


def _keys(reader: Reader, batches: Iterator[Any], number: int = _COMPARED) -> list[list[str]]:
    return [_keys_of(reader, batch) for batch in islice(batches, number)]


def _keys_of(reader: Reader, batch: Any) -> list[str]:
    return [_key(sample) for sample in reader.samples(batch)]


def _key(sample: Any) -> str:
    # Some put the tar's path before it.
    return str(sample["__key__"]).rpartition("/")[2]


def measure(case: dict[str, Any], data: Data, scratch: Path) -> dict[str, Any]:
    """Run one case and return what it found; one that cannot be had says why."""
    place = Place(data, case["endpoint"], scratch)
    kinds: dict[str, Callable[..., dict[str, Any]]] = {
        "pass": one_pass,
        "content": content,
        "save": save,
        "resume": resume,
        "start": start,
        "resume_large": resume_large,
        "switch": switch,
    }
    taken = {"pass": ("started",), "resume_large": ("num_samples",), "switch": ("steps", "step_seconds")}
    further: dict[str, Any] = {key: case[key] for key in taken.get(case["kind"], ())}
    if "file" in case:
        further["file"] = Path(case["file"])
    try:
        # What a library prints is no result.
        with contextlib.redirect_stdout(sys.stderr):
            return kinds[case["kind"]](case["reader"], place, case["workers"], **further)
    except Exception as error:
        told = " ".join(str(error).split())
        return {
            "refusal": told if isinstance(error, NotImplementedError) else f"{type(error).__name__}: {told}"
        }
