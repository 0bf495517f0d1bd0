"""One Weights & Biases run per stage, in one group; never a reason for a training to stop."""

from __future__ import annotations

import importlib.util
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from curriculum_sampler.errors import MissingExtraError
from curriculum_sampler.wandb_key import has_wandb_key

try:
    import wandb
except ImportError:  # optional: metrics.jsonl holds the same numbers
    wandb = None  # type: ignore[assignment]


def run_name(project: str, index: int, stage: str) -> str:
    """Name of a stage's run; ``index`` counts from 0.

    >>> run_name("catvton-curriculum", 0, "easy")
    'catvton-curriculum-stage1-easy'
    """
    return f"{project}-stage{index + 1}-{stage}"


class WandbRuns:
    """Opens, feeds and closes the run of the stage in progress.

    Args:
        folder: Where offline runs are written.
        project: W&B project.
        group: Ties the runs of one training together.
        ids: Run id of each stage so far; a stage that goes on after a crash goes on in its run.
        say: Told once, in words, when W&B gives up; the training goes on without it.
    """

    def __init__(
        self, folder: Path, project: str, group: str, ids: Mapping[str, str], say: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self.project = project
        self.group = group
        self.ids = dict(ids)
        self._say = say
        self._run: Any = None
        self._broken = wandb is None

    def open(self, step: int, stage: str, name: str, config: Mapping[str, Any]) -> None:
        """Close the run in progress and open that of ``stage``, offline where there is no key or no network."""
        self.close()
        mode = os.environ.get("WANDB_MODE") or ("online" if has_wandb_key() else "offline")
        if not self._open(stage, name, config, mode) and mode == "online":
            self._broken = False
            self._open(stage, name, config, "offline")

    def _open(self, stage: str, name: str, config: Mapping[str, Any], mode: str) -> bool:
        identity = {"id": self.ids.get(stage) or secrets.token_hex(4)}
        if mode == "online":
            identity["resume"] = "allow"  # offline there is nothing to resume from, and W&B warns
        self._run = self._guarded(
            lambda: wandb.init(
                project=self.project,
                name=name,
                group=self.group,
                job_type="stage",
                dir=str(self.folder),
                config=dict(config),
                mode=mode,
                settings=wandb.Settings(silent=True),  # a screenful per run otherwise; we say where it is
                **identity,
            )
        )
        if self._run is None:
            return False
        self.ids[stage] = self._run.id
        self._say(f"W&B: {name}, {self._run.url if mode == 'online' else f'{mode}, in {self._run.dir}'}")
        self._guarded(lambda: self._run.define_metric("*", step_metric="global_step"))
        return True

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Log numbers at a global step, which runs on through all stages."""
        if self._run is not None:
            self._guarded(lambda: self._run.log({"global_step": step, **values}))

    def log_picture(self, step: int, name: str, path: Path) -> None:
        """Log a picture that lies at ``path``."""
        if self._run is not None:
            self._guarded(lambda: self._run.log({"global_step": step, name: wandb.Image(str(path))}))

    def close(self) -> None:
        """Finish the run in progress, if there is one."""
        if self._run is not None:
            run, self._run = self._run, None
            self._guarded(run.finish)

    def _guarded(self, action: Callable[[], Any]) -> Any:
        if self._broken:
            return None
        try:
            return action()
        except Exception as error:  # whatever W&B raises, it is not worth a training
            self._broken = True
            self._say(
                f"W&B: {type(error).__name__}: {error}. Training goes on; metrics.jsonl has every number."
            )
            return None


def wandb_is_wanted(report_to: str) -> bool:
    """Whether to report to W&B: asked for, or installed and not disabled.

    Raises:
        MissingExtraError: It was asked for and is not installed.

    >>> wandb_is_wanted("jsonl")
    False
    """
    installed = importlib.util.find_spec("wandb") is not None
    if report_to == "wandb" and not installed:
        raise MissingExtraError(
            "--report_to wandb needs Weights & Biases: pip install wandb, or choose another --report_to."
        )
    enabled = os.environ.get("WANDB_MODE") != "disabled" and not os.environ.get("WANDB_DISABLED")
    return report_to == "wandb" or (report_to == "auto" and installed and enabled)
