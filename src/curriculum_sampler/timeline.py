"""A schedule or a plan drawn out in time: what tables, pictures and comparisons are made from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from .errors import ArgumentError
from .plan import Plan
from .schedule import StageSchedule


class Stretch(NamedTuple):
    """A half-open part of the time within which mixture and learning rate are straight lines.

    ``mixtures`` and ``rates`` are their values at the start and at the end. ``mixtures`` name every bucket that the
    stage names; one that is not named has none.
    """

    stage: str
    start: float
    end: float
    mixtures: tuple[Mapping[str, float], Mapping[str, float]]
    rates: tuple[float, float] | None

    def mixture(self, time: float) -> dict[str, float]:
        """Return the mixture at a time of the stretch."""
        before, after = self.mixtures
        return {
            name: self._between(before.get(name, 0.0), after.get(name, 0.0), time)
            for name in {**after, **before}
        }

    def rate(self, time: float) -> float | None:
        """Return the learning rate at a time of the stretch."""
        return None if self.rates is None else self._between(*self.rates, time)

    def _between(self, before: float, after: float, time: float) -> float:
        return before + (after - before) * (time - self.start) / (self.end - self.start)


class StageSpan(NamedTuple):
    """From where to where a stage lasts."""

    stage: str
    start: float
    end: float


class Drawn(NamedTuple):
    """How many draws each bucket received from one time to another."""

    start: float
    end: float
    counts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Draws of all buckets."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class Timeline:
    """Stretches one after the other, from 0 on, in one unit of time.

    Attributes:
        unit: ``"steps"``, ``"epochs"`` or ``"samples"``.
        stretches: At least one, without gaps.
        is_even: Whether equal times are equally many steps throughout. Epochs that are as long as what their stage
            draws from are not.

    >>> from curriculum_sampler import Stage
    >>> schedule = StageSchedule([Stage("a", {"x": 1}, epochs=2), Stage("b", {"x": 1, "y": 1}, epochs=4, ramp=1)])
    >>> timeline = Timeline.of_schedule(schedule)
    >>> timeline.end, timeline.stages[1], timeline.at(2.5).mixture(2.5)
    (6.0, StageSpan(stage='b', start=2.0, end=6.0), {'x': 0.75, 'y': 0.25})
    """

    unit: str
    stretches: tuple[Stretch, ...]
    is_even: bool = True

    @classmethod
    def of(cls, declared: Plan | StageSchedule) -> Timeline:
        """Draw out whichever it is."""
        return cls.of_plan(declared) if isinstance(declared, Plan) else cls.of_schedule(declared)

    @classmethod
    def of_plan(cls, plan: Plan) -> Timeline:
        """Draw out a plan, in steps; changes made at run time included."""
        return cls("steps", tuple(_stretches_of(plan)))

    @classmethod
    def of_schedule(cls, schedule: StageSchedule) -> Timeline:
        """Draw out a schedule in the unit of its stages.

        Raises:
            ArgumentError: Its stages are in several units, which only sizes and a batch size bring together.
        """
        units = sorted({stage.unit for stage in schedule.stages})
        if len(units) > 1:
            raise ArgumentError(
                f"The stages are in {' and '.join(units)}, which have no common timeline without the data. "
                "Give bucket sizes and a batch size, or write all stages in one unit."
            )
        is_even = units[0] != "epochs" or schedule.epoch_size != "stage"
        return cls(units[0], tuple(_stretches_in_own_unit(schedule)), is_even)

    @property
    def end(self) -> float:
        """Where the last stage ends."""
        return self.stretches[-1].end

    @cached_property
    def buckets(self) -> tuple[str, ...]:
        """Every bucket that is drawn from at some time, in the order in which they come into play."""
        drawn = {
            name for stretch in self.stretches for each in stretch.mixtures for name, w in each.items() if w
        }
        named = (name for stretch in self.stretches for each in stretch.mixtures for name in each)
        return tuple(dict.fromkeys(name for name in named if name in drawn))

    @cached_property
    def stages(self) -> tuple[StageSpan, ...]:
        """The stages, in order."""
        spans: list[StageSpan] = []
        for stretch in self.stretches:
            if spans and spans[-1].stage == stretch.stage:
                spans[-1] = spans[-1]._replace(end=stretch.end)
            else:
                spans.append(StageSpan(stretch.stage, stretch.start, stretch.end))
        return tuple(spans)

    def at(self, time: float) -> Stretch:
        """Return the stretch that a time belongs to: at a boundary, the one that begins there."""
        return self.stretches[min(bisect_right(self._starts, time), len(self.stretches)) - 1]

    def rate_mass(self) -> dict[str, dict[str, float]] | None:
        """Return, per stage and bucket, the share of the learning-rate mass: of the sum of rate x mixture over time.

        In steps it is the sum over all steps, elsewhere the integral. All shares together are 1. None where a
        stage has no rate, all rates are 0, or the time is not even.
        """
        mass: dict[str, dict[str, float]] = {}
        for stretch in self.stretches:
            if stretch.rates is None:
                return None
            of_stage = mass.setdefault(stretch.stage, {})
            for name in {**stretch.mixtures[0], **stretch.mixtures[1]}:
                ends = (stretch.mixtures[0].get(name, 0.0), stretch.mixtures[1].get(name, 0.0))
                gained = _product(ends, stretch.rates, stretch.end - stretch.start, self.unit == "steps")
                of_stage[name] = of_stage.get(name, 0.0) + gained
        total = sum(sum(of_stage.values()) for of_stage in mass.values())
        if not total or not self.is_even:
            return None
        return {stage: {name: m / total for name, m in found.items() if m} for stage, found in mass.items()}

    @cached_property
    def _starts(self) -> list[float]:
        return [stretch.start for stretch in self.stretches]


def _product(a: Sequence[float], b: Sequence[float], length: float, is_discrete: bool) -> float:
    """Return the sum over steps 0, 1, ... (or the integral) of two straight lines' product."""
    rise_a, rise_b = a[1] - a[0], b[1] - b[0]
    if is_discrete:
        first, second = (length - 1) / 2, (length - 1) * (2 * length - 1) / (6 * length)
    else:
        first, second = length / 2, length / 3
    return a[0] * b[0] * length + (a[0] * rise_b + rise_a * b[0]) * first + rise_a * rise_b * second


def _stretches_of(plan: Plan) -> Iterator[Stretch]:
    size = plan.batch_size
    for segment in plan.segments:
        start, end = segment.start // size, segment.stop // size
        planned = plan.stages[bisect_right(plan.boundaries, start, hi=len(plan.stages)) - 1]
        # A change of the mixture ends its ramp, and leaves that of the rate as it was.
        ramp_end = planned.first_step + planned.ramp_steps
        inner = [ramp_end] if planned.stage.ramp_lr and start < ramp_end < end else []
        named = dict.fromkeys(segment.shown, 0.0)
        for first, last in pairwise([start, *inner, end]):
            edges = [segment.shares_at(step * size) for step in (first, last)]
            before, after = ({**named, **{name: float(w) for name, w in edge.items()}} for edge in edges)
            low, high = (planned.lr(step - planned.first_step) for step in (first, last))
            rates = None if low is None or high is None else (low, high)
            yield Stretch(planned.stage.name, first, last, (before, after), rates)


def _stretches_in_own_unit(schedule: StageSchedule) -> Iterator[Stretch]:
    start = 0.0
    before: dict[str, float] = {}
    rate_before: float | None = None
    for stage in schedule.stages:
        after = dict.fromkeys(stage.mixture, 0.0) | {name: float(w) for name, w in stage.shares.items()}
        rates = None if stage.lr is None else (stage.lr, stage.lr)
        ramp_end, end = start + stage.ramp, start + stage.length
        if stage.ramp:
            moving = (
                rates
                if not (stage.ramp_lr and rates and rate_before is not None)
                else (rate_before, rates[1])
            )
            yield Stretch(stage.name, start, ramp_end, (before, after), moving)
        if ramp_end < end:
            yield Stretch(stage.name, ramp_end, end, (after, after), rates)
        start, before, rate_before = end, after, stage.lr
