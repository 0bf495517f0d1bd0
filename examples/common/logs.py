"""What a training writes while it runs: a log to read, numbers to plot, W&B runs, a progress bar."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from curriculum_sampler.reporters import flat_numbers

METRICS = "metrics.jsonl"
LOG = "training.log"


class Reporter(Protocol):
    """A service that is told what the log is told: `WandbRuns`, `TensorBoardRun`."""

    def open(self, step: int, stage: str, name: str, config: Mapping[str, Any]) -> None:
        """A stage begins."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers at a global step, which runs on through all stages."""

    def log_picture(self, step: int, name: str, path: Path) -> None:
        """A picture that lies at ``path``."""

    def close(self) -> None:
        """The training ends."""


class RunLog:
    """``training.log`` and ``metrics.jsonl`` of an output folder; on other ranks than the first it writes nothing.

    A row of ``metrics.jsonl`` is one JSON object with ``kind`` (``stage``, ``train``, ``validation``,
    ``checkpoint``), ``step`` (optimiser updates done) and ``stage``.

    Args:
        folder: The output folder.
        steps_done: Where the run begins. Rows of a run that was killed beyond this are dropped, since this one
            writes them again.
        total_steps: End of the progress bar.
        is_writer: False on ranks that must keep silent.

    Attributes:
        reporters: Told what the log is told.
    """

    def __init__(
        self,
        folder: Path,
        steps_done: int,
        total_steps: int,
        *,
        is_writer: bool,
    ) -> None:
        self.folder = folder
        self.is_writer = is_writer
        self.reporters: Sequence[Reporter] = ()
        if is_writer:
            folder.mkdir(parents=True, exist_ok=True)
            drop_rows_after(folder / METRICS, steps_done)
        self.bar = tqdm(
            total=total_steps,
            initial=steps_done,
            disable=not (is_writer and sys.stderr.isatty()),
            unit="step",
            dynamic_ncols=True,
        )

    def say(self, text: str) -> None:
        """Write lines into ``training.log`` and to the terminal."""
        if not self.is_writer:
            return
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.writelines(f"{stamp} {line}\n" for line in text.splitlines())
        if self.bar.disable:
            print(text, flush=True)
        else:
            self.bar.write(text)

    def row(self, kind: str, step: int, stage: str, **values: Any) -> None:
        """Append a row to ``metrics.jsonl``; the reporters are told its numbers."""
        if not self.is_writer:
            return
        row = {"kind": kind, "step": step, "stage": stage, **values}
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
        if kind in ("train", "validation"):
            for reporter in self.reporters:
                reporter.log(step, flat_numbers(kind, values))

    def open_stage(self, step: int, stage: str, name: str, config: Mapping[str, Any]) -> None:
        """Tell the reporters that a stage begins; its run is to be called ``name``."""
        for reporter in self.reporters:
            reporter.open(step, stage, name, config)

    def picture(self, step: int, name: str, path: Path) -> None:
        """Report a picture that was saved."""
        for reporter in self.reporters:
            reporter.log_picture(step, name, path)

    def progress(self, step: int, stage: str, mixture: Mapping[str, float], loss: float) -> None:
        """Move the bar: stage, mixture, loss; tqdm adds speed and time left."""
        shares = "/".join(f"{100 * share:.0f}" for share in mixture.values())
        self.bar.set_description_str(f"{stage} {shares}", refresh=False)
        self.bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
        self.bar.update(step - self.bar.n)

    def close(self) -> None:
        """End the bar and what the reporters have open."""
        self.bar.close()
        for reporter in self.reporters:
            reporter.close()


def drop_rows_after(path: Path, step: int) -> None:
    """Cut a metrics file behind the row of the checkpoint at ``step``; without one, drop the rows beyond ``step``.
    From step 0 there is nothing to keep.

    A run that is killed leaves rows that no checkpoint has; the run that follows writes those steps again.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if step else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # cut off in writing by a kill; what was written after it is whole
            continue
        if row["step"] > step:
            break
        kept.append(line)
        if row["kind"] == "checkpoint" and row["step"] == step:
            break
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(partial, path)


def stage_block(
    position: Any,
    first_step: int,
    end_step: int,
    bucket_sizes: Mapping[str, int],
    learning_rate: float,
    origin: str,
) -> str:
    """The lines that open a stage in ``training.log``: what to look for when the data seems not to switch."""
    mixture = ", ".join(f"{name} {100 * share:.1f} %" for name, share in position.mixture.items())
    sizes = ", ".join(f"{name} {size:,}" for name, size in bucket_sizes.items())
    return (
        f"Stage {position.stage_index + 1}: {position.stage}\n"
        f"  mixture        {mixture}\n"
        f"  samples        {sizes}\n"
        f"  learning rate  {learning_rate:g}\n"
        f"  steps          {first_step:,} to {end_step:,}\n"
        f"  start          step {position.step:,}, {origin}"
    )
