"""A manifest of any number of samples over a few real shards, each of which has many names."""

import json
from dataclasses import dataclass
from pathlib import Path

from streaming_data import BUCKETS, Data

import curriculum_sampler as cs
from curriculum_sampler.manifest import PlacedShard
from curriculum_sampler.manifest_file import Shard


@dataclass(frozen=True)
class RepeatedShards(cs.LocalStorage):
    """A folder whose shard ``easy-000013.tar`` is the real file ``easy-000005.tar``, where there are eight."""

    num_shards: int = 1

    def _path(self, key: str) -> Path:
        stem, _, rest = key.rpartition("-")
        number, dot, suffixes = rest.partition(".")
        return super()._path(f"{stem}-{int(number) % self.num_shards:06}{dot}{suffixes}")


def repeated_manifest(data: Data, num_samples: int) -> cs.Manifest:
    """Return a manifest of at least this many samples, the same number in each bucket."""
    told = json.loads((data.root / "tar" / "manifest.json").read_text())["splits"]["train"]
    storage = RepeatedShards(data.root / "tar", num_shards=data.num_shards)
    count = -(-num_samples // (len(BUCKETS) * data.samples_per_shard))
    buckets = {}
    for bucket in BUCKETS:
        real = [(shard["samples"], shard["bytes"], shard["index"]) for shard in told[bucket]["shards"]]
        buckets[bucket] = tuple(
            PlacedShard(
                Shard(f"train/{bucket}/{bucket}-{number:06}.tar", *real[number % len(real)]), storage, storage
            )
            for number in range(count)
        )
    return cs.Manifest("train", buckets, {})
