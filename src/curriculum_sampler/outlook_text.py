"""The outlook of a plan as tables of at most 80 columns, for names of usual length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .outlook import BucketOutlook, Outlook, StageOutlook
from .readable import readable_rate, readable_share, readable_time
from .stage_labels import shortened
from .terminal import readable_bytes, table

_LONGEST_NAME = 20


def stage_table(outlook: Outlook) -> str:
    """Return where each stage begins, how long it is, its rates."""
    stages = outlook.stages
    units = {stage.unit for stage in stages}
    unit = units.pop() if len(units) == 1 else "length"
    columns: list[tuple[str, list[str]]] = [
        ("stage", [shortened(stage.stage, _LONGEST_NAME) for stage in stages])
    ]
    if outlook.timeline is not None:
        columns.append(("from", [readable_time(stage.start or 0) for stage in stages]))
    columns.append((unit, [_length(stage, with_unit=unit == "length") for stage in stages]))
    if any(stage.ramp for stage in stages):
        columns.append(("ramp", [readable_time(stage.ramp) if stage.ramp else "-" for stage in stages]))
    if any(stage.draws for stage in stages):
        columns.append(("draws", [f"{stage.draws:,}" for stage in stages]))
    if any(stage.rates for stage in stages):
        columns.append(("learning rate", [_rates(stage) for stage in stages]))
    if outlook.seconds is not None:
        columns.append(("hours", [readable_hours(stage.seconds or 0) for stage in stages]))
    if len(stages) > 1 and outlook.timeline is not None:
        total = {"stage": "all", unit: readable_time(sum(stage.length for stage in stages))}
        if any(stage.draws for stage in stages):
            total["draws"] = f"{sum(stage.draws or 0 for stage in stages):,}"
        if outlook.seconds is not None:
            total["hours"] = readable_hours(outlook.seconds)
        for heading, cells in columns:
            cells.append(total.get(heading, ""))
    rows = [[heading for heading, _ in columns], *zip(*(cells for _, cells in columns), strict=True)]
    return table(rows, numbers=[place for place, (heading, _) in enumerate(columns) if heading != "stage"])


def exposure_table(outlook: Outlook) -> str:
    """Return what each bucket gets, stage by stage and in all."""
    groups: list[tuple[str, Sequence[BucketOutlook]]] = [
        (stage.stage, stage.buckets) for stage in outlook.stages
    ]
    if len(groups) > 1 and any(bucket.draws or bucket.rate_mass for bucket in outlook.buckets):
        groups.append(("all", outlook.buckets))
    found = [bucket for _, buckets in groups for bucket in buckets]
    columns = [("share", [readable_share(each.share) if each.share is not None else "" for each in found])]
    if any(each.draws is not None for each in found):
        columns.append(("draws", [f"{each.draws or 0:,}" for each in found]))
        columns.append(("passes", [f"{each.passes or 0:,.1f}" for each in found]))
    if any(each.num_bytes is not None for each in found):
        columns.append(("to read", [readable_bytes(each.num_bytes or 0) for each in found]))
    if any(each.rate_mass is not None for each in found):
        columns.append(("lr mass", [f"{each.rate_mass or 0:.1%}" for each in found]))
    rows: list[Sequence[object]] = [("stage", "bucket", *(heading for heading, _ in columns))]
    place = 0
    for name, buckets in groups:
        for number, bucket in enumerate(buckets):
            told = shortened(name, _LONGEST_NAME) if number == 0 else ""
            rows.append(
                (told, shortened(bucket.bucket, _LONGEST_NAME), *(cells[place] for _, cells in columns))
            )
            place += 1
    return table(rows, numbers=range(2, 2 + len(columns)))


def outlook_notes(outlook: Outlook) -> Iterator[str]:
    """Yield sentences on what is read and by whom."""
    if outlook.num_bytes is not None and outlook.distinct_bytes is not None:
        yield (
            f"To read: {readable_bytes(outlook.num_bytes)} over all passes, "
            f"{readable_bytes(outlook.distinct_bytes)} where a cache holds all of it."
        )
    if outlook.fetching is not None:
        fetching = outlook.fetching
        if fetching.num_bytes is not None and outlook.distinct_bytes is not None:
            cached = outlook.distinct_bytes * fetching.times_over
            yield (
                f"{fetching.nodes} nodes fetch it {fetching.times_over:.1f} times over: "
                f"{readable_bytes(fetching.num_bytes)}, or {readable_bytes(cached)} with such caches."
            )
        else:
            yield f"{fetching.nodes} nodes fetch the data up to {fetching.nodes} times over; --data tells."
    if any(bucket.rate_mass is not None for bucket in outlook.buckets):
        yield "lr mass: share of the sum of learning rate x mixture over the whole schedule."


def readable_hours(seconds: float) -> str:
    """Return seconds in hours.

    >>> readable_hours(5400), readable_hours(36)
    ('1.5', '0.01')
    """
    hours = seconds / 3600
    return f"{hours:,.1f}" if hours >= 1 else f"{hours:.2g}"


def _length(stage: StageOutlook, *, with_unit: bool) -> str:
    return f"{readable_time(stage.length)} {stage.unit}" if with_unit else readable_time(stage.length)


def _rates(stage: StageOutlook) -> str:
    if stage.rates is None:
        return "-"
    first, last = map(readable_rate, stage.rates)
    return last if first == last else f"{first} to {last}"
