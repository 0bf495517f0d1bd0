"""Laws of exact sharing, against sums of exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.quota import LARGEST_BLOCK, Quota, depth_of, exact_share

from .strategies import mixtures

many_buckets = st.dictionaries(
    st.integers(0, 60).map(lambda n: f"b{n:02}"), st.integers(1, 1000), min_size=1, max_size=40
)


def dealt_names(quota: Quota, start: int, stop: int) -> list[str]:
    return [quota.names[bucket] for bucket in quota.deal(start, stop)]


@given(st.one_of(mixtures(), many_buckets), st.integers(0, 10**13), st.integers(0, 400))
def test_every_prefix_and_every_window_holds_the_mixture_within_the_bound(weights, start, length):
    shares = exact_share(weights)
    quota = Quota.constant(shares)
    before, after = quota.counts(start), quota.counts(start + length)
    bound = depth_of(len(shares))
    for name, share in shares.items():
        for count, draws in (
            (before[name], start),
            (after[name], start + length),
            (after[name] - before[name], length),
        ):
            deviation = abs(count - draws * share)
            assert deviation < bound or deviation == 0


@given(st.one_of(mixtures(), many_buckets), st.integers(0, 10**13), st.integers(1, 300))
def test_dealing_is_counting_one_draw_at_a_time(weights, start, length):
    quota = Quota.constant(exact_share(weights))
    names = dealt_names(quota, start, start + length)
    counts = quota.counts(start)
    for number, name in enumerate(names):
        counts[name] += 1
        assert counts == quota.counts(start + number + 1)


@given(mixtures(), st.integers(0, 10**12))
def test_counts_are_exact_where_the_quotas_are_whole(weights, times):
    shares = exact_share(weights)
    whole = 1
    for share in shares.values():
        whole = whole * share.denominator // np.gcd(whole, share.denominator) if whole < 10**15 else whole
    if whole < 10**15:
        counts = Quota.constant(shares).counts(times * int(whole))
        bound = depth_of(len(shares))
        assert all(abs(counts[n] - share * times * int(whole)) < max(bound, 1) for n, share in shares.items())
        if len(shares) == 2:
            assert all(counts[n] == share * times * int(whole) for n, share in shares.items())


def test_shares_of_a_power_of_two_are_exact_at_every_multiple():
    quota = Quota.constant(exact_share({"a": 1, "b": 1, "c": 2}))
    for multiple in (1, 7, 10**12):
        assert quota.counts(4 * multiple) == {"a": multiple, "b": multiple, "c": 2 * multiple}


@pytest.mark.parametrize("tiny", [1e-15, 1e-30])
def test_a_share_too_small_for_the_arithmetic_is_rounded_but_never_to_zero(tiny):
    quota = Quota.constant(exact_share({"often": 1, "seldom": tiny}))
    assert quota.counts(1 << 41)["seldom"] in (1, 2)


def test_weights_mean_their_shortest_decimal():
    assert exact_share({"a": 0.1, "b": 0.2}) == {"a": Fraction(1, 3), "b": Fraction(2, 3)}
    assert exact_share({"a": np.float64(0.3), "b": 0.7})["a"] == Fraction(3, 10)


def test_the_largest_block_does_not_overflow():
    share = Fraction((1 << 40) - 3, (1 << 40) - 1)
    quota = Quota.constant({"a": share, "b": 1 - share})
    start = 10**15
    dealt = np.bincount(quota.deal(start, start + LARGEST_BLOCK), minlength=2).tolist()
    before, after = quota.counts(start), quota.counts(start + LARGEST_BLOCK)
    assert dict(zip(quota.names, dealt, strict=True)) == {name: after[name] - before[name] for name in after}


@given(mixtures(), mixtures(), st.integers(1, 60), st.integers(1, 17))
def test_a_ramp_holds_its_moving_mixture_within_the_bound_at_every_draw(old, new, num_steps, step_draws):
    before, after = exact_share(old), exact_share(new)
    quota = Quota.ramp(before, after, num_steps, step_draws)
    bound = depth_of(len(quota.names))
    wanted = dict.fromkeys(quota.names, Fraction(0))
    names = dealt_names(quota, 0, num_steps * step_draws)
    counts = dict.fromkeys(quota.names, 0)
    for draw, name in enumerate(names):
        done = Fraction(draw // step_draws, num_steps)
        for bucket in wanted:
            old_share, new_share = before.get(bucket, Fraction(0)), after.get(bucket, Fraction(0))
            share = old_share + (new_share - old_share) * done
            assert share or bucket != name, "zero means never"
            wanted[bucket] += share
        counts[name] += 1
        assert counts == quota.counts(draw + 1)
        for bucket in wanted:
            assert abs(counts[bucket] - wanted[bucket]) < bound + Fraction(1, 10**6) or bound == 0


def test_a_slow_ramp_is_not_lost_to_short_steps():
    quota = Quota.ramp(exact_share({"a": 1}), exact_share({"a": 1, "b": 1}), num_steps=1000, step_draws=4)
    assert quota.counts(4000) == {"a": 3001, "b": 999}


@given(mixtures(), mixtures(), st.integers(1, 40), st.integers(1, 9), st.data())
def test_any_part_of_a_ramp_is_dealt_as_the_whole_was(old, new, num_steps, step_draws, data):
    quota = Quota.ramp(exact_share(old), exact_share(new), num_steps, step_draws)
    start = data.draw(st.integers(0, num_steps * step_draws))
    stop = data.draw(st.integers(start, num_steps * step_draws))
    assert dealt_names(quota, start, stop) == dealt_names(quota, 0, num_steps * step_draws)[start:stop]
