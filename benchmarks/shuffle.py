"""How good is a shuffle that keeps reads local? Ours at several run sizes, beside what peers' shuffles do to an order.

One bucket of shards is read once. Three numbers say what the order is like:

- *apart*: how far apart in the bucket two draws are that follow each other (median, over that of a uniform shuffle).
- *kinship*: how many samples of a batch of 64 come from a shard that another of them comes from (over that of a uniform
  shuffle; 1 is uniform).
- *trend*: chi-square of place in the stream against place in the bucket, 16 x 16, in standard deviations from its mean.
  Near 0 nothing tells early samples from late ones; coarse pieces in random order give large values.

And two say what it costs: reads (of a run each; of a whole shard for the others), and samples that must be at hand.

    python benchmarks/shuffle.py [--samples 200000] [--shard 1000]
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

import curriculum_sampler as cs

BATCH = 64


def ours(num: int, run_size: int, seed: int) -> NDArray[np.int64]:
    schedule = cs.StageSchedule([cs.Stage("all", {"all": 1}, epochs=1)])
    plan = schedule.plan({"all": num}, BATCH, run_sizes=run_size)
    return np.concatenate([batch.indices for batch in cs.MixtureSampler(plan, seed)])[:num]


def shards_and_buffer(num: int, shard: int, buffer: int, seed: int) -> NDArray[np.int64]:
    """Shards in random order, then a buffer from which a random sample leaves for each that enters (in the manner of webdataset)."""
    source = random.Random(seed)
    shards = list(range(0, num, shard))
    source.shuffle(shards)
    stream: Iterator[int] = (sample for start in shards for sample in range(start, min(start + shard, num)))
    held = list(islice(stream, buffer))
    order = []
    for sample in stream:
        place = source.randrange(len(held))
        order.append(held[place])
        held[place] = sample
    source.shuffle(held)
    return np.array(order + held)


def expanded_range(num: int, shard: int, block: int, seed: int) -> NDArray[np.int64]:
    """Shards in random order; every sample is moved by a random amount of up to ``block`` (in the manner of mosaicml-streaming's py1e)."""
    source = np.random.default_rng(seed)
    starts = np.arange(0, num, shard)
    source.shuffle(starts)
    order = np.concatenate([np.arange(start, min(start + shard, num)) for start in starts])
    shifted = np.arange(num) + source.uniform(-block / 2, block / 2, num)
    return order[np.argsort(shifted, kind="stable")]


def deviation(counts: NDArray[np.float64]) -> float:
    expected = counts.sum() / counts.size
    freedom = (math.isqrt(counts.size) - 1) ** 2
    return float(((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


def measure(order: NDArray[np.int64], shard: int) -> tuple[float, float, float]:
    num = len(order)
    uniform = np.random.default_rng(0).permutation(num)

    def apart(some: NDArray[np.int64]) -> float:
        return float(np.median(np.abs(np.diff(some))))

    def kinship(some: NDArray[np.int64]) -> float:
        batches = np.sort(some[: num // BATCH * BATCH].reshape(-1, BATCH) // shard, axis=1)
        return 1 - float(np.mean([len(np.unique(batch)) for batch in batches])) / BATCH

    places = np.histogram2d(np.arange(num), order, 16)[0]
    return apart(order) / apart(uniform), kinship(order) / kinship(uniform), deviation(places)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--shard", type=int, default=1_000, help="samples in a shard")
    args = parser.parse_args()
    num, shard = args.samples, args.shard
    rows = [("ours, uniform (runs of 1)", ours(num, 1, 17), num, num)]
    for run_size in (8, 80, 320):
        name = f"ours, runs of {run_size}" + (" (8 MiB of 100 kB pictures)" if run_size == 80 else "")
        rows.append((name, ours(num, run_size, 17), -(-num // run_size), 32 * run_size))
    for buffer in (1_000, 10_000):
        found = shards_and_buffer(num, shard, buffer, 17)
        rows.append((f"shards, then a buffer of {buffer:,}", found, -(-num // shard), buffer))
    block = 1 << 14
    rows.append(
        (
            f"shards, moved by up to {block:,} (py1e)",
            expanded_range(num, shard, block, 17),
            -(-num // shard),
            block,
        )
    )
    print("| order | apart | kinship | trend | reads | samples at hand |")
    print("|---|---|---|---|---|---|")
    for name, order, reads, held in rows:
        assert np.array_equal(np.sort(order), np.arange(num)), name
        apart, kinship, trend = measure(order, shard)
        print(f"| {name} | {apart:.2f} | {kinship:.2f} | {trend:,.1f} | {reads:,} | {held:,} |")


if __name__ == "__main__":
    main()
