"""Laws of ``--report_to tensorboard``: what TensorBoard's own reader finds in the files of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from common.tensorboard_run import TensorBoardRun
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .trainer_runs import ENDS, STAGES, Runs, rows

pytestmark = pytest.mark.parametrize("trainer", ["dit"], indirect=True, scope="session")

FLAGS = ("--report_to", "tensorboard")


def events(folder: Path) -> EventAccumulator:
    """All events of a training, as TensorBoard shows them."""
    read = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    read.Reload()
    return read


def series(read: EventAccumulator, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read.Scalars(name)]


def expected(folder: Path, kind: str, name: str) -> list[tuple[int, Any]]:
    """The same series by the rows of ``metrics.jsonl``; events hold single precision."""
    outer, _, inner = name.partition("/")
    values = ((row["step"], row[outer]) for row in rows(folder, kind) if outer in row)
    found = (
        (step, value[inner] if inner else value) for step, value in values if not inner or inner in value
    )
    return [(step, pytest.approx(value, rel=1e-6)) for step, value in found]


def test_every_number_is_one_series_through_all_stages(runs: Runs, tmp_path: Path) -> None:
    assert runs(tmp_path, *FLAGS) == 0
    read = events(tmp_path)
    for kind, names in {
        "train": ("loss", "lr", "grad_norm", "target_mixture/medium", "samples_by_bucket/hard"),
        "validation": ("loss_by_bucket/easy", "ssim", "masked_l1"),
    }.items():
        for name in names:
            assert series(read, f"{kind}/{name}") == expected(tmp_path, kind, name), name
    assert [step for step, _ in series(read, "train/loss")] == [2, 3, 4, 6, 8]
    marks = read.Tensors("stage/text_summary")
    assert [(mark.step, mark.tensor_proto.string_val[0].decode()) for mark in marks] == [
        (begin, name) for begin, (name, _, _) in zip([0, *ENDS], STAGES, strict=False)
    ]
    sheets = read.Images("samples")
    assert [sheet.step for sheet in sheets] == [0, *ENDS]
    with Image.open(tmp_path / "samples" / "step_0.png") as sheet:
        assert (sheets[0].width, sheets[0].height) == sheet.size


def test_steps_that_were_trained_twice_are_shown_once(runs: Runs, tmp_path: Path) -> None:
    more = (*FLAGS, "--checkpointing_steps", 1000, "--logging_steps", 1)
    runs.cut_off(tmp_path, 5, *more)  # rows up to 5, a checkpoint at 3
    assert [step for step, _ in series(events(tmp_path), "train/loss")] == [1, 2, 3, 4, 5]
    assert runs(tmp_path, *more, "--resume_from_checkpoint", "latest") == 0
    assert series(events(tmp_path), "train/loss") == expected(tmp_path, "train", "loss")
    assert len(expected(tmp_path, "train", "loss")) == ENDS[-1]


def test_what_was_logged_is_in_the_file_at_once(runs: Runs, tmp_path: Path) -> None:
    """A process that is killed loses no number that its log has."""
    run = TensorBoardRun(tmp_path, 0)
    for step in (1, 2, 3):
        run.log(step, {"train/loss": 0.5})
        assert [step for step, _ in series(events(tmp_path), "train/loss")] == list(range(1, step + 1))
    run.close()
