"""The data set that a loader asks for samples: draws in, decoded samples out.

A thin join: ``SampleReader`` has the bytes, ``SampleDecoder`` the values, ``sample_rng`` the randomness,
``BadSamples`` those that cannot be used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy as copy_of
from types import MappingProxyType
from typing import Any, Literal, Self

import numpy as np

from .bad_samples import BadSamples, others
from .cache import PieceCache
from .decode import Decoder, SampleDecoder
from .draws import Draw, Draws
from .errors import ArgumentError, BadSampleError, ShardError
from .foreseen import Run
from .grouping import split_name
from .keys import sample_rng
from .manifest import Manifest
from .reader import SampleReader, told_by
from .sequential import SequentialSamples
from .tally import BadSample, Report
from .tar import contents
from .verified import Found

Sample = dict[str, Any]


class ReportedSamples(list[Any]):
    """Samples of a batch, and those that could not be used for it."""

    def __init__(self, samples: list[Any], bad: list[BadSample]) -> None:
        super().__init__(samples)
        self.bad = bad


class CurriculumDataset:
    """Samples of a manifest by draw, for any ``DataLoader(dataset, batch_sampler=sampler)``.

    A sample is a dict with ``__key__``, ``__bucket__``, ``__index__`` and one entry per member, named by
    its extension. Instances may be forked and pickled; nothing is opened before it is drawn.

    Args:
        manifest: What can be drawn.
        decode: Extension -> function of the member's bytes, in addition to the safe decoders (see
            ``decode.SAFE_DECODERS``); None leaves every member as bytes.
        transform: Called with each sample; what it returns is handed out. If it has a parameter named
            ``rng`` it is also given a ``numpy.random.Generator`` that depends on the sampler's seed, the
            bucket, the pass and the index only, so that an augmentation is the same in whichever worker
            it happens and after any resume. What it raises is raised as it is, with a note that names
            the sample.
        schedule: A curriculum that belongs to this data; a ``CurriculumLoader`` uses it unless given one.
        on_bad_sample: What happens to a sample that is damaged, missing or cannot be decoded. ``"replace"``: another
            of its bucket takes its place (the next usable of those 1, 2, 4, ... after it), and it is logged once.
            ``"raise"``: it is an error. That the store cannot be reached is an error always.
        max_bad_fraction: Of a bucket's samples at most this share, rounded up, may be bad; one more is an error.

    >>> from curriculum_sampler.build import write_shards
    >>> samples = [{"__key__": f"{n:04}", "cls": n, "txt": "shirt"} for n in range(5)]
    >>> dataset = CurriculumDataset(write_shards("memory://dataset", {"easy": samples}))
    >>> dataset[Draw("easy", 3)]
    {'__key__': '0003', '__bucket__': 'easy', '__index__': 3, 'cls': 3, 'txt': 'shirt'}
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        decode: Mapping[str, Decoder] | None = MappingProxyType({}),
        transform: Callable[..., Any] | None = None,
        schedule: Any = None,
        on_bad_sample: Literal["replace", "raise"] = "replace",
        max_bad_fraction: float = 0.001,
    ) -> None:
        if not isinstance(manifest, Manifest):
            raise ArgumentError(
                f"A dataset is made of a manifest, not of {manifest!r}. Pass Manifest.load(folder_or_url)."
            )
        if on_bad_sample not in ("replace", "raise"):
            raise ArgumentError(f"on_bad_sample={on_bad_sample!r} must be 'replace' or 'raise'. Correct it.")
        self.manifest = manifest
        self.on_bad_sample = on_bad_sample
        self.bad_samples = BadSamples(manifest.bucket_sizes, max_bad_fraction)
        self._reports_bad_samples = False
        self.transform = transform
        self.schedule = schedule
        self._reader = SampleReader(manifest)
        self._decoder = None if decode is None else SampleDecoder(decode)
        self._wants_rng = transform is not None and _has_rng(transform)

    def __len__(self) -> int:
        """Number of samples in all buckets."""
        return len(self.manifest)

    def __getitem__(self, draw: Draw | tuple[str, int]) -> Any:
        """Return one sample; ``Draw(bucket, index)`` or the same as a plain tuple."""
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: Draws | Sequence[Draw | tuple[str, int]]) -> list[Any]:
        """Return the samples of a batch in its order; neighbours in a shard share a ranged read.

        Raises:
            ArgumentError: Not draws, or no such bucket or sample.
            StorageError: Bytes could not be read.
            ShardError: More samples are bad than may be (or one, with ``on_bad_sample="raise"``); or a member has no
                decoder.
        """
        batch = draws if isinstance(draws, Draws) else Draws.of([_draw(draw) for draw in draws])
        noted: list[BadSample] = []
        with self._reader.read_batch(batch) as read:
            drawn = list(zip(batch.bucket_ids.tolist(), batch.indices.tolist(), strict=True))
            samples = [
                self._usable(batch.names[bucket_id], index, found, noted)
                for found, (bucket_id, index) in zip(read, drawn, strict=True)
            ]
        if self.transform is not None:
            samples = [
                self._transformed(sample, batch.seed, batch.names[bucket_id], bucket_pass, index)
                for sample, (bucket_id, index), bucket_pass in zip(
                    samples, drawn, batch.passes.tolist(), strict=True
                )
            ]
        if self._reports_bad_samples:
            return ReportedSamples(samples, noted)
        for bad in noted:
            self.bad_samples.add(bad)
        return samples

    def sequential(self, rank: int = 0, world_size: int = 1) -> SequentialSamples:
        """Return every sample once, in order of bucket name and index: for evaluation.

        With ranks, each has its own consecutive part, and the parts in rank order are the whole. Nothing
        is padded or repeated: when the number of samples is not divisible, some ranks have one sample
        more, so a loop with a collective call per batch must allow for uneven tails.
        """
        return SequentialSamples(self, self.manifest.bucket_sizes, rank, world_size)

    def for_loader(self, make_cache: Callable[[], PieceCache] | None) -> Self:
        """Return a copy of its own for a loader, which takes its reports and its list of bad samples.

        Args:
            make_cache: Makes the cache for fetched runs in each process that reads; None keeps nothing.
        """
        copy = copy_of(self)
        copy._reader = SampleReader(self.manifest, make_cache)
        copy._reports_bad_samples = True
        copy.bad_samples = BadSamples(self.manifest.bucket_sizes, self.bad_samples.max_fraction)
        return copy

    def take_report(self) -> Report:
        """Return what reading has cost in this process since the last report."""
        return self._reader.take_report()

    def trim_cache(self, needed: Iterable[Run], run_sizes: Mapping[str, int]) -> None:
        """Drop from the cache what exceeds its budget, but none of these runs."""
        self._reader.trim(needed, run_sizes)

    def close(self) -> None:
        """Stop what reads ahead in this process; the next read begins anew."""
        self._reader.close()

    def _usable(self, bucket: str, index: int, found: Found, noted: list[BadSample]) -> Sample:
        """Return the sample, or the one that stands in for it; take note of those that cannot be used."""
        try:
            return self._sample(bucket, index, found)
        except BadSampleError as error:
            if self.on_bad_sample == "raise":
                raise told_by(error) from None
            reason = str(error)
            noted.append(BadSample(bucket, index, reason))
        for other in others(index, self.manifest.bucket_sizes[bucket]):
            try:
                with self._reader.read_batch(Draws.of([Draw(bucket, other)])) as (found,):
                    return self._sample(bucket, other, found)
            except BadSampleError as error:
                noted.append(BadSample(bucket, other, str(error)))
        raise ShardError(
            f"Nothing can stand in for bad sample {bucket}:{index}: the others tried are bad too. {reason}"
        )

    def _sample(self, bucket: str, index: int, found: Found) -> Sample:
        if isinstance(found, BadSampleError):
            raise found
        sample: Sample = {"__key__": "", "__bucket__": bucket, "__index__": index}
        for name, start, num_bytes in contents(found):
            parts = split_name(name)
            if parts is None:
                continue
            sample["__key__"], extension = parts
            content = bytes(found[start : start + num_bytes])
            try:
                sample[extension] = (
                    content if self._decoder is None else self._decoder.member(extension, content)
                )
            except ShardError as error:
                where = f"{self._url(bucket, index)}, sample {parts[0]!r} ({bucket}:{index})"
                raise type(error)(f"{where}: {error}") from error.__cause__
        return sample

    def _transformed(self, sample: Sample, seed: int, bucket: str, bucket_pass: int, index: int) -> Any:
        assert self.transform is not None
        key = sample["__key__"]  # told in a note below, and a transform may take it out
        rng = {"rng": sample_rng(seed, bucket, bucket_pass, index)} if self._wants_rng else {}
        try:
            return self.transform(sample, **rng)
        except Exception as error:
            error.add_note(
                f"The transform failed on sample {key!r} ({bucket}:{index}, pass {bucket_pass}) "
                f"of {self._url(bucket, index)}."
            )
            raise

    def _url(self, bucket: str, index: int) -> str:
        shards, _ = self.manifest.locate(bucket, [index])
        return self.manifest.buckets[bucket][int(shards[0])].url

    def __repr__(self) -> str:
        return f"CurriculumDataset({self.manifest!r})"


def _draw(draw: object) -> Draw:
    match draw:
        case (str(bucket), int(index)):
            return Draw(bucket, index)
        case (str(bucket), np.integer() as index):
            return Draw(bucket, int(index))
    raise ArgumentError(
        f"A sample is asked for by Draw(bucket, index), not by {draw!r}. Pass batch_sampler=MixtureSampler(...) to "
        "the DataLoader; for evaluation in order use dataset.sequential()."
    )


def _has_rng(transform: Callable[..., Any]) -> bool:
    try:
        return "rng" in inspect.signature(transform).parameters
    except ValueError:  # some built-in callables do not tell their parameters
        return False
