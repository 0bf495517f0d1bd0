"""A small data set in memory whose every sample is known from its bucket and index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import curriculum_sampler as cs

from ..memory_storage import MemoryStorage
from ..storage import Storage


def synthetic_manifest(
    bucket_sizes: Mapping[str, int],
    *,
    samples_per_shard: int = 16,
    split: str = "train",
    storage: Storage | None = None,
) -> cs.Manifest:
    """Write a data set of real shards, and return its manifest.

    Sample ``i`` of a bucket is ``synthetic_sample(bucket, i)``. The buckets are recorded as ever harder ones, in the order
    given, so that equal arguments give equal bytes.

    Args:
        bucket_sizes: Bucket name -> number of samples, easiest first.
        samples_per_shard: Most samples in a shard.
        split: Name of the split.
        storage: Where to write. Default: a ``MemoryStorage`` of its own.

    Raises:
        ArgumentError: A bad name, or a bucket without samples.
        MissingExtraError: The extra ``data`` is not installed.

    >>> manifest = synthetic_manifest({"easy": 40, "hard": 20})
    >>> manifest.bucket_sizes, manifest.difficulties["hard"], len(manifest.buckets["easy"])
    ({'easy': 40, 'hard': 20}, (0.5, 1.0), 3)
    >>> cs.CurriculumDataset(manifest)[cs.Draw("hard", 7)]["json"]
    {'bucket': 'hard', 'index': 7}
    """
    home = MemoryStorage("synthetic") if storage is None else storage
    count = len(bucket_sizes)
    return cs.write_shards(
        home,
        {
            bucket: [synthetic_sample(bucket, index) for index in range(size)]
            for bucket, size in bucket_sizes.items()
        },
        split=split,
        samples_per_shard=samples_per_shard,
        difficulties={
            bucket: (number / count, (number + 1) / count) for number, bucket in enumerate(bucket_sizes)
        },
    )


def synthetic_sample(bucket: str, index: int) -> dict[str, Any]:
    """Return one sample: who it is in ``__key__`` and ``json``, its index in ``cls``, eight ``float32`` of noise in ``npy``.

    >>> sample = synthetic_sample("easy", 3)
    >>> sample["__key__"], sample["cls"], sample["json"], sample["npy"].shape
    ('easy-000003', 3, {'bucket': 'easy', 'index': 3}, (8,))
    """
    rng = np.random.Generator(np.random.Philox([index, *bucket.encode()]))
    return {
        "__key__": f"{bucket}-{index:06}",
        "cls": index,
        "json": {"bucket": bucket, "index": index},
        "npy": rng.random(8, np.float32),
    }
