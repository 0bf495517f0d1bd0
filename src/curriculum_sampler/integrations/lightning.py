"""Lightning: a curriculum as a ``LightningDataModule``, with its learning rates, its stages logged, and exact resume."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, StateMismatchError
from ..extras import missing
from ..schedule import StageSchedule

try:
    import lightning.pytorch as pl
except ImportError as error:
    raise missing("lightning", "lightning") from error

from ..learning_rate import CurriculumLR
from ..loader import CurriculumLoader

if TYPE_CHECKING:
    from ..dataset import CurriculumDataset

_LOG = logging.getLogger("curriculum_sampler")
_KEY = "curriculum"  # in a checkpoint


class CurriculumDataModule(pl.LightningDataModule):
    """Training batches of a curriculum: ``trainer.fit(model, datamodule=CurriculumDataModule(...))``.

    - **Ranks.** Every rank's loader is made when Lightning knows the ranks, and yields its part of the global batch.
      Lightning's distributed sampler never touches it, whatever ``use_distributed_sampler`` says.
    - **Steps.** The curriculum ends the training when it ends: ``Trainer(max_epochs=-1)``. It is one Lightning epoch, or,
      with ``limit_train_batches=n``, epochs of ``n`` batches, each of which goes on where the one before ended.
    - **Learning rate.** That of the plan is set before each step, by ``CurriculumLR``: leave schedulers out of
      ``configure_optimizers``. Where stages have none, Lightning's schedulers are at work as ever.
    - **Resume.** The position of what was trained is in Lightning's own checkpoints: ``trainer.fit(..., ckpt_path=...)``
      goes on exactly, also on another number of ranks.
    - **Logged** are ``curriculum/stage`` (its number, from 0), ``curriculum/lr`` and ``curriculum/mixture/NAME``.

    For validation derive a class with a ``val_dataloader``.

    Args:
        dataset, schedule, batch_size, seed, **loader_options: As for ``CurriculumLoader``; ``batch_size`` is the global one.
        grad_accumulation: Micro-batches per optimiser step. Default: ``accumulate_grad_batches`` of the ``Trainer``; only
            with manual optimisation it may be another.

    Attributes:
        loader: The loader of this rank; None before ``fit``.

    Raises:
        ArgumentError: From ``fit``: accumulations that differ, or learning rates both of stages and of a scheduler.
    """

    def __init__(
        self,
        dataset: CurriculumDataset,
        schedule: StageSchedule | None = None,
        *,
        batch_size: int,
        seed: int,
        grad_accumulation: int | None = None,
        **loader_options: Any,
    ) -> None:
        super().__init__()
        self.loader: CurriculumLoader | None = None
        self._given = (dataset, schedule)
        self._options = {"batch_size": batch_size, "seed": seed, **loader_options}
        self._grad_accumulation = grad_accumulation
        self._follower: _Follower | None = None

    def setup(self, stage: str) -> None:
        """Make the loader of this rank; Lightning calls it."""
        if stage != "fit":
            return
        trainer: Any = self.trainer
        before = self._follower
        ranks = trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
        self.loader = CurriculumLoader(
            *self._given,
            rank=ranks["rank"],
            world_size=ranks["num_replicas"],
            grad_accumulation=self._grad_accumulation or trainer.accumulate_grad_batches,
            **self._options,
        )
        self._follower = _Follower(self.loader, trainer)
        trainer.callbacks[:] = [one for one in trainer.callbacks if not isinstance(one, _Follower)]
        # First, so that what a checkpoint or a logger asks for is known by then.
        trainer.callbacks.insert(0, self._follower)
        if before is not None and before.trainer is trainer:
            self._follower.go_on_from(before.saved())  # as Lightning itself does, fitting once more

    def train_dataloader(self) -> Any:
        """Return this rank's batches; Lightning calls it."""
        return None if self.loader is None else _Batches(self.loader)


class _Batches:
    """What Lightning sees of a loader: a length that does not shrink."""

    def __init__(self, loader: CurriculumLoader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)

    def __len__(self) -> int:
        return self._loader.plan.total_steps * self._loader.sampler.grad_accumulation

    # Lightning warns of loaders without these, but it loads them in the middle of an epoch only, so the state is in
    # the hands of the callback.
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class _Follower(pl.Callback):
    """Sets the learning rate, logs, keeps the state of what was trained, and refuses what would bend the curriculum."""

    def __init__(self, loader: CurriculumLoader, trainer: pl.Trainer) -> None:
        self.trainer = trainer
        self._loader = loader
        self._steps_trained = 0
        self._saved: Mapping[str, Any] | None = None
        self._stage: str | None = None
        self._rates: list[CurriculumLR] = []

    def saved(self) -> dict[str, Any]:
        sampler = self._loader.sampler
        return {
            "loader": sampler.state_dict(step=self._steps_trained),
            "grad_accumulation": sampler.grad_accumulation,
        }

    def go_on_from(self, saved: Mapping[str, Any]) -> None:
        self._loader.load_state_dict(saved["loader"])
        self._steps_trained = self._loader.steps_done
        # Lightning counts batches. Those of an accumulation that was not finished are trained again, since their gradients
        # are lost; and a step may have another number of batches now.
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress
        steps = progress.current.processed // saved["grad_accumulation"]
        more = steps * self._loader.sampler.grad_accumulation - progress.current.processed
        for counted in (progress.current, progress.total):
            for name in ("ready", "started", "processed", "completed"):
                setattr(counted, name, getattr(counted, name) + more)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[_KEY] = self.saved()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._saved = checkpoint.get(_KEY)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Not before: Lightning's own progress is restored after its callbacks'.
        if trainer.ckpt_path:
            if self._saved is None:
                raise StateMismatchError(
                    f"The checkpoint {trainer.ckpt_path} has no position in a curriculum: its training had another source "
                    "of batches. Load its weights into the model yourself and fit without ckpt_path."
                )
            self.go_on_from(self._saved)
        accumulation = self._loader.sampler.grad_accumulation
        if trainer.num_training_batches % accumulation:
            raise ArgumentError(
                f"limit_train_batches makes epochs of {trainer.num_training_batches} batches, but a step has {accumulation} "
                "micro-batches and Lightning ends one early at the end of an epoch. Choose a multiple."
            )
        if any(stage.lr is not None for stage in self._loader.plan.schedule.stages):
            if trainer.lr_scheduler_configs:
                raise ArgumentError(
                    "configure_optimizers returned a scheduler, but the stages have learning rates, which are set before "
                    "each step. Return the optimizer alone, or leave lr out of the stages."
                )
            self._rates = [CurriculumLR(optimizer, self._loader) for optimizer in trainer.optimizers]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        loader, accumulation = self._loader, self._loader.sampler.grad_accumulation
        # Asked each time: a GradientAccumulationScheduler may change it between epochs.
        if pl_module.automatic_optimization and trainer.accumulate_grad_batches != accumulation:
            raise ArgumentError(
                f"accumulate_grad_batches={trainer.accumulate_grad_batches}, but the global batch is divided into "
                f"grad_accumulation={accumulation} micro-batches. Give only accumulate_grad_batches, and let it be constant."
            )
        position = loader.position
        if position.stage != self._stage:
            self._stage = position.stage
            if trainer.is_global_zero:
                _LOG.info("Step %s: stage %s, mixture %s", position.step, position.stage, position.mixture)
        logged: dict[str, float] = {"curriculum/stage": position.stage_index}
        logged |= {f"curriculum/mixture/{name}": share for name, share in position.mixture.items()}
        for rates in self._rates:
            rates.load_state_dict({"last_epoch": position.step})
        if position.lr is not None:
            logged["curriculum/lr"] = position.lr
        pl_module.log_dict({name: float(value) for name, value in logged.items()}, batch_size=1)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._steps_trained = self._loader.steps_done

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not len(self._loader):
            trainer.should_stop = True
