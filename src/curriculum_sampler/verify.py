"""Is a data set what its manifest says? Every shard compared with its index, every fault told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Unpack

from .errors import AbsentError, BadSampleError, ShardError, StorageError
from .index import INDEX_SUFFIX, index_num_bytes
from .indexing import index_tar
from .locations import Location, StorageOptions, open_storage
from .manifest import Manifest, PlacedShard, read_manifest
from .manifest_file import index_digest
from .parallel import in_parallel
from .shards import OpenShard, open_shard
from .tally import Tally
from .verification_record import VerificationRecord
from .verified import VerifiedReads

# So many shards in a row that cannot be read are no fault of the shards: the store is away.
_MOST_UNREADABLE = 3


class Fault(NamedTuple):
    """Something that is not as it should be: in which shard (of which bucket), and what, in words."""

    split: str
    bucket: str
    shard: str
    message: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What ``verify_dataset`` found.

    Attributes:
        url: The data set.
        shards: Number of shards looked at, those of ``continued`` included.
        samples: Samples in them.
        num_bytes: Bytes of their tars.
        continued: Shards that an interrupted verification had found whole, and that were not replaced since.
        is_fast: Whether only sizes and ETags were compared.
        faults: Everything that is wrong, in the order of the manifest; empty when all is well.
    """

    url: str
    shards: int
    samples: int
    num_bytes: int
    continued: int
    is_fast: bool
    faults: tuple[Fault, ...]


class _Listed(NamedTuple):
    split: str
    bucket: str
    placed: PlacedShard


class _Checked(NamedTuple):
    """How a shard was found: the ETag of its tar, what is wrong, and why it could not be read at all."""

    etag: str
    messages: Sequence[str]
    unreadable: StorageError | None = None


def verify_dataset(
    location: Location,
    *,
    split: str | None = None,
    fast: bool = False,
    record: Path | None = None,
    restart: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[StorageOptions],
) -> Verification:
    """Compare every byte of a data set with its indexes and digests.

    Of each shard: the index has the digest that the manifest names, the tar has the length, every sample the
    checksum, and what lies between and behind the samples is the structure of a whole tar. (The content of files that
    are part of no sample, such as a README in a tar, has no checksum.) Damage is looked for twice before it is told,
    since damage on the way is more likely than damage at rest. Nothing is changed.

    Args:
        location: Folder, url or storage of the data set.
        split: The split to look at. Default: all.
        fast: Compare the sizes of tars and indexes only; and, with a ``record`` of an earlier whole verification, the
            ETags of the tars: one that was replaced since is told, and so are the faults of one that was not.
        record: A local file to note in how each shard was found. A verification that was interrupted goes on from it; after one
            that came to its end the next begins anew.
        restart: Begin anew in any case.
        progress: Called with (bytes done, bytes of all).
        **options: Options of ``s3://`` urls, such as ``endpoint_url=``.

    Raises:
        ArgumentError: No data set there, no such split, or ``record`` is another file.
        StorageError: The storage cannot be reached; what was found whole is kept in ``record``.
        ShardError: The manifest itself is damaged.

    >>> from curriculum_sampler.build import write_shards
    >>> _ = write_shards("memory://verify", {"easy": [{"__key__": "a", "cls": 1}]})
    >>> verify_dataset("memory://verify").faults
    ()
    """
    home = open_storage(location, **options)
    splits = list(read_manifest(home).splits) if split is None else [split]
    manifests = [Manifest.load(home, split=name, **options) for name in splits]
    listed = list(_each_shard_once(manifests))
    known = None if record is None else VerificationRecord(record, home.url)
    if known is not None and (restart or (known.is_complete and not fast)):
        known.begin_anew()
    check = _check_fast if fast else _check_whole
    total = sum(placed.shard.num_bytes for _, _, placed in listed)
    done = continued = unreadable_in_a_row = 0
    faults: list[Fault] = []
    for together in _in_batches(listed):
        for one, checked in zip(
            together,
            in_parallel(lambda one: check(one.placed, known), together, len(together)),
            strict=True,
        ):
            shard = one.placed.shard
            faults += [Fault(one.split, one.bucket, shard.name, told) for told in checked.messages]
            unreadable_in_a_row = unreadable_in_a_row + 1 if checked.unreadable else 0
            if checked.unreadable is not None and unreadable_in_a_row == _MOST_UNREADABLE:
                raise checked.unreadable
            if known is not None and not fast and not checked.messages:
                if known.etag(shard.name, shard.digest) == checked.etag:
                    continued += 1
                else:
                    known.add(shard.name, shard.digest, checked.etag)
            elif known is not None and not fast and checked.etag:
                known.add_faults(shard.name, shard.digest, checked.etag, checked.messages)
            done += shard.num_bytes
            if progress is not None:
                progress(done, total)
    if known is not None and not fast:
        known.finish()
    samples = sum(placed.shard.samples for _, _, placed in listed)
    return Verification(home.url, len(listed), samples, total, continued, fast, tuple(faults))


def _each_shard_once(manifests: Sequence[Manifest]) -> Iterator[_Listed]:
    """Yield the shards of all splits; two splits may share one."""
    seen: set[str] = set()
    for manifest in manifests:
        for bucket, shards in manifest.buckets.items():
            for placed in shards:
                if placed.url not in seen:
                    seen.add(placed.url)
                    yield _Listed(manifest.split, bucket, placed)


def _in_batches(listed: Sequence[_Listed]) -> Iterator[Sequence[_Listed]]:
    """Yield shards that are read at the same time: as many as their storage makes worth while."""
    at = 0
    while at < len(listed):
        together = listed[at : at + listed[at].placed.tars.parallel_reads]
        yield together
        at += len(together)


def _check_fast(placed: PlacedShard, known: VerificationRecord | None) -> _Checked:
    shard, messages = placed.shard, list[str]()
    wanted = (
        (placed.tars, shard.name, shard.num_bytes),
        (placed.indexes, shard.name + INDEX_SUFFIX, index_num_bytes(shard.samples)),
    )
    etag = ""
    for storage, name, num_bytes in wanted:
        try:
            found = storage.stat(name)
        except AbsentError as error:
            messages.append(str(error))
            continue
        except StorageError as error:
            return _Checked(etag, [*messages, str(error)], error)
        etag = etag or found.etag
        if found.num_bytes != num_bytes:
            messages.append(
                f"{storage.url}/{name} has {found.num_bytes} bytes, but the manifest says {num_bytes}. It was cut or "
                "replaced: copy it again, or index the data set again."
            )
    before = None if known is None else known.etag(shard.name, shard.digest)
    if not messages and before is not None and before != etag:
        messages.append(
            f"{placed.url} was replaced since it was verified (its ETag was {before}, is {etag}). Verify it again "
            "without the fast way."
        )
    if not messages and known is not None:
        messages += (
            f"{told} (Found when it was verified; it has not changed since.)"
            for told in known.faults(shard.name, shard.digest, etag)
        )
    return _Checked(etag, messages)


def _check_whole(placed: PlacedShard, known: VerificationRecord | None) -> _Checked:
    shard = placed.shard
    try:
        etag = placed.tars.stat(shard.name).etag
        if known is not None and known.etag(shard.name, shard.digest) == etag:
            return _Checked(etag, ())
        opened = open_shard(placed)
        opened.pin_now()
    except (AbsentError, ShardError) as error:
        return _Checked("", [_and_the_tar(placed, str(error))])
    except StorageError as error:
        return _Checked("", [str(error)], error)
    why = ""
    for _ in range(2):
        try:
            if index_tar(placed.tars, shard.name).to_bytes() == opened.index.to_bytes():
                return _Checked(etag, ())
        except (AbsentError, ShardError) as error:
            why = str(error)
        except StorageError as error:
            return _Checked("", [str(error)], error)
    damaged = _damaged_samples(opened)
    # A header that belongs to no sample, or samples that lie elsewhere: nothing that a checksum covers.
    return _Checked(
        etag, damaged or [why or f"{placed.url} holds other samples than its index. Index it again."]
    )


def _and_the_tar(placed: PlacedShard, message: str) -> str:
    """Add to a message about a shard's index whether the tar itself is the one of the manifest."""
    try:
        digest = index_digest(index_tar(placed.tars, placed.shard.name).to_bytes())
    except (StorageError, ShardError):
        return message
    if digest != placed.shard.digest:
        return message
    return f"{message} (The tar itself is whole; only its index must be made again.)"


def _damaged_samples(opened: OpenShard) -> list[str]:
    reads, messages = VerifiedReads(Tally()), list[str]()
    for position in range(len(opened.index)):
        try:
            (found,) = reads.one_by_one("", opened, [position])
        except (StorageError, ShardError) as error:
            return [*messages, str(error)]
        if isinstance(found, BadSampleError):
            messages.append(str(found))
    return messages
