"""What a plan will do, in numbers: who is drawn how often, at which rate, what it costs to read, and what to mind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from .readable import readable_share
from .timeline import Timeline

if TYPE_CHECKING:
    from .manifest import Manifest
    from .plan import Plan
    from .schedule import Stage, StageSchedule

_LITTLE_MASS = 0.5  # of what its draws would give it


class BucketOutlook(NamedTuple):
    """What a bucket gets, in one stage or in all. None is what is not known.

    ``share`` is the mixture after the ramp, in a stage; over all, the share of the draws. ``rate_mass`` is the share of the
    whole plan's sum of learning rate x mixture.
    """

    bucket: str
    share: float | None
    draws: int | None
    passes: float | None
    num_bytes: float | None
    rate_mass: float | None


class StageOutlook(NamedTuple):
    """A stage: its place and length in ``unit``, its rates at the beginning and at the end."""

    stage: str
    start: float | None
    length: float
    unit: str
    ramp: float
    rates: tuple[float, float] | None
    draws: int | None
    seconds: float | None
    buckets: tuple[BucketOutlook, ...]


class Fetching(NamedTuple):
    """What is fetched by ``nodes`` machines that share nothing, ``times_over`` what one would fetch; ``is_known`` where the
    runs are."""

    nodes: int
    times_over: float
    num_bytes: float | None
    is_known: bool


@dataclass(frozen=True)
class Outlook:
    """The numbers of a plan, or of a schedule alone.

    Attributes:
        timeline: None where the stages are in several units.
        stages: In order.
        buckets: Over all stages.
        num_bytes: Bytes of all draws, None without a manifest.
        distinct_bytes: Bytes of the samples that are ever drawn, each once: what a cache that holds them all reads.
        fetching: For several nodes.
        seconds: The whole run, without start-up and evaluation.
        warnings: In plain words.
    """

    timeline: Timeline | None
    stages: tuple[StageOutlook, ...]
    buckets: tuple[BucketOutlook, ...]
    num_bytes: float | None
    distinct_bytes: float | None
    fetching: Fetching | None
    seconds: float | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the timeline as JSON types."""
        told = {name: value for name, value in asdict(self).items() if name != "timeline"}
        told["stages"] = [
            stage._asdict() | {"buckets": [bucket._asdict() for bucket in stage.buckets]}
            for stage in self.stages
        ]
        told["buckets"] = [bucket._asdict() for bucket in self.buckets]
        told["fetching"] = None if self.fetching is None else self.fetching._asdict()
        return told


def outlook_of_schedule(schedule: StageSchedule) -> Outlook:
    """Return what is known without the data, in the schedule's own units.

    >>> from curriculum_sampler import Stage, StageSchedule
    >>> found = outlook_of_schedule(StageSchedule([Stage("a", {"x": 1}, epochs=2.5, lr=0.1)]))
    >>> found.stages[0].length, found.stages[0].unit, found.buckets[0].draws
    (2.5, 'epochs', None)
    """
    is_drawable = len({stage.unit for stage in schedule.stages}) == 1
    timeline = Timeline.of_schedule(schedule) if is_drawable else None
    mass = timeline.rate_mass() if timeline else None
    stages = []
    start = 0.0
    for before, stage in zip((None, *schedule.stages), schedule.stages, strict=False):
        names = _named(stage, (mass or {}).get(stage.name, {}))
        shares = {name: float(share) for name, share in stage.shares.items()}
        buckets = tuple(
            BucketOutlook(name, shares.get(name, 0.0), None, None, None, _mass_of(mass, stage.name, name))
            for name in names
        )
        first = before.lr if before and stage.ramp_lr else stage.lr
        rates = None if first is None or stage.lr is None else (first, stage.lr)
        place = start if timeline else None
        stages.append(
            StageOutlook(stage.name, place, stage.length, stage.unit, stage.ramp, rates, None, None, buckets)
        )
        start += stage.length
    totals = tuple(
        BucketOutlook(name, None, None, None, None, _mass_over_all(mass, name)) for name in _in_order(stages)
    )
    return Outlook(timeline, tuple(stages), totals, None, None, None, None, ())


def outlook_of_plan(
    plan: Plan, *, manifest: Manifest | None = None, nodes: int = 1, seconds_per_step: float | None = None
) -> Outlook:
    """Return all there is to know.

    Args:
        plan: The plan, made with the manifest's ``run_sizes`` where there is one.
        manifest: Tells bytes.
        nodes: Machines that fetch the data, each for its own ranks.
        seconds_per_step: Of one optimiser step, as measured.

    >>> from curriculum_sampler import Stage, StageSchedule
    >>> plan = StageSchedule([Stage("a", {"x": 3, "y": 1}, steps=10, lr=0.1)]).plan({"x": 10, "y": 10}, batch_size=4)
    >>> outlook_of_plan(plan).stages[0].buckets[1]
    BucketOutlook(bucket='y', share=0.25, draws=10, passes=1.0, num_bytes=None, rate_mass=0.25)
    """
    timeline = Timeline.of_plan(plan)
    mass = timeline.rate_mass()
    mean_bytes = (
        {} if manifest is None else {name: manifest.mean_sample_bytes(name) for name in manifest.buckets}
    )
    exposure = plan.exposure()
    stages = []
    for planned in plan.stages:
        rows = {row.bucket: row for row in exposure if row.stage == planned.stage.name}
        stretches = [stretch for stretch in timeline.stretches if stretch.stage == planned.stage.name]
        target = stretches[-1].mixtures[1] if stretches else {}
        buckets = tuple(
            BucketOutlook(
                name,
                target.get(name, 0.0),
                rows[name].draws,
                rows[name].passes,
                _times(rows[name].draws, mean_bytes.get(name)),
                _mass_of(mass, planned.stage.name, name),
            )
            for name in _named(planned.stage, rows)
        )
        first, last = (stretches[0].rates, stretches[-1].rates) if stretches else (None, None)
        steps = planned.end_step - planned.first_step
        stages.append(
            StageOutlook(
                planned.stage.name,
                planned.first_step,
                steps,
                "steps",
                planned.ramp_steps,
                None if first is None or last is None else (first[0], last[1]),
                steps * plan.batch_size,
                _times(steps, seconds_per_step),
                buckets,
            )
        )
    totals = []
    for name in _in_order(stages):
        draws = sum(
            bucket.draws or 0 for stage in stages for bucket in stage.buckets if bucket.bucket == name
        )
        totals.append(
            BucketOutlook(
                name,
                draws / plan.total_draws,
                draws,
                draws / plan.bucket_sizes[name],
                _times(draws, mean_bytes.get(name)),
                _mass_over_all(mass, name),
            )
        )
    return Outlook(
        timeline=timeline,
        stages=tuple(stages),
        buckets=tuple(totals),
        num_bytes=sum(total.num_bytes or 0.0 for total in totals) if manifest else None,
        distinct_bytes=_distinct_bytes(plan, totals, mean_bytes) if manifest else None,
        fetching=_fetching(plan, totals, nodes, is_known=manifest is not None) if nodes > 1 else None,
        seconds=_times(plan.total_steps, seconds_per_step),
        warnings=tuple(_warnings(plan, totals)),
    )


def times_over(nodes: int, run_size: float) -> float:
    """Return how many times over ``nodes`` machines fetch a bucket whose samples are read in runs of ``run_size``.

    The draws of a run fall on slots of the global batch, and so on nodes, as if at random; a node fetches the run unless none
    of its draws falls on it.

    >>> times_over(4, 1), round(times_over(4, 8), 2), round(times_over(4, 100), 2)
    (1.0, 3.6, 4.0)
    """
    return float(nodes * (1 - (1 - 1 / nodes) ** run_size))


def _fetching(plan: Plan, totals: list[BucketOutlook], nodes: int, *, is_known: bool) -> Fetching:
    if not is_known:
        return Fetching(nodes, float(nodes), None, False)
    fetched = once = 0.0
    for total in totals:
        once += total.num_bytes or 0.0
        run_size = min(plan.run_sizes[total.bucket], plan.bucket_sizes[total.bucket])
        fetched += (total.num_bytes or 0.0) * times_over(nodes, run_size)
    return Fetching(nodes, fetched / once if once else 1.0, fetched, True)


def _distinct_bytes(plan: Plan, totals: list[BucketOutlook], mean_bytes: Mapping[str, float]) -> float:
    return sum(
        min(total.draws or 0, plan.bucket_sizes[total.bucket]) * mean_bytes[total.bucket] for total in totals
    )


def _warnings(plan: Plan, totals: list[BucketOutlook]) -> Iterator[str]:
    yield from plan.exposure().warnings
    drawn = {total.bucket: total for total in totals if total.draws}
    for name, size in plan.bucket_sizes.items():
        if name not in drawn:
            yield f"{name!r} is never drawn ({size:,} samples)"
        elif (drawn[name].passes or 0) < 1:
            yield f"only {readable_share(drawn[name].passes or 0)} of {name!r} is ever drawn"
    for total in drawn.values():
        if total.rate_mass is not None and total.rate_mass < _LITTLE_MASS * (total.share or 0):
            yield (
                f"{total.bucket!r} is {readable_share(total.share or 0)} of the draws, but sees "
                f"{readable_share(total.rate_mass)} of the learning-rate mass"
            )


def _named(stage: Stage, more: Mapping[str, Any]) -> list[str]:
    """Return the stage's buckets in the order declared, then those that only its ramp draws from."""
    return [
        *(name for name in stage.mixture if name in stage.shares),
        *sorted(more.keys() - stage.shares.keys()),
    ]


def _in_order(stages: list[StageOutlook]) -> list[str]:
    return list(dict.fromkeys(bucket.bucket for stage in stages for bucket in stage.buckets))


def _mass_of(mass: Mapping[str, Mapping[str, float]] | None, stage: str, bucket: str) -> float | None:
    return None if mass is None else mass.get(stage, {}).get(bucket, 0.0)


def _mass_over_all(mass: Mapping[str, Mapping[str, float]] | None, bucket: str) -> float | None:
    return None if mass is None else sum(of_stage.get(bucket, 0.0) for of_stage in mass.values())


def _times(number: float, each: float | None) -> float | None:
    return None if each is None else number * each
