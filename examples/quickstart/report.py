"""What a run of the quickstart showed: a table of accuracies and a picture of the curriculum."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np

matplotlib.use("Agg")  # no screen needed; must come before pyplot

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

COLOURS = ("#3f8f7f", "#e0a33e", "#b5495b", "#6b6b9e")  # easiest bucket first
DARK = "#3b3b3b"
STYLES = ("-", "--", ":")


class Snapshot(NamedTuple):
    """One step of one run: what was planned, what the batch held, and how good the model was after it."""

    stage: str
    mixture: Mapping[str, float]
    counts: Mapping[str, int]
    accuracy: Mapping[str, float]
    """Bucket name, or ``"all"`` -> share of held-out samples classified correctly."""


Run = Sequence[Snapshot]
Arms = Mapping[str, Sequence[Run]]
"""What was trained -> its runs, one a seed. The first is the curriculum, the others are compared with it."""


def tell(arms: Arms) -> str:
    """Return the held-out accuracy after every stage, averaged over runs, and who ended ahead."""
    (name, curriculum), *others = arms.items()
    buckets = list(curriculum[0][0].accuracy)
    lines = [f"{f'held-out accuracy, %, mean of {len(curriculum)} seeds':<44}" + _columns(buckets)]
    for number, last in enumerate(_stage_ends(curriculum[0]), start=1):
        for arm, runs in arms.items():
            means = [100 * np.mean([run[last].accuracy[bucket] for run in runs]) for bucket in buckets]
            lines.append(f"{f'stage {number}, step {last + 1}: {arm}':<44}" + _columns(means))
    for other, runs in others:
        lines += ["", f"At the end, {name} against {other}:"]
        lines += [f"  {bucket:<7} {_verdict(bucket, name, curriculum, other, runs)}" for bucket in buckets]
    return "\n".join(lines)


def _columns(cells: Sequence[object]) -> str:
    return "".join(f"{cell:9.1f}" if isinstance(cell, float) else f"{cell:>9}" for cell in cells)


def _verdict(bucket: str, name: str, curriculum: Sequence[Run], other: str, runs: Sequence[Run]) -> str:
    """Compare seed by seed; a difference below two standard errors is called none."""
    gains = np.array(
        [
            100 * (a[-1].accuracy[bucket] - b[-1].accuracy[bucket])
            for a, b in zip(curriculum, runs, strict=True)
        ]
    )
    mean = gains.mean()
    if len(gains) < 2:
        return f"{mean:+.1f} points; one seed says little"
    error = gains.std(ddof=1) / np.sqrt(len(gains))
    ahead = "no clear difference" if abs(mean) <= 2 * error else f"{name if mean > 0 else other} is better"
    return f"{mean:+.1f} points (standard error {error:.1f}): {ahead}"


def draw(path: str, arms: Arms) -> None:
    """Save the picture: above the mixture, planned as areas and realised as dots; below accuracy by bucket."""
    run = next(iter(arms.values()))[0]
    colours = dict(zip(run[0].counts, COLOURS, strict=False))
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(8.4, 6.6), sharex=True, height_ratios=(2, 3), layout="constrained"
    )
    _draw_mixture(above, run, colours)
    _draw_accuracy(below, arms, colours)
    for axes in (above, below):
        for last in _stage_ends(run)[:-1]:
            axes.axvline(last + 1, color=DARK, linewidth=0.8, linestyle=":")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def _draw_mixture(axes: Axes, run: Run, colours: Mapping[str, str]) -> None:
    steps = np.arange(len(run))
    planned = [[now.mixture.get(name, 0.0) for now in run] for name in colours]
    axes.stackplot(
        steps, planned, labels=colours, colors=colours.values(), alpha=0.6, linewidth=0, step="post"
    )
    counts = np.array([[now.counts[name] for name in colours] for now in run])
    realised = np.cumsum(counts, axis=1)[:, :-1] / counts.sum(axis=1, keepdims=True)
    shown = steps[:: max(1, len(run) // 100)]
    for boundary in realised.T:
        axes.plot(shown, boundary[shown], "o", color=DARK, markersize=1.8, clip_on=False, zorder=3)
    first = 0
    for last in _stage_ends(run):
        axes.text((first + last) / 2, 1.04, run[last].stage, ha="center", color=DARK)
        first = last + 1
    axes.plot([], [], "o", color=DARK, markersize=3, label="in the batch")
    axes.set(ylim=(0, 1), xlim=(0, len(run) - 1), ylabel="share of the batch")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, reverse=True)


def _draw_accuracy(axes: Axes, arms: Arms, colours: Mapping[str, str]) -> None:
    for (arm, runs), style in zip(arms.items(), STYLES, strict=False):
        for bucket, colour in colours.items():
            mean = 100 * np.mean([[now.accuracy[bucket] for now in run] for run in runs], axis=0)
            axes.plot(mean, color=colour, linewidth=1.5, linestyle=style)
        axes.plot([], [], color=DARK, linestyle=style, label=arm)
    axes.set(ylim=(0, 101), xlabel="step", ylabel=f"held-out accuracy, %, mean of {len(runs)} seeds")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _stage_ends(run: Run) -> list[int]:
    """Return the last step of every stage."""
    return [step for step, now in enumerate(run) if step + 1 == len(run) or run[step + 1].stage != now.stage]
