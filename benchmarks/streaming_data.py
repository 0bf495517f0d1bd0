"""The samples that ``streaming.py`` reads: random bytes, the same on every machine, made once.

Below the folder lies ``root``, which is served as S3 buckets: ``tar`` holds shards and manifest by our own
``write_shards``; the formats of peers are made from the same samples when a peer first asks for them.
"""

import json
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

BATCH = 64
BUCKETS = ("easy", "medium", "hard")
SEED = 17
LEAST_BYTES, MOST_BYTES = 24 << 10, 32 << 10

_SAMPLES = "samples.json"


@dataclass(frozen=True)
class Data:
    """One data set on disk.

    Attributes:
        folder: Where it lies; made at first use.
        num_shards: Shards of each bucket.
        samples_per_shard: A multiple of them is a whole number of batches, so that one pass has no rest.
    """

    folder: Path
    num_shards: int
    samples_per_shard: int

    @property
    def root(self) -> Path:
        """What is served: a folder per format."""
        return self.folder / "root"

    @property
    def bucket_size(self) -> int:
        """Samples of each bucket."""
        return self.num_shards * self.samples_per_shard

    @property
    def num_steps(self) -> int:
        """Batches of one pass over all buckets."""
        return len(BUCKETS) * self.bucket_size // BATCH

    @cached_property
    def digests(self) -> dict[str, str]:
        """Key -> XXH3-64 of the sample's content."""
        told: dict[str, str] = json.loads((self.folder / _SAMPLES).read_text())["digests"]
        return told

    @cached_property
    def num_bytes(self) -> int:
        """Bytes of all samples' contents."""
        told: int = json.loads((self.folder / _SAMPLES).read_text())["bytes"]
        return told

    def shards(self, bucket: str) -> list[str]:
        """Return the names of a bucket's tars below ``root/tar``."""
        return [f"train/{bucket}/{bucket}-{number:06}.tar" for number in range(self.num_shards)]

    def members(self) -> list[tuple[str, int, int]]:
        """Return where each sample's content lies: shard's name, offset, size; found by the standard library."""
        found = []
        for bucket in BUCKETS:
            for name in self.shards(bucket):
                with tarfile.open(self.root / "tar" / name) as tar:
                    found += [(name, member.offset_data, member.size) for member in tar]
        return found

    def make(self) -> None:
        """Write the shards, unless a call before finished doing so."""
        import xxhash

        import curriculum_sampler as cs

        if (self.folder / _SAMPLES).exists():
            return
        digests, num_bytes = {}, 0

        def noted(bucket: str) -> Iterator[dict[str, Any]]:
            nonlocal num_bytes
            for sample in self.samples(bucket):
                digests[sample["__key__"]] = xxhash.xxh3_64_hexdigest(sample["bin"])
                num_bytes += len(sample["bin"])
                yield sample

        with unfinished(self.root / "tar") as folder:
            cs.write_shards(
                folder,
                {bucket: noted(bucket) for bucket in BUCKETS},
                samples_per_shard=self.samples_per_shard,
            )
        (self.folder / _SAMPLES).write_text(json.dumps({"bytes": num_bytes, "digests": digests}))

    def samples(self, bucket: str) -> Iterator[dict[str, Any]]:
        """Make a bucket's samples, in order."""
        import numpy as np

        random = np.random.default_rng([SEED, BUCKETS.index(bucket)])
        for number in range(self.bucket_size):
            content = random.bytes(int(random.integers(LEAST_BYTES, MOST_BYTES, endpoint=True)))
            yield {"__key__": f"{bucket}-{number:06}", "bin": content}


def data_set(folder: Path, *, small: bool) -> Data:
    """Return the data set in a folder: 1.6 GB, or 16 MB to see that all works."""
    if small:
        return Data(folder / "small", num_shards=2, samples_per_shard=96)
    return Data(folder / "full", num_shards=8, samples_per_shard=2304)


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Give a folder to fill, which takes its name only when that was done."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    part.rename(folder)


def warm(folder: Path) -> None:
    """Bring a folder's files into the page cache."""
    buffer = bytearray(1 << 20)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
