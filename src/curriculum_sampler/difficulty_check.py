"""Do the buckets mean anything? The difficulty that data were cut by, beside the losses that a model really has."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import ArgumentError
from .rank_statistics import chance_larger, chance_larger_noise, spearman

Meaning = Literal["all", "some", "none", "reversed"]

# Below this the easier bucket has the larger loss in more than four of ten pairs: they overlap too much to matter.
CLEAR = 0.6

# Differences of fewer standard deviations than this may be chance.
_BEYOND_CHANCE = 3.0

_FEWEST = 5


class BucketLosses(NamedTuple):
    """The losses of one bucket: how many were given, their median, and the middle half."""

    bucket: str
    samples: int
    median: float
    lower_quartile: float
    upper_quartile: float


class Overlap(NamedTuple):
    """Two neighbours in difficulty: how likely a sample of the harder one has the larger loss (the AUC).

    ``noise`` is the standard deviation of that number between samples without any difference.
    """

    easier: str
    harder: str
    auc: float
    noise: float

    @property
    def is_clear(self) -> bool:
        """Whether the harder bucket is harder, beyond chance and by enough to matter."""
        return self.auc >= CLEAR and self.auc - 0.5 > _BEYOND_CHANCE * self.noise

    @property
    def is_reversed(self) -> bool:
        """Whether the harder bucket is easier, beyond chance."""
        return 0.5 - self.auc > _BEYOND_CHANCE * self.noise


@dataclass(frozen=True, slots=True)
class DifficultyCheck:
    """What ``check_difficulty`` found.

    Attributes:
        samples: Samples with a loss.
        without_loss: Samples of the data without one; they are left out.
        spearman: Rank correlation of score and loss; of bucket and loss where no scores were given.
        by: Which of the two it is, ``"score"`` or ``"bucket"``.
        buckets: Easiest first.
        overlaps: Of each bucket with the next.
        meaning: Whether ``"all"`` buckets are told apart by loss, ``"some"``, ``"none"``, or the order is ``"reversed"``.
        verdict: The same as a sentence.
    """

    samples: int
    without_loss: int
    spearman: float
    by: Literal["score", "bucket"]
    buckets: tuple[BucketLosses, ...]
    overlaps: tuple[Overlap, ...]
    meaning: Meaning
    verdict: str


def check_difficulty(
    members: Mapping[str, Sequence[str]],
    losses: Mapping[str, float],
    *,
    scores: Mapping[str, float] | None = None,
) -> DifficultyCheck:
    """Compare buckets with losses.

    Losses should come from a model that has not yet learnt the samples by heart: early in training, or on samples that
    it was not trained on. Two neighbouring buckets are told apart when a sample of the harder one has the larger loss in
    at least six of ten pairs, and by more than three times what chance explains.

    Args:
        members: Bucket -> keys of its samples, easiest bucket first.
        losses: Key -> loss, for all samples or for a part of them.
        scores: Key -> difficulty, for every sample with a loss.

    Raises:
        ArgumentError: Fewer than two buckets, fewer than five losses in one, a loss that is no number or whose key is in
            no bucket, a key in two buckets, or a missing score.

    >>> members = {"easy": [f"e{n}" for n in range(50)], "hard": [f"h{n}" for n in range(50)]}
    >>> losses = {key: 1.0 + number for number, key in enumerate(members["easy"] + members["hard"])}
    >>> check = check_difficulty(members, losses)
    >>> check.meaning, check.overlaps[0].auc
    ('all', 1.0)
    >>> print(check.verdict)
    The buckets mean something: each is harder than the one before it, by the losses of this model.
    """
    bucket_of = _bucket_of(members)
    strangers = [key for key in losses if key not in bucket_of]
    if strangers:
        raise ArgumentError(
            f"{len(strangers)} of {len(losses)} losses are of samples that the data do not have, such as {strangers[0]!r}. "
            "Give the losses of this data set, and keys without extension."
        )
    for key, loss in losses.items():
        if not math.isfinite(loss):
            raise ArgumentError(f"The loss of {key!r} is {loss}, not a finite number. Leave the sample out.")
    column = {
        name: np.array([losses[key] for key in keys if key in losses]) for name, keys in members.items()
    }
    for name, found in column.items():
        if len(found) < _FEWEST:
            raise ArgumentError(
                f"Bucket {name!r} has {len(found)} losses, but at least {_FEWEST} are needed to say anything. Give more."
            )
    names = list(members)
    buckets = tuple(
        BucketLosses(name, len(found), *np.quantile(found, [0.5, 0.25, 0.75]).tolist())
        for name, found in column.items()
    )
    overlaps = tuple(_overlap(column, *pair) for pair in itertools.pairwise(names))
    correlation = spearman(_difficulties(losses, bucket_of, names, scores), list(losses.values()))
    # Many buckets may each be close to the next while the first and the last are far apart.
    ends = _overlap(column, names[0], names[-1])
    meaning = _meaning(overlaps, ends)
    return DifficultyCheck(
        samples=len(losses),
        without_loss=len(bucket_of) - len(losses),
        spearman=correlation,
        by="bucket" if scores is None else "score",
        buckets=buckets,
        overlaps=overlaps,
        meaning=meaning,
        verdict=_verdict(meaning, overlaps, ends),
    )


def _bucket_of(members: Mapping[str, Sequence[str]]) -> dict[str, str]:
    if len(members) < 2:
        raise ArgumentError(
            f"There is {len(members)} bucket, but a comparison takes two or more. Cut the data first."
        )
    bucket_of: dict[str, str] = {}
    for name, keys in members.items():
        for key in keys:
            if key in bucket_of:
                raise ArgumentError(
                    f"The key {key!r} comes twice, in bucket {bucket_of[key]!r} and in {name!r}, so its loss has no one place. "
                    "Rename one of the samples."
                )
            bucket_of[key] = name
    return bucket_of


def _difficulties(
    losses: Mapping[str, float],
    bucket_of: Mapping[str, str],
    names: Sequence[str],
    scores: Mapping[str, float] | None,
) -> list[float]:
    if scores is None:
        place = {name: number for number, name in enumerate(names)}
        return [place[bucket_of[key]] for key in losses]
    for key in losses:
        if key not in scores:
            raise ArgumentError(f"Sample {key!r} has a loss, but no score. Give the scores of all samples.")
    return [scores[key] for key in losses]


def _overlap(column: Mapping[str, NDArray[np.float64]], easier: str, harder: str) -> Overlap:
    low, high = column[easier], column[harder]
    return Overlap(easier, harder, chance_larger(low, high), chance_larger_noise(len(low), len(high)))


def _meaning(overlaps: Sequence[Overlap], ends: Overlap) -> Meaning:
    if all(pair.is_clear for pair in overlaps):
        return "all"
    pairs = (*overlaps, ends)
    if any(pair.is_clear for pair in pairs):
        return "some"
    return "reversed" if any(pair.is_reversed for pair in pairs) else "none"


def _verdict(meaning: Meaning, overlaps: Sequence[Overlap], ends: Overlap) -> str:
    if meaning == "all":
        return (
            "The buckets mean something: each is harder than the one before it, by the losses of this model."
        )
    if meaning == "none":
        return (
            f"The buckets mean little to this model: of a sample of {ends.harder!r} and one of {ends.easier!r}, the first "
            f"has the larger loss in {ends.auc:.0%} of pairs. Score by something else, or train without a curriculum."
        )
    if meaning == "reversed":
        wrong = next(pair for pair in (ends, *overlaps) if pair.is_reversed)
        return (
            f"The order is the wrong way round: {wrong.harder!r} has smaller losses than {wrong.easier!r} for this model. "
            "Is higher harder in your score?"
        )
    vague = [pair for pair in overlaps if not pair.is_clear]
    told = ", ".join(
        f"{pair.harder!r} is easier than {pair.easier!r}"
        if pair.is_reversed
        else f"{pair.harder!r} is hardly harder than {pair.easier!r}"
        for pair in vague
    )
    return f"The buckets mean something in part: {told}, by the losses of this model. Merge these, or cut elsewhere."
