"""Two schedules side by side: which stages differ in what, and when the runs part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from .readable import readable_rate, readable_share, readable_time

if TYPE_CHECKING:
    from .schedule import Stage, StageSchedule
    from .timeline import Stretch, Timeline

_SAME = 1e-9

Value: TypeAlias = "Mapping[str, float] | float | None"


class Difference(NamedTuple):
    """What a stage has in one schedule and in the other, in words; None where it has no such stage."""

    stage: str
    what: str
    first: str | None
    second: str | None


def stage_differences(first: StageSchedule, second: StageSchedule) -> Iterator[Difference]:
    """Yield what differs between stages of the same name, and the stages that only one schedule has.

    >>> from curriculum_sampler import Stage, StageSchedule
    >>> one = StageSchedule([Stage("a", {"x": 1}, steps=10)])
    >>> next(stage_differences(one, one.scaled(2)))
    Difference(stage='a', what='length', first='10 steps', second='20 steps')
    """
    told = {stage.name: (number, stage) for number, stage in enumerate(first.stages, start=1)}
    others = {stage.name: (number, stage) for number, stage in enumerate(second.stages, start=1)}
    for name in dict.fromkeys([*told, *others]):
        if name not in told or name not in others:
            yield Difference(name, "stage", *(_place(found.get(name)) for found in (told, others)))
            continue
        (number, stage), (other_number, other) = told[name], others[name]
        pairs = {"place": (str(number), str(other_number))}
        pairs |= {what: (tell(stage), tell(other)) for what, tell in _TOLD.items()}
        yield from (Difference(name, what, one, two) for what, (one, two) in pairs.items() if one != two)


def mixtures_part(first: Timeline, second: Timeline) -> float | None:
    """Return the first time at which the mixtures differ, or one has ended; None if they never do.

    >>> from curriculum_sampler import Stage, StageSchedule
    >>> from curriculum_sampler.timeline import Timeline
    >>> one = StageSchedule([Stage("a", {"x": 1}, steps=10), Stage("b", {"x": 1, "y": 1}, steps=5, ramp=5)])
    >>> two = StageSchedule([Stage("a", {"x": 1}, steps=12), Stage("b", {"x": 1, "y": 1}, steps=3)])
    >>> mixtures_part(Timeline.of(one), Timeline.of(two))
    11.0
    """
    return _part(first, second, lambda stretch, time: stretch.mixture(time))


def rates_part(first: Timeline, second: Timeline) -> float | None:
    """Return the first time at which the learning rates differ, or one run has ended; None if they never do."""
    return _part(first, second, lambda stretch, time: stretch.rate(time))


def _part(first: Timeline, second: Timeline, value: Callable[[Stretch, float], Value]) -> float | None:
    last = min(first.end, second.end)
    edges = {stretch.start for timeline in (first, second) for stretch in timeline.stretches} | {last}
    for start, stop in pairwise(sorted(edge for edge in edges if edge <= last)):
        # Two straight lines that agree at two times agree throughout. Between steps there is nothing.
        then = start + 1 if first.unit == "steps" else (start + stop) / 2
        for time in (start, then):
            if time < stop and _differ(value(first.at(start), time), value(second.at(start), time)):
                return time if first.unit == "steps" else start
    return None if first.end == second.end else last


def _differ(one: Value, two: Value) -> bool:
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return any(abs(one.get(name, 0.0) - two.get(name, 0.0)) > _SAME for name in {*one, *two})
    if isinstance(one, float) and isinstance(two, float):
        return abs(one - two) > _SAME * max(one, two)
    return one is not two


def _place(found: tuple[int, Stage] | None) -> str | None:
    return None if found is None else f"stage {found[0]}, {_length(found[1])}"


def _length(stage: Stage) -> str:
    unit = stage.unit.removesuffix("s") if stage.length == 1 else stage.unit
    return f"{readable_time(stage.length)} {unit}"


def mixture_in_words(mixture: Mapping[str, float]) -> str:
    """Return a mixture without what has no share.

    >>> mixture_in_words({"easy": 0.25, "never": 0.0, "hard": 0.75})
    'easy 25%, hard 75%'
    """
    return ", ".join(f"{name} {readable_share(share)}" for name, share in mixture.items() if share)


def _mixture(stage: Stage) -> str:
    return mixture_in_words({name: float(share) for name, share in sorted(stage.shares.items())})


def _ramp(stage: Stage) -> str:
    with_rate = ", learning rate too" if stage.ramp_lr else ""
    return f"{readable_time(stage.ramp)} {stage.unit}{with_rate}" if stage.ramp else "none"


_TOLD: dict[str, Callable[[Stage], str]] = {
    "length": _length,
    "mixture": _mixture,
    "learning rate": lambda stage: "none" if stage.lr is None else readable_rate(stage.lr),
    "ramp": _ramp,
}
