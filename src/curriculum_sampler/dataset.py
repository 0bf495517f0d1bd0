"""The data set that a loader asks for samples: draws in, decoded samples out.

A thin join: ``SampleReader`` has the bytes, ``SampleDecoder`` the values, ``sample_rng`` the randomness.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from .decode import Decoder, SampleDecoder
from .draws import Draw, Draws
from .errors import ArgumentError, ShardError
from .grouping import split_name
from .keys import sample_rng
from .manifest import Manifest
from .reader import SampleReader
from .sequential import SequentialSamples
from .tar import walk

Sample = dict[str, Any]


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
    ) -> None:
        if not isinstance(manifest, Manifest):
            raise ArgumentError(
                f"A dataset is made of a manifest, not of {manifest!r}. Pass Manifest.load(folder_or_url)."
            )
        self.manifest = manifest
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
            ShardError: A shard or sample is damaged or cannot be decoded.
        """
        batch = draws if isinstance(draws, Draws) else Draws.of([_draw(draw) for draw in draws])
        found: list[Any] = [None] * len(batch)
        for number in np.unique(batch.bucket_ids).tolist():
            bucket = batch.names[number]
            (places,) = np.nonzero(batch.bucket_ids == number)
            indices = batch.indices[places]
            for at, index, data in zip(
                places.tolist(), indices.tolist(), self._reader.read(bucket, indices), strict=True
            ):
                sample = self._sample(bucket, index, data)
                found[at] = self._transformed(sample, batch.seed, bucket, int(batch.passes[at]), index)
        return found

    def sequential(self, rank: int = 0, world_size: int = 1) -> SequentialSamples:
        """Return every sample once, in order of bucket name and index: for evaluation.

        With ranks, each has its own consecutive part, and the parts in rank order are the whole. Nothing
        is padded or repeated: when the number of samples is not divisible, some ranks have one sample
        more, so a loop with a collective call per batch must allow for uneven tails.
        """
        return SequentialSamples(self, self.manifest.bucket_sizes, rank, world_size)

    def _sample(self, bucket: str, index: int, data: memoryview) -> Sample:
        sample: Sample = {"__key__": "", "__bucket__": bucket, "__index__": index}
        for member in walk(lambda at, count: data[at : at + count], 0, len(data)):
            parts = split_name(member.name)
            if parts is None or member.kind != "file":
                continue
            sample["__key__"], extension = parts
            content = bytes(data[member.data : member.data + member.num_bytes])
            try:
                sample[extension] = (
                    content if self._decoder is None else self._decoder.member(extension, content)
                )
            except ShardError as error:
                shard = self._url(bucket, index)
                raise ShardError(f"{shard}, sample {parts[0]!r} ({bucket}:{index}): {error}") from error
        return sample

    def _transformed(self, sample: Sample, seed: int, bucket: str, bucket_pass: int, index: int) -> Any:
        if self.transform is None:
            return sample
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
