"""Hugging Face ``Trainer``: its batches are those of a ``CurriculumLoader``, untouched, and its checkpoints hold its state."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError, StateMismatchError
from ..extras import missing

try:
    from transformers import Trainer, TrainerCallback
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint
except ImportError as error:
    raise missing("transformers (with accelerate)", "transformers") from error

from ..learning_rate import CurriculumLR

if TYPE_CHECKING:
    from ..loader import CurriculumLoader

STATE = "curriculum.json"  # in each checkpoint


class CurriculumMixin:
    """Makes a class of trainers train a curriculum: ``class MyTrainer(CurriculumMixin, Seq2SeqTrainer)``.

    See ``CurriculumTrainer``.
    """

    args: Any
    state: Any
    lr_scheduler: Any
    optimizer: Any

    def __init__(self, *args: Any, curriculum: CurriculumLoader, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.curriculum = curriculum
        _refuse_disagreements(curriculum, self.args)
        if self.lr_scheduler is not None and _has_rates(curriculum):
            raise ArgumentError(
                "optimizers: got a scheduler, but the stages have learning rates. Pass (optimizer, None), or leave lr out of "
                "the stages."
            )
        if self.args.max_steps <= 0:
            self.args.max_steps = curriculum.plan.total_steps
        # The loader begins where the checkpoint was taken. The Trainer would skip as many batches once more.
        self.args.ignore_data_skip = True
        self.add_callback(_Follower(curriculum))  # type: ignore[attr-defined]

    def get_train_dataloader(self) -> Any:
        """Return the loader's batches, not passed through ``accelerator.prepare``."""
        return _Batches(self.curriculum)

    def get_total_train_batch_size(self, args: Any) -> int:
        """Return the global batch size of the plan."""
        return self.curriculum.plan.batch_size

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return a ``CurriculumLR``, unless no stage has a learning rate."""
        if self.lr_scheduler is None and _has_rates(self.curriculum):
            prepared = optimizer or self.optimizer
            # Accelerate's optimizer has no hooks; the one that it wraps is torch's.
            self.lr_scheduler = CurriculumLR(getattr(prepared, "optimizer", prepared), self.curriculum)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)  # type: ignore[misc]

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train to the end of the plan, or of ``max_steps``, from its beginning or from a checkpoint.

        Raises:
            StateMismatchError: The checkpoint has no state of a curriculum, or one that cannot be honoured.
        """
        if resume_from_checkpoint is True:
            last: str | None = get_last_checkpoint(self.args.output_dir)  # type: ignore[no-untyped-call]
            resume_from_checkpoint = last or True  # where there is none, the Trainer says so
        if isinstance(resume_from_checkpoint, str):
            self.curriculum.load_state_dict(_read_state(Path(resume_from_checkpoint)))
        return super().train(resume_from_checkpoint, *args, **kwargs)  # type: ignore[misc]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, and with each loss the stage (its number, from 0) and the mixture of the step."""
        if "loss" in logs:
            position = self.curriculum.plan.at(max(self.state.global_step - 1, 0))
            shares = {f"mixture/{name}": share for name, share in position.mixture.items()}
            logs = {**logs, "stage": position.stage_index, **shares}
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any, *args: Any, **kwargs: Any) -> None:
        if self.args.should_save:
            # First, since a folder without it would be a checkpoint that nobody can resume.
            run = Path(self._get_output_dir(trial=trial))  # type: ignore[attr-defined]
            folder = run / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            # Of the updates done: more may have been delivered, where a signal asks for a checkpoint within a step.
            state = self.curriculum.sampler.state_dict(step=self.state.global_step)
            (folder / STATE).write_text(json.dumps(state), encoding="utf-8")
        super()._save_checkpoint(model, trial, *args, **kwargs)  # type: ignore[misc]


class CurriculumTrainer(CurriculumMixin, Trainer):
    """A ``Trainer`` for a curriculum: ``CurriculumTrainer(model, args, curriculum=loader).train()``.

    - **Ranks.** Make the loader after the ``TrainingArguments``, which initialise ``torch.distributed``. Its batches are
      used as they are: nothing shards them again.
    - **Steps.** ``max_steps`` is that of the plan; a smaller one ends the run earlier. ``num_train_epochs`` and
      ``per_device_train_batch_size`` have no effect, since the plan decides both.
    - **Learning rate.** That of the plan, by ``CurriculumLR``. Where no stage has one, ``lr_scheduler_type`` decides.
    - **Resume.** ``train(resume_from_checkpoint=...)`` goes on exactly, also on another number of ranks.

    A batch is what the model's ``forward`` takes: let the data set's ``transform`` or ``collate`` return just that.

    Args:
        *args, **kwargs: As for ``Trainer``; ``train_dataset`` is not needed.
        curriculum: The loader.

    Raises:
        ArgumentError: Ranks, accumulation, steps or schedulers of arguments and loader disagree.
    """


class _Batches:
    """What the Trainer sees of a loader: a length that does not shrink."""

    def __init__(self, loader: CurriculumLoader) -> None:
        self._loader = loader
        self.dataset = loader.dataset

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)

    def __len__(self) -> int:
        return self._loader.plan.total_steps * self._loader.sampler.grad_accumulation


class _Follower(TrainerCallback):
    """Keeps the Trainer's count of steps and the plan's one and the same."""

    def __init__(self, loader: CurriculumLoader) -> None:
        self._loader = loader

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._loader.steps_done != state.global_step:
            raise StateMismatchError(
                f"The loader is at step {self._loader.steps_done}, the Trainer at {state.global_step}. Resume from a checkpoint "
                "of the Trainer, or make a new loader to begin anew."
            )

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        scheduler = kwargs.get("lr_scheduler")
        if isinstance(scheduler, CurriculumLR):
            # By the step, since the Trainer does not advance it where an update was left out (fp16).
            scheduler.load_state_dict({"last_epoch": state.global_step})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # The Trainer counts an epoch's batches from where it resumed.
        state.epoch = state.global_step / self._loader.plan.total_steps


def _has_rates(loader: CurriculumLoader) -> bool:
    return any(stage.lr is not None for stage in loader.plan.schedule.stages)


def _read_state(checkpoint: Path) -> Any:
    try:
        return json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StateMismatchError(
            f"{checkpoint} has no {STATE}: it is no checkpoint of a CurriculumTrainer. Load its model, and train from the "
            "beginning of the curriculum."
        ) from None


def _refuse_disagreements(loader: CurriculumLoader, args: Any) -> None:
    sampler, plan = loader.sampler, loader.plan
    if (sampler.rank, sampler.world_size) != (args.process_index, args.world_size):
        raise ArgumentError(
            f"The loader is rank {sampler.rank} of {sampler.world_size}, this process is {args.process_index} of "
            f"{args.world_size}. Make the loader after the TrainingArguments, which initialise torch.distributed."
        )
    if sampler.grad_accumulation != args.gradient_accumulation_steps:
        raise ArgumentError(
            f"gradient_accumulation_steps={args.gradient_accumulation_steps}, but the loader divides the global batch into "
            f"grad_accumulation={sampler.grad_accumulation} micro-batches. Give both the same."
        )
    if args.auto_find_batch_size:
        raise ArgumentError("auto_find_batch_size=True, but the batch size is the plan's. Leave it out.")
    if args.max_steps > plan.total_steps:
        raise ArgumentError(
            f"max_steps={args.max_steps}, but the plan ends at step {plan.total_steps}. Leave it out, or make a stage longer."
        )
    scheduler = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    given = [f"lr_scheduler_type={scheduler!r}"] if scheduler != "linear" else []
    given += [f"warmup_steps={args.warmup_steps}"] if args.warmup_steps else []
    if given and _has_rates(loader):
        raise ArgumentError(
            f"{' and '.join(given)}, but the stages have learning rates. Leave {'both' if len(given) == 2 else 'it'} out "
            "(ramp_lr=True ramps a stage's rate), or leave lr out of the stages."
        )
