"""TensorBoard: event files of a training, one series through all stages."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..extras import missing
from ..reporters import numbers_of

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError as error:
    raise missing("tensorboard", "tensorboard") from error


class TensorBoardReporter:
    """Writes event files into a folder: ``tensorboard --logdir FOLDER``.

    What an earlier run wrote beyond the step at which this one goes on is not shown. Rows are written out at once.

    Args:
        folder: Where the files go; it is made.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._writer: Any = None

    def open(self, step: int) -> None:
        """See ``Reporter``."""
        self.close()
        self._writer = SummaryWriter(str(self._folder), purge_step=step + 1 if step else None)

    def log(self, row: Mapping[str, Any]) -> None:
        """See ``Reporter``."""
        if row["kind"] == "stage":
            self._writer.add_text("stage", row["stage"], row["step"])
        else:
            for name, value in numbers_of(row).items():
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        """See ``Reporter``."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
