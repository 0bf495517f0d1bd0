"""A schedule resolved to draws: a short table of stages and segments that answers by step or draw.

A stage is a whole number of steps; a segment is a half-open range of draws dealt by one quota. A hard switch
starts a segment, a ramp is one segment, and changes made at run time (the log) cut segments at their draw.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from .checks import finite, whole
from .errors import ArgumentError
from .exposure import Exposure, ExposureTable
from .keys import digest
from .permutation import LARGEST_SIZE
from .quota import LARGEST_RAMP_STEPS, exact_share
from .segment import Segment

if TYPE_CHECKING:
    from .schedule import Stage, StageSchedule

ORDER_VERSION = 1
"""Raised whenever equal inputs would give other draws than before."""

LARGEST_WINDOW = 1 << 20
_LARGEST_DRAW = 1 << 62
_MOST_BUCKETS = 1 << 16


class Change(NamedTuple):
    """One entry of the log: from global draw ``draw`` on, ``what`` holds, for a ``reason`` in words.

    ``what`` is one of ``{"advance": stage}``, ``{"mixture": weights, "stage": stage}`` and ``{"sizes": {bucket: n}}``.

    >>> Change(6_400, {"advance": "easy"}, "no gain in three validations").draw
    6400
    """

    draw: int
    what: dict[str, Any]
    reason: str


@dataclass(frozen=True, slots=True)
class Position:
    """What is in force at one global step.

    Attributes:
        step: The step asked for, from 0.
        stage: Name of the stage that it belongs to. A boundary step belongs to the stage that begins there.
        stage_index: Place of the stage in the schedule, from 0.
        stage_step: Steps of the stage before this one.
        mixture: Share of each bucket of the stage's mixture, and in a ramp of the one before; sums to 1.
        lr: Learning rate, or None where the stage has none.

    >>> from curriculum_sampler import Stage, StageSchedule
    >>> stages = [Stage("easy", {"easy": 1}, steps=10), Stage("hard", {"easy": 1, "hard": 3}, steps=20, ramp=4)]
    >>> plan = StageSchedule(stages).plan({"easy": 50, "hard": 50}, batch_size=8)
    >>> plan.at(step=9).stage, plan.at(step=10).stage, plan.at(step=10).mixture, plan.at(step=12).mixture
    ('easy', 'hard', {'easy': 1.0, 'hard': 0.0}, {'easy': 0.625, 'hard': 0.375})
    """

    step: int
    stage: str
    stage_index: int
    stage_step: int
    mixture: dict[str, float]
    lr: float | None


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its place in the run."""

    stage: Stage
    index: int
    first_step: int
    end_step: int
    ramp_steps: int
    lr_before: float | None

    def lr(self, stage_step: int) -> float | None:
        """Return the learning rate at a step of the stage: closed form, so that it is right after any resume."""
        rate = self.stage.lr
        if rate is None or self.lr_before is None or not self.stage.ramp_lr or stage_step >= self.ramp_steps:
            return rate
        return self.lr_before + (rate - self.lr_before) * stage_step / self.ramp_steps


class Era(NamedTuple):
    """From ordinal ``first_ordinal`` on, passes ``first_pass, ...`` over a bucket have ``size`` samples each."""

    first_ordinal: int
    first_pass: int
    size: int


class Plan:
    """A schedule resolved against bucket sizes and a global batch size. Made by ``StageSchedule.plan``.

    Attributes:
        total_steps: Optimiser steps of the whole curriculum.
        total_draws: ``total_steps * batch_size``.
        boundaries: First step of every stage, and the end.
        fingerprint: Digest of all that decides the order, the seed aside.
        bound: How far, in draws, any window or prefix ending at a window's edge may be from the exact mixture:
            less than this (``ceil(log2 k)`` for ``k`` buckets; 0 means exact).

    >>> from curriculum_sampler import Stage, StageSchedule
    >>> schedule = StageSchedule([Stage("all", {"easy": 1}, epochs=2), Stage("hard", {"easy": 1, "hard": 3}, samples=100)])
    >>> plan = schedule.plan(bucket_sizes={"easy": 20, "hard": 30}, batch_size=8)
    >>> plan.boundaries, plan.total_draws, plan.bound
    ((0, 5, 18), 144, 1)
    """

    def __init__(
        self,
        schedule: StageSchedule,
        bucket_sizes: Mapping[str, int],
        batch_size: int,
        *,
        window: int | None = None,
        run_sizes: Mapping[str, int] | int | None = None,
        block_runs: int = 32,
        max_passes: float | None = None,
        changes: Sequence[Change] = (),
    ) -> None:
        self.schedule = schedule
        self.batch_size = whole("batch_size", batch_size, least=1, largest=LARGEST_WINDOW)
        self.window = (
            self.batch_size if window is None else whole("window", window, least=1, largest=LARGEST_WINDOW)
        )
        self.block_runs = whole("block_runs", block_runs, least=1, largest=LARGEST_WINDOW)
        self.bucket_sizes = self._checked_sizes(bucket_sizes)
        self.run_sizes = self._checked_run_sizes(run_sizes)
        self.changes = tuple(changes)
        self.stages, self.segments = self._resolved()
        self.boundaries = (*(planned.first_step for planned in self.stages), self.stages[-1].end_step)
        self.total_steps = self.boundaries[-1]
        self.total_draws = self.total_steps * self.batch_size
        if self.total_draws > _LARGEST_DRAW:
            raise ArgumentError(
                f"The plan has {self.total_draws:.3g} draws, but 2**62 are the most. Shorten its stages."
            )
        self._segment_starts = [segment.start for segment in self.segments]
        if max_passes is not None:
            self._refuse_more_passes_than(max_passes)

    @property
    def bound(self) -> int:
        """See the class."""
        return max(segment.bound for segment in self.segments)

    @cached_property
    def fingerprint(self) -> str:
        """See the class."""
        return digest(self.describe(self.total_draws) | {"sizes": self.bucket_sizes, "end": self.total_draws})

    def at(self, step: int) -> Position:
        """Return stage, mixture and learning rate in force at a global step.

        Within the first ``ramp`` steps of a stage, with ``a`` the mixture before, ``b`` this one and ``t`` steps
        into the stage, the mixture is ``a + (b - a) * t / ramp``: ``a`` at ``t = 0``, ``b`` from ``t = ramp`` on.

        Args:
            step: Global step, from 0. A boundary step belongs to the stage that begins there.

        Raises:
            ArgumentError: If ``step`` is negative or not below ``total_steps``.
        """
        step = self.check_step(step)
        planned = self.stages[bisect_right(self.boundaries, step, hi=len(self.stages)) - 1]
        segment = self.segment_at(step * self.batch_size)
        shares = segment.shares_at(step * self.batch_size)
        shown = dict.fromkeys(segment.shown, Fraction(0)) | shares
        return Position(
            step=step,
            stage=planned.stage.name,
            stage_index=planned.index,
            stage_step=step - planned.first_step,
            mixture={name: float(shown[name]) for name in shown},
            lr=planned.lr(step - planned.first_step),
        )

    def check_step(self, step: int) -> int:
        """Return ``step`` as an ``int``; refuse one outside the plan."""
        found = whole("step", step)
        if not 0 <= found < self.total_steps:
            raise ArgumentError(
                f"step: got {found}, but the plan has steps 0 to {self.total_steps - 1}. Ask for one of these."
            )
        return found

    def segment_at(self, draw: int) -> Segment:
        """Return the segment that a global draw belongs to."""
        return self.segments[bisect_right(self._segment_starts, draw) - 1]

    def counts_before(self, draw: int) -> dict[str, int]:
        """Return how many of the first ``draw`` draws each bucket receives, exactly at a window's edge."""
        at = bisect_right(self._segment_starts, max(0, draw - 1)) - 1
        counts = dict(self._counts_at_starts[at])
        for name, count in self.segments[at].quota.counts(draw - self.segments[at].start).items():
            counts[name] = counts.get(name, 0) + count
        return counts

    def ordinals_at_start(self, segment: Segment) -> dict[str, int]:
        """Return how many draws of each bucket precede a segment."""
        return self._counts_at_starts[bisect_right(self._segment_starts, segment.start) - 1]

    @cached_property
    def _counts_at_starts(self) -> list[dict[str, int]]:
        found: list[dict[str, int]] = [{}]
        for segment in self.segments[:-1]:
            counts = dict(found[-1])
            for name, count in segment.quota.counts(segment.stop - segment.start).items():
                counts[name] = counts.get(name, 0) + count
            found.append(counts)
        return found

    def eras(self, bucket: str) -> list[Era]:
        """Return the sizes that a bucket's passes have over the run; a logged size holds from the next pass."""
        eras = [Era(0, 0, self.bucket_sizes[bucket])]
        for change in self.changes:
            size = change.what.get("sizes", {}).get(bucket)
            if size is not None:
                first, first_pass, old = eras[-1]
                begun = -(-(self.counts_before(change.draw).get(bucket, 0) - first) // old)
                eras.append(Era(first + begun * old, first_pass + begun, size))
        return eras

    def exposure(self) -> ExposureTable:
        """Return, per stage and bucket that it draws from, the draws and the passes over the bucket.

        A bucket repeated more than 4 times within a stage has a ``warning``.

        >>> from curriculum_sampler import Stage, StageSchedule
        >>> plan = StageSchedule([Stage("easy", {"easy": 1}, steps=10)]).plan({"easy": 16}, batch_size=8)
        >>> plan.exposure()["easy"]["easy"], plan.exposure().warnings
        (Exposure(stage='easy', bucket='easy', draws=80, passes=5.0), ["'easy' is repeated 5.0 times in stage 'easy'"])
        """
        rows: list[Exposure] = []
        for planned in self.stages:
            before = self.counts_before(planned.first_step * self.batch_size)
            after = self.counts_before(planned.end_step * self.batch_size)
            for name in sorted(after):
                draws = after[name] - before.get(name, 0)
                if draws or name in planned.stage.shares:
                    rows.append(Exposure(planned.stage.name, name, draws, draws / self.bucket_sizes[name]))
        return ExposureTable(rows)

    def describe(self, draws: int) -> dict[str, Any]:
        """Return everything that decides the order of the first ``draws`` draws, the seed aside, as JSON types.

        Two plans that describe a prefix alike draw it alike. The first stage always counts as entered.
        """
        entered = [segment for segment in self.segments if segment.start < max(draws, 1)]
        described = [segment.describe() for segment in entered]
        # Inside the last, partial window the order is the raw quota's, which a later end would change.
        if draws > entered[-1].raw_from(self.window):
            described[-1]["stop"] = entered[-1].stop
        buckets = sorted({name for segment in entered for name in segment.names})
        return {
            "order_version": ORDER_VERSION,
            "window": self.window,
            "block_runs": self.block_runs,
            "segments": described,
            "sizes": {name: self.bucket_sizes[name] for name in buckets},
            "run_sizes": {name: self.run_sizes[name] for name in buckets},
            "grown": [
                [change.draw, change.what["sizes"]]
                for change in self.changes
                if "sizes" in change.what and change.draw < draws
            ],
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments that make this plan, the changes aside, as JSON types."""
        runs = {name: size for name, size in self.run_sizes.items() if size != 1}
        return {
            "schedule": self.schedule.to_dict(),
            "bucket_sizes": dict(self.bucket_sizes),
            "batch_size": self.batch_size,
            "window": self.window,
            "run_sizes": runs,
            "block_runs": self.block_runs,
        }

    def replace(self, **arguments: Any) -> Plan:
        """Return this plan with some of its arguments replaced."""
        kept: dict[str, Any] = {
            "bucket_sizes": self.bucket_sizes,
            "batch_size": self.batch_size,
            "window": self.window,
            "run_sizes": self.run_sizes,
            "block_runs": self.block_runs,
            "changes": self.changes,
        }
        return Plan(self.schedule, **(kept | arguments))

    def __repr__(self) -> str:
        spans = ", ".join(f"{p.stage.name} {p.first_step:,}-{p.end_step:,}" for p in self.stages)
        return f"<Plan {self.fingerprint}: {self.total_steps:,} steps of {self.batch_size} ({spans})>"

    def _resolved(self) -> tuple[list[PlannedStage], list[Segment]]:
        stages: list[PlannedStage] = []
        segments: list[Segment] = []
        in_force: Mapping[str, Fraction] = {}
        lr_before: float | None = None
        step = 0
        for index, stage in enumerate(self.schedule.stages):
            steps, ramp_steps = self._in_steps(stage, stage.length), self._in_steps(stage, stage.ramp)
            if ramp_steps > LARGEST_RAMP_STEPS:
                raise ArgumentError(
                    f"Stage {stage.name!r}: got a ramp of {ramp_steps:,} steps, but {LARGEST_RAMP_STEPS:,} are the most. "
                    "Shorten it."
                )
            end_step = step + steps
            for change in self.changes:
                # A stage that has not begun by then (the one before was made longer) is not cut.
                if change.what.get("advance") == stage.name and change.draw > step * self.batch_size:
                    end_step = min(end_step, change.draw // self.batch_size)
            planned = PlannedStage(stage, index, step, end_step, ramp_steps, lr_before)
            stages.append(planned)
            segments += self._segments_of(planned, in_force)
            in_force = segments[-1].shares_at(segments[-1].stop)
            in_force = {name: share for name, share in in_force.items() if share}
            lr_before = planned.lr(end_step - step)
            step = end_step
        return stages, segments

    def _segments_of(self, planned: PlannedStage, before: Mapping[str, Fraction]) -> Iterator[Segment]:
        """Yield the ramp, the rest, and what the log makes of both."""
        size = self.batch_size
        start, stop = planned.first_step * size, planned.end_step * size
        ramp_stop = start + planned.ramp_steps * size
        parts: list[tuple[int, Mapping[str, Fraction] | None, Mapping[str, Fraction], tuple[str, ...]]] = []
        shown = tuple(planned.stage.mixture)
        if planned.ramp_steps:
            parts.append((start, before, planned.stage.shares, shown))
        if ramp_stop < stop:
            parts.append((ramp_stop, None, planned.stage.shares, shown))
        for change in self.changes:
            if change.what.get("stage") == planned.stage.name and start <= change.draw < stop:
                parts = [part for part in parts if part[0] < change.draw]
                weights = change.what["mixture"]
                parts.append((change.draw, None, exact_share(weights), tuple(weights)))
        stops = [part[0] for part in parts[1:]] + [stop]
        for (first, old, shares, names), end in zip(parts, stops, strict=True):
            yield Segment(first, end, shares, old, planned.ramp_steps, size, names)

    def _in_steps(self, stage: Stage, amount: int | float) -> int:
        if not amount or stage.unit == "steps":
            return int(amount)
        draws = Fraction(str(amount))
        if stage.unit == "epochs":
            draws *= self._epoch_draws(stage)
        return max(1, -(-draws.numerator // (draws.denominator * self.batch_size)))

    def _epoch_draws(self, stage: Stage) -> int:
        epoch_size = self.schedule.epoch_size
        if epoch_size == "stage":
            return sum(self.bucket_sizes[name] for name in stage.shares)
        return sum(self.bucket_sizes.values()) if epoch_size == "all" else epoch_size

    def _checked_sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        if not isinstance(sizes, Mapping) or not all(isinstance(name, str) for name in sizes):
            raise ArgumentError(
                f"bucket_sizes: got {sizes!r}, but it maps bucket names to numbers of samples. "
                'Write for example {"easy": 5000}.'
            )
        if len(sizes) > _MOST_BUCKETS:
            raise ArgumentError(
                f"bucket_sizes: got {len(sizes):,} buckets, but {_MOST_BUCKETS:,} are the most. Merge some."
            )
        checked = {
            name: whole(f"size of bucket {name!r}", size, least=0, largest=LARGEST_SIZE)
            for name, size in sizes.items()
        }
        for stage in self.schedule.stages:
            for bucket in stage.shares:
                if not checked.get(bucket):
                    state = "empty" if bucket in checked else "absent"
                    known = ", ".join(f"{name} ({size:,})" for name, size in checked.items()) or "none"
                    raise ArgumentError(
                        f"Stage {stage.name!r} draws from bucket {bucket!r}, which is {state}. The data has: {known}. "
                        "Rename the bucket in the schedule, give it weight 0, or add samples."
                    )
        return checked

    def _checked_run_sizes(self, run_sizes: Mapping[str, int] | int | None) -> dict[str, int]:
        if not isinstance(run_sizes, Mapping):
            each = 1 if run_sizes is None else whole("run_sizes", run_sizes, least=1, largest=LARGEST_SIZE)
            return dict.fromkeys(self.bucket_sizes, each)
        for name in run_sizes:
            if name not in self.bucket_sizes:
                raise ArgumentError(
                    f"run_sizes names bucket {name!r}, but the data has {', '.join(self.bucket_sizes)}. Correct the name."
                )
        return {
            name: whole(f"run size of bucket {name!r}", run_sizes.get(name, 1), least=1, largest=LARGEST_SIZE)
            for name in self.bucket_sizes
        }

    def _refuse_more_passes_than(self, max_passes: float) -> None:
        if (finite(max_passes) or 0) <= 0:
            raise ArgumentError(
                f"max_passes: got {max_passes!r}, but it is a finite number above 0. Correct it."
            )
        for row in self.exposure():
            if row.passes > max_passes:
                raise ArgumentError(
                    f"Stage {row.stage!r} passes {row.passes:,.1f} times over bucket {row.bucket!r} "
                    f"({self.bucket_sizes[row.bucket]:,} samples), more than max_passes={max_passes!r}. "
                    "Shorten the stage, lower the bucket's weight, add samples, or raise max_passes."
                )
