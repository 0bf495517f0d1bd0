"""Pieces: what is fetched and cached as one. A piece is a run, or the part of a run that lies in one shard."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .manifest import Manifest


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples ``first ... stop - 1`` of shard ``number`` of a bucket; ``key`` names their bytes in a cache."""

    bucket: str
    number: int
    first: int
    stop: int
    key: str

    def __hash__(self) -> int:
        return hash(self.key)


def pieces_of_run(manifest: Manifest, bucket: str, run: int, run_size: int) -> tuple[Piece, ...]:
    """Return the pieces of a run, in order of their shards.

    A key rests on the tar's full url, and on the digest that stands for its content: neither shards of the same
    name nor two versions of one shard share it.

    >>> from curriculum_sampler.build import write_shards
    >>> samples = [{"__key__": f"{n:04}", "cls": n} for n in range(10)]
    >>> manifest = write_shards("memory://pieces", {"easy": samples}, samples_per_shard=5)
    >>> [(p.number, p.first, p.stop) for p in pieces_of_run(manifest, "easy", run=1, run_size=4)]
    [(0, 4, 5), (1, 0, 3)]
    """
    last = min((run + 1) * run_size, manifest.bucket_sizes[bucket]) - 1
    (first_shard, last_shard), _ = manifest.locate(bucket, [run * run_size, last])
    return tuple(
        _piece(manifest, bucket, number, run, run_size)
        for number in range(int(first_shard), int(last_shard) + 1)
    )


def _piece(manifest: Manifest, bucket: str, number: int, run: int, run_size: int) -> Piece:
    placed = manifest.buckets[bucket][number]
    shard_start = manifest.shard_start(bucket, number)
    first = max(run * run_size - shard_start, 0)
    stop = min((run + 1) * run_size - shard_start, placed.shard.samples)
    named = f"{placed.url}\n{placed.shard.digest}\n{first}-{stop}"
    return Piece(bucket, number, first, stop, hashlib.blake2b(named.encode(), digest_size=20).hexdigest())
