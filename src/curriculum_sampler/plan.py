"""A schedule resolved to draws: a short table of stages and segments that answers by step or draw.

A stage is a whole number of steps; a segment is a half-open range of draws dealt by one quota. A hard switch
starts a segment, a ramp is one segment, and changes made at run time (the log) cut segments at their draw.
"""

from __future__ import annotations

import hashlib
import json
import numbers
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import ArgumentError
from .permutation import LARGEST_SIZE
from .quota import LARGEST_BLOCK, LARGEST_RAMP_STEPS, Quota, exact_share

if TYPE_CHECKING:
    from .schedule import Stage, StageSchedule

ORDER_VERSION = 1
"""Raised whenever equal inputs would give other draws than before."""

_MANY_PASSES = 4  # Repeating text data is about as good as fresh data up to here (Muennighoff et al. 2023).


class Change(NamedTuple):
    """One entry of the log: from global draw ``draw`` on, ``what`` holds, for a ``reason`` in words.

    ``what`` is one of ``{"advance": stage}``, ``{"mixture": weights, "stage": stage}`` and ``{"sizes": {bucket: n}}``.
    """

    draw: int
    what: dict[str, Any]
    reason: str


@dataclass(frozen=True, slots=True)
class Position:
    """What is in force at one global step."""

    step: int
    stage: str
    stage_index: int
    stage_step: int
    mixture: dict[str, float]
    lr: float | None


class Exposure(NamedTuple):
    """What one stage draws from one bucket; ``passes`` is draws over bucket size."""

    stage: str
    bucket: str
    draws: int
    passes: float

    @property
    def warning(self) -> str | None:
        """A sentence when the bucket is repeated more than 4 times in the stage, else None."""
        if self.passes <= _MANY_PASSES:
            return None
        return f"{self.bucket!r} is repeated {self.passes:,.1f} times in stage {self.stage!r}"


class ExposureTable(Sequence[Exposure]):
    """The rows of ``plan.exposure()``, stage by stage; also addressable as ``table[stage, bucket]``."""

    def __init__(self, rows: Sequence[Exposure]) -> None:
        self._rows = tuple(rows)

    @property
    def warnings(self) -> list[str]:
        """The rows' warnings, as data: nothing is printed."""
        return [row.warning for row in self if row.warning]

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            stage, bucket = key
            for row in self._rows:
                if (row.stage, row.bucket) == (stage, bucket):
                    return row
            raise KeyError(key)
        return self._rows[key]

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        lines = [f"{'stage':<12} {'bucket':<12} {'draws':>12} {'passes':>12}"]
        lines += [f"{r.stage:<12} {r.bucket:<12} {r.draws:>12,} {r.passes:>12,.1f}" for r in self._rows]
        return "\n".join(lines)


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


@dataclass(frozen=True)
class Segment:
    """Draws ``start <= n < stop``, dealt by one quota; ``stop`` decides no draw's bucket."""

    start: int
    stop: int
    shares: Mapping[str, Fraction]
    shares_before: Mapping[str, Fraction] | None
    ramp_steps: int
    step_draws: int
    shown: tuple[str, ...]
    """Buckets that a report names, those of weight 0 included."""

    @cached_property
    def quota(self) -> Quota:
        """How the segment's draws are shared."""
        if self.shares_before is None:
            return Quota.constant(self.shares)
        return Quota.ramp(self.shares_before, self.shares, self.ramp_steps, self.step_draws)

    def shares_at(self, draw: int) -> dict[str, Fraction]:
        """Return the exact target shares at a global draw."""
        if self.shares_before is None:
            return dict(self.shares)
        done = Fraction((draw - self.start) // self.step_draws, self.ramp_steps)
        names = self.shares_before.keys() | self.shares.keys()
        before, after = self.shares_before, self.shares
        return {
            name: before.get(name, Fraction(0))
            + (after.get(name, Fraction(0)) - before.get(name, Fraction(0))) * done
            for name in sorted(names)
        }

    @property
    def is_ramp(self) -> bool:
        """Whether the shares move from step to step."""
        return self.shares_before is not None

    def window_stride(self, window: int) -> int:
        """Return after how many draws the windows come round: a change may take effect at these edges."""
        return self.step_draws if self.is_ramp else window

    def raw_from(self, window: int) -> int:
        """Return the first draw of the last, partial window that a later end would fill; ``stop`` if there is none."""
        return self.stop if self.is_ramp else self.stop - (self.stop - self.start) % window

    def describe(self) -> dict[str, Any]:
        """Return what decides the segment's draws, as JSON types."""
        told: dict[str, Any] = {"start": self.start, "shares": _texts(self.shares)}
        if self.shares_before is not None:
            told |= {
                "from": _texts(self.shares_before),
                "ramp_steps": self.ramp_steps,
                "step_draws": self.step_draws,
            }
        return told


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
        self.batch_size = _count("batch_size", batch_size, LARGEST_BLOCK)
        self.window = self.batch_size if window is None else _count("window", window, LARGEST_BLOCK)
        self.block_runs = _count("block_runs", block_runs, LARGEST_BLOCK)
        self.bucket_sizes = self._checked_sizes(bucket_sizes)
        self.run_sizes = self._checked_run_sizes(run_sizes)
        self.changes = tuple(changes)
        self.stages, self.segments = self._resolved()
        self.boundaries = (*(planned.first_step for planned in self.stages), self.stages[-1].end_step)
        self.total_steps = self.boundaries[-1]
        self.total_draws = self.total_steps * self.batch_size
        self._segment_starts = [segment.start for segment in self.segments]
        if max_passes is not None:
            self._refuse_more_passes_than(max_passes)

    @property
    def bound(self) -> int:
        """See the class."""
        return max(segment.quota.bound for segment in self.segments)

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
        self.check_step(step)
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

    def check_step(self, step: int) -> None:
        """Refuse a step outside the plan."""
        if not 0 <= step < self.total_steps:
            raise ArgumentError(
                f"step: got {step}, but the plan has steps 0 to {self.total_steps - 1}. Ask for one of these."
            )

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
        >>> plan.exposure()["easy", "easy"], plan.exposure().warnings
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
        buckets = sorted({name for segment in entered for name in segment.quota.names})
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
        """Return what ``from_dict`` of the state needs to rebuild this plan, the changes aside, as JSON types."""
        runs = {name: size for name, size in self.run_sizes.items() if size != 1}
        return {
            "schedule": self.schedule.to_dict(),
            "bucket_sizes": dict(self.bucket_sizes),
            "batch_size": self.batch_size,
            "window": self.window,
            "run_sizes": runs,
            "block_runs": self.block_runs,
        }

    def with_changes(self, changes: Sequence[Change], bucket_sizes: Mapping[str, int] | None = None) -> Plan:
        """Return this plan under another log (and other sizes at its start)."""
        return Plan(
            self.schedule,
            self.bucket_sizes if bucket_sizes is None else bucket_sizes,
            self.batch_size,
            window=self.window,
            run_sizes=self.run_sizes,
            block_runs=self.block_runs,
            changes=changes,
        )

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
                if change.what.get("advance") == stage.name:
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
        for stage in self.schedule.stages:
            for bucket in stage.shares:
                if not sizes.get(bucket):
                    state = "empty" if bucket in sizes else "absent"
                    known = ", ".join(f"{name} ({size:,})" for name, size in sizes.items()) or "none"
                    raise ArgumentError(
                        f"Stage {stage.name!r} draws from bucket {bucket!r}, which is {state}. The data has: {known}. "
                        "Rename the bucket in the schedule, give it weight 0, or add samples."
                    )
        return {
            name: _count(f"size of bucket {name!r}", size, LARGEST_SIZE, least=0)
            for name, size in sizes.items()
        }

    def _checked_run_sizes(self, run_sizes: Mapping[str, int] | int | None) -> dict[str, int]:
        if not isinstance(run_sizes, Mapping):
            each = 1 if run_sizes is None else _count("run_sizes", run_sizes, LARGEST_SIZE)
            return dict.fromkeys(self.bucket_sizes, each)
        for name in run_sizes:
            if name not in self.bucket_sizes:
                raise ArgumentError(
                    f"run_sizes names bucket {name!r}, but the data has {', '.join(self.bucket_sizes)}. Correct the name."
                )
        return {
            name: _count(f"run size of bucket {name!r}", run_sizes.get(name, 1), LARGEST_SIZE)
            for name in self.bucket_sizes
        }

    def _refuse_more_passes_than(self, max_passes: float) -> None:
        for row in self.exposure():
            if row.passes > max_passes:
                raise ArgumentError(
                    f"Stage {row.stage!r} passes {row.passes:,.1f} times over bucket {row.bucket!r} "
                    f"({self.bucket_sizes[row.bucket]:,} samples), more than max_passes={max_passes!r}. "
                    "Shorten the stage, lower the bucket's weight, add samples, or raise max_passes."
                )


def digest(told: Any) -> str:
    """Return 16 hexadecimal digits that identify a JSON value."""
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _texts(shares: Mapping[str, Fraction]) -> dict[str, str]:
    return {name: str(share) for name, share in sorted(shares.items())}


def _count(what: str, value: Any, largest: int, *, least: int = 1) -> int:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not least <= value <= largest:
        raise ArgumentError(
            f"{what}: got {value!r}, but it is a whole number from {least} to {largest:,}. Correct it."
        )
    return int(value)
