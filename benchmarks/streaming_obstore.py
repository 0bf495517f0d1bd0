"""Ours with obstore, a client written in Rust, in boto3's place: what would be won by it.

The storage below has no bounds of time, no retries and no messages of its own, all of which ``S3Storage`` has.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from streaming_peers import Ours, Place

from curriculum_sampler.storage import ObjectStat

_PIECE = 256 << 10  # least bytes to take at once; whole bodies cost more


class ObstoreStorage:
    """What a loader needs of a bucket that anyone may read."""

    parallel_reads = 16
    retries: Mapping[str, int] = MappingProxyType({})

    def __init__(self, bucket: str, endpoint: str) -> None:
        from obstore.store import S3Store

        self.url = f"s3://{bucket}"
        self._store = S3Store(
            bucket,
            endpoint=endpoint,
            region="us-east-1",
            skip_signature=True,
            client_options={"allow_http": True},
        )

    def stat(self, key: str) -> ObjectStat:
        found = self._store.head(key)
        return ObjectStat(found["size"], str(found["e_tag"]))

    def exists(self, key: str) -> bool:
        return True

    def read_into(self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None) -> ObjectStat:
        options: Any = {"range": (offset, offset + len(buffer))}
        if etag is not None:
            options["if_match"] = etag
        answer = self._store.get(key, options=options)
        received = 0
        for piece in answer.stream(min_chunk_size=_PIECE):
            buffer[received : received + len(piece)] = piece
            received += len(piece)
        if received != len(buffer):
            raise OSError(f"{received} of {len(buffer)} bytes came")
        return ObjectStat(answer.meta["size"], str(answer.meta["e_tag"]))

    def write(self, key: str, data: bytes | bytearray) -> None:
        raise NotImplementedError

    def list(self, prefix: str = "") -> list[str]:
        raise NotImplementedError


class OursOverObstore(Ours):
    """``CurriculumLoader`` in one process, whose threads fetch through obstore."""

    packages = (*Ours.packages, "obstore")

    def __init__(self, place: Place, num_workers: int) -> None:
        super().__init__(place, num_workers)
        import obstore.store  # noqa: F401  (as with all readers, imports are not timed)

    def connect(self) -> None:
        assert self.place.endpoint is not None
        self.manifest = self._library.Manifest.load(ObstoreStorage("tar", self.place.endpoint))
