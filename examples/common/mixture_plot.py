"""One picture of a training: the planned mixture as areas, what was drawn as dots, learning rate and held-out loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from common.metrics_rows import Row, in_bucket_order, of_kind, realised_shares

_COLOURS = ("#8ecae6", "#ffb703", "#d1495b", "#6a994e", "#9d4edd")


def plot_training(
    rows: Sequence[Row], target: Path | IO[bytes], title: str, format: Literal["png", "svg"] = "png"
) -> None:
    """Draw the rows of a metrics file.

    Args:
        rows: All rows; those of kind ``train`` and ``validation`` are used.
        target: Where the picture goes.
        title: What stands above it.
        format: Of the picture.

    Raises:
        ValueError: If there is no training row.
    """
    training, held_out = of_kind(rows, "train"), of_kind(rows, "validation")
    if not training:
        raise ValueError(
            f"plot_training: none of the {len(rows)} rows is of kind 'train'. Train a few steps first."
        )
    buckets = in_bucket_order(sorted({name for row in training for name in row["target_mixture"]}))
    colours = dict(zip(buckets, _COLOURS * len(buckets), strict=False))
    figure, (upper, middle, lower) = plt.subplots(
        3, 1, figsize=(9, 7), sharex=True, height_ratios=(3, 1, 2), layout="constrained"
    )
    _planned(upper, training, buckets, colours)
    _drawn(upper, training, buckets)
    for step, stage in _entries(training):
        for axes in (upper, middle, lower):
            axes.axvline(step, color="#333333", linewidth=0.8, linestyle=":")
        upper.text(step, 1.02, f" {stage}", fontsize=9)
    upper.set(ylim=(0, 1), ylabel="share of the global batch", title=f"{title}\n")
    upper.legend(loc="lower left", fontsize=8, framealpha=0.9)

    steps = [0, *(row["step"] for row in training)]
    rates = [row["lr"] for row in training]
    middle.step(steps, [rates[0], *rates], where="pre", color="black", linewidth=1.2)
    middle.set(ylabel="learning rate", ylim=(0, 1.15 * max(rates)))
    middle.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))

    for bucket in buckets:
        points = [
            (row["step"], row["loss_by_bucket"][bucket])
            for row in held_out
            if bucket in row["loss_by_bucket"]
        ]
        if points:
            lower.plot(*zip(*points, strict=True), "o-", color=colours[bucket], markersize=4, label=bucket)
    lower.set(xlabel="global step", ylabel="held-out loss", yscale="log")
    figure.savefig(target, dpi=110, format=format)
    plt.close(figure)


def _planned(axes: plt.Axes, rows: Sequence[Row], buckets: Sequence[str], colours: dict[str, str]) -> None:
    """Areas: a row's target holds for the steps up to it."""
    steps = [0, *(row["step"] for row in rows)]
    targets = [rows[0]["target_mixture"], *(row["target_mixture"] for row in rows)]
    shares = np.array([[target.get(bucket, 0.0) for target in targets] for bucket in buckets])
    axes.stackplot(
        steps,
        shares,
        labels=[f"{bucket}, planned" for bucket in buckets],
        colors=[colours[bucket] for bucket in buckets],
        step="pre",
    )


def _drawn(axes: plt.Axes, rows: Sequence[Row], buckets: Sequence[str]) -> None:
    """Dots at the upper edge of each bucket's area: where plan and draws agree they lie on the edge."""
    found = realised_shares(rows)
    for place in range(len(buckets) - 1):
        heights = [sum(shares.get(bucket, 0.0) for bucket in buckets[: place + 1]) for _, shares in found]
        label = "drawn" if place == 0 else None
        axes.plot(
            [step for step, _ in found],
            heights,
            "o",
            color="black",
            markersize=2.5,
            label=label,
            clip_on=False,
        )


def _entries(rows: Sequence[Row]) -> list[tuple[int, str]]:
    """Return the step at which every stage begins: where the row before its first one ends."""
    starts = [0, *(row["step"] for row in rows[:-1])]
    entered: dict[str, int] = {}
    for start, row in zip(starts, rows, strict=True):
        entered.setdefault(row["stage"], start)
    return [(start, stage) for stage, start in entered.items()]
