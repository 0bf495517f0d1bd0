"""What no reader can beat: the bare system calls, pipes and requests for the same bytes, without order or checks."""

import os
import random
from collections.abc import Iterator
from typing import Any

from streaming_data import BATCH, BUCKETS, SEED
from streaming_peers import Place, Reader

_PIECE = 256 << 10
_READY = 1024  # different samples that the workers hold ready; all of them would not fit every memory


class Ceiling(Reader):
    """A reader that hands out bytes and no samples."""

    has_state = False
    is_ceiling = True

    def num_bytes(self, batch: Any) -> int:
        return sum(map(len, batch))


class Pread(Ceiling):
    """``os.pread`` of each sample's content from files held open, in random order."""

    order = "random"

    def __init__(self, place: Place, num_workers: int) -> None:
        super().__init__(place, num_workers)
        self._members = place.data.members()

    def batches(self) -> Iterator[Any]:
        root = self.place.data.root / "tar"
        names = {name for name, _, _ in self._members}
        files = {name: os.open(root / name, os.O_RDONLY) for name in names}
        members = [(files[name], size, offset) for name, offset, size in self._members]
        random.Random(SEED).shuffle(members)
        return (
            [os.pread(*member) for member in members[start : start + BATCH]]
            for start in range(0, len(members), BATCH)
        )


class ReadyBytes(Ceiling):
    """torch's ``DataLoader`` whose workers send lists of bytes, ready made, of the samples' sizes."""

    packages = ("torch",)
    order = "none"

    def __init__(self, place: Place, num_workers: int) -> None:
        super().__init__(place, num_workers)
        import torch.utils.data

        self._torch_data = torch.utils.data
        members = place.data.members()
        self._ready = _Ready([os.urandom(size) for _, _, size in members[:_READY]], len(members))

    def batches(self) -> Iterator[Any]:
        loader: Any = self._torch_data.DataLoader(
            self._ready, batch_size=BATCH, num_workers=self.num_workers, collate_fn=list
        )
        return iter(loader)


class _Ready:
    def __init__(self, contents: list[bytes], size: int) -> None:
        self._contents, self._size = contents, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, number: int) -> bytes:
        return self._contents[number % len(self._contents)]


class WholeShards(Ceiling):
    """boto3, one kept connection: one GET a shard, streamed into the same buffer, shard by shard."""

    packages = ("boto3",)
    order = "none"

    def __init__(self, place: Place, num_workers: int) -> None:
        super().__init__(place, num_workers)
        import boto3
        import botocore
        from botocore.config import Config

        self._boto3 = boto3
        self._configuration = Config(
            signature_version=botocore.UNSIGNED, response_checksum_validation="when_required"
        )
        # Of each piece the part that is content; tar headers and padding are no samples.
        tars = place.data.root / "tar"
        total = sum((tars / name).stat().st_size for bucket in BUCKETS for name in place.data.shards(bucket))
        self._share = place.data.num_bytes / total

    def connect(self) -> None:
        self._client = self._boto3.client(
            "s3",
            endpoint_url=self.place.endpoint,
            region_name="us-east-1",
            config=self._configuration,
        )
        self._client.head_object(Bucket="tar", Key="manifest.json")  # opens the connection

    def batches(self) -> Iterator[Any]:
        buffer = memoryview(bytearray(_PIECE))
        for bucket in BUCKETS:
            for name in self.place.data.shards(bucket):
                body = self._client.get_object(Bucket="tar", Key=name)["Body"]
                while count := body.readinto(buffer):
                    yield count
                body.close()

    def num_bytes(self, batch: Any) -> float:  # type: ignore[override]
        return self._share * int(batch)


CEILINGS: dict[str, type[Ceiling]] = {
    "ceiling: pread of each sample": Pread,
    "ceiling: ready bytes through DataLoader": ReadyBytes,
    "ceiling: boto3, a GET a shard": WholeShards,
}
