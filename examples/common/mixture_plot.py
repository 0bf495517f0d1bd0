"""One picture of a training: the library's, of mixture and learning rate, and the held-out loss of each bucket below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal

from common.metrics_rows import Row, of_kind
from matplotlib.ticker import LogLocator, NullFormatter

from curriculum_sampler.metrics_rows import drawn_of, timeline_of, training_rows
from curriculum_sampler.mixture_plot import mixture_figure
from curriculum_sampler.palette import bucket_colours


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
    training = training_rows(rows)
    timeline = timeline_of(training)
    held_out = of_kind(rows, "validation")
    colours = dict(zip(timeline.buckets, bucket_colours(len(timeline.buckets)), strict=True))
    # Held-out samples are also of buckets that were not drawn yet.
    names = dict.fromkeys([*colours, *sorted({name for row in held_out for name in row["loss_by_bucket"]})])
    losses = {
        name: [
            (row["step"], row["loss_by_bucket"][name]) for row in held_out if name in row["loss_by_bucket"]
        ]
        for name in names
    }
    has_losses = any(losses.values())
    figure, below = mixture_figure(
        timeline, drawn_of(training), title=title, panels_below=(1.8,) if has_losses else ()
    )
    if has_losses:
        for bucket, mark in zip(losses, _marks(len(losses)), strict=True):
            if losses[bucket]:
                below[0].plot(
                    *zip(*losses[bucket], strict=True),
                    marker=mark,
                    color="#555555",
                    markerfacecolor=colours.get(bucket, "white"),
                    markeredgecolor="black",
                    markersize=5.5,
                    linewidth=0.9,
                    clip_on=False,
                    label=bucket,
                )
        below[0].set(ylabel="held-out loss", yscale="log")
        below[0].yaxis.set_major_formatter("{x:g}")
        below[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        below[0].yaxis.set_minor_formatter(NullFormatter())
        below[0].legend(fontsize=8, frameon=False, loc="upper right")
    figure.savefig(target, dpi=110, format=format)


def _marks(count: int) -> str:
    """Marks of lines, so that a print without colours tells them apart."""
    return ("os^Dv<>p" * count)[:count]
