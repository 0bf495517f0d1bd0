"""Random mixes of faults, seed after seed: is every sample still the right one, in its place?

    python benchmarks/soak.py                             # 20,000 samples and more, some minutes
    python benchmarks/soak.py --first-seed 17 --samples 1 # one seed again

Each seed names a mix of faults (see ``tests/fault_mix.py``) and the seed of the loader. Its samples are read through a
proxy that damages answers, by each way to read in turn, and compared one by one, in order, with what a run over local files
delivers. The last line is the result as JSON; the exit status is 1 if anything was different. It needs the extra "test".
"""

import argparse
import hashlib
import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import numpy as np

import curriculum_sampler as cs
from curriculum_sampler.retry import Retry
from curriculum_sampler.s3 import S3Storage

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.fault_mix import FaultMix  # noqa: E402
from tests.s3_server import FaultProxy, fault_proxy, moto_server  # noqa: E402

SIZES = {"easy": 240, "medium": 200, "hard": 160}
BATCH = 32
SCHEDULE = cs.StageSchedule(
    [
        cs.Stage("easy", {"easy": 1}, steps=10),
        cs.Stage("medium", {"easy": 3, "medium": 7}, steps=10),
        cs.Stage("hard", {"easy": 1, "medium": 1, "hard": 2}, steps=12, ramp=4),
    ]
)
READERS: dict[str, dict[str, Any]] = {
    "0 workers": {},
    "2 threads": {"num_workers": 2, "workers": "threads"},
    "2 processes": {"num_workers": 2, "workers": "processes"},
}
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "soak",
    "AWS_SECRET_ACCESS_KEY": "soak",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def main() -> None:
    arguments = _arguments()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    os.environ |= _ENVIRONMENT
    found = {"seeds": 0, "samples": 0, "different": 0, "faults": Counter(), "retries": Counter()}
    with tempfile.TemporaryDirectory() as room, data_set(Path(room)) as (folder, proxy):
        seed = arguments.first_seed
        while found["samples"] < arguments.samples:
            names = arguments.reader or list(READERS)
            told = soak(folder, proxy, seed, names[seed % len(names)], Path(room) / f"cache-{seed}")
            print(json.dumps(told), flush=True)
            found["seeds"] += 1
            for name in ("samples", "different"):
                found[name] += told[name]
            for name in ("faults", "retries"):
                found[name].update(told[name])
            seed += 1
    result = json.dumps(found)
    print(result)
    if arguments.json:
        arguments.json.write_text(result + "\n", encoding="utf-8")
    sys.exit(1 if found["different"] else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=20_000, help="compare at least so many")
    parser.add_argument("--first-seed", type=int, default=0, help="the others follow it")
    parser.add_argument("--reader", action="append", choices=READERS, help="a way to read; may be repeated")
    parser.add_argument("--json", type=Path, help="file for the result")
    return parser.parse_args()


@contextmanager
def data_set(room: Path) -> Iterator[tuple[Path, FaultProxy]]:
    """Write the samples below ``room`` and into a store, and give the folder and a proxy before the store."""
    rng = np.random.Generator(np.random.Philox(17))
    buckets = {
        name: [
            {"__key__": f"{name}-{n:05}", "bin": rng.bytes(int(rng.integers(1 << 10, 4 << 10)))}
            for n in range(size)
        ]
        for name, size in SIZES.items()
    }
    folder = room / "shards"
    cs.write_shards(folder, buckets, samples_per_shard=50)
    with moto_server() as url, fault_proxy(url) as proxy:
        client = boto3.client("s3", endpoint_url=url)
        client.create_bucket(Bucket="soak")
        client.close()
        cs.write_shards("s3://soak/v1", buckets, samples_per_shard=50, endpoint_url=url)
        yield folder, proxy


def soak(folder: Path, proxy: FaultProxy, seed: int, reader: str, cache: Path) -> dict[str, Any]:
    """Read one curriculum under the faults of a seed; say what happened and how many samples were not as they should.

    An error, and a run that ends early, count every sample that is missing.
    """
    expected = [told for batch in _loader(cs.Manifest.load(folder), seed) for told in map(_told, batch)]
    retry = Retry(max_attempts=20, first_pause_seconds=0.001, longest_pause_seconds=0.02)
    place = S3Storage("soak", "v1", endpoint_url=proxy.url, stall_timeout_seconds=0.5, retry=retry)
    began = time.monotonic()
    proxy.met.clear()
    proxy.decide = FaultMix(seed)
    options = READERS[reader] | ({"cache_dir": cache} if "processes" in reader else {})
    received, retries, error = [], {}, None
    try:
        loader = _loader(cs.Manifest.load(place), seed, cache_bytes=600_000, **options)
        for batch in loader:
            received += map(_told, batch)
        retries = loader.stats()["retries"]
    except Exception as caught:
        error = f"{type(caught).__name__}: {caught}"
    finally:
        proxy.decide = None
    right = sum(one == other for one, other in zip(received, expected, strict=False))
    return {
        "seed": seed,
        "reader": reader,
        "samples": len(expected),
        "different": max(len(expected), len(received)) - right,
        "error": error,
        "faults": dict(proxy.met),
        "retries": dict(retries),
        "seconds": round(time.monotonic() - began, 2),
    }


def _loader(manifest: cs.Manifest, seed: int, **options: Any) -> cs.CurriculumLoader:
    return cs.CurriculumLoader(
        cs.CurriculumDataset(manifest, decode=None, on_bad_sample="raise"),
        SCHEDULE,
        batch_size=BATCH,
        seed=seed,
        collate=list,
        plan_options={"run_sizes": dict.fromkeys(SIZES, 8), "block_runs": 2},
        **options,
    )


def _told(sample: dict[str, Any]) -> tuple[str, int, bytes]:
    return sample["__bucket__"], sample["__index__"], hashlib.blake2b(sample["bin"], digest_size=8).digest()


if __name__ == "__main__":
    main()
