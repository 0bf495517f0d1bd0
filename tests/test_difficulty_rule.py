"""The rule of a cut: the same for data that comes later, monotone, and never an empty bucket."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from curriculum_sampler.assignment import Shuffled, group_in_two_splits, shuffle, split_by_group
from curriculum_sampler.cut import members_by_quantile
from curriculum_sampler.difficulty_rule import (
    QUARANTINED,
    DifficultyRule,
    NamedColumn,
    RankTable,
    measure_rule,
)
from curriculum_sampler.errors import ArgumentError

numbers = st.floats(-1e9, 1e9, allow_nan=False)
columns = st.lists(numbers, min_size=1, max_size=60).map(np.array)
shares = st.dictionaries(st.sampled_from(["easy", "medium", "hard", "worst"]), st.integers(1, 9), min_size=1)


@given(column=columns, shares=shares)
def test_distinct_scores_are_cut_as_quantiles_are(column: Any, shares: dict[str, int]) -> None:
    assume(len(set(column.tolist())) == len(column))
    try:
        expected = members_by_quantile(column, shares)
    except ArgumentError:
        with pytest.raises(ArgumentError, match=r"would be empty|nothing to cut by"):
            measure_rule({"a": column}, None, shares=shares)
        return
    codes = measure_rule({"a": column}, None, shares=shares).cut(column)
    for code, name in enumerate(shares):
        assert np.flatnonzero(codes == code).tolist() == expected[name].tolist()


@given(
    data=st.data(),
    size=st.integers(1, 60),
    shares=shares,
    quarantine=st.floats(0, 0.9),
    signals=st.sets(st.sampled_from("abc"), min_size=1),
    categories=st.booleans(),
)
def test_a_rule_read_back_cuts_each_sample_as_before_and_no_bucket_is_empty(
    data: Any,
    size: int,
    shares: dict[str, int],
    quarantine: float,
    signals: set[str],
    categories: bool,
) -> None:
    def draw(values: Any) -> list[Any]:
        found: list[Any] = data.draw(st.lists(values, min_size=size, max_size=size))
        return found

    columns = {name: np.array(draw(st.integers(0, 20)), np.float64) for name in sorted(signals)}
    kinds = draw(st.sampled_from(["x", "y"])) if categories else None
    rule = None
    with contextlib.suppress(ArgumentError):
        rule = measure_rule(columns, kinds, shares=shares, quarantine=quarantine)
    assume(rule is not None)
    scores = rule.scores(columns, kinds)
    codes = rule.cut(scores)
    kept = codes[codes != QUARANTINED]
    assert set(kept.tolist()) == set(range(len(shares)))
    assert (codes == QUARANTINED).sum() <= round(quarantine * size)
    order = np.argsort(scores, kind="stable")
    rising = np.where(codes == QUARANTINED, len(shares), codes)[order]
    assert (np.diff(rising) >= 0).all(), "a higher score is never in an easier bucket"
    again = DifficultyRule.from_bytes(rule.to_bytes(), "difficulty.json")
    assert again == rule
    for number in range(size):  # one by one, as later data comes
        one = {name: column[number : number + 1] for name, column in columns.items()}
        score = again.scores(one, kinds and kinds[number : number + 1])
        assert again.cut(score)[0] == codes[number]


@given(
    lowest=st.lists(st.integers(-4, 4), min_size=1, max_size=3, unique=True).map(sorted),
    most=st.none() | st.integers(5, 9),
    kinds=st.permutations([int, float, np.int32, np.float32]),
    signals=st.permutations("ab"),
    categories=st.permutations("xy"),
)
def test_equal_rules_are_equal_bytes_whatever_numbers_and_order_they_were_given_in(
    lowest: list[int], most: int | None, kinds: list[Any], signals: list[str], categories: list[str]
) -> None:
    def rule(kind: Any, signals: Any, categories: Any, zero: Any) -> DifficultyRule:
        table = RankTable((kind(1), kind(3)), (zero, kind(1)))
        return DifficultyRule(
            {f"b{number}": kind(low) or zero for number, low in enumerate(lowest)},
            dict.fromkeys(signals, kind(2)),
            {category: dict.fromkeys(signals, table) for category in categories},
            most and kind(most),
        )

    plain, other = rule(float, "ab", "xy", 0.0), rule(kinds[0], signals, categories, -0.0)
    assert other == plain
    assert other.to_bytes() == plain.to_bytes()
    assert DifficultyRule.from_bytes(other.to_bytes(), "difficulty.json").to_bytes() == plain.to_bytes()


@pytest.mark.parametrize("lowest", [None, "0.5", True, math.nan])
def test_a_threshold_that_is_no_number_is_refused(lowest: Any) -> None:
    with pytest.raises(ArgumentError, match=f"buckets: got .*{lowest!r}.*maps names to their lowest scores"):
        measure_rule({"a": np.arange(9.0)}, None, thresholds={"easy": lowest})


@given(columns, columns)
def test_ranks_rise_with_the_signal_and_stay_within_0_and_1(train: Any, later: Any) -> None:
    ranks = RankTable.of(train)(np.sort(later))
    assert ((ranks >= 0) & (ranks <= 1)).all()
    assert (np.diff(ranks) >= 0).all()
    assert abs(RankTable.of(train)(train).mean() - 0.5) < 1e-9


def test_ranks_of_many_samples_are_exact_to_a_thousandth() -> None:
    train = np.random.Generator(np.random.Philox(3)).lognormal(size=50_000)
    ranks = RankTable.of(train)(np.sort(train))
    assert np.abs(ranks - np.linspace(0, 1, 50_000)).max() < 1e-3
    assert len(RankTable.of(train).values) <= 1025


def test_each_category_has_the_same_shares() -> None:
    signal = np.concatenate([np.arange(100.0), 1000 + np.arange(100.0) ** 2])
    kinds = ["small"] * 100 + ["large"] * 100
    codes = measure_rule({"a": signal}, kinds, shares={"easy": 3, "hard": 1}).cut(
        measure_rule({"a": signal}, kinds, shares={"easy": 3, "hard": 1}).scores({"a": signal}, kinds)
    )
    assert np.bincount(codes[:100]).tolist() == np.bincount(codes[100:]).tolist() == [75, 25]


def test_a_weight_moves_the_score_towards_its_signal() -> None:
    signals = {"a": np.array([0.0, 1.0, 2.0]), "b": np.array([2.0, 1.0, 0.0])}
    scores = {
        weight: measure_rule(signals, None, weights={"a": weight, "b": 1}, shares={"easy": 1}).scores(signals)
        for weight in (1, 3)
    }
    assert scores[1].tolist() == [0.5, 0.5, 0.5]
    assert scores[3].tolist() == [0.25, 0.5, 0.75]


def test_equal_scores_share_a_bucket_the_harder_of_two() -> None:
    rule = measure_rule({"a": np.array([0.0, 1, 1, 1, 2])}, None, shares={"easy": 0.5, "hard": 0.5})
    assert rule.cut(np.array([0.0, 0.99, 1, 2])).tolist() == [0, 0, 1, 1]


def test_of_equal_scores_none_is_quarantined() -> None:
    rule = measure_rule({"a": np.array([0.0, 1, 2, 3, 3, 3])}, None, shares={"all": 1}, quarantine=1 / 6)
    assert rule.cut(np.array([3.0, 3.1])).tolist() == [0, QUARANTINED]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signals": {}}, "There is no score to cut by"),
        ({"thresholds": {"a": 0}}, "a cut has one of them"),
        ({"signals": {"a": np.ones(4)}}, "All 4 training samples have the same score, 1.0"),
        ({"signals": {"a": np.array([1.0, 1, 1, 2])}}, "Bucket 'easy' would be empty: too many"),
        ({"quarantine": 0.9, "signals": {"a": np.arange(4.0)}}, "would leave none of 4 samples"),
        ({"quarantine": math.nan}, "quarantine=nan must be a share"),
        ({"shares": {"easy": 1, "hard": 1e-6}}, "Bucket 'hard' with share 1e-06 would be empty"),
    ],
)
def test_a_cut_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"signals": {"a": np.arange(9.0)}, "shares": {"easy": 1, "hard": 1}, **change}
    with pytest.raises(ArgumentError, match=message):
        measure_rule(arguments.pop("signals"), None, **arguments)


def test_what_the_rule_was_not_measured_on_is_refused() -> None:
    signals = {"a": np.arange(4.0)}
    rule = measure_rule(signals, ["x", "x", "y", "y"], shares={"easy": 1})
    with pytest.raises(ArgumentError, match=r"measured on the categories 'x', 'y', not on 'z'"):
        rule.scores({"a": np.ones(1)}, ["z"])
    with pytest.raises(ArgumentError, match=r"wants the signal 'a', and the samples have: b"):
        rule.scores({"b": np.ones(1)}, ["x"])


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"version": 9}', b'{"version": 1, "buckets": [{}]}', b"\xff"]
)
def test_a_file_that_holds_no_rule_is_named(data: bytes) -> None:
    with pytest.raises(ArgumentError, match=r"^here"):
        DifficultyRule.from_bytes(data, "here")


# --- splits, shuffle, shards


@given(
    groups=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=80),
    more=st.lists(st.integers(0, 2**64 - 1), max_size=20),
    seed=st.integers(0, 99),
)
def test_a_group_has_one_split_and_keeps_it_when_data_is_added(
    groups: list[int], more: list[int], seed: int
) -> None:
    shares = {"train": 0.7, "val": 0.2, "test": 0.1}
    column = np.array(groups * 2, np.uint64)
    splits = split_by_group(column, shares, seed)
    assert group_in_two_splits(column, splits) is None
    grown = split_by_group(np.array(groups + more, np.uint64), shares, seed)
    assert grown[: len(groups)].tolist() == splits[: len(groups)].tolist()


def test_many_groups_fall_to_their_splits_in_proportion_and_otherwise_with_another_seed() -> None:
    groups = np.arange(20_000, dtype=np.uint64)
    first, second = (split_by_group(groups, {"train": 8, "val": 1, "test": 1}, seed) for seed in (1, 2))
    for found in (first, second):
        assert np.abs(np.bincount(found) / 20_000 - [0.8, 0.1, 0.1]).max() < 0.01
    assert np.corrcoef(first, second)[0, 1] < 0.03


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=40),
    samples=st.none() | st.integers(1, 7),
    most=st.integers(1, 120),
)
def test_shards_hold_every_sample_once_within_the_limits_and_none_could_take_the_next(
    sizes: list[int], samples: int | None, most: int
) -> None:
    num_bytes = np.array(sizes, np.int64)
    order = np.arange(len(sizes))[::-1].copy()
    found = list(Shuffled("train", "easy", order).shard_stops(num_bytes, samples, most))
    assert [first for first, _ in found] == [0, *(stop for _, stop in found[:-1])]
    assert found[-1][1] == len(sizes)
    for first, stop in found:
        inside = num_bytes[order[first:stop]].sum()
        assert stop > first
        assert stop - first <= (samples or len(sizes))
        assert inside <= most or stop - first == 1
        if stop < len(sizes):
            assert stop - first == samples or inside + num_bytes[order[stop]] > most


@pytest.mark.parametrize("size", [1, 2, 4096, 4097, 10_000])
def test_a_shuffle_holds_every_sample_once_in_an_order_of_its_own(size: int) -> None:
    splits, buckets = np.zeros(2 * size, np.int64), np.arange(2 * size) % 2
    easy, hard = shuffle(splits, buckets, ["train"], ["easy", "hard"], seed=3)
    assert np.sort(easy.order).tolist() == list(range(0, 2 * size, 2))
    assert np.sort(hard.order).tolist() == list(range(1, 2 * size, 2))
    if size > 4:
        assert (easy.order != hard.order - 1).any(), "two buckets are shuffled alike"
        train, val = shuffle(buckets, splits, ["train", "val"], ["easy"], seed=3)
        assert (train.order != val.order - 1).any(), "two splits are shuffled alike"


def test_names_are_sorted_and_keep_their_samples() -> None:
    column = NamedColumn.of(["b", "a", "b"])
    assert [column.names[code] for code in column.take(np.array([2, 1])).codes] == ["b", "a"]
