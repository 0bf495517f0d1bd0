"""How scores become buckets: measured on training samples once, stored, and applied to later samples alike.

With several signals, or within categories, a signal counts by its rank: the share of the training samples (of the same
category) that lie below it. The score is the weighted mean of the ranks. One signal alone, without categories, is the
score itself. A bucket takes the scores from its lowest on, up to the next bucket's.
"""

from __future__ import annotations

import itertools
import json
import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .errors import ArgumentError
from .quota import exact_share

Floats: TypeAlias = NDArray[np.float64]
Codes: TypeAlias = NDArray[np.int64]

QUARANTINED = -1

_VERSION = 1
# Ranks between knots are interpolated; so many place a sample to a thousandth.
_MOST_KNOTS = 1025


@dataclass(frozen=True, slots=True)
class NamedColumn:
    """A name for each sample, kept as numbers: sample ``i`` has ``names[codes[i]]``.

    >>> NamedColumn.of(["b", "a", "b"])
    NamedColumn(names=('a', 'b'), codes=array([1, 0, 1]))
    """

    names: tuple[str, ...]
    codes: NDArray[np.int64] | NDArray[np.int32]

    @classmethod
    def of(cls, values: Sequence[str]) -> NamedColumn:
        """Sort the names."""
        names, codes = np.unique(np.asarray(values, dtype=np.str_), return_inverse=True)
        return cls(tuple(str(name) for name in names), codes)

    def take(self, chosen: NDArray[Any]) -> NamedColumn:
        """Return the column of some samples, with all names."""
        return NamedColumn(self.names, self.codes[chosen])


@dataclass(frozen=True, slots=True)
class RankTable:
    """From a signal to its rank among the training samples, in [0, 1]; equal values share the middle of their ranks.

    >>> table = RankTable.of(np.array([3.0, 1.0, 1.0, 2.0, 9.0]))
    >>> table(np.array([1.0, 2.0, 2.5, 9.0, 100.0])).tolist()
    [0.125, 0.5, 0.625, 1.0, 1.0]
    """

    values: tuple[float, ...]
    ranks: tuple[float, ...]

    @classmethod
    def of(cls, signal: Floats) -> RankTable:
        """Measure it on at least one training sample."""
        n = len(signal)
        places = np.unique(np.round(np.linspace(0, n - 1, min(n, _MOST_KNOTS))).astype(np.int64))
        values, first, counts = np.unique(np.sort(signal)[places], return_index=True, return_counts=True)
        if n == 1:
            return cls((float(values[0]),), (0.5,))
        ranks = (places[first] + places[first + counts - 1]) / (2 * (n - 1))
        return cls(tuple(values.tolist()), tuple(ranks.tolist()))

    def __call__(self, signal: Floats) -> Floats:
        """Return the ranks of samples."""
        return np.asarray(np.interp(signal, self.values, self.ranks), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class DifficultyRule:
    """A cut by difficulty that can be stored.

    Attributes:
        buckets: Bucket -> lowest score in it, easiest first, rising. What is lower than the first belongs to none.
        weights: Signal -> weight in the score.
        tables: Category -> signal -> its ranks. Without any, the only signal is the score. The category is ``""``
            where samples have none.
        most: Samples of higher scores are quarantined.

    >>> rule = measure_rule({"area": np.arange(10.0)}, None, shares={"easy": 0.5, "hard": 0.5}, quarantine=0.2)
    >>> rule.cut(rule.scores({"area": np.array([-7.0, 3.9, 4.0, 7.0, 7.1])})).tolist(), rule.most
    ([0, 0, 1, 1, -1], 7.0)
    >>> DifficultyRule.from_bytes(rule.to_bytes(), "difficulty.json") == rule
    True
    """

    buckets: Mapping[str, float]
    weights: Mapping[str, float]
    tables: Mapping[str, Mapping[str, RankTable]] = field(default_factory=lambda: MappingProxyType({}))
    most: float | None = None

    def __post_init__(self) -> None:
        lowest = list(self.buckets.values())
        if not lowest or any(math.isnan(_as_float(value)) for value in lowest):
            raise ArgumentError(
                f"buckets: got {dict(self.buckets)!r}, but it maps names to their lowest scores."
            )
        if any(low >= high for low, high in itertools.pairwise(lowest)):
            raise ArgumentError(
                f"buckets: the lowest scores {dict(self.buckets)!r} must rise from bucket to bucket. Reorder them."
            )
        if not self.weights or (len(self.weights) > 1 and not self.tables):
            raise ArgumentError(f"weights: got {dict(self.weights)!r}; several signals need tables of ranks.")

    def scores(
        self, signals: Mapping[str, Floats], categories: Sequence[str] | NamedColumn | None = None
    ) -> Floats:
        """Return the scores of samples.

        Args:
            signals: Signal -> a value for each sample; more signals than the rule knows are passed over.
            categories: A category for each sample, where the rule was measured within categories.

        Raises:
            ArgumentError: A signal is missing, or a category was not among the training samples.
        """
        lacking = sorted(set(self.weights) - set(signals))
        if lacking:
            raise ArgumentError(
                f"The rule wants the signal {lacking[0]!r}, and the samples have: {', '.join(signals) or 'none'}. "
                "Score them as the training samples were scored."
            )
        if not self.tables:
            return np.array(signals[next(iter(self.weights))], dtype=np.float64)
        scores = np.empty(len(signals[next(iter(self.weights))]), np.float64)
        for name, chosen in _named(categories, len(scores)):
            if name not in self.tables:
                raise ArgumentError(
                    f"The rule was measured on the categories {', '.join(map(repr, self.tables))}, not on {name!r}. "
                    "Leave its samples out, or measure a new rule."
                )
            total = np.zeros(len(chosen), np.float64)
            for signal, weight in self.weights.items():
                total += weight * self.tables[name][signal](signals[signal][chosen])
            scores[chosen] = total
        return scores

    def cut(self, scores: Floats) -> Codes:
        """Return the number of each sample's bucket, or ``QUARANTINED``.

        Raises:
            ArgumentError: A score is lower than the first bucket's lowest.
        """
        lowest = np.array(list(self.buckets.values()))
        codes = np.searchsorted(lowest, scores, side="right").astype(np.int64) - 1
        below = np.flatnonzero(codes < 0)
        if below.size:
            raise ArgumentError(
                f"{below.size} of {scores.size} samples have scores below the lowest of bucket {next(iter(self.buckets))!r} "
                f"({lowest[0]}), such as {scores[below[0]]}. Lower it; -inf takes them all."
            )
        if self.most is not None:
            codes[scores > self.most] = QUARANTINED
        return codes

    def to_bytes(self) -> bytes:
        """Return the rule as JSON, the same for equal rules."""
        told = {
            "format": "curriculum-sampler difficulty",
            "version": _VERSION,
            "buckets": [
                {"name": name, "lowest": None if low == -math.inf else _as_float(low)}
                for name, low in self.buckets.items()
            ],
            "weights": {name: _as_float(weight) for name, weight in sorted(self.weights.items())},
            "most": None if self.most is None else _as_float(self.most),
            "tables": {
                category: {
                    name: {
                        "values": [_as_float(value) for value in table.values],
                        "ranks": [_as_float(rank) for rank in table.ranks],
                    }
                    for name, table in sorted(tables.items())
                }
                for category, tables in sorted(self.tables.items())
            },
        }
        return json.dumps(told, indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, url: str) -> DifficultyRule:
        """Read a stored rule; ``url`` is for messages.

        Raises:
            ArgumentError: It is none, or of a newer version.
        """
        try:
            told: Any = json.loads(data)
            if told["version"] != _VERSION:
                raise ArgumentError(
                    f"{url} has version {told['version']!r}, this library reads {_VERSION}. Upgrade it."
                )
            buckets = {
                bucket["name"]: -math.inf if bucket["lowest"] is None else float(bucket["lowest"])
                for bucket in told["buckets"]
            }
            tables = {
                category: {
                    name: RankTable(tuple(table["values"]), tuple(table["ranks"]))
                    for name, table in found.items()
                }
                for category, found in told["tables"].items()
            }
            return cls(buckets, told["weights"], tables, told["most"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, ArgumentError):
                raise
            raise ArgumentError(
                f"{url} holds no rule of a cut ({error}). Name a data set that was cut by score."
            ) from error


def measure_rule(
    signals: Mapping[str, Floats],
    categories: Sequence[str] | NamedColumn | None,
    *,
    shares: Mapping[str, float] | None = None,
    thresholds: Mapping[str, float] | None = None,
    weights: Mapping[str, float] | None = None,
    quarantine: float = 0.0,
) -> DifficultyRule:
    """Measure a rule on training samples.

    Args:
        signals: Signal -> a finite value for each sample, at least one.
        categories: A category for each sample; ranks are then taken within it.
        shares: Bucket -> share of the samples that are not quarantined, easiest first. The cut is by score: samples of
            one score share a bucket, the harder of two.
        thresholds: Bucket -> lowest score in it, instead of ``shares``.
        weights: Signal -> positive weight, of any sum; default: all signals alike. Signals without a weight do not count.
        quarantine: Share of the samples to leave out, those of the highest scores; of equal scores none.

    Raises:
        ArgumentError: A bad argument, scores that are all equal, or a bucket that would be empty.
    """
    chosen = _weights(signals, weights)
    if (shares is None) == (thresholds is None):
        raise ArgumentError(
            f"got shares={shares!r} and thresholds={thresholds!r}, but a cut has one of them. Drop the other."
        )
    if not 0 <= quarantine < 1:
        raise ArgumentError(
            f"quarantine={quarantine!r} must be a share of the samples, at least 0 and below 1."
        )
    size = len(next(iter(signals.values())))
    tables: dict[str, dict[str, RankTable]] = {}
    if categories is not None or len(chosen) > 1:
        tables = {
            name: {signal: RankTable.of(signals[signal][places]) for signal in chosen}
            for name, places in _named(categories, size)
        }
    scores = DifficultyRule({"all": -math.inf}, chosen, tables).scores(signals, categories)
    ranked = np.sort(scores)
    kept = size - round(quarantine * size)
    if not kept:
        raise ArgumentError(
            f"quarantine={quarantine!r} would leave none of {size} samples. Lower it, or add samples."
        )
    most = None if kept == size else float(ranked[kept - 1])
    if most is not None:
        ranked = ranked[ranked <= most]
    if ranked[0] == ranked[-1] and len(shares or thresholds or {}) > 1:
        raise ArgumentError(
            f"All {ranked.size} training samples have the same score, {ranked[0]}: there is nothing to cut by. Choose "
            "another score, or give labels."
        )
    buckets = _quantiles(ranked, shares) if shares is not None else dict(thresholds or {})
    rule = DifficultyRule(buckets, chosen, tables, most)
    _refuse_empty(rule, ranked)
    return rule


def _weights(signals: Mapping[str, Floats], weights: Mapping[str, float] | None) -> dict[str, float]:
    if not signals:
        raise ArgumentError("There is no score to cut by. Give one, or a label for each sample.")
    given = dict.fromkeys(sorted(signals), 1.0) if weights is None else dict(weights)
    unknown = sorted(set(given) - set(signals))
    if unknown:
        raise ArgumentError(f"weights: there is no signal {unknown[0]!r}. There are: {', '.join(signals)}.")
    if not given or not all(0 < weight < math.inf for weight in given.values()):
        raise ArgumentError(f"weights: got {given!r}, but it maps signals to positive numbers. Correct it.")
    total = math.fsum(given.values())
    return {signal: float(weight / total) for signal, weight in sorted(given.items())}


def _quantiles(ranked: Floats, shares: Mapping[str, float]) -> dict[str, float]:
    exact = exact_share(shares) if shares and all(share > 0 for share in shares.values()) else {}
    if not exact:
        raise ArgumentError(
            f"shares: got {dict(shares)!r}, but it maps bucket names to positive shares. Correct it."
        )
    lowest: dict[str, float] = {}
    done, before = Fraction(0), -math.inf
    for name, share in exact.items():
        first = round(done * ranked.size)
        if first >= ranked.size or first == round((done + share) * ranked.size):
            raise ArgumentError(
                f"Bucket {name!r} with share {shares[name]!r} would be empty for {ranked.size} training samples. "
                "Raise its share, drop it, or add samples."
            )
        low = float(ranked[first])
        if lowest and low == before:
            raise ArgumentError(
                f"Bucket {next(reversed(lowest))!r} would be empty: too many training samples have the score {low}. "
                "Use fewer buckets, other shares, or a finer score."
            )
        lowest[name] = low if lowest else -math.inf
        before = low
        done += share
    return lowest


def _refuse_empty(rule: DifficultyRule, ranked: Floats) -> None:
    counts = np.bincount(rule.cut(ranked), minlength=len(rule.buckets))
    for name, count in zip(rule.buckets, counts, strict=True):
        if not count:
            raise ArgumentError(
                f"Bucket {name!r} would be empty: no training sample has such a score (they go from {ranked[0]} to "
                f"{ranked[-1]}). Move its threshold, or drop it."
            )


def _as_float(value: Any) -> float:
    """Return the float that equals a number, one of those that do: 0 and -0.0 are written as 0.0. NaN if it is none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return math.nan
    return float(value) + 0.0


def _named(categories: Sequence[str] | NamedColumn | None, size: int) -> Iterator[tuple[str, Codes]]:
    """Yield each category that has samples, and their places."""
    if categories is None:
        yield "", np.arange(size)
        return
    column = categories if isinstance(categories, NamedColumn) else NamedColumn.of(categories)
    for code, name in enumerate(column.names):
        chosen = np.flatnonzero(column.codes == code)
        if chosen.size:
            yield name, chosen
