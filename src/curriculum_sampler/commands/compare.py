"""Show two schedules side by side: what differs, and when the runs part.

Stages are compared by name. With sizes (or --data) and a batch size, which both
schedules then meet, also draws, passes, and learning-rate mass are compared.

Examples:
  curriculum-sampler compare curriculum.toml longer.toml
  curriculum-sampler compare a.toml b.toml --sizes easy=5000,hard=3000 --batch-size 64
  curriculum-sampler compare a.toml b.toml --data s3://my-bucket/pictures/v1 --batch-size 64 --json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..comparison import Difference, mixture_in_words, mixtures_part, rates_part, stage_differences
from ..outlook import BucketOutlook, Outlook, outlook_of_plan, outlook_of_schedule
from ..plan_arguments import Asked, add_schedule, add_sizes, asked_about
from ..readable import UNITS, readable_time
from ..terminal import Answer, Terminal, readable_bytes, table
from ..timeline import Timeline


def add_arguments(parser: ArgumentParser) -> None:
    add_schedule(parser, "first", "second")
    add_sizes(parser)


def run(arguments: Namespace, terminal: Terminal) -> Answer:
    both = asked_about(arguments, [arguments.first, arguments.second])
    differences = list(stage_differences(both[0].schedule, both[1].schedule))
    outlooks = [_outlook(meant) for meant in both]
    told: dict[str, Any] = {
        "first": arguments.first,
        "second": arguments.second,
        "equal": both[0].schedule == both[1].schedule,
        "differences": [difference._asdict() for difference in differences],
        "outlooks": [outlook.to_dict() for outlook in outlooks],
    }
    parts = [terminal.strong(f"{arguments.first} and {arguments.second}"), _totals(both, outlooks)]
    parts.append(_told(differences) if differences else "The stages are the same.")
    if both[0].schedule.epoch_size != both[1].schedule.epoch_size:
        sizes = [meant.schedule.epoch_size for meant in both]
        parts.append(f"Epochs are of other sizes: epoch_size is {sizes[0]!r} and {sizes[1]!r}.")
    one, two = (outlook.timeline for outlook in outlooks)
    if one is None or two is None or one.unit != two.unit:
        parts.append(
            "Their stages are in several units. Give --sizes and --batch-size, and they are compared in steps."
        )
    else:
        told["unit"] = one.unit
        told["mixtures_part"], told["rates_part"] = mixtures_part(one, two), rates_part(one, two)
        parts.append("\n".join(_partings(one, two, told["mixtures_part"], told["rates_part"])))
    return Answer(told, "\n\n".join(parts))


def _outlook(meant: Asked) -> Outlook:
    if meant.plan is None:
        return outlook_of_schedule(meant.schedule)
    return outlook_of_plan(meant.plan, manifest=meant.manifest)


def _totals(both: Sequence[Asked], outlooks: Sequence[Outlook]) -> str:
    """What the schedules come to, as a table of two columns."""
    rows: list[Sequence[str]] = [
        ("", "first", "second"),
        ("stages", *(f"{len(each.stages)}" for each in outlooks)),
    ]
    lengths = [
        "several units"
        if each.timeline is None
        else f"{readable_time(each.timeline.end)} {each.timeline.unit}"
        for each in outlooks
    ]
    rows.append(("length", *lengths))
    if all(meant.plan is not None for meant in both):
        rows.append(("draws", *(f"{meant.plan.total_draws:,}" for meant in both if meant.plan)))
    if all(each.num_bytes is not None for each in outlooks):
        rows.append(("to read", *(readable_bytes(each.num_bytes or 0) for each in outlooks)))
    names = list(dict.fromkeys(bucket.bucket for each in outlooks for bucket in each.buckets))
    told: tuple[tuple[str, Callable[[BucketOutlook], str | None]], ...] = (
        ("draws of", lambda bucket: None if bucket.draws is None else f"{bucket.draws:,}"),
        ("passes over", lambda bucket: None if bucket.passes is None else f"{bucket.passes:,.1f}"),
        ("lr mass of", lambda bucket: None if bucket.rate_mass is None else f"{bucket.rate_mass:.1%}"),
    )
    for what, tell in told:
        for name in names:
            cells = [next((tell(b) for b in each.buckets if b.bucket == name), "-") for each in outlooks]
            if any(cell not in (None, "-") for cell in cells):
                rows.append((f"{what} {name}", *(cell or "-" for cell in cells)))
    return table(rows, numbers=[1, 2])


def _told(differences: Sequence[Difference]) -> str:
    rows: list[Sequence[str]] = [("stage", "differs in", "first", "second")]
    for stage, what, one, two in differences:
        rows.append((stage, what, one or "absent", two or "absent"))
    return table(rows)


def _partings(one: Timeline, two: Timeline, mixtures: float | None, rates: float | None) -> Iterator[str]:
    unit = UNITS[one.unit]
    if mixtures is None:
        yield "The mixtures are the same throughout."
    else:
        then = [_at(timeline, mixtures) for timeline in (one, two)]
        yield f"The mixtures part at {unit} {readable_time(mixtures)}: {then[0]} in the first, {then[1]} in the second."
    if any(stretch.rates for timeline in (one, two) for stretch in timeline.stretches):
        if rates is None:
            yield "The learning rates are the same throughout."
        else:
            yield f"The learning rates part at {unit} {readable_time(rates)}."


def _at(timeline: Timeline, time: float) -> str:
    return "ended" if time >= timeline.end else mixture_in_words(timeline.at(time).mixture(time))
