"""From the scores of all samples to what is written: which split, bucket, order and shard each belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .assignment import Shuffled, group_in_two_splits, shuffle, split_by_group
from .checks import finite, whole
from .difficulty_rule import QUARANTINED, DifficultyRule, measure_rule
from .errors import ArgumentError
from .keys import digest
from .manifest_file import check_name

Int64s: TypeAlias = NDArray[np.int64]

TRAIN = "train"


@dataclass(frozen=True, slots=True)
class Cut:
    """How samples are cut, split, shuffled and packed. See ``build_dataset``; checked before anything is read.

    Attributes:
        shares, thresholds, rule: One of them, or none where samples have labels.
        has_labels: Whether each sample's label names its bucket.
        splits: Split -> share, or None where samples tell their split.
    """

    shares: Mapping[str, float] | None
    thresholds: Mapping[str, float] | None
    rule: DifficultyRule | None
    weights: Mapping[str, float] | None
    has_labels: bool
    quarantine: float
    splits: Mapping[str, float] | None
    seed: int
    samples_per_shard: int | None
    max_shard_bytes: int

    def __post_init__(self) -> None:
        given = {
            "shares": self.shares,
            "thresholds": self.thresholds,
            "rule": self.rule,
            "label": self.has_labels or None,
        }
        chosen = [name for name, value in given.items() if value is not None]
        if len(chosen) != 1:
            raise ArgumentError(
                f"got {' and '.join(chosen)}, but samples are cut in one way. Keep the one you mean."
            )
        for buckets in (self.shares, self.thresholds):
            for bucket in buckets or ():
                check_name(bucket, "bucket")
        if self.rule is not None and (self.weights is not None or self.quarantine):
            raise ArgumentError(
                "rule: a stored rule has weights and quarantine of its own. Drop weights and quarantine."
            )
        for split, share in (self.splits or {}).items():
            check_name(split, "split")
            if not (finite(share) or 0) > 0:
                raise ArgumentError(
                    f"splits: {split!r} has the share {share!r}, but a share is positive. Correct it."
                )
        if self.splits is not None and not self.splits:
            raise ArgumentError("splits: got none. Name at least one, such as {'train': 0.9, 'val': 0.1}.")
        # NumPy's whole numbers count; what is derived from them is that of Python's.
        object.__setattr__(self, "seed", whole("seed", self.seed))
        object.__setattr__(self, "max_shard_bytes", whole("max_shard_bytes", self.max_shard_bytes, least=1))
        if self.samples_per_shard is not None:
            number = whole("samples_per_shard", self.samples_per_shard, least=1)
            object.__setattr__(self, "samples_per_shard", number)

    @property
    def identity(self) -> str:
        """Names the cut."""
        told: dict[str, Any] = {}
        for name in (name for name in self.__slots__ if name != "rule"):
            value = getattr(self, name)
            # The order of a mapping tells which bucket is the harder one. Numbers may be NumPy's, which are no JSON.
            told[name] = (
                [[key, repr(number)] for key, number in value.items()]
                if isinstance(value, Mapping)
                else repr(value)
            )
        return digest([told, self.rule and self.rule.to_bytes().decode()])


class PlannedShard(NamedTuple):
    """Shard ``number`` of a bucket: the samples ``first ... stop - 1`` of its order."""

    samples: Shuffled
    number: int
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """Where every sample goes.

    Attributes:
        rule: The rule of the cut, unless labels decided.
        split_names, splits: The splits, and the number of each sample's split.
        bucket_names, buckets: The buckets, and the number of each sample's bucket, or ``QUARANTINED``.
        scores: Each sample's score, where there are scores.
        shuffled: The samples of every bucket of every split, in order.
        shards: The shards.
    """

    rule: DifficultyRule | None
    split_names: tuple[str, ...]
    splits: Int64s
    bucket_names: tuple[str, ...]
    buckets: Int64s
    scores: NDArray[np.float64] | None
    shuffled: tuple[Shuffled, ...]
    shards: tuple[PlannedShard, ...]

    @property
    def num_quarantined(self) -> int:
        """Samples that are in no bucket."""
        return int(np.count_nonzero(self.buckets == QUARANTINED))

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Split -> bucket -> number of shards."""
        found: dict[str, dict[str, int]] = {}
        for shard in self.shards:
            found.setdefault(shard.samples.split, {})[shard.samples.bucket] = shard.number + 1
        return found

    def difficulty(self, part: Shuffled) -> tuple[float, float] | None:
        """Return the lowest and the highest score of a bucket."""
        if self.scores is None:
            return None
        found = self.scores[part.order]
        return float(found.min()), float(found.max())

    def indices(self) -> Int64s:
        """Return each sample's number in its bucket; -1 where it is in none."""
        found = np.full(len(self.splits), -1, np.int64)
        for part in self.shuffled:
            found[part.order] = np.arange(len(part.order))
        return found


class Scored(NamedTuple):
    """What is known of the samples: columns of one value each. See ``ScoredListing``."""

    signals: Mapping[str, NDArray[np.float64]]
    names: Mapping[str, Any]
    groups: NDArray[np.uint64]
    num_bytes: Int64s
    has_groups: bool


def plan_build(cut: Cut, scored: Scored, group_name: Any) -> BuildPlan:
    """Cut, split, shuffle and pack.

    Args:
        cut: How.
        scored: The samples.
        group_name: From a sample's number to its group's name, for messages.

    Raises:
        ArgumentError: What the cut asks for cannot be had from these samples.
    """
    split_names, splits = _splits(cut, scored, group_name)
    rule, scores = _rule(cut, scored, split_names, splits)
    if cut.has_labels:
        label = scored.names["label"]
        bucket_names, buckets = label.names, label.codes.astype(np.int64)
        for name in bucket_names:
            check_name(name, "bucket")
        if rule is not None and scores is not None:
            buckets = np.where(rule.cut(scores) == QUARANTINED, QUARANTINED, buckets)
    else:
        assert rule is not None
        assert scores is not None
        bucket_names, buckets = tuple(rule.buckets), rule.cut(scores)
    shuffled = tuple(shuffle(splits, buckets, split_names, bucket_names, cut.seed))
    shards = tuple(
        PlannedShard(part, number, first, stop)
        for part in shuffled
        for number, (first, stop) in enumerate(
            part.shard_stops(scored.num_bytes, cut.samples_per_shard, cut.max_shard_bytes)
        )
    )
    return BuildPlan(
        None if cut.has_labels else rule,
        tuple(split_names),
        splits,
        tuple(bucket_names),
        buckets,
        scores,
        shuffled,
        shards,
    )


def _splits(cut: Cut, scored: Scored, group_name: Any) -> tuple[Sequence[str], Int64s]:
    if cut.splits is not None:
        return list(cut.splits), split_by_group(scored.groups, cut.splits, cut.seed)
    told = scored.names["split"]
    for name in told.names:
        check_name(name, "split")
    splits = told.codes.astype(np.int64)
    torn = group_in_two_splits(scored.groups, splits) if scored.has_groups else None
    if torn is not None:
        first, second = (told.names[splits[number]] for number in torn)
        raise ArgumentError(
            f"Group {group_name(torn[0])!r} has samples in both {first!r} and {second!r}, so that what is learnt of it "
            "would leak. Correct the field of the splits, or have them drawn: splits={'train': 0.9, 'val': 0.1}."
        )
    return told.names, splits


def _rule(
    cut: Cut, scored: Scored, split_names: Sequence[str], splits: Int64s
) -> tuple[DifficultyRule | None, NDArray[np.float64] | None]:
    categories = scored.names.get("category")
    if cut.rule is not None:
        return cut.rule, cut.rule.scores(scored.signals, categories)
    if cut.has_labels and not scored.signals:
        if cut.quarantine:
            raise ArgumentError(
                "quarantine: samples are quarantined by score, and there is none. Give a score."
            )
        return None, None
    if TRAIN not in split_names:
        raise ArgumentError(
            f"The rule of the cut is measured on the split {TRAIN!r}, and the splits are {', '.join(map(repr, split_names))}. "
            "Name one so, or give the rule= of a data set that was built before."
        )
    training = np.flatnonzero(splits == list(split_names).index(TRAIN))
    if not training.size:
        raise ArgumentError(f"Split {TRAIN!r} would have no samples of {splits.size}. Raise its share.")
    # A label is not cut, but has a score to be told and quarantined by.
    one_bucket = {"all": -np.inf} if cut.has_labels else None
    rule = measure_rule(
        {name: values[training] for name, values in scored.signals.items()},
        None if categories is None else categories.take(training),
        shares=cut.shares,
        thresholds=one_bucket or cut.thresholds,
        weights=cut.weights,
        quarantine=cut.quarantine,
    )
    return rule, rule.scores(scored.signals, categories)
