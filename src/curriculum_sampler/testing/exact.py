"""The mixture you wrote is the mixture you got: counts of what was delivered, held to the plan."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from fractions import Fraction
from math import lcm
from typing import Any

from ..plan import Plan
from ..segment import Segment

# Shares with a larger common denominator than this, and those of a ramp, are dealt by the nearest that fits.
_LARGEST_DENOMINATOR = 1 << 40
_ROUNDING = Fraction(1, 10**6)


def check_exact(batches: Iterable[Iterable[Any]], plan: Plan) -> None:
    """Check that global batches hold each bucket's share to within the plan's bound, and no bucket of share 0.

    Every window, and every prefix of a stage that ends on a window's edge, is off by less than ``ceil(log2 k)`` draws for
    ``k`` buckets, and exact for one; with the default window that is every global batch. A ramp is held to it as a whole.

    Args:
        batches: The global batches, from step 0 on; fewer than the plan has will do. Each is a sequence of bucket names, or
            of draws (a ``Draws`` is one), in the order of the global batch: micro-batch by micro-batch, in each rank by rank.
            The order matters only where the plan has a ``window`` of its own.
        plan: What was planned.

    Raises:
        AssertionError: Too many or too few draws of a bucket, or a batch of another size. The message names the first steps
            that differ, what was expected and what came.

    >>> from curriculum_sampler import MixtureSampler, Stage, StageSchedule
    >>> plan = StageSchedule([Stage("all", {"easy": 1, "hard": 3}, steps=5)]).plan({"easy": 9, "hard": 9}, batch_size=4)
    >>> check_exact(MixtureSampler(plan, seed=17), plan)
    >>> check_exact([["easy", "easy", "easy", "hard"]], plan)
    Traceback (most recent call last):
    AssertionError: Step 0 (stage 'all'): bucket 'easy' was drawn 3 times, where its share wants 1, and less than 1 more or less.
    """
    drawn = _buckets(batches, plan)
    for segment in plan.segments:
        _check_segment(segment, drawn, plan)


def _buckets(batches: Iterable[Iterable[Any]], plan: Plan) -> list[str]:
    drawn: list[str] = []
    for step, batch in enumerate(batches):
        found = [draw if isinstance(draw, str) else draw[0] for draw in batch]
        if step == plan.total_steps:
            raise AssertionError(f"There is a batch for step {step}, but the plan ends before it.")
        if len(found) != plan.batch_size:
            raise AssertionError(
                f"Step {step}: the global batch holds {len(found)} draws, where the plan has {plan.batch_size}. "
                "Join what the ranks and micro-batches of a step hold."
            )
        drawn += found
    if not drawn:
        raise AssertionError("There are no batches, so nothing can be checked.")
    return drawn


def _check_segment(segment: Segment, drawn: list[str], plan: Plan) -> None:
    counts: Counter[str] = Counter()
    wanted: defaultdict[str, Fraction] = defaultdict(Fraction)
    for start, stop in _windows(segment, min(segment.stop, len(drawn)), plan.window):
        shares = segment.shares_at(start)
        here, so_far = _where(start, stop, plan), _where(segment.start, stop, plan)
        found = Counter(drawn[start:stop])
        counts += found
        for name, count in sorted(found.items()):
            if not shares.get(name):
                raise AssertionError(
                    f"{here}: bucket {name!r} was drawn {count} times, where its share is 0."
                )
        for name, share in sorted(shares.items()):
            wanted[name] += share * (stop - start)
            _hold(segment, found[name], share * (stop - start), f"{here}: bucket {name!r}")
            _hold(segment, counts[name], wanted[name], f"{so_far}, together: bucket {name!r}")


def _windows(segment: Segment, stop: int, window: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of draws between the edges of windows; in a ramp windows begin anew with every step."""
    stride = segment.step_draws if segment.is_ramp else segment.stop - segment.start
    for part in range(segment.start, stop, stride):
        for start in range(part, min(part + stride, stop), window):
            end = min(start + window, part + stride)
            if end <= stop:
                yield start, end


def _hold(segment: Segment, count: int, wants: Fraction, where: str) -> None:
    off, bound = abs(count - wants), segment.bound
    denominators = [share.denominator for share in segment.shares.values()]
    is_rounded = segment.is_ramp or lcm(*denominators) > _LARGEST_DENOMINATOR
    if off and not off < bound + _ROUNDING * is_rounded:
        may = f", and less than {bound} more or less" if bound else " exactly"
        raise AssertionError(f"{where} was drawn {count} times, where its share wants {float(wants):g}{may}.")


def _where(start: int, stop: int, plan: Plan) -> str:
    first, last = start // plan.batch_size, (stop - 1) // plan.batch_size
    steps = f"Step {first}" if first == last else f"Steps {first} to {last}"
    return f"{steps} (stage {plan.at(step=first).stage!r})"
