"""The thing in a training loop: batches of samples, and a state that counts what the loop received."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .ahead import ForeseeingBatches, Progress, check_cache_bytes
from .bad_samples import BadSamples
from .cache import MemoryCache, PieceCache
from .cache_folder import FolderCache, default_folder
from .checks import whole
from .delivery import Deliver, Delivered
from .draws import Draws
from .errors import ArgumentError, CurriculumError, MissingExtraError, StateMismatchError
from .keys import derive
from .plan import Change, Plan, Position
from .sampler import MixtureSampler
from .schedule import StageSchedule
from .state import SavedState, mismatch
from .tally import Report
from .telemetry import Telemetry
from .threaded import ThreadedBatches

try:
    import torch
    import torch.distributed as distributed
    from torch.utils.data import DataLoader, default_collate
    from torch.utils.data._utils.pin_memory import pin_memory
except ImportError as error:
    raise MissingExtraError(
        'CurriculumLoader needs torch: pip install "curriculum-sampler[torch]"'
    ) from error

if TYPE_CHECKING:
    from .dataset import CurriculumDataset

_LOG = logging.getLogger("curriculum_sampler")


class CurriculumLoader:
    """Batches of decoded samples in the order of a ``MixtureSampler``, made ahead of the loop by threads or processes.

    Iterating continues from the position and ends when the curriculum does; ``len`` is the batches left. After each
    batch ``step``, ``stage``, ``lr`` and ``mixture`` speak of that batch.

    From an object store whole runs are fetched ahead of need and cached, as far ahead as the cache has room; at a planned
    change of stage the new buckets' first runs are there. Files are read in place, and nothing is cached.

    Args:
        dataset: A ``CurriculumDataset``, or a dataset of your own with a ``manifest`` and ``__getitems__(draws)``.
        schedule: The curriculum; default ``dataset.schedule``.
        batch_size: The global batch: samples of one optimiser step over all ranks and accumulations.
        seed: The one integer that all randomness is derived from.
        num_workers: Threads or processes of this rank that make batches; 0 makes each when it is asked for. No number
            changes the order.
        workers: ``"threads"`` share the training process and its memory, and pickle nothing; choose them unless a
            transform keeps Python's interpreter busy. ``"processes"`` are torch ``DataLoader`` workers.
        grad_accumulation: Micro-batches per optimiser step; each iteration yields one.
        rank: This process among the data-parallel ones, from 0. Default: what ``torch.distributed`` says when it is
            initialised, else 0. Given together with ``world_size`` or not at all.
        world_size: Their number. Default: likewise, else 1.
        collate: Turns a list of samples into a batch. Default: torch's.
        plan_options: Options of ``StageSchedule.plan``: ``window``, ``run_sizes`` (default: the manifest's, about 8 MiB
            a run; after ``load_state_dict`` those of the saved run), ``block_runs``, ``max_passes``.
        cache_dir: Folder for fetched runs, shared by all processes and ranks of the machine, and by later runs. Default:
            with one rank and no processes the memory of this process, else ``curriculum-sampler`` in ``XDG_CACHE_HOME``
            or ``~/.cache``. Not used for files.
        cache_bytes: Budget of the cache. Default: twice the blocks that are shuffled at a time, which is at most 512 MiB
            for each bucket.
        **loader_options: ``prefetch_factor`` (batches ahead per worker, default 2), ``pin_memory``; and for processes
            further options of ``DataLoader``: ``multiprocessing_context``, ``timeout``, ``worker_init_fn``.

    Raises:
        ArgumentError: No schedule, a bucket that the data lacks, a batch that does not divide, a cache that is too small
            or cannot be written to.

    >>> from curriculum_sampler import CurriculumDataset, Stage, StageSchedule, write_shards
    >>> samples = [{"__key__": f"{n:03}", "cls": n} for n in range(20)]
    >>> dataset = CurriculumDataset(write_shards("memory://loaded", {"easy": samples[:10], "hard": samples[10:]}))
    >>> schedule = StageSchedule([
    ...     Stage("easy", {"easy": 1}, steps=2, lr=0.1), Stage("hard", {"easy": 1, "hard": 3}, steps=3, lr=0.01)])
    >>> loader = CurriculumLoader(dataset, schedule, batch_size=4, seed=17)
    >>> for batch in loader:
    ...     print(loader.step, loader.stage, loader.lr, sorted(batch["__bucket__"]))
    0 easy 0.1 ['easy', 'easy', 'easy', 'easy']
    1 easy 0.1 ['easy', 'easy', 'easy', 'easy']
    2 hard 0.01 ['easy', 'hard', 'hard', 'hard']
    3 hard 0.01 ['easy', 'hard', 'hard', 'hard']
    4 hard 0.01 ['easy', 'hard', 'hard', 'hard']
    """

    def __init__(
        self,
        dataset: CurriculumDataset,
        schedule: StageSchedule | None = None,
        *,
        batch_size: int,
        seed: int,
        num_workers: int = 0,
        workers: Literal["threads", "processes"] = "threads",
        grad_accumulation: int = 1,
        rank: int | None = None,
        world_size: int | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        plan_options: Mapping[str, Any] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_bytes: int | None = None,
        **loader_options: Any,
    ) -> None:
        if not hasattr(dataset, "manifest"):
            raise ArgumentError(
                f"dataset: got a {type(dataset).__name__}, but this loader reads a CurriculumDataset. For a dataset of your own "
                "make a MixtureSampler (from_scores, from_labels) and DataLoader(dataset, batch_sampler=sampler)."
            )
        schedule = schedule if schedule is not None else dataset.schedule
        if schedule is None:
            raise ArgumentError(
                "The loader has no schedule: none was given and the dataset carries none. Pass a StageSchedule."
            )
        whole("num_workers", num_workers, least=0)
        _refuse_misplaced(loader_options, workers)
        rank, world_size = _ranks(rank, world_size)
        manifest = dataset.manifest
        options = {"run_sizes": manifest.run_sizes(), **(plan_options or {})}
        self._run_sizes_are_default = "run_sizes" not in (plan_options or {})
        self.dataset = dataset
        self.sampler = MixtureSampler(
            schedule.plan(manifest.bucket_sizes, batch_size, **options),
            seed,
            rank,
            world_size,
            grad_accumulation,
            data_fingerprints=manifest.bucket_fingerprints,
        )
        # In micro-batches returned to the caller; workers are asked for more ahead of it.
        self._progress = Progress()
        self._resumed_at = 0
        self._iteration: object = None
        self._num_workers = num_workers
        self._workers = workers
        self._loader_options = loader_options
        self._telemetry = Telemetry()
        # A generator of its own: DataLoader would otherwise take a number from torch's global one.
        self._generator = torch.Generator()
        self._cache_bytes = cache_bytes
        self._caches = manifest.is_far and hasattr(dataset, "for_loader")
        # The caller's data set is left as it is: what this loader keeps and counts is its own.
        self._reader: Any = dataset
        if hasattr(dataset, "for_loader"):
            is_shared = world_size > 1 or (num_workers > 0 and workers == "processes")
            self._reader = dataset.for_loader(
                self._cache_maker(cache_dir, is_shared) if self._caches else None
            )
        if self._caches:
            self._reader.trim_cache((), {})  # tells at once of a folder that cannot be used
        self._deliver = Deliver(self._reader, collate or default_collate)
        self._bad_samples: BadSamples | None = getattr(self._reader, "bad_samples", None)
        self._batches = self._made_ahead()

    def _cache_maker(
        self, cache_dir: str | os.PathLike[str] | None, is_shared: bool
    ) -> Callable[[], PieceCache]:
        num_bytes = check_cache_bytes(self.plan, self.dataset.manifest, self._cache_bytes)
        if cache_dir is None and not is_shared:
            return partial(MemoryCache, num_bytes)
        folder = default_folder() if cache_dir is None else Path(cache_dir).expanduser().absolute()
        return partial(FolderCache, folder, num_bytes)

    def _made_ahead(self) -> Iterable[Delivered]:
        """Return what makes batches: once per loader, since processes stay from one iteration to the next."""
        options = self._loader_options
        draws: Any = self.sampler
        if self._caches:
            draws = ForeseeingBatches(self.sampler, self._reader, self._cache_bytes, self._progress)
        if self._num_workers == 0 or self._workers == "threads":
            make = partial(_pinned, self._deliver.make) if options.get("pin_memory") else self._deliver.make
            return ThreadedBatches(make, draws, self._num_workers, options.get("prefetch_factor", 2))
        batches: Iterable[Delivered] = DataLoader(
            self._reader,
            batch_sampler=draws,
            num_workers=self._num_workers,
            collate_fn=self._deliver,
            generator=self._generator,
            persistent_workers=True,
            **({"worker_init_fn": _leave_interrupts_to_the_parent} | options),
        )
        return batches

    @property
    def plan(self) -> Plan:
        """The resolved schedule, run-time changes included."""
        return self.sampler.plan

    @property
    def step(self) -> int:
        """Global step (from 0) of the batch last returned; before the first, the step it will belong to."""
        return max(self._progress.delivered - 1, self._resumed_at) // self.sampler.grad_accumulation

    @property
    def steps_done(self) -> int:
        """Optimiser steps whose batches were all returned: what a checkpoint taken after the update names."""
        return self._progress.delivered // self.sampler.grad_accumulation

    @property
    def position(self) -> Position:
        """Stage, mixture and learning rate of ``step``; after the last batch, still those of the last step."""
        return self.plan.at(min(self.step, self.plan.total_steps - 1))

    @property
    def stage(self) -> str:
        """Name of the stage that ``step`` belongs to."""
        return self.position.stage

    @property
    def lr(self) -> float | None:
        """Learning rate of ``step``, a function of the step alone and so right after any resume."""
        return self.position.lr

    @property
    def mixture(self) -> dict[str, float]:
        """Target mixture of ``step``."""
        return self.position.mixture

    @property
    def global_draws(self) -> Draws:
        """The global batch of ``step``, over all ranks and accumulations."""
        return self.sampler.draws(min(self.step, self.plan.total_steps - 1))

    def __len__(self) -> int:
        """Return the number of batches left for this rank."""
        return self.plan.total_steps * self.sampler.grad_accumulation - self._progress.delivered

    def __iter__(self) -> Iterator[Any]:
        """Yield collated batches from the position on.

        One iteration is valid at a time: making another, or loading a state, ends the one before with an error.

        Raises:
            CurriculumError: Ranks disagree about plan, seed or position.
        """
        self._check_ranks_agree()
        self._generator.manual_seed(derive(self.sampler.seed, "workers") >> 1)
        # Batches that an abandoned iteration had fetched ahead were never delivered: they are asked for again.
        self.sampler.seek(self._progress.delivered)
        current = self._iteration = object()
        made = self._fetched()
        while True:
            began = time.perf_counter()
            delivered = next(made, None)
            if delivered is None:
                break
            if self._iteration is not current:
                raise CurriculumError(
                    "This iteration is over: a state was loaded or another iteration began. Call iter(loader) again."
                )
            self._telemetry.waited(time.perf_counter() - began)
            if delivered.report is not None:
                self._take_note(delivered.report)
            self._progress.delivered += 1
            yield delivered.batch
        if len(self):
            raise CurriculumError(
                f"The batches ended {len(self)} before the curriculum did. Please report this: it must not happen."
            )
        if self._bad_samples is not None and self._bad_samples.count():
            _LOG.warning("Samples replaced because they were bad: %s", self._bad_samples.count())

    def _take_note(self, report: Report) -> None:
        self._telemetry.add(report)
        if self._bad_samples is not None:
            for bad in report.bad:
                self._bad_samples.add(bad)

    def _fetched(self) -> Iterator[Delivered]:
        try:
            yield from self._batches
        except Exception as error:
            # A worker's error comes with its traceback as text. The frames that raised it again in this process hold
            # torch's iterator in a reference cycle; collected as such, it would wait five seconds for every worker.
            raise error.with_traceback(None) from error.__cause__

    def stats(self) -> dict[str, Any]:
        """Return what this loader has done since it was made, as plain numbers and strings.

        ``batches``; ``wait_seconds`` that the loop waited for a batch (``last``, ``median`` and ``p99`` of the latest 10,000,
        ``longest``, ``total``); ``bytes`` and ``requests`` that the storage delivered, by bucket; in ``cache`` the samples
        that were at hand (``hits``) or had to be fetched or waited for (``misses``); ``retries`` of requests, by cause;
        ``bad_samples``, each with ``bucket``, ``index`` and ``reason``. What processes have done is told with the
        batches they deliver.
        """
        bad = [] if self._bad_samples is None else self._bad_samples.listed()
        return {**self._telemetry.stats(), "bad_samples": [dataclasses.asdict(one) for one in bad]}

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON types: the steps whose batches were all returned to the caller."""
        return self.sampler.state_dict(step=self.steps_done)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken: the next ``iter()`` begins there. See ``MixtureSampler``.

        Raises:
            StateMismatchError: The state cannot be honoured; nothing was changed.
        """
        saved = SavedState.from_dict(state)
        self._refuse_other_beginnings(saved)
        self.sampler.load_state_dict(state, adopt_run_sizes=self._run_sizes_are_default)
        self._progress.delivered = self._resumed_at = self.sampler.step * self.sampler.grad_accumulation
        self._iteration = None

    @property
    def log(self) -> tuple[Change, ...]:
        """Changes made at run time, oldest first."""
        return self.sampler.log

    def advance(self, reason: str) -> int:
        """End the stage of ``step`` early; return the first step of the next. See ``MixtureSampler.advance``.

        The change holds after the batches that workers have already been asked for.
        """
        return self.sampler.advance(reason, stage=self.stage)

    def change_mixture(self, weights: Mapping[str, int | float], reason: str) -> int:
        """Give the rest of the stage of ``step`` another mixture. See ``MixtureSampler.change_mixture``."""
        return self.sampler.change_mixture(weights, reason, stage=self.stage)

    def grow(self, sizes: Mapping[str, int], reason: str) -> None:
        """Announce more samples in some buckets. See ``MixtureSampler.grow``.

        The running workers keep the data they have: take a state, make a loader over the larger data, load the state.
        """
        self.sampler.grow(sizes, reason)

    def _refuse_other_beginnings(self, saved: SavedState) -> None:
        """Data that grew begins with the data it was."""
        manifest = self.dataset.manifest
        for name in saved.grown:
            known = {
                change.what["sizes"][name]
                for change in saved.plan.changes
                if name in change.what.get("sizes", {})
            }
            known |= {saved.plan.bucket_sizes[name]}
            if name in manifest.bucket_sizes and name in saved.data:
                beginnings = {manifest.prefix_fingerprint(name, size) for size in known}
                if saved.data[name] not in beginnings:
                    raise mismatch(
                        f"bucket {name!r} was {saved.data[name]} and grew, but the data here does not begin with that",
                        "Give the old shards first and the new ones after them.",
                    )

    def _check_ranks_agree(self) -> None:
        if self.sampler.world_size == 1 or not (distributed.is_available() and distributed.is_initialized()):
            return
        mine = (self.sampler.fingerprint, self._progress.delivered)
        every: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(every, mine)
        if any(other != mine for other in every):
            raise StateMismatchError(
                f"Ranks disagree about (fingerprint, batches delivered): {every}. Give every rank the same schedule, data, "
                "seed, state and changes."
            )


def _leave_interrupts_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the training process decides when its workers end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise ArgumentError(
            f"got rank={rank!r} and world_size={world_size!r}, but they go together. Give both, or neither."
        )
    if rank is not None and world_size is not None:
        return rank, world_size
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _pinned(make: Callable[[Any], Delivered], draws: Any) -> Delivered:
    delivered = make(draws)
    if not torch.cuda.is_available():
        return delivered
    return delivered._replace(batch=pin_memory(delivered.batch))  # type: ignore[no-untyped-call]


def _refuse_misplaced(loader_options: Mapping[str, Any], workers: str) -> None:
    """Say where an option belongs that is not this loader's to take."""
    if workers not in ("threads", "processes"):
        raise ArgumentError(f"workers={workers!r} must be 'threads' or 'processes'. Correct it.")
    for name in loader_options:
        if name in ("window", "run_sizes", "block_runs", "max_passes"):
            raise ArgumentError(f"{name} is an option of the plan. Write plan_options={{{name!r}: ...}}.")
        if name in (
            "collate_fn",
            "batch_sampler",
            "sampler",
            "shuffle",
            "drop_last",
            "generator",
            "persistent_workers",
        ):
            instead = "Write collate=." if name == "collate_fn" else "Leave it out."
            raise ArgumentError(
                f"{name}: the loader decides this itself, from schedule, batch_size and seed. {instead}"
            )
        if workers == "threads" and name not in ("prefetch_factor", "pin_memory"):
            raise ArgumentError(
                f"{name} is an option of processes. Write workers='processes', or leave it out."
            )
