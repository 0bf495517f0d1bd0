"""The cursor: one rank's batches of an order, a state of a few numbers, and changes at run time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .checks import whole
from .cut import Members, member_fingerprints, members_by_label, members_by_quantile
from .draws import Draws
from .errors import ArgumentError
from .keys import digest
from .order import Order
from .permutation import LARGEST_SIZE
from .plan import Change, Plan, PlannedStage
from .schedule import Stage, StageSchedule
from .state import SavedState, mismatch

Int64s: TypeAlias = NDArray[np.int64]

# Draws are made in vectorised blocks of about this many and sliced into batches.
_FIRST_BLOCK_DRAWS = 1 << 10
_BLOCK_DRAWS = 1 << 15


class MixtureSampler:
    """One rank's batches of the global sequence of draws: a ``batch_sampler`` for any map-style dataset.

    The global batch of a step is the same for every number of ranks and accumulations; each rank yields its part.
    Position ``i`` of the global batch belongs to micro-batch ``i // (world_size * m)`` and within it to rank
    ``i // m % world_size``, with ``m = batch_size / (world_size * grad_accumulation)``.

    Iterating continues from the position, and ends when the plan does; iterating again then yields nothing. A batch
    counts as delivered once ``next`` has returned it.

    Args:
        plan: The resolved schedule.
        seed: The one integer that all randomness is derived from.
        rank: This process's number, taken as given: the environment is never looked at.
        world_size: Number of data-parallel processes.
        grad_accumulation: Micro-batches per optimiser step.
        data_fingerprints: Digest of the content of each bucket; a state binds those of the buckets entered.

    Raises:
        ArgumentError: A rank out of range, or a batch that ranks and accumulation do not divide.

    >>> schedule = StageSchedule([Stage("easy", {"easy": 1}, steps=2), Stage("hard", {"hard": 1}, steps=1)])
    >>> sampler = MixtureSampler(schedule.plan({"easy": 3, "hard": 3}, batch_size=2), seed=17)
    >>> len(sampler), [batch.counts() for batch in sampler]
    (3, [{'easy': 2}, {'easy': 2}, {'hard': 2}])
    """

    drop_last = False
    plan: Plan
    _order: Order
    _block: Draws
    _block_start: int

    def __init__(
        self,
        plan: Plan,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        grad_accumulation: int = 1,
        *,
        data_fingerprints: Mapping[str, str] | None = None,
    ) -> None:
        self.seed = whole("seed", seed)
        self.world_size = whole("world_size", world_size, least=1)
        self.rank = whole("rank", rank, least=0)
        self.grad_accumulation = whole("grad_accumulation", grad_accumulation, least=1)
        if self.rank >= self.world_size:
            raise ArgumentError(
                f"rank: got {rank} with world_size={world_size}, but ranks go from 0 to {self.world_size - 1}. Correct one."
            )
        parts = self.world_size * self.grad_accumulation
        if plan.batch_size % parts:
            raise ArgumentError(
                f"batch_size: got {plan.batch_size}, but the global batch is divided among world_size={self.world_size} x "
                f"grad_accumulation={self.grad_accumulation} = {parts} micro-batches. "
                f"Choose a multiple of {parts}, for example {-(-plan.batch_size // parts) * parts}."
            )
        self.batch_size = plan.batch_size // parts
        """Draws in one batch of this rank."""
        self._given = plan
        self._data = dict(data_fingerprints or {})
        self._members: tuple[Int64s, Int64s] | None = None
        self._delivered = 0  # micro-batches
        self._follow(plan)

    @classmethod
    def from_labels(
        cls,
        schedule: StageSchedule,
        labels: Sequence[str],
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        grad_accumulation: int = 1,
        **plan_options: Any,
    ) -> MixtureSampler:
        """Sample a map-style dataset whose sample ``i`` is in bucket ``labels[i]``.

        Batches are lists of dataset indices, and ``Draw.index`` is a dataset index. ``plan_options`` go to
        ``StageSchedule.plan`` (``window=``, ``run_sizes=``, ``max_passes=``).

        Raises:
            ArgumentError: A label that is no string, or what ``plan`` and the constructor refuse.

        >>> schedule = StageSchedule([Stage("hard", {"hard": 1}, steps=1)])
        >>> sampler = MixtureSampler.from_labels(schedule, ["hard", "easy", "hard"], batch_size=2, seed=17)
        >>> [sorted(batch) for batch in sampler]
        [[0, 2]]
        """
        members = members_by_label(labels)
        options = {"rank": rank, "world_size": world_size, "grad_accumulation": grad_accumulation}
        return cls._over_members(schedule, members, batch_size, seed, plan_options, options)

    @classmethod
    def from_scores(
        cls,
        schedule: StageSchedule,
        scores: Any,
        shares: Mapping[str, float],
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        grad_accumulation: int = 1,
        **plan_options: Any,
    ) -> MixtureSampler:
        """Sample a map-style dataset cut into buckets by rank of a score, higher being harder.

        ``shares`` names the buckets, easiest first, with the share of the samples that each receives. Equal scores
        keep the order of the dataset. See ``from_labels`` for what is yielded.

        Raises:
            ArgumentError: Scores that are not one finite number per sample, a bucket that would be empty, or what ``plan``
                and the constructor refuse.

        >>> schedule = StageSchedule([Stage("hard", {"hard": 1}, steps=1)])
        >>> sampler = MixtureSampler.from_scores(
        ...     schedule, [0.9, 0.1, 0.8, 0.2], {"easy": 0.5, "hard": 0.5}, batch_size=2, seed=17)
        >>> [sorted(batch) for batch in sampler]
        [[0, 2]]
        """
        members = members_by_quantile(scores, shares)
        options = {"rank": rank, "world_size": world_size, "grad_accumulation": grad_accumulation}
        return cls._over_members(schedule, members, batch_size, seed, plan_options, options)

    @classmethod
    def _over_members(
        cls,
        schedule: StageSchedule,
        members: Members,
        batch_size: int,
        seed: int,
        plan_options: dict[str, Any],
        options: dict[str, int],
    ) -> MixtureSampler:
        plan = schedule.plan(
            {name: len(found) for name, found in members.items()}, batch_size, **plan_options
        )
        sampler = cls(plan, seed, **options, data_fingerprints=member_fingerprints(members))
        # All buckets' dataset indices in one array, in the order of their names, and where each begins.
        names = sorted(members)
        starts = np.cumsum([0, *(len(members[name]) for name in names)])[:-1]
        sampler._members = (np.concatenate([members[name] for name in names]), starts)
        return sampler

    @property
    def step(self) -> int:
        """Optimiser steps whose batches have all been delivered."""
        return self._delivered // self.grad_accumulation

    @property
    def position(self) -> int:
        """Micro-batches of this rank that were handed out."""
        return self._delivered

    @property
    def labels(self) -> NDArray[np.str_]:
        """Bucket of each sample of the dataset, by dataset index: where ``from_scores`` has cut, ready for validation.

        Raises:
            ArgumentError: The sampler was made of a plan alone, which knows of no dataset.

        >>> schedule = StageSchedule([Stage("hard", {"hard": 1}, steps=1)])
        >>> sampler = MixtureSampler.from_scores(
        ...     schedule, [0.9, 0.1, 0.8, 0.2], {"easy": 0.5, "hard": 0.5}, batch_size=2, seed=17)
        >>> sampler.labels.tolist()
        ['hard', 'easy', 'hard', 'easy']
        """
        if self._members is None:
            raise ArgumentError(
                "This sampler was made of a plan, which knows of no dataset. Make it by from_labels or from_scores."
            )
        members, starts = self._members
        names = np.array(sorted(self._given.bucket_sizes))
        labels = np.empty(len(members), names.dtype)
        for name, part in zip(names, np.split(members, starts[1:]), strict=True):
            labels[part] = name
        return labels

    @property
    def order(self) -> Order:
        """The global sequence of draws; another one after each change."""
        return self._order

    @property
    def log(self) -> tuple[Change, ...]:
        """Changes made at run time, oldest first. The same log replays the same run."""
        return self.plan.changes

    def draws(self, step: int) -> Draws:
        """Return the *global* batch of a step, whatever was delivered and whichever rank asks.

        Raises:
            ArgumentError: A step that the plan does not have.

        >>> plan = StageSchedule([Stage("easy", {"x": 1}, steps=9)]).plan({"x": 50}, batch_size=4)
        >>> first, second = (MixtureSampler(plan, seed=17, rank=rank, world_size=2) for rank in (0, 1))
        >>> list(first.draws(step=5)) == list(second.draws(step=5))
        True
        """
        step, size = self.plan.check_step(step), self.plan.batch_size
        return self._located(self._order.draws(step * size, (step + 1) * size))

    def __len__(self) -> int:
        """Return the number of batches left for this rank."""
        return self.plan.total_steps * self.grad_accumulation - self._delivered

    def __iter__(self) -> Iterator[Any]:
        """Yield this rank's batches from the position on: ``Draws``, or lists of indices of a map-style dataset."""
        while self._delivered < self.plan.total_steps * self.grad_accumulation:
            batch = self._batch(self._delivered)
            self._delivered += 1
            yield batch if self._members is None else batch.indices.tolist()

    def seek(self, num_batches: int) -> None:
        """Continue as if this rank had delivered ``num_batches``; iterators already made follow.

        Raises:
            ArgumentError: Negative, or more batches than the plan has.
        """
        most = self.plan.total_steps * self.grad_accumulation
        self._delivered = whole("num_batches", num_batches, least=0, largest=most)

    def _batch(self, number: int) -> Draws:
        step, part = divmod(number, self.grad_accumulation)
        first = step * self.plan.batch_size - self._block_start
        if not 0 <= first < len(self._block):
            self._make_block(step)
            first = 0
        first += (part * self.world_size + self.rank) * self.batch_size
        return self._block[first : first + self.batch_size]

    def _make_block(self, step: int) -> None:
        """Make the draws of ``step`` and some after it: few at first, so that the first batch comes at once."""
        size = self.plan.batch_size
        follows = len(self._block) > 0 and step * size == self._block_start + len(self._block)
        wanted = min(_BLOCK_DRAWS, 8 * len(self._block)) if follows else _FIRST_BLOCK_DRAWS
        num_steps = max(1, max(wanted, self.plan.window) // size)
        stop = min((step + num_steps) * size, self.plan.total_draws)
        self._block_start = step * size
        self._block = self._located(self._order.draws(self._block_start, stop))

    def _located(self, draws: Draws) -> Draws:
        """Turn sample numbers within buckets into dataset indices, where there is such a dataset."""
        if self._members is None:
            return draws
        members, starts = self._members
        indices = members[starts[draws.bucket_ids] + draws.indices]
        indices.setflags(write=False)
        return Draws(draws.names, draws.bucket_ids, indices, draws.passes, draws.seed)

    def _follow(self, plan: Plan) -> None:
        self.plan = plan
        self._order = Order(plan, self.seed)
        self._block_start, self._block = 0, Draws.of([])

    def state_dict(self, step: int | None = None) -> dict[str, Any]:
        """Return the state as JSON types, a fresh object each time; its size grows with the log alone.

        Args:
            step: Optimiser steps done, when the caller knows better than this sampler: a ``DataLoader`` with workers asks
                for batches ahead of the training loop. Default: the steps whose batches were all delivered, so a
                state taken inside an accumulation names that step's start.
        """
        done = self.step if step is None else whole("step", step, least=0, largest=self.plan.total_steps)
        return SavedState(self.seed, done * self.plan.batch_size, self.plan, self._data).to_dict()

    def load_state_dict(self, state: Mapping[str, Any], *, adopt_run_sizes: bool = False) -> None:
        """Continue where ``state`` was taken, exactly; iterators already made follow.

        The draws up to the position must be the same here: seed, window, run sizes, the stages entered and the
        sizes and content of their buckets. Later stages, the current one's length, ranks, workers and accumulation
        may differ. A batch size may differ where no draw up to the position depends on it.

        Args:
            state: What ``state_dict`` returned.
            adopt_run_sizes: Take the saved run sizes instead of this plan's, where those were only a default.

        Raises:
            StateMismatchError: The state cannot be honoured; nothing was changed.

        >>> plan = StageSchedule([Stage("easy", {"x": 1}, steps=9)]).plan({"x": 50}, batch_size=4)
        >>> stopped, resumed = MixtureSampler(plan, seed=17), MixtureSampler(plan, seed=17)
        >>> batches = iter(stopped)
        >>> _ = next(batches), next(batches)
        >>> resumed.load_state_dict(stopped.state_dict())
        >>> resumed.step, list(next(iter(resumed))) == list(next(batches))
        (2, True)
        """
        saved = SavedState.from_dict(state)
        if saved.seed != self.seed:
            raise mismatch(
                f"the state was made with seed {saved.seed}, this sampler has seed {self.seed}",
                f"Use seed={saved.seed}, or start a fresh run.",
            )
        plan = saved.continued_by(self._given, adopt_run_sizes=adopt_run_sizes)
        saved.refuse_other_data(self._data)
        self._follow(plan)
        self._delivered = saved.draws // plan.batch_size * self.grad_accumulation

    @property
    def fingerprint(self) -> str:
        """Digest of seed, data, log and everything that decides the order so far: equal on ranks that agree."""
        draws = self.step * self.plan.batch_size
        return digest(
            [self.seed, self._data, self.plan.describe(draws), [list(change) for change in self.log]]
        )

    def advance(self, reason: str, stage: str | None = None) -> int:
        """End a stage early, at the next window edge that is a step and was not handed out.

        The change is appended to the log, so a resumed or repeated run follows it without knowing the reason. Every rank
        must make the same call after the same batch. Where the stage ends no later anyway, nothing is logged.

        Args:
            reason: Why, in words, for the log.
            stage: Name of the stage to end; default: the stage of the last batch handed out.

        Returns:
            The first step of what follows: the next stage, or the end of the run.

        Raises:
            ArgumentError: No reason, no such stage, or a stage of which nothing was drawn yet.

        >>> schedule = StageSchedule([Stage("easy", {"x": 1}, steps=9), Stage("hard", {"x": 1}, steps=3)])
        >>> sampler = MixtureSampler(schedule.plan({"x": 50}, batch_size=2), seed=17)
        >>> batch = next(iter(sampler))
        >>> sampler.advance("plateau"), sampler.plan.boundaries, len(sampler)
        (1, (0, 1, 4), 3)
        """
        _check_reason(reason)
        planned, draw = self._stage_in_progress(stage), self._next_edge()
        if draw < planned.end_step * self.plan.batch_size:
            self._append(Change(draw, {"advance": planned.stage.name}, reason))
            return draw // self.plan.batch_size
        return planned.end_step

    def change_mixture(
        self, weights: Mapping[str, int | float], reason: str, stage: str | None = None
    ) -> int:
        """Give the rest of a stage another mixture, from the next window edge on; see ``advance``.

        Returns:
            The first step under the new mixture; the stage's end, with nothing logged, if that comes first.

        Raises:
            ArgumentError: As for ``advance``, or weights that no stage could have.

        >>> plan = StageSchedule([Stage("all", {"x": 1, "y": 1}, steps=9)]).plan({"x": 50, "y": 50}, batch_size=4)
        >>> sampler = MixtureSampler(plan, seed=17)
        >>> batch = next(iter(sampler))
        >>> sampler.change_mixture({"x": 1, "y": 3}, "y lags behind"), sampler.draws(step=1).counts()
        (1, {'x': 1, 'y': 3})
        """
        _check_reason(reason)
        planned, draw = self._stage_in_progress(stage), self._next_edge()
        checked = dict(Stage(planned.stage.name, weights, steps=1).mixture)
        for name, weight in checked.items():
            if weight and not self.plan.bucket_sizes.get(name):
                raise ArgumentError(
                    f"change_mixture: bucket {name!r} is absent or empty. The data has: {', '.join(self.plan.bucket_sizes)}. "
                    "Correct the name."
                )
        if draw < planned.end_step * self.plan.batch_size:
            self._append(Change(draw, {"mixture": checked, "stage": planned.stage.name}, reason))
            return draw // self.plan.batch_size
        return planned.end_step

    def grow(self, sizes: Mapping[str, int], reason: str) -> None:
        """Let buckets have more samples: each from its first pass that begins after the next window edge.

        Until then nothing moves. Call it in the running job; from its next state on, the larger data is loaded.

        Raises:
            ArgumentError: No reason, an unknown bucket, a size below the present one, or a sampler over labels or scores,
                whose members are fixed.

        >>> sampler = MixtureSampler(StageSchedule([Stage("a", {"x": 1}, steps=9)]).plan({"x": 6}, batch_size=4), seed=17)
        >>> batch = next(iter(sampler))
        >>> sampler.grow({"x": 8}, "two more pictures")
        >>> [(era.first_ordinal, era.size) for era in sampler.plan.eras("x")]  # from the bucket's seventh draw on
        [(0, 6), (6, 8)]
        """
        _check_reason(reason)
        if self._members is not None:
            raise ArgumentError(
                "grow: this sampler was made from labels or scores of a fixed dataset. Start a fresh run."
            )
        now = {name: self.plan.eras(name)[-1].size for name in self.plan.bucket_sizes}
        larger = {}
        for name, size in sizes.items():
            if name not in now or whole(f"size of bucket {name!r}", size, largest=LARGEST_SIZE) < now[name]:
                raise ArgumentError(
                    f"grow: got {name!r}: {size!r}, but data may only grow and the buckets are {now!r}. "
                    "Start a fresh run for other data."
                )
            if size > now[name]:
                larger[name] = int(size)
        if larger:
            self._append(Change(self._next_edge(), {"sizes": larger}, reason))

    @property
    def _handed_out(self) -> int:
        """Draws of the steps of which anything was handed out."""
        return -(-self._delivered // self.grad_accumulation) * self.plan.batch_size

    def _next_edge(self) -> int:
        """Return the first draw at which a change may hold: a window's edge and a step, not handed out."""
        handed_out = self._handed_out
        if not handed_out:
            return 0
        segment = self.plan.segment_at(handed_out - 1)
        stride = math.lcm(segment.window_stride(self.plan.window), self.plan.batch_size)
        return min(segment.start - (segment.start - handed_out) // stride * stride, segment.stop)

    def _stage_in_progress(self, name: str | None) -> PlannedStage:
        begun = [p for p in self.plan.stages if p.first_step * self.plan.batch_size < self._handed_out]
        if not begun:
            raise ArgumentError(
                "Nothing was drawn yet, so no stage is in progress. Edit the schedule instead."
            )
        if name is None:
            return begun[-1]
        for planned in begun:
            if planned.stage.name == name:
                return planned
        raise ArgumentError(
            f"stage: got {name!r}, but the stages begun are {', '.join(p.stage.name for p in begun)}. Name one of these."
        )

    def _append(self, change: Change) -> None:
        self._follow(self.plan.replace(changes=(*self.log, change)))


def _check_reason(reason: str) -> None:
    if not isinstance(reason, str) or not reason:
        raise ArgumentError(f"reason: got {reason!r}, but every change says why, in words. Give a reason.")
