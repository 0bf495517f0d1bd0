"""Which bucket a draw takes: exact sharing of draws between buckets, with random access.

The buckets are the leaves of a balanced binary tree in name order. A node sees a stream of arrivals and
sends each to its left or right child; of the first ``m`` arrivals exactly ``floor(r + m * p)`` go left, with
``p`` the left child's share of the node's weight. So the bucket of a draw *and its ordinal within that bucket*
follow from the draw's number alone, at the cost of one multiplication per level.

**Bound.** Let ``e`` be a node's count minus its exact share of the draws so far. At the root ``e = 0``. A left
child has ``e_left = p * e - f`` and a right child ``e_right = (1 - p) * e + f`` with the fraction ``0 <= f < 1``
cut off by the floor. Hence ``|e| < 1`` after one level and ``|e| < depth`` after ``depth`` levels: every prefix
of a segment holds each bucket's share to within ``ceil(log2 k)`` draws for ``k`` buckets, and to within one for
two. For a window, the difference of two prefixes, ``e`` changes by less than ``p * change + 1`` at each level,
so the same bound holds. Where the quotas are whole numbers at every level, ``f = 0`` and the counts are exact.
(Flooring each bucket's cumulative weight by itself gives no such order: its counts can fall.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Int64s: TypeAlias = NDArray[np.int64]

# A block's arithmetic is (offset within the block) * (numerator): 22 + 40 bits stay inside int64.
LARGEST_BLOCK = 1 << 22
_SHARE_BITS = 40
LARGEST_RAMP_STEPS = 1 << 22


def exact_share(weights: Mapping[str, int | float | Fraction | Decimal]) -> dict[str, Fraction]:
    """Return each positive weight over their sum, exactly. A float means its shortest decimal.

    >>> exact_share({"easy": 0.1, "hard": 0.2, "never": 0})
    {'easy': Fraction(1, 3), 'hard': Fraction(2, 3)}
    """
    exact = {name: w if isinstance(w, Fraction) else Fraction(str(w)) for name, w in weights.items()}
    total = sum(exact.values())
    return {name: weight / total for name, weight in exact.items() if weight}


def depth_of(num_buckets: int) -> int:
    """Return the tree's depth, which is the bound on the deviation: ``ceil(log2 num_buckets)``.

    >>> [depth_of(k) for k in (1, 2, 3, 4, 5)]
    [0, 1, 2, 2, 3]
    """
    return (num_buckets - 1).bit_length()


class Quota:
    """Deals the draws of one segment to its buckets.

    >>> quota = Quota.constant({"easy": Fraction(1, 4), "hard": Fraction(3, 4)})
    >>> quota.counts(1000), [quota.names[bucket] for bucket in quota.deal(4, 8)]
    ({'easy': 250, 'hard': 750}, ['hard', 'hard', 'hard', 'easy'])
    """

    __slots__ = ("_root", "names")

    def __init__(self, names: tuple[str, ...], root: _Node) -> None:
        self.names = names
        self._root = root

    @classmethod
    def constant(cls, shares: Mapping[str, Fraction]) -> Quota:
        """Deal by constant positive shares that sum to 1.

        A node's share is used exactly while its denominator fits 40 bits, which every decimal weight that a
        person writes does; beyond, it is the nearest fraction that fits, off by less than ``2**-40`` and never 0
        or 1.
        """
        names = tuple(sorted(shares))

        def build(first: int, last: int) -> _Node:
            if last - first == 1:
                return first
            middle = (first + last + 1) // 2
            left = sum((shares[name] for name in names[first:middle]), Fraction(0))
            right = sum((shares[name] for name in names[middle:last]), Fraction(0))
            return _Split(_constant(left / (left + right)), build(first, middle), build(middle, last))

        return cls(names, build(0, len(names)))

    @classmethod
    def ramp(
        cls, before: Mapping[str, Fraction], after: Mapping[str, Fraction], num_steps: int, step_draws: int
    ) -> Quota:
        """Deal ``num_steps`` steps whose shares move linearly: ``before + (after - before) * t / num_steps`` at step ``t``.

        All steps share one tree over the buckets of both mixtures, and every node carries its running sum from
        step to step, so the ramp as a whole keeps the bound. A step's share is rounded up to a multiple of
        ``2**-40`` (coarser for global batches above 2**22), which adds less than ``draws * 2**-39`` to it.
        """
        names = tuple(sorted(before.keys() | after.keys()))
        bits = min(_SHARE_BITS, 62 - step_draws.bit_length())
        progress = np.arange(num_steps) / num_steps
        old = [float(before.get(name, 0)) for name in names]
        new = [float(after.get(name, 0)) for name in names]
        weights = [a + (b - a) * progress for a, b in zip(old, new, strict=True)]

        def build(first: int, last: int, arrivals: Int64s) -> _Node:
            if last - first == 1:
                return first
            middle = (first + last + 1) // 2
            left, right = sum(weights[first:middle]), sum(weights[middle:last])
            total = left + right
            exact = np.divide(left, total, out=np.zeros(num_steps), where=total > 0)
            # Up, not down: a quota that is a whole number must not lose its last draw to rounding.
            share = np.minimum(np.floor(np.ldexp(exact, bits)) + 1, np.ldexp(1.0, bits)).astype(np.int64)
            share[np.asarray(left) == 0] = 0
            share[np.asarray(right) == 0] = 1 << bits
            split = _moving(arrivals, share, bits)
            return _Split(
                split,
                build(first, middle, split.lefts),
                build(middle, last, arrivals - split.lefts),
            )

        return cls(names, build(0, len(names), np.arange(num_steps + 1, dtype=np.int64) * step_draws))

    @property
    def bound(self) -> int:
        """Largest deviation from the exact share, in draws; it is never reached unless it is 0."""
        return depth_of(len(self.names))

    def counts(self, num_draws: int) -> dict[str, int]:
        """Return how many of the segment's first ``num_draws`` draws each bucket receives."""
        found = [0] * len(self.names)
        pending: list[tuple[_Node, int]] = [(self._root, num_draws)]
        while pending:
            node, arrivals = pending.pop()
            if isinstance(node, int):
                found[node] = arrivals
            else:
                lefts = node.share.before(arrivals)
                pending += [(node.left, lefts), (node.right, arrivals - lefts)]
        return dict(zip(self.names, found, strict=True))

    def deal(self, start: int, stop: int) -> NDArray[np.uint16]:
        """Return which bucket each of draws ``start ... stop - 1`` takes, as positions in ``names``.

        A bucket's draws have consecutive ordinals, from ``counts(start)`` on. At most ``LARGEST_BLOCK`` draws.
        """
        assert stop - start <= LARGEST_BLOCK
        buckets = np.empty(stop - start, dtype=np.uint16)
        _deal(self._root, start, buckets)
        return buckets


def _deal(node: _Node, first: int, buckets: NDArray[np.uint16]) -> None:
    """Fill in the buckets of a node's arrivals ``first, first + 1, ...``."""
    if isinstance(node, int):
        buckets[:] = node
        return
    counts = node.share.running(first, len(buckets))
    goes_left = counts[1:] != counts[:-1]
    lefts = node.share.before(first)
    num_left = int(counts[-1] - counts[0])
    for child, chosen, before, num in (
        (node.left, goes_left, lefts, num_left),
        (node.right, ~goes_left, first - lefts, len(buckets) - num_left),
    ):
        if isinstance(child, int):
            np.putmask(buckets, chosen, child)
        else:
            below = np.empty(num, dtype=np.uint16)
            _deal(child, before, below)
            buckets[chosen] = below


class _Share(Protocol):
    """How many of a node's first arrivals go left."""

    def before(self, arrivals: int) -> int:
        """Return the number of lefts among the first ``arrivals``, for an arrival number of any size."""
        ...

    def running(self, first: int, num: int) -> Int64s:
        """Return ``num + 1`` counts after ``first, first + 1, ...`` arrivals, up to a common constant."""
        ...


@dataclass(frozen=True, slots=True)
class _Split:
    share: _Share
    left: _Node
    right: _Node


_Node: TypeAlias = "_Split | int"


@dataclass(frozen=True, slots=True)
class _ConstantShare:
    numerator: int
    denominator: int

    def before(self, arrivals: int) -> int:
        return arrivals * self.numerator // self.denominator

    def running(self, first: int, num: int) -> Int64s:
        # Whole multiples of the denominator are taken out in Python integers, so int64 never overflows.
        counts = np.arange(num + 1, dtype=np.int64)
        counts *= self.numerator
        counts += first * self.numerator % self.denominator
        counts //= self.denominator
        return counts


def _constant(share: Fraction) -> _ConstantShare:
    largest = 1 << _SHARE_BITS
    if share.denominator > largest:
        share = share.limit_denominator(largest)
        share = min(max(share, Fraction(1, largest)), 1 - Fraction(1, largest))
    return _ConstantShare(share.numerator, share.denominator)


@dataclass(frozen=True, slots=True)
class _MovingShare:
    """One share per step of a ramp, with what has gone left, and the fraction carried, before each step."""

    arrivals: Int64s
    lefts: Int64s
    carried: Int64s
    shares: Int64s
    bits: int

    def before(self, arrivals: int) -> int:
        return int(self._lefts_after(np.array([arrivals]))[0])

    def running(self, first: int, num: int) -> Int64s:
        return self._lefts_after(np.arange(first, first + num + 1))

    def _lefts_after(self, arrivals: Int64s) -> Int64s:
        step = np.searchsorted(self.arrivals[1:-1], arrivals, side="right")
        inside = (arrivals - self.arrivals[step]) * self.shares[step] + self.carried[step]
        inside >>= self.bits
        inside += self.lefts[step]
        return inside


def _moving(arrivals: Int64s, shares: Int64s, bits: int) -> _MovingShare:
    gone = np.diff(arrivals) * shares
    whole, fraction = gone >> bits, gone & ((1 << bits) - 1)
    carried = _running_sum(fraction)
    return _MovingShare(
        arrivals,
        _running_sum(whole) + (carried >> bits),
        carried & ((1 << bits) - 1),
        shares,
        bits,
    )


def _running_sum(values: Int64s) -> Int64s:
    """Return the sums of the first 0, 1, 2, ... values."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
