"""One page about trainings, complete in itself: what was planned, what was drawn, what was learned, what it looks like."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from common.metrics_rows import in_bucket_order, of_kind, read_rows
from common.mixture_plot import plot_training
from common.stage_outcomes import StageOutcome, stage_outcomes

_TEMPLATE = Path(__file__).with_suffix(".html.jinja")


def write_report(folders: Sequence[Path], path: Path) -> None:
    """Write the report of several trainings; each folder holds the ``metrics.jsonl`` of one.

    Raises:
        ValueError: If one of them holds no training row.
    """
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.render(trainings=[_training(folder) for folder in folders]), encoding="utf-8")


def _training(folder: Path) -> dict[str, Any]:
    rows = read_rows(folder / "metrics.jsonl")
    picture = io.BytesIO()
    plot_training(rows, picture, "", format="svg")
    stages, validations = stage_outcomes(rows), of_kind(rows, "validation")
    buckets = in_bucket_order(sorted({name for stage in stages for name in stage.drawn}))
    first = next((row for row in validations if row["step"] == 0), None)
    return {
        "name": folder.name.removeprefix("checkpoints_"),
        "folder": folder,
        "steps": stages[-1].last_step,
        "samples": sum(of_kind(rows, "train")[-1]["samples_by_bucket"].values()),
        "buckets": buckets,
        "stages": stages,
        "before": first,
        "plot": _embedded(picture.getvalue(), "svg+xml"),
        "sheets": _sheets(folder / "samples", stages),
        "checkpoints": [path.name for path in sorted(folder.glob("checkpoint_stage*.pt"))],
    }


def _sheets(folder: Path, stages: Sequence[StageOutcome]) -> list[tuple[str, str]]:
    """Titles and pictures: before training, and at the end of every stage."""
    wanted = [("before training", 0)]
    wanted += [(f"after {stage.name}, step {stage.last_step:,}", stage.last_step) for stage in stages]
    return [
        (title, _embedded(path.read_bytes(), "png"))
        for title, step in wanted
        if (path := folder / f"step_{step}.png").exists()
    ]


def _embedded(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
