"""TensorBoard event files of a training, one series through all stages."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curriculum_sampler.errors import MissingExtraError


class TensorBoardRun:
    """Writes into ``tensorboard/`` of the output folder: ``tensorboard --logdir FOLDER``.

    Args:
        folder: The output folder.
        steps_done: Where the run begins. What a run that was killed wrote beyond this is not shown.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, steps_done: int) -> None:
        try:
            kind = importlib.import_module("torch.utils.tensorboard").SummaryWriter
        except ImportError as error:
            raise MissingExtraError(
                "--report_to tensorboard needs TensorBoard: pip install tensorboard, or choose another --report_to."
            ) from error
        self._writer: Any = kind(str(folder / "tensorboard"), purge_step=steps_done + 1)

    def open(self, step: int, stage: str, name: str, config: Mapping[str, Any]) -> None:
        """Mark where a stage begins."""
        self._writer.add_text("stage", stage, step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers at a global step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # a process that is killed shall have said what its log says

    def log_picture(self, step: int, name: str, path: Path) -> None:
        """Log a picture that lies at ``path``."""
        with Image.open(path) as picture:
            self._writer.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()
