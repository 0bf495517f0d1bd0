"""Accelerate: a loader that knows the accelerator's ranks, accumulation and checkpoints, and is not sharded again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError
from ..extras import missing
from ..sampler import MixtureSampler
from ..schedule import StageSchedule

try:
    from accelerate import Accelerator
except ImportError as error:
    raise missing("accelerate", "transformers") from error

from ..learning_rate import CurriculumLR
from ..loader import CurriculumLoader

if TYPE_CHECKING:
    from ..dataset import CurriculumDataset


def curriculum_loader(
    accelerator: Accelerator,
    dataset: CurriculumDataset,
    schedule: StageSchedule | None = None,
    *,
    batch_size: int,
    seed: int,
    **loader_options: Any,
) -> CurriculumLoader:
    """Return this process's loader; its position is in what ``accelerator.save_state`` saves and ``load_state`` loads.

    Iterate it as it is. ``accelerator.prepare`` returns it unchanged, so move its batches yourself:
    ``accelerate.utils.send_to_device(batch, accelerator.device)``. A state that was taken inside an accumulation goes on at
    that step's start, and so does ``accelerator.accumulate``.

    From then on this accelerator refuses to prepare a ``DataLoader`` over a ``MixtureSampler``, of which every process
    would read a part of its part; and a ``CurriculumLR`` that it prepares advances once for each update, not once for
    each process.

    Args:
        accelerator: Whose ``process_index``, ``num_processes`` and ``gradient_accumulation_steps`` are the loader's.
        dataset, schedule, batch_size, seed, **loader_options: As for ``CurriculumLoader``; ``batch_size`` is the global one.

    Raises:
        ArgumentError: As from ``CurriculumLoader``.
    """
    loader = CurriculumLoader(
        dataset,
        schedule,
        batch_size=batch_size,
        seed=seed,
        grad_accumulation=accelerator.gradient_accumulation_steps,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        **loader_options,
    )
    accelerator.register_for_checkpointing(_Position(loader, accelerator))
    keep_whole(accelerator)
    return loader


def keep_whole(accelerator: Accelerator) -> None:
    """Let an accelerator refuse to shard a sampler's batches again; ``curriculum_loader`` does it for you.

    For training with a ``DataLoader`` over a ``MixtureSampler(..., rank=accelerator.process_index,
    world_size=accelerator.num_processes)``, which is not to be prepared.
    """
    of_accelerator: Any = accelerator  # two of its methods are replaced, on this one object
    prepare_data_loader, prepare_scheduler = accelerator.prepare_data_loader, accelerator.prepare_scheduler

    def checked_data_loader(data_loader: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(getattr(data_loader, "batch_sampler", None), MixtureSampler):
            raise ArgumentError(
                "accelerator.prepare: got a DataLoader over a MixtureSampler, whose batches are this rank's already: prepared, "
                "each process would read a part of its part. Leave it out of prepare and iterate it as it is."
            )
        return prepare_data_loader(data_loader, *args, **kwargs)

    def undivided_scheduler(scheduler: Any) -> Any:
        prepared: Any = prepare_scheduler(scheduler)
        if isinstance(scheduler, CurriculumLR):
            prepared.split_batches = True  # Accelerate's word for: a step of all processes is one step
        return prepared

    of_accelerator.prepare_data_loader = checked_data_loader
    of_accelerator.prepare_scheduler = undivided_scheduler


class _Position:
    """What is checkpointed of a loader; a load also sets where ``accelerator.accumulate`` is in its round."""

    def __init__(self, loader: CurriculumLoader, accelerator: Accelerator) -> None:
        self._loader = loader
        self._accelerator = accelerator

    def state_dict(self) -> dict[str, Any]:
        return self._loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._loader.load_state_dict(state)
        self._accelerator.step = self._loader.steps_done * self._loader.sampler.grad_accumulation
