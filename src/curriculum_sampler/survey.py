"""What is in a data set: its buckets, how large they are, and what a sample consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .dataset import CurriculumDataset
from .draws import Draw
from .easiest_first import easiest_first
from .manifest import Manifest


class MemberSurvey(NamedTuple):
    """An extension: in how many of the samples looked at, and its mean length there in bytes."""

    samples: int
    mean_bytes: float


@dataclass(frozen=True, slots=True)
class BucketSurvey:
    """What is in one bucket.

    Attributes:
        name: Its name.
        samples, shards, num_bytes: How many, and the bytes of the tars.
        difficulty: (Lowest, highest), where the manifest states it.
        looked_at: Number of samples that were read for ``members``.
        members: Extension -> what was found, in name order.
    """

    name: str
    samples: int
    shards: int
    num_bytes: int
    difficulty: tuple[float, float] | None
    looked_at: int
    members: Mapping[str, MemberSurvey]


def survey_buckets(
    manifest: Manifest, *, look_at: int = 16, order: Sequence[str] | None = None
) -> list[BucketSurvey]:
    """Return what is in each bucket, easiest first where that is known (see ``order``), else in name order.

    Args:
        manifest: The data.
        look_at: Samples per bucket that are read, evenly spread, to tell of which members they consist; 0 reads none.
        order: Names of all buckets, easiest first.

    >>> from curriculum_sampler.build import write_shards
    >>> samples = [{"__key__": f"{n:04}", "cls": n, "txt": "shirt"} for n in range(5)]
    >>> (easy,) = survey_buckets(write_shards("memory://survey", {"easy": samples}))
    >>> easy.samples, dict(easy.members)
    (5, {'cls': MemberSurvey(samples=5, mean_bytes=1.0), 'txt': MemberSurvey(samples=5, mean_bytes=5.0)})
    """
    names, _ = easiest_first(manifest, order)
    return [_survey(manifest, name, look_at) for name in names]


def spread(size: int, count: int) -> list[int]:
    """Return up to ``count`` numbers of ``range(size)``, evenly spread, both ends among them.

    >>> spread(100, 4), spread(2, 4)
    ([0, 33, 66, 99], [0, 1])
    """
    if count >= size:
        return list(range(size))
    return [0] if count == 1 else [(size - 1) * place // (count - 1) for place in range(count)]


def _survey(manifest: Manifest, name: str, look_at: int) -> BucketSurvey:
    placed = manifest.buckets[name]
    dataset = CurriculumDataset(manifest, decode=None, on_bad_sample="raise")
    draws = [Draw(name, index) for index in spread(manifest.bucket_sizes[name], look_at)] if look_at else []
    lengths: dict[str, list[int]] = {}
    for sample in dataset.__getitems__(draws) if draws else []:
        for extension, content in sample.items():
            if not extension.startswith("__"):
                lengths.setdefault(extension, []).append(len(content))
    return BucketSurvey(
        name,
        manifest.bucket_sizes[name],
        len(placed),
        sum(one.shard.num_bytes for one in placed),
        manifest.difficulties.get(name),
        len(draws),
        {
            extension: MemberSurvey(len(found), float(np.mean(found)))
            for extension, found in sorted(lengths.items())
        },
    )
