"""The rows of a training: stage, mixture as planned and as drawn, loss by bucket, learning rate, at the global step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import whole
from .errors import ArgumentError
from .extras import missing
from .reporters import Reporter
from .sampler import MixtureSampler

try:
    import torch
    from torch import distributed
except ImportError as error:
    raise missing("torch", "torch") from error

if TYPE_CHECKING:
    from .loader import CurriculumLoader


class TrainingReport:
    """Counts what is trained, and tells reporters: call ``add`` once for each batch, on every rank, in their order.

    A row of kind ``stage`` opens each stage, at a switch and after a resume alike. A row of kind ``train`` follows every
    ``every`` steps and at the end of a stage, so that none speaks of two stages; it has

    - ``step`` (updates done), ``stage``, and the ``lr`` of its last step,
    - ``target_mixture`` (bucket -> share) as planned and ``observed_mixture`` as drawn, means since the row before,
    - ``samples_by_bucket`` since the start of the training,
    - ``loss`` and ``loss_by_bucket``, means since the row before, where losses were given,
    - what else was given to ``add``.

    Counts and losses are summed over the ranks, through ``torch.distributed``, when a row is due; between rows nothing is
    copied from the device or sent. Only the first rank tells reporters. Make the report after ``load_state_dict``, and
    before the loop. After a resume between two rows the next one's losses are those since the resume.

    Args:
        loader: Whose batches are trained; or a sampler, of which another loader makes the batches.
        reporters: ``JsonlReporter``, ``integrations.wandb.WandbReporter``, ``integrations.tensorboard.TensorBoardReporter``,
            or whatever has their three methods.
        every: Steps between rows.

    Raises:
        ArgumentError: Several ranks, and ``torch.distributed`` is not initialised.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from curriculum_sampler import CurriculumDataset, CurriculumLoader, JsonlReporter, Stage, StageSchedule, write_shards
    >>> samples = [{"__key__": f"{n}", "cls": n} for n in range(9)]
    >>> dataset = CurriculumDataset(write_shards("memory://reported", {"easy": samples}))
    >>> schedule = StageSchedule([Stage("easy", {"easy": 1}, steps=4, lr=0.1)])
    >>> loader = CurriculumLoader(dataset, schedule, batch_size=2, seed=17)
    >>> metrics = Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> report = TrainingReport(loader, [JsonlReporter(metrics)], every=2)
    >>> for batch in loader:
    ...     report.add(losses=torch.ones(2), buckets=batch["__bucket__"])
    >>> report.close()
    >>> import json
    >>> [(row["kind"], row["step"]) for row in map(json.loads, metrics.read_text().splitlines())]
    [('stage', 0), ('train', 2), ('train', 4)]
    """

    def __init__(
        self, loader: CurriculumLoader | MixtureSampler, reporters: Sequence[Reporter], *, every: int = 50
    ) -> None:
        self._every = whole("every", every, least=1)
        self._loader = None if isinstance(loader, MixtureSampler) else loader
        self._sampler = sampler = loader if isinstance(loader, MixtureSampler) else loader.sampler
        if sampler.world_size > 1 and not (distributed.is_available() and distributed.is_initialized()):
            raise ArgumentError(
                f"The loader is one of {sampler.world_size} ranks, but torch.distributed, by which a report adds them up, is "
                "not initialised. Call torch.distributed.init_process_group first."
            )
        self._reporters = tuple(reporters) if sampler.rank == 0 else ()
        steps_done = sampler.step if self._loader is None else self._loader.steps_done
        # Its own count, since a loop may take several batches from the loader before it trains the first.
        self._added = steps_done * sampler.grad_accumulation
        self._buckets = tuple(sorted(sampler.plan.bucket_sizes))
        before = sampler.plan.counts_before(steps_done * sampler.plan.batch_size)
        self._samples = np.array([before.get(name, 0) for name in self._buckets])
        self._stage: str | None = None
        self._begin()
        for reporter in self._reporters:
            reporter.open(steps_done)

    def add(
        self, losses: Any = None, buckets: Sequence[str] | None = None, **values: float | torch.Tensor
    ) -> None:
        """Count the next batch of this rank, after it was trained; one of an evaluation is none.

        Args:
            losses: Loss of each sample of the batch, shape ``(n,)``: a tensor on any device, an array or a list.
            buckets: Bucket of each, such as ``batch["__bucket__"]``. Default: those of the loader's draws.
            **values: Further numbers for the row, if one is due: ``grad_norm=...``. The first rank's are told.

        Raises:
            ArgumentError: Not one loss or bucket for each sample, or more calls than there were batches.
        """
        sampler = self._sampler
        step, part = divmod(self._added, sampler.grad_accumulation)
        if step >= sampler.plan.total_steps or (self._loader is not None and step > self._loader.step):
            raise ArgumentError(
                f"add was called for a batch of step {step}, which was not delivered yet. Call it once for each training "
                "batch, and not in evaluation: where one function serves both, ask model.training first."
            )
        position = sampler.plan.at(step)
        if position.stage != self._stage:
            self._stage = position.stage
            self._tell_stage(step)
        if not part:
            self._planned.append(position.mixture)
        if buckets is None:
            first = (part * sampler.world_size + sampler.rank) * sampler.batch_size
            buckets = sampler.draws(step)[first : first + sampler.batch_size].buckets.tolist()
        self._pending.append((self._numbers(buckets), _one_each(losses, len(buckets))))
        self._added += 1
        done = self._added // sampler.grad_accumulation
        if self._added % sampler.grad_accumulation:
            return
        is_last = done == sampler.plan.total_steps
        if done % self._every == 0 or is_last or sampler.plan.at(done).stage != self._stage:
            row = {"kind": "train", "step": done, "stage": self._stage, "lr": position.lr}
            self._tell(row | {"target_mixture": _mean(self._planned)} | self._summed() | values)

    def close(self) -> None:
        """End the reporters."""
        for reporter in self._reporters:
            reporter.close()

    def _numbers(self, buckets: Sequence[str]) -> Any:
        try:
            return np.array([self._buckets.index(name) for name in buckets], int)
        except ValueError:
            raise ArgumentError(
                f"buckets: got {list(buckets)!r}, but the data has {', '.join(self._buckets)}. Give the bucket of each sample."
            ) from None

    def _tell_stage(self, step: int) -> None:
        plan = self._sampler.plan
        position, boundaries = plan.at(step), plan.boundaries
        first_step, end_step = boundaries[position.stage_index : position.stage_index + 2]
        row = {"kind": "stage", "step": step, "stage": position.stage, "lr": position.lr}
        self._tell(row | {"target_mixture": position.mixture, "first_step": first_step, "end_step": end_step})

    def _tell(self, row: dict[str, Any]) -> None:
        if self._reporters:
            told = {name: _plain(value) for name, value in row.items()}
            for reporter in self._reporters:
                reporter.log(told)

    def _summed(self) -> dict[str, Any]:
        """Sum over ranks, begin anew, and return what a row says of it."""
        size = len(self._buckets)
        counts, lost, sums = np.zeros(size), np.zeros(size), np.zeros(size)
        for numbers, losses in self._pending:
            counts += np.bincount(numbers, minlength=size)
            if losses is not None:
                lost += np.bincount(numbers, minlength=size)
                sums += np.bincount(numbers, weights=_on_host(losses), minlength=size)
        counts, lost, sums = _over_ranks(np.stack([counts, lost, sums]), self._sampler.world_size)
        self._begin()
        self._samples = self._samples + counts.astype(int)
        row: dict[str, Any] = {}
        if lost.any():
            row["loss"] = sums.sum() / lost.sum()
            row["loss_by_bucket"] = {
                name: total / count
                for name, total, count in zip(self._buckets, sums, lost, strict=True)
                if count
            }
        row["samples_by_bucket"] = dict(zip(self._buckets, self._samples, strict=True))
        row["observed_mixture"] = dict(zip(self._buckets, counts / counts.sum(), strict=True))
        return row

    def _begin(self) -> None:
        self._pending: list[tuple[Any, Any]] = []
        self._planned: list[dict[str, float]] = []


def _mean(mixtures: Sequence[dict[str, float]]) -> dict[str, float]:
    names = {name: None for mixture in mixtures for name in mixture}
    return {name: math.fsum(mixture.get(name, 0.0) for mixture in mixtures) / len(mixtures) for name in names}


def _one_each(losses: Any, num_samples: int) -> Any:
    """Return losses without their graph; refuse those that are not one for each sample."""
    if losses is None:
        return None
    found = losses.detach() if isinstance(losses, torch.Tensor) else np.asarray(losses, np.float64)
    if tuple(found.shape) != (num_samples,):
        raise ArgumentError(
            f"losses: got shape {tuple(found.shape)}, but the batch has {num_samples} samples. Give one loss for each: "
            'compute it with reduction="none" and average over all other dimensions.'
        )
    return found


def _on_host(losses: Any) -> Any:
    return losses.double().cpu().numpy() if isinstance(losses, torch.Tensor) else losses


def _over_ranks(sums: Any, world_size: int) -> Any:
    if world_size == 1:
        return sums
    every: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(every, sums)
    return np.sum(every, axis=0)


def _plain(value: Any) -> Any:
    """Return plain Python: a reporter shall not have to know NumPy, torch or what JSON cannot say."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, np.generic | torch.Tensor):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
