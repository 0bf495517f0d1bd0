"""torchdata: a ``StatefulDataLoader`` that knows changes at run time, and a node of batches of draws."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import ArgumentError, CurriculumError, StateMismatchError
from ..extras import missing
from ..sampler import MixtureSampler

try:
    from torchdata.nodes import BaseNode
    from torchdata.stateful_dataloader import StatefulDataLoader
except ImportError as error:
    raise missing("torchdata", "torchdata") from error

# Where torchdata keeps the state of the batch sampler, without and with workers.
_SAMPLER = "_index_sampler_state"
_SNAPSHOT, _MAIN, _WORKERS = "_snapshot", "_main_snapshot", "_worker_snapshots"


class StatefulLoader(StatefulDataLoader):  # type: ignore[misc]  # torchdata is not typed
    """``StatefulDataLoader(dataset, batch_sampler=sampler)``, exact where the plain one is not.

    The plain one resumes a ``MixtureSampler`` exactly, too, but for these:

    - A change at run time (``sampler.advance``) is in the next state. The plain one's next states, for as many batches as
      the workers were already asked for, do not know it.
    - A state may be loaded with another number of workers, unless the dataset keeps a state of its own in them.
    - Iterating again continues after the batch returned last. With the plain one, what the workers had made beyond
      it is lost. An iteration that is over since a state was loaded is an error, where the plain one goes on as before.

    Args:
        dataset: Any map-style dataset.
        batch_sampler: A ``MixtureSampler``.
        **options: Those of ``StatefulDataLoader``, but for ``batch_size`` and what else goes with it. With
            ``grad_accumulation`` a state is taken after every batch: ``snapshot_every_n_steps=1``.

    Raises:
        ArgumentError: No ``MixtureSampler``, or snapshots within an accumulation.
    """

    def __init__(self, dataset: Any, *, batch_sampler: MixtureSampler, **options: Any) -> None:
        if not isinstance(batch_sampler, MixtureSampler):
            raise ArgumentError(
                f"batch_sampler: got {batch_sampler!r}, but StatefulLoader is for a MixtureSampler. Use StatefulDataLoader."
            )
        if batch_sampler.grad_accumulation > 1 and options.get("snapshot_every_n_steps", 1) != 1:
            raise ArgumentError(
                f"snapshot_every_n_steps={options['snapshot_every_n_steps']} with grad_accumulation="
                f"{batch_sampler.grad_accumulation}: a state would begin within a step. Leave it at 1."
            )
        super().__init__(dataset, batch_sampler=batch_sampler, **options)

    def __iter__(self) -> Iterator[Any]:
        """Yield batches from where the last one returned left off, or a state was loaded.

        Raises:
            CurriculumError: From an iteration that is over, since another began or a state was loaded.
        """
        if self._iterator is not None and not self._initial_iter_for_state_dict:
            self.load_state_dict(self.state_dict())
        return self._valid(super().__iter__())

    def _valid(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            if self._iterator is not batches:
                raise CurriculumError(
                    "This iteration is over: a state was loaded or another iteration began. Call iter(loader) again."
                )
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return torchdata's state, with the sampler's as of now: the position of the batch returned last."""
        state = dict(super().state_dict())
        holder = state
        if _SNAPSHOT in state:
            state[_SNAPSHOT] = dict(state[_SNAPSHOT])
            holder = state[_SNAPSHOT][_MAIN] = dict(state[_SNAPSHOT][_MAIN])
        step = holder[_SAMPLER]["draws"] // self.batch_sampler.plan.batch_size
        holder[_SAMPLER] = self.batch_sampler.state_dict(step=step)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where the state was taken, at the next ``iter()``.

        Raises:
            StateMismatchError: Another number of workers, and a dataset that keeps a state in them.
        """
        if state_dict and _num_workers(state_dict) != self.num_workers:
            self._take_position_of(state_dict)
            state_dict = {}
        super().load_state_dict(state_dict)

    def _take_position_of(self, state: Mapping[str, Any]) -> None:
        snapshot = state.get(_SNAPSHOT)
        workers = snapshot[_WORKERS].values() if snapshot else [state]
        if any(worker["dataset_state"] is not None for worker in workers):
            raise StateMismatchError(
                f"The state was made with num_workers={_num_workers(state)}, this loader has {self.num_workers}, and the dataset "
                "keeps a state in each worker. Load it with the number it was made with."
            )
        sampler = self.batch_sampler
        sampler.load_state_dict(snapshot[_MAIN][_SAMPLER] if snapshot else state[_SAMPLER])
        sampler.seek(sampler.position + state.get("_steps_since_snapshot", 0))


def _num_workers(state: Mapping[str, Any]) -> int:
    return int(state[_SNAPSHOT][_MAIN]["_num_workers"]) if _SNAPSHOT in state else 0


class CurriculumNode(BaseNode):  # type: ignore[misc]
    """A source for ``torchdata.nodes``: this rank's batches of a ``MixtureSampler``, with its state.

    Map batches to samples by ``ParallelMapper(node, dataset.__getitems__, num_workers=4)``; a ``Loader`` at the end of the
    pipeline resumes it exactly. A node is iterated once: what mappers have asked for ahead of the loop is not known
    to it, so ``reset`` without a state after that is refused. With ``loader.load_state_dict(loader.state_dict())`` before
    it, a second iteration continues after the batch returned last.

    Nodes after this one run it in a thread: change the plan at run time under its lock, and name the stage that is meant, since
    the sampler is ahead: ``with node.lock: sampler.advance("plateau", stage="easy")``. States of batches that were
    made before do not know the change.

    Args:
        sampler: Where the batches come from. Iteration continues from its position.

    >>> from curriculum_sampler import Stage, StageSchedule
    >>> plan = StageSchedule([Stage("easy", {"easy": 1}, steps=2)]).plan({"easy": 4}, batch_size=2)
    >>> node = CurriculumNode(MixtureSampler(plan, seed=17))
    >>> [batch.counts() for batch in node]
    [{'easy': 2}, {'easy': 2}]
    """

    def __init__(self, sampler: MixtureSampler) -> None:
        super().__init__()
        self.sampler = sampler
        self.lock = threading.Lock()
        """Held while a batch is taken."""
        self._batches: Iterator[Any] = iter(())
        self._any_taken = False

    def reset(self, initial_state: dict[str, Any] | None = None) -> None:
        """Be at a state; without one stay at the sampler's position.

        Raises:
            CurriculumError: No state, and batches were taken already.
            StateMismatchError: As for ``MixtureSampler.load_state_dict``.
        """
        super().reset(initial_state)
        if initial_state is not None:
            self.sampler.load_state_dict(initial_state["sampler"])
        elif self._any_taken:
            raise CurriculumError(
                "This pipeline was iterated before, and batches that were made ahead would be lost. Call "
                "loader.load_state_dict(loader.state_dict()) before iterating again; it then continues after the batch returned "
                "last. To begin again, make a new sampler and pipeline."
            )
        self._batches = iter(self.sampler)
        self._any_taken = False

    def next(self) -> Any:
        """Return the next batch of draws, or list of dataset indices."""
        with self.lock:
            batch = next(self._batches)
            self._any_taken = True
            return batch

    def get_state(self) -> dict[str, Any]:
        """Return the sampler's state; within an accumulation, that of its step's start."""
        with self.lock:
            return {"sampler": self.sampler.state_dict()}
