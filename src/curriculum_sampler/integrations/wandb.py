"""Weights & Biases: a run that is told of the curriculum, and is never a reason for a training to stop."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from ..extras import missing
from ..reporters import numbers_of
from ..wandb_key import has_wandb_key

try:
    import wandb
except ImportError as error:
    raise missing("wandb", "wandb") from error

_LOG = logging.getLogger("curriculum_sampler")


class WandbReporter:
    """Logs to a run by ``global_step``: the numbers of each row, and the stage's name.

    Without ``WANDB_MODE`` the run is online if there is a key and the server answers, else offline, for ``wandb sync``. When
    W&B fails, that is logged once and the training goes on without it.

    Args:
        project: W&B project.
        **options: Of ``wandb.init``: ``name``, ``group``, ``dir``, ``config``, ``id`` (a run to go on with), ...
    """

    def __init__(self, project: str, **options: Any) -> None:
        self._options = {"project": project, **options}
        self._run: Any = None
        self._has_failed = False

    def open(self, step: int) -> None:
        """See ``Reporter``."""
        self.close()
        mode = os.environ.get("WANDB_MODE") or ("online" if has_wandb_key() else "offline")
        self._guarded(lambda: self._begin(mode))
        if self._run is None and mode == "online":
            self._has_failed = False
            self._guarded(lambda: self._begin("offline"))

    def _begin(self, mode: str) -> None:
        # Offline there is nothing to resume from, and W&B warns.
        resume = {"resume": "allow"} if mode == "online" and "id" in self._options else {}
        run: Any = wandb.init(mode=mode, **resume | self._options)  # type: ignore[arg-type]
        run.define_metric("*", step_metric="global_step")
        self._run = run

    def log(self, row: Mapping[str, Any]) -> None:
        """See ``Reporter``."""
        if self._run is not None:
            told = {"global_step": row["step"], "stage": row["stage"], **numbers_of(row)}
            self._guarded(lambda: self._run.log(told))

    def close(self) -> None:
        """See ``Reporter``."""
        if self._run is not None:
            run, self._run = self._run, None
            self._guarded(run.finish)

    def _guarded(self, action: Callable[[], Any]) -> None:
        if self._has_failed:
            return
        try:
            action()
        except Exception as error:  # whatever W&B raises, it is not worth a training
            self._has_failed = True
            _LOG.warning("W&B failed, the training goes on without it: %s: %s", type(error).__name__, error)
