"""The bookkeeping of a training: where it begins, which stage it is in, what it writes, when it saves and leaves.

The loop stays in each trainer's ``train.py``; what the loops have in common is here.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from common.checkpoint import (
    LATEST,
    find_checkpoint,
    keep_as,
    plain,
    read_checkpoint,
    save_checkpoint,
    stage_name,
    step_name,
)
from common.guards import refuse_not_a_number
from common.interrupts import StopRequest
from common.latent_cache import cached_latents
from common.logs import METRICS, Reporter, RunLog, stage_block
from common.metrics_rows import read_rows
from common.plateau import is_plateau, stage_losses
from common.ranks import Ranks
from common.rates import learning_rate, set_learning_rate
from common.stages import describe_plan, plan_of_checkpoint, schedule_of_run
from common.tally import Tally
from common.tensorboard_run import TensorBoardRun
from common.training_state import TrainingState
from common.validation import averaged_weights, held_out
from common.vton_data import get_vton_dataset
from common.wandb_runs import WandbRuns, run_name, wandb_is_wanted
from diffusers import AutoencoderKL

import curriculum_sampler as cs

HELD_OUT_SAMPLES = 8  # per bucket

# Called with held-out samples by bucket, the title of a sheet and where to save it; returns the numbers of a validation.
Look = Callable[[Mapping[str, Any], str, Path], dict[str, Any]]


def open_run(
    trainer: str,
    args: argparse.Namespace,
    ranks: Ranks,
    vae: Callable[[], AutoencoderKL] | None = None,
) -> TrainingRun | None:
    """Return the run that the flags ask for, at the point where it goes on; None where nothing is left to do.

    Args:
        trainer: Name of the trainer, which its checkpoints carry.
        args: The flags.
        ranks: This process's place.
        vae: Returns the autoencoder that cached latents must come from, for trainers that have ``--cache_latents``.

    Raises:
        ArgumentError: The output folder holds another training, or the flags do not fit the one to be resumed.
    """
    path = find_checkpoint(args.resume_from_checkpoint, args.output_dir)
    saved = read_checkpoint(path, trainer) if path else None
    steps_before = saved["global_step"] if saved else 0
    ranks.refuse_to_differ("The step of the checkpoint found", steps_before)
    if saved is None and find_checkpoint("latest", args.output_dir) and not args.dry_run:
        raise cs.ArgumentError(
            f"{args.output_dir} holds a training already, and a fresh start would write over it."
            " Pass --resume_from_checkpoint latest to go on, or another --output_dir."
        )
    # ---------------------------------------------------------------------------------------------- curriculum
    declared = cs.StageSchedule.load(args.curriculum_config)
    if getattr(args, "samples_per_epoch", None):
        declared = cs.StageSchedule(declared.stages, epoch_size=args.samples_per_epoch)
    schedule = schedule_of_run(
        declared,
        difficulty=args.difficulty,
        total_steps=args.max_train_steps,
        total_epochs=getattr(args, "num_epochs", None),
        learning_rate=args.learning_rate,
        past=plan_of_checkpoint(saved["loader_state"]) if saved else None,
        steps_done=steps_before,
    )
    if schedule is None:
        return _already_done(args, steps_before)
    dataset = get_vton_dataset(**places(args), curriculum=schedule, flip_probability=args.flip_probability)
    if vae is not None and args.cache_latents is not None:
        options = {} if args.endpoint_url is None else {"endpoint_url": args.endpoint_url}
        dataset = cached_latents(dataset, args.cache_latents, vae(), **options)
    loader = cs.CurriculumLoader(
        dataset,
        batch_size=args.train_batch_size * args.gradient_accumulation_steps,
        seed=args.seed,
        num_workers=args.dataloader_num_workers,
        grad_accumulation=args.gradient_accumulation_steps,
        pin_memory=ranks.device.type == "cuda",
    )
    if saved:
        loader.load_state_dict(saved["loader_state"])
    # ---------------------------------------------------------------------------------------------- curriculum
    if args.dry_run:
        print(describe_plan(loader))
        return None
    run = TrainingRun(trainer, args, ranks, loader, path, saved)
    if run.steps_before >= run.last_step:
        return _already_done(args, steps_before)
    return run


def places(args: argparse.Namespace) -> dict[str, Any]:
    """Where the data is and how large its pictures shall be, as ``get_vton_dataset`` takes it."""
    names = ("s3_prefixes", "data_root", "endpoint_url", "height", "width")
    return {name: getattr(args, name) for name in names}


class TrainingRun:
    """One process's part of a training, from where it begins to where it leaves.

    Attributes:
        loader: The data, in the order of the curriculum.
        saved: The checkpoint that the run goes on from.
        steps_before: Optimiser steps done by then.
        tally: Counts and losses by bucket between two rows of the metrics.
    """

    def __init__(
        self,
        trainer: str,
        args: argparse.Namespace,
        ranks: Ranks,
        loader: cs.CurriculumLoader,
        path: Path | None,
        saved: Mapping[str, Any] | None,
    ) -> None:
        self.trainer = trainer
        self.args = args
        self.ranks = ranks
        self.loader = loader
        self.saved = saved
        self.steps_before: int = saved["global_step"] if saved else 0
        self.tally = Tally(sorted(loader.dataset.manifest.bucket_sizes), ranks)
        self._path = path
        self._wandb: WandbRuns | None = None
        self._losses: list[torch.Tensor] = []
        self._keys: list[str] = []  # of the row in progress
        self._step_keys: list[str] = []
        self._stop = StopRequest()
        self._done = self.steps_before
        self._is_stopping = False

    def begin(self, state: TrainingState, model_config: Mapping[str, Any], look: Look) -> None:
        """Take over the saved state, open the log and the first stage, and look at the model where it is new.

        Args:
            state: Weights, moments and the like, as made by the trainer.
            model_config: What a checkpoint says about the model.
            look: Held-out numbers and pictures, under averaged weights.
        """
        self.state, self._model_config, self._look = state, plain(model_config), look
        args, ranks = self.args, self.ranks
        if self.saved:
            state.load_state_dict(self.saved)
            # Tensors go where they are trained; here they would take as much memory once more.
            self.saved = {name: self.saved[name] for name in ("stage", "versions", "wandb")}
        self.log = RunLog(args.output_dir, self.steps_before, self.last_step, is_writer=ranks.is_writer)
        if ranks.is_writer:
            self.log.reporters = self._reporters()
        if args.resume_from_checkpoint == "latest" and self.saved is None:
            self.log.say(f"No checkpoint in {args.output_dir} yet: starting fresh.")
        self._samples = self._held_out_samples()
        if ranks.is_writer and args.plateau_patience and not self._samples:
            raise cs.ArgumentError(
                f"--plateau_patience {args.plateau_patience} watches the held-out loss, but the data has no split 'val'."
                " Leave the flag out, or write such shards."
            )
        self._close_stage_left_early()
        self._enter_stage(self.steps_before, f"from {self._path}" if self._path else "from nothing")
        if self.saved and self.saved["versions"]["world_size"] != ranks.world_size:
            self.log.say(
                f"Saved by {self.saved['versions']['world_size']} processes, going on with {ranks.world_size}."
            )
        if self.steps_before == 0:
            self._validate(0)

    def __enter__(self) -> Self:
        self._stop.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.__exit__(kind, error, trace)

    def batches(self) -> Iterator[dict[str, Any]]:
        """Yield the loader's batches. A new stage is opened before its first one."""
        clock = time.monotonic()
        for batch in self.loader:
            self._waited = time.monotonic() - clock
            if self.loader.stage != self.stage:
                self._enter_stage(self.loader.step, "from the stage before")
            yield batch
            clock = time.monotonic()

    @property
    def last_step(self) -> int:
        """Where this call ends; a stage that ends early brings it nearer."""
        total = self.loader.plan.total_steps
        return min(total, self.args.max_train_steps or total)

    @property
    def step(self) -> int:
        """Global step in progress, from 0."""
        return self.loader.step

    @property
    def is_update(self) -> bool:
        """Whether the batch in hand is its step's last micro-batch."""
        return self.loader.steps_done > self.step

    def add(self, batch: Mapping[str, Any], per_sample: torch.Tensor) -> None:
        """Count a micro-batch: its loss by sample."""
        self.tally.add(batch["bucket"], per_sample, self._waited)
        self._losses.append(per_sample.detach().mean())
        self._step_keys += batch["sample_id"]

    def set_rate(self) -> None:
        """Give the optimiser the rate of the step in progress."""
        set_learning_rate(self.state.optimizer, self._rate_at(self.step))

    def refuse_not_a_number(self, gradient_norm: float) -> None:
        """Stop before an update that is not a number reaches weights or disk; see ``common.guards``."""
        refuse_not_a_number(
            torch.stack(self._losses).mean().item(),
            gradient_norm,
            step=self.step,
            stage=self.stage,
            sample_ids=self._step_keys,
            latest=self.args.output_dir / LATEST,
            is_scaled=self.state.scaler.is_enabled(),
        )

    def end_step(self, gradient_norm: float, **values: Any) -> bool:
        """After an update: log, validate and save what is due, and say whether to leave.

        Args:
            gradient_norm: Before clipping.
            **values: Further numbers for the row of the metrics.
        """
        args, ranks = self.args, self.ranks
        done = self._done = self.step + 1
        loss = torch.stack(self._losses).mean().item()
        self._losses.clear()
        self._keys += self._step_keys
        self._step_keys.clear()
        self.log.progress(done, self.stage, self.loader.mixture, loss)
        self._is_stopping = ranks.any(self._stop.signal is not None)
        leaving = (
            self._is_stopping or done == self.last_step or done - self.steps_before == args.max_steps_this_run
        )
        stage_ended = done in self.loader.plan.boundaries
        saving = stage_ended or leaving or done % args.checkpointing_steps == 0
        row_is_due = saving or done % args.logging_steps == 0
        if row_is_due:
            self._log_row(done, gradient_norm, values)
        if stage_ended or done % args.validation_steps == 0:
            self._validate(done)
            if not stage_ended and self._advance_on_plateau() == done:
                stage_ended = saving = True
                if not row_is_due:
                    self._log_row(done, gradient_norm, values)
        if saving:
            self._save(done, stage_ended=stage_ended)
        return leaving or done == self.last_step  # which a plateau may have brought nearer

    def finish(self) -> int:
        """Say how the run ended, and return the process's exit code."""
        done, latest = self._done, self.args.output_dir / LATEST
        if self._is_stopping:
            self.log.say(
                f"{self._stop.name} received. Step {done:,} is saved; run the same command to go on."
            )
        elif done == self.loader.plan.total_steps:
            self.log.say(f"Finished: {done:,} steps. {latest}")
        else:
            total = self.loader.plan.total_steps
            self.log.say(f"Left at step {done:,} of {total:,}, as asked. Run again to go on.")
        self.log.close()
        return self._stop.exit_code if self._is_stopping else 0

    def _rate_at(self, step: int) -> float:
        return learning_rate(self.loader.plan, step, self.args.lr_scheduler, self.args.lr_warmup_steps)

    def _enter_stage(self, step: int, origin: str) -> None:
        """Open the stage of ``step``, at a live switch and after a load alike."""
        args, plan, rate = self.args, self.loader.plan, self._rate_at(step)
        position = plan.at(step)
        begin, end = plan.boundaries[position.stage_index : position.stage_index + 2]
        self.stage = position.stage
        set_learning_rate(self.state.optimizer, rate)
        sizes = self.loader.dataset.manifest.bucket_sizes
        self.log.say(stage_block(position, begin, end, sizes, rate, origin))
        values = {"lr": rate, "target_mixture": position.mixture, "first_step": begin, "end_step": end}
        self.log.row("stage", step, position.stage, **values)
        name = run_name(args.wandb_project, position.stage_index, position.stage)
        wanted = (args.difficulty and args.wandb_run_name) or name
        self.log.open_stage(step, position.stage, wanted, plain(vars(args)))

    def _close_stage_left_early(self) -> None:
        """A stage that ended because the next one was asked for leaves what every stage leaves: a sheet and its final."""
        if not (self.saved and self._path):
            return
        before, step = self.saved["stage"], self.steps_before
        name = stage_name(before["index"], before["name"], step)
        folder = self.args.output_dir
        is_next = self.loader.plan.at(step).stage != before["name"]
        if not is_next:
            return
        # The writer's word counts: others may look after it has made the file, or at a folder of their own.
        writes = self.ranks.is_writer
        if self.ranks.any(writes and self._path.parent.samefile(folder) and not (folder / name).exists()):
            self.stage = before["name"]
            self._validate(step)
            if writes:
                keep_as(self._path, name)
            self.log.row("checkpoint", step, self.stage, file=name)

    def _log_row(self, done: int, gradient_norm: float, values: Mapping[str, Any]) -> None:
        row = {"lr": self._rate_at(done - 1), "target_mixture": self.loader.mixture, **self.tally.row()}
        row |= values
        # fp16 left out an update whose gradient was infinite
        row["grad_norm"] = gradient_norm if math.isfinite(gradient_norm) else None
        if self.ranks.device.type == "cuda":
            row["gpu_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        if self.args.log_sample_ids:
            row["sample_ids"] = sorted(key for some in self.ranks.gather(self._keys) for key in some)
        self.log.row("train", done, self.stage, **row)
        self._keys.clear()

    def _validate(self, step: int) -> None:
        """Look at the averaged weights: all ranks together where they are sharded, else the writer alone."""
        if self._samples is None:
            return
        sheet = self.args.output_dir / "samples" / f"step_{step}.png"
        with averaged_weights(self.state.ema, self.state.averaged):
            values = self._look(self._samples, f"step {step:,}, stage {self.stage}", sheet)
        self.log.row("validation", step, self.stage, **values)
        self.log.picture(step, "samples", sheet)
        losses = ", ".join(f"{bucket} {loss:.4f}" for bucket, loss in values["loss_by_bucket"].items())
        self.log.say(f"Step {step:,}: held-out loss {losses}; SSIM {values['ssim']:.3f}; {sheet}")

    def _advance_on_plateau(self) -> int | None:
        """Where the flags ask for it and the stage brings no more, end it; return the step at which it ends."""
        patience, least_gain = self.args.plateau_patience, self.args.plateau_least_gain
        if patience is None:
            return None
        rows = read_rows(self.args.output_dir / METRICS) if self.ranks.is_writer else []
        if not self.ranks.any(
            is_plateau(stage_losses(rows, self.stage, self.loader.mixture), patience, least_gain)
        ):
            return None
        reason = f"held-out loss fell by less than {least_gain:.1%} in {patience} validations"
        end = self.loader.advance(reason)
        self.log.say(f"Stage {self.stage} ends at step {end:,}: {reason}.")
        return end

    def _reporters(self) -> list[Reporter]:
        """The services that ``--report_to`` names."""
        args = self.args
        if wandb_is_wanted(args.report_to):
            group = args.wandb_group or args.output_dir.resolve().name
            self._wandb = WandbRuns(args.output_dir, args.wandb_project, group, self._wandb_ids, self.log.say)
            return [self._wandb]
        return [TensorBoardRun(args.output_dir, self.steps_before)] if args.report_to == "tensorboard" else []

    @property
    def _wandb_ids(self) -> dict[str, Any]:
        return dict(self.saved["wandb"]) if self.saved else {}

    def _save(self, step: int, *, stage_ended: bool) -> None:
        if not (self.ranks.is_writer or self.state.is_sharded):
            return
        state = self.state.state_dict()  # sharded weights come from all ranks
        if not self.ranks.is_writer:
            return
        plan = self.loader.plan
        position = plan.at(step - 1)
        epoch = step * plan.batch_size // sum(self.loader.dataset.manifest.bucket_sizes.values())
        name = (
            stage_name(position.stage_index, position.stage, step) if stage_ended else step_name(epoch, step)
        )
        stage = {"name": position.stage, "index": position.stage_index}
        content = {
            "trainer": self.trainer,
            "model_config": self._model_config,
            **state,
            "global_step": step,
            "epoch": epoch,
            "stage": stage | {"start_step": plan.boundaries[position.stage_index]},
            "schedule": plan.schedule.to_dict(),
            "loader_state": self.loader.state_dict(),
            "args": plain(vars(self.args)),
            "wandb": dict(self._wandb.ids) if self._wandb else self._wandb_ids,
            "versions": {"torch": str(torch.__version__), "world_size": self.ranks.world_size},
        }
        save_checkpoint(self.args.output_dir, name, content, limit=self.args.checkpoints_total_limit)
        self.log.row("checkpoint", step, position.stage, file=name)

    def _held_out_samples(self) -> dict[str, Any] | None:
        """The fixed samples of the ``val`` split, on ranks that take part in validation; None, said aloud, without data."""
        if self.state.is_sharded:
            return self.ranks.from_writer(self._read_held_out)
        return self._read_held_out() if self.ranks.is_writer else None

    def _read_held_out(self) -> dict[str, Any] | None:
        try:
            dataset = get_vton_dataset(
                **places(self.args), split="val", curriculum=self.args.curriculum_config
            )
        except (cs.ArgumentError, cs.StorageError) as error:
            self.log.say(f"No validation: {error}")
            return None
        return held_out(dataset, max(HELD_OUT_SAMPLES, self.args.num_validation_samples))


def _already_done(args: argparse.Namespace, steps_done: int) -> None:
    """A finished stage is no work and no error: scripts may simply be run again."""
    what = f"Stage {args.difficulty!r}" if args.difficulty else "The training"
    print(f"{what} is done: the checkpoint is at step {steps_done:,}. Nothing to do.")
