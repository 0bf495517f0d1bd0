"""From draws to verified bytes, by as few reads as the place they lie in wants.

Where reading hardly waits (files) each sample is read in place. Where it does (an object store) and the runs of the
plan are known, whole runs are fetched once, ahead of need, and kept near; what is needed before its run has come is
read alone, as long as that stays a small part of all that is read.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from .cache import CachedPiece, PieceCache
from .checksum import checksum
from .draws import Draws
from .errors import AbsentError, BadSampleError, CurriculumError, ShardError
from .fetcher import ClosedError, Fetcher
from .foreseen import ForeseenDraws, Run
from .manifest import Manifest
from .parallel import in_parallel
from .pieces import Piece, pieces_of_run
from .shards import OpenShard, OpenShards
from .tally import Report, Tally
from .verified import Found, VerifiedReads, in_few_reads

# Of the bytes fetched as runs, this part may be fetched once more as single samples that could not wait; and at the
# beginning, when nothing is at hand, so many bytes (but no larger part of all there are than the second). A request
# for a sample takes as much work as half a run, so it shall remain the exception.
ALONE_SHARE = 0.001
ALONE_AT_FIRST, ALONE_AT_FIRST_SHARE = 4 << 20, 0.02

# Runs fetched at a time, and how many of these ahead of need while that is quick.
FETCH_THREADS = 16
FETCH_THREADS_AHEAD = 2

# Samples of one shard: their places in the batch, and their positions in the shard.
_Samples: TypeAlias = list[tuple[int, int]]

# Reads samples of an open shard of a bucket by their positions.
_Read: TypeAlias = Callable[[str, OpenShard, list[int]], list[Found]]


class SampleReader:
    """Reads the bytes of samples of a manifest. Picklable and safe to fork: each process opens its own.

    A shard is opened when one of its samples is first asked for; a bucket that is never drawn is never opened. From
    then on its ETag is pinned, so a tar that is replaced during a run is an error.

    Args:
        manifest: What can be read.
        make_cache: Makes the cache for fetched runs, in each process that reads; without it nothing is kept.
    """

    def __init__(self, manifest: Manifest, make_cache: Callable[[], PieceCache] | None = None) -> None:
        self.manifest = manifest
        self.make_cache = make_cache
        # By process: threads and locks do not survive a fork. What a child inherits is left alone, also by its garbage
        # collector, since the parent's threads may have held its locks.
        self._readings: dict[int, _Reading] = {}

    def read(self, bucket: str, indices: ArrayLike) -> list[memoryview]:
        """Return the tar blocks of samples of one bucket, in the order asked for.

        Raises:
            ArgumentError: No such bucket or sample.
            StorageError: The bytes cannot be had.
            ShardError: The shard or a sample is not what the manifest promises.
        """
        numbers = np.asarray(indices, np.int64)
        zeros = np.zeros(len(numbers), np.uint16)
        samples = []
        with self.read_batch(Draws((bucket,), zeros, numbers, zeros.astype(np.int64), 0)) as found:
            for sample in found:
                if isinstance(sample, BadSampleError):
                    raise told_by(sample)
                samples.append(sample)
        return samples  # outside of runs a sample has memory of its own

    @contextlib.contextmanager
    def read_batch(self, draws: Draws) -> Iterator[list[Found]]:
        """Give the tar blocks of the samples drawn, with an error in the place of each that cannot be used.

        ``ForeseenDraws`` are read by runs, and what is coming is fetched in the background. Their bytes must not be
        looked at after the ``with`` block: the memory is then used for other runs.

        Raises:
            ArgumentError: No such bucket or sample.
            StorageError: The store cannot be reached, refuses, or has replaced an object.
        """
        held: list[CachedPiece] = []
        try:
            found = None
            while found is None:
                with contextlib.suppress(ClosedError):  # what was at hand was closed meanwhile: read anew
                    found = self._here().read(draws, held)
            yield found
        finally:
            for piece in held:
                piece.let_go()

    def trim(self, needed: Iterable[Run], run_sizes: Mapping[str, int]) -> None:
        """Drop from the cache what exceeds its budget, but none of these runs."""
        self._here().trim(needed, run_sizes)

    def take_report(self) -> Report:
        """Return what reading has cost in this process since the last report."""
        return self._here().take_report()

    def close(self) -> None:
        """Stop fetching ahead and let the cache go; the next read begins anew."""
        reading = self._readings.pop(os.getpid(), None)
        if reading is not None:
            reading.close()

    def _here(self) -> _Reading:
        """Return what this process has at hand."""
        process = os.getpid()
        reading = self._readings.get(process)
        if reading is None:
            cache = None if self.make_cache is None else self.make_cache()
            reading = self._readings.setdefault(process, _Reading(self.manifest, cache))
        return reading

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readings": {}}


class _Reading:
    """One process's open shards, cache and threads."""

    def __init__(self, manifest: Manifest, cache: PieceCache | None) -> None:
        self._manifest = manifest
        self._cache = cache
        self._shards = OpenShards(manifest)
        self._tally = Tally()
        self._reads = VerifiedReads(self._tally)
        self._fetcher: Fetcher[CachedPiece] = Fetcher(FETCH_THREADS, FETCH_THREADS_AHEAD)
        self._pieces: dict[tuple[str, int, int], tuple[Piece, ...]] = {}
        # Bytes that may still be read alone.
        self._allowance = min(float(ALONE_AT_FIRST), ALONE_AT_FIRST_SHARE * manifest.num_bytes)
        self._retries_told = self._retries()
        _keep_freed_memory()

    def read(self, draws: Draws, held: list[CachedPiece]) -> list[Found]:
        """See ``SampleReader.read_batch``; pieces that the bytes lie in are held, and added to ``held``."""
        foreseen = draws if isinstance(draws, ForeseenDraws) and self._cache is not None else None
        coming = [] if foreseen is None else self._coming(foreseen)
        found: list[Any] = [None] * len(draws)
        alone: dict[tuple[str, int], _Samples] = {}
        in_runs: dict[Piece, _Samples] = {}
        for bucket_id in np.flatnonzero(np.bincount(draws.bucket_ids)).tolist():
            bucket = draws.names[bucket_id]
            (places,) = np.nonzero(draws.bucket_ids == bucket_id)
            indices = draws.indices[places]
            numbers, positions = self._manifest.locate(bucket, indices)
            located = zip(places.tolist(), numbers.tolist(), positions.tolist(), strict=True)
            run_size = 1 if foreseen is None else foreseen.run_sizes[bucket]
            if run_size == 1:
                for place, number, position in located:
                    alone.setdefault((bucket, number), []).append((place, position))
                continue
            for (place, number, position), run in zip(located, (indices // run_size).tolist(), strict=True):
                for piece in self._pieces_of(bucket, run, run_size):
                    if piece.number == number:
                        in_runs.setdefault(piece, []).append((place, position))
        awaited = self._serve_cached(found, in_runs, alone, held)
        self._serve_alone(found, alone)
        for piece in coming:
            self._fetcher.ask(piece.key, partial(self._obtain, piece), ahead=True)
        for piece, samples in awaited:
            try:
                cached = self._wait(piece)
            except (AbsentError, ShardError) as error:
                _fail(found, samples, error)
                continue
            if cached.hold():
                held.append(cached)
                self._take(found, piece, cached, samples)
            else:  # the cache had to drop it already
                self._serve_alone(found, {(piece.bucket, piece.number): samples})
        return found

    def _coming(self, foreseen: ForeseenDraws) -> list[Piece]:
        """Return the pieces that this reader shall fetch, and raise the allowance by their share."""
        assert self._cache is not None
        wanted: list[Piece] = []
        if not self._cache.is_usable:
            return wanted
        for bucket, run in foreseen.coming:
            for piece in self._pieces_of(bucket, run, foreseen.run_sizes[bucket]):
                num_bytes = (piece.stop - piece.first) * self._manifest.mean_sample_bytes(bucket)
                self._allowance += ALONE_SHARE * num_bytes
                if self._cache.get(piece.key) is None:
                    wanted.append(piece)
        return wanted

    def trim(self, needed: Iterable[Run], run_sizes: Mapping[str, int]) -> None:
        if self._cache is not None:
            self._cache.trim(
                {
                    piece.key
                    for bucket, run in needed
                    for piece in self._pieces_of(bucket, run, run_sizes[bucket])
                }
            )

    def take_report(self) -> Report:
        report, now = self._tally.take(), self._retries()
        report.retries, self._retries_told = now - self._retries_told, now
        return report

    def close(self) -> None:
        self._fetcher.close()
        if self._cache is not None:
            self._cache.close()

    def _serve_cached(
        self,
        found: list[Any],
        in_runs: dict[Piece, _Samples],
        alone: dict[tuple[str, int], _Samples],
        held: list[CachedPiece],
    ) -> list[tuple[Piece, _Samples]]:
        """Take what is at hand; move to ``alone`` what need not wait for its run; return what must."""
        awaited = []
        num_hits = num_misses = 0
        for piece, samples in in_runs.items():
            assert self._cache is not None
            cached = self._cache.get(piece.key)
            if cached is not None and cached.hold():
                held.append(cached)
                num_hits += len(samples)
                self._take(found, piece, cached, samples)
                continue
            num_misses += len(samples)
            if not self._cache.is_usable or self._may_go_alone(piece, len(samples)):
                alone.setdefault((piece.bucket, piece.number), []).extend(samples)
            else:
                self._fetcher.ask(piece.key, partial(self._obtain, piece))
                awaited.append((piece, samples))
        self._tally.served(hits=num_hits, misses=num_misses)
        return awaited

    def _wait(self, piece: Piece) -> CachedPiece:
        """Return a piece when it has come."""
        assert self._cache is not None
        cached = self._cache.get(piece.key)
        return cached or self._fetcher.ask(piece.key, partial(self._obtain, piece)).result()

    def _may_go_alone(self, piece: Piece, num_samples: int) -> bool:
        num_bytes = num_samples * self._manifest.mean_sample_bytes(piece.bucket)
        if self._fetcher.has_begun(piece.key) or num_bytes > self._allowance:
            return False
        self._allowance -= num_bytes
        return True

    def _take(self, found: list[Any], piece: Piece, cached: CachedPiece, samples: _Samples) -> None:
        """Take samples out of a piece at hand."""
        shard = self._opened(found, piece.bucket, piece.number, samples)
        if shard is None:
            return
        starts, lengths, checksums = shard.index.starts, shard.index.lengths, shard.index.checksums
        base = starts.item(piece.first)
        for place, position in samples:
            start = starts.item(position) - base
            sample = cached.read(start, start + lengths.item(position))
            is_right = checksum(sample) == checksums.item(position)
            found[place] = sample if is_right else self._reads.again(piece.bucket, shard, position)

    def _obtain(self, piece: Piece) -> CachedPiece:
        assert self._cache is not None
        return self._cache.obtain(piece.key, partial(self._fetch, piece))

    def _fetch(self, piece: Piece, allocate: Callable[[int], memoryview]) -> memoryview:
        shard = self._shards.get(piece.bucket, piece.number)
        return self._reads.span(piece.bucket, shard, piece.first, piece.stop, allocate)

    def _serve_alone(self, found: list[Any], alone: dict[tuple[str, int], _Samples]) -> None:
        """Read samples one by one from files, and by few ranged reads side by side from elsewhere."""
        far: list[tuple[str, int, _Samples]] = []
        threads = 1
        for (bucket, number), samples in alone.items():
            parallel_reads = self._manifest.buckets[bucket][number].tars.parallel_reads
            if parallel_reads > 1:
                far.append((bucket, number, samples))
                threads = max(threads, parallel_reads)
            else:
                self._read_in_place(found, bucket, number, samples)
        shards = in_parallel(lambda job: self._opened(found, *job), far, threads)
        ranges = [
            (bucket, shard, [samples[at] for at in members.tolist()])
            for (bucket, _, samples), shard in zip(far, shards, strict=True)
            if shard is not None
            for members in in_few_reads(shard, np.array([position for _, position in samples]))
        ]
        in_parallel(lambda job: self._read_range(found, *job), ranges, threads)

    def _read_in_place(self, found: list[Any], bucket: str, number: int, samples: _Samples) -> None:
        shard = self._opened(found, bucket, number, samples)
        if shard is not None:
            self._read(found, bucket, shard, samples, self._reads.one_by_one)

    def _read_range(self, found: list[Any], bucket: str, shard: OpenShard, samples: _Samples) -> None:
        self._read(found, bucket, shard, samples, self._reads.near_each_other)

    def _read(self, found: list[Any], bucket: str, shard: OpenShard, samples: _Samples, how: _Read) -> None:
        try:
            read = how(bucket, shard, [position for _, position in samples])
        except (AbsentError, ShardError) as error:
            _fail(found, samples, error)
            return
        for (place, _), sample in zip(samples, read, strict=True):
            found[place] = sample

    def _opened(self, found: list[Any], bucket: str, number: int, samples: _Samples) -> OpenShard | None:
        try:
            return self._shards.get(bucket, number)
        except (AbsentError, ShardError) as error:
            _fail(found, samples, error)
            return None

    def _pieces_of(self, bucket: str, run: int, run_size: int) -> tuple[Piece, ...]:
        known = self._pieces.get((bucket, run, run_size))
        if known is None:
            if len(self._pieces) > 1 << 14:
                self._pieces.clear()
            known = pieces_of_run(self._manifest, bucket, run, run_size)
            self._pieces[bucket, run, run_size] = known
        return known

    def _retries(self) -> Counter[str]:
        counted: Counter[str] = Counter()
        for storage in self._manifest.storages:
            counted.update(storage.retries)
        return counted


def _keep_freed_memory() -> None:
    """Let the C library keep the memory of a batch for the next, where it would give it back and ask for it again.

    glibc raises that threshold when a large block is freed. Without it half of the time to read a file is spent in
    page faults.
    """
    large = np.empty(16 << 20, np.uint8)
    del large


def told_by(bad: BadSampleError) -> CurriculumError:
    """Return the error about the shard that made a sample bad, or that about the sample itself."""
    return bad.__cause__ if isinstance(bad.__cause__, CurriculumError) else bad


def _fail(found: list[Any], samples: _Samples, error: AbsentError | ShardError) -> None:
    """Put an error about a shard, or what is missing of it, in the place of each of its samples."""
    # Its traceback would lead back to ``found``, and keep everything here until the garbage collector comes.
    error = error.with_traceback(None)
    for place, _ in samples:
        bad = error
        if not isinstance(error, BadSampleError):
            bad = BadSampleError(str(error))
            bad.__cause__ = error
        found[place] = bad
