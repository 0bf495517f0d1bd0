"""The cursor: one rank's batches of an order, a state of a few numbers, and the log of changes."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .cut import Members, members_by_label, members_by_quantile
from .draws import Draws
from .errors import ArgumentError, StateMismatchError
from .order import Order
from .plan import ORDER_VERSION, Change, Plan, digest
from .schedule import Stage, StageSchedule

STATE_FORMAT = 1
_STATE_KEYS = {"format", "order_version", "seed", "draws", "log", "plan", "data", "fingerprint"}

# Draws are made in vectorised blocks of about this many and sliced into batches.
_FIRST_BLOCK_DRAWS = 1 << 10
_BLOCK_DRAWS = 1 << 15


class MixtureSampler:
    """One rank's batches of the global sequence of draws: a ``batch_sampler`` for any map-style dataset.

    The global batch of a step is the same for every number of ranks and accumulations; each rank yields its part.
    Position ``i`` of the global batch belongs to micro-batch ``i // (world_size * m)`` and within it to rank
    ``i // m % world_size``, with ``m = batch_size / (world_size * grad_accumulation)``.

    Iterating continues from the position; a batch counts as delivered once ``next`` has returned it.

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
        self.seed = _whole("seed", seed, least=None)
        self.world_size = _whole("world_size", world_size, least=1)
        self.rank = _whole("rank", rank, least=0)
        self.grad_accumulation = _whole("grad_accumulation", grad_accumulation, least=1)
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
        self._members: Members | None = None
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

        ``shares`` names the buckets, easiest first, with the share of the samples that each receives. See
        ``from_labels`` for what is yielded.

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
        digests = {name: digest(found.tolist()) for name, found in members.items()}
        sampler = cls(plan, seed, **options, data_fingerprints=digests)
        sampler._members = members
        return sampler

    @property
    def step(self) -> int:
        """Optimiser steps whose batches have all been delivered."""
        return self._delivered // self.grad_accumulation

    @property
    def log(self) -> tuple[Change, ...]:
        """Changes made at run time, oldest first. The same log replays the same run."""
        return self.plan.changes

    def draws(self, step: int) -> Draws:
        """Return the *global* batch of a step, whatever was delivered and whichever rank asks."""
        self.plan.check_step(step)
        size = self.plan.batch_size
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
        """Continue as if this rank had delivered ``num_batches``; iterators already made follow."""
        self._delivered = _whole("num_batches", num_batches, least=0)

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
        """Turn positions within buckets into dataset indices, where there is such a dataset."""
        if self._members is None:
            return draws
        lengths = [len(self._members[name]) for name in draws.names]
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        found = np.concatenate([self._members[name] for name in draws.names])
        indices = found[starts[draws.bucket_ids] + draws.indices]
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
        done = self.step if step is None else _whole("step", step, least=0)
        draws = done * self.plan.batch_size
        state = {
            "format": STATE_FORMAT,
            "order_version": ORDER_VERSION,
            "seed": self.seed,
            "draws": draws,
            "log": [list(change) for change in self.log],
            "plan": self.plan.to_dict(),
            "data": dict(self._data),
        }
        return state | {"fingerprint": digest(state)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken, exactly; iterators already made follow.

        The draws up to the position must be the same here: seed, window, run sizes, the stages entered and the
        sizes and content of their buckets. Later stages, the current one's length, ranks, workers and accumulation
        may differ. A batch size may differ where no draw up to the position depends on it.

        Raises:
            StateMismatchError: The state cannot be honoured; nothing was changed.
        """
        self._check_readable(state)
        if state["seed"] != self.seed:
            raise _mismatch(
                f"the state was made with seed {state['seed']}, this sampler has seed {self.seed}",
                f"Use seed={state['seed']}, or start a fresh run.",
            )
        log = tuple(Change(draw, dict(what), reason) for draw, what, reason in state["log"])
        told = dict(state["plan"])
        saved = Plan(StageSchedule.from_dict(told.pop("schedule")), **told, changes=log)
        draws = state["draws"]
        # Buckets that grew during the saved run began it at their old size.
        sizes = dict(self._given.bucket_sizes)
        for change in log:
            for name, size in change.what.get("sizes", {}).items():
                if self._given.bucket_sizes.get(name) == size:
                    sizes[name] = saved.bucket_sizes[name]
        plan = self._given.with_changes(log, sizes)
        if draws > plan.total_draws:
            raise _mismatch(
                f"the state is at step {draws // plan.batch_size}, beyond this plan's end at {plan.total_steps}",
                "Lengthen the last stage or append one.",
            )
        _refuse_other_past(saved.describe(draws), plan.describe(draws))
        self._refuse_other_data(state["data"], plan.describe(draws)["sizes"])
        if draws % plan.batch_size:
            raise _mismatch(
                f"the state is at draw {draws}, which is no multiple of batch_size={plan.batch_size}",
                f"Use a batch size that divides {draws}, for example {saved.batch_size}.",
            )
        self._follow(plan)
        self._delivered = draws // plan.batch_size * self.grad_accumulation

    @property
    def fingerprint(self) -> str:
        """Digest of seed, data, log and everything that decides the order so far: equal on ranks that agree."""
        draws = self.step * self.plan.batch_size
        return digest(
            [self.seed, self._data, self.plan.describe(draws), [list(change) for change in self.log]]
        )

    def advance(self, reason: str) -> int:
        """End the stage in progress early, at the next window edge that is a step and was not handed out.

        The change is appended to the log, so a resumed or repeated run follows it without knowing the reason. Every rank
        must make the same call after the same batch. Where the stage ends no later anyway, nothing is logged.

        Returns:
            The first step of what follows: the next stage, or the end of the run.

        >>> schedule = StageSchedule([Stage("easy", {"x": 1}, steps=9), Stage("hard", {"x": 1}, steps=3)])
        >>> sampler = MixtureSampler(schedule.plan({"x": 50}, batch_size=2), seed=17)
        >>> batch = next(iter(sampler))
        >>> sampler.advance("plateau"), sampler.plan.boundaries, len(sampler)
        (1, (0, 1, 4), 3)
        """
        planned, draw = self._next_edge()
        if draw < planned.end_step * self.plan.batch_size:
            self._append(Change(draw, {"advance": planned.stage.name}, reason))
        return draw // self.plan.batch_size

    def change_mixture(self, weights: Mapping[str, int | float], reason: str) -> int:
        """Give the rest of the stage in progress another mixture, from the next window edge on; see ``advance``.

        Returns:
            The first step under the new mixture; the stage's end, with nothing logged, if that comes first.
        """
        planned, draw = self._next_edge()
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

    def grow(self, sizes: Mapping[str, int], reason: str) -> None:
        """Let buckets have more samples, each from the next pass after the next window edge on; until then nothing moves."""
        now = self.plan.bucket_sizes | {
            name: size for change in self.log for name, size in change.what.get("sizes", {}).items()
        }
        for name, size in sizes.items():
            if name not in now or _whole(f"size of bucket {name!r}", size, least=1) < now[name]:
                raise ArgumentError(
                    f"grow: got {name!r}: {size!r}, but data may only grow and the buckets are {now!r}. "
                    "Start a fresh run for other data."
                )
        draw = self._next_edge()[1] if self._delivered else 0
        self._append(Change(draw, {"sizes": {name: int(size) for name, size in sizes.items()}}, reason))

    def _next_edge(self) -> tuple[Any, int]:
        """Return the stage of the last draw handed out and the first draw at which a change may hold."""
        size = self.plan.batch_size
        handed_out = -(-self._delivered // self.grad_accumulation) * size
        if not handed_out:
            raise ArgumentError(
                "Nothing was drawn yet, so no stage is in progress. Edit the schedule instead."
            )
        segment = self.plan.segment_at(handed_out - 1)
        stride = math.lcm(segment.window_stride(self.plan.window), size)
        draw = segment.start - (segment.start - handed_out) // stride * stride
        last_step = (handed_out - 1) // size
        planned = next(planned for planned in self.plan.stages if last_step < planned.end_step)
        return planned, min(draw, segment.stop)

    def _append(self, change: Change) -> None:
        if not isinstance(change.reason, str) or not change.reason:
            raise ArgumentError(
                f"reason: got {change.reason!r}, but every change says why, in words. Give a reason."
            )
        self._follow(self.plan.with_changes((*self.log, change)))

    def _check_readable(self, state: Mapping[str, Any]) -> None:
        if not isinstance(state, Mapping) or "format" not in state:
            raise StateMismatchError(
                f"Not a sampler state: {_brief(state)}. Pass what state_dict() returned."
            )
        if state["format"] != STATE_FORMAT:
            raise StateMismatchError(
                f"The state has format {state['format']!r}, this version reads format {STATE_FORMAT}. "
                "Install the version that wrote it, or a newer one."
            )
        missing = _STATE_KEYS - state.keys()
        if missing:
            raise StateMismatchError(
                f"The state lacks {', '.join(sorted(missing))}. Pass what state_dict() returned, whole."
            )
        if state["order_version"] != ORDER_VERSION:
            raise _mismatch(
                f"the state was made under order version {state['order_version']}, this version has {ORDER_VERSION}",
                "Install the version that wrote it, or start a fresh run.",
            )
        told = {key: value for key, value in state.items() if key != "fingerprint"}
        try:
            agrees = digest(told) == state["fingerprint"]
        except TypeError as error:
            raise StateMismatchError(
                f"The state is not plain JSON types: {error}. Pass it as it was saved."
            ) from error
        if not agrees:
            raise StateMismatchError(
                "The state was altered after it was made: its fingerprint does not match. Load an unaltered checkpoint."
            )

    def _refuse_other_data(self, saved: Mapping[str, str], entered: Mapping[str, int]) -> None:
        grown = {name for change in self.log for name in change.what.get("sizes", {})}
        for name in entered:
            if name in saved and name in self._data and saved[name] != self._data[name] and name not in grown:
                raise _mismatch(
                    f"bucket {name!r} holds other samples: its content was {saved[name]} and is {self._data[name]} here",
                    "Load the data of the saved run, or start a fresh run.",
                )


def _refuse_other_past(saved: dict[str, Any], here: dict[str, Any]) -> None:
    """Say what differs between two descriptions of the draws already handed out, if anything does."""
    if saved == here:
        return
    for key, what in (
        ("window", "window"),
        ("block_runs", "block_runs"),
        ("sizes", "bucket sizes"),
        ("run_sizes", "run sizes"),
    ):
        if saved[key] != here[key] and (
            key not in ("sizes", "run_sizes") or saved[key].keys() == here[key].keys()
        ):
            advice = (
                " The window is the batch size unless window= is given: with an explicit window and stages in samples"
                " the batch size may change."
                if key == "window"
                else ""
            )
            raise _mismatch(
                f"the state was made with {what} {saved[key]!r}, this plan has {here[key]!r}",
                f"Use the saved value, or start a fresh run.{advice}",
            )
    for number, (old, new) in enumerate(zip(saved["segments"], here["segments"], strict=False)):
        if old != new:
            raise _mismatch(
                f"part {number + 1} of the curriculum, already drawn from, was {_in_words(old)} and is {_in_words(new)} here",
                "Past stages are fixed and only later ones may be edited: restore it, or start a fresh run.",
            )
    raise _mismatch(
        f"the state has entered {len(saved['segments'])} parts of the curriculum, this plan has {len(here['segments'])} by then",
        "Past stages are fixed and only later ones may be edited: restore them, or start a fresh run.",
    )


def _in_words(segment: Mapping[str, Any]) -> str:
    def mixture(shares: Mapping[str, str]) -> str:
        return "(" + ", ".join(f"{name} {share}" for name, share in shares.items()) + ")"

    ramp = (
        f"a ramp of {segment['ramp_steps']} steps from {mixture(segment['from'])} to "
        if "from" in segment
        else ""
    )
    end = f" to draw {segment['stop']}" if "stop" in segment else ""
    return f"{ramp}{mixture(segment['shares'])} from draw {segment['start']}{end}"


def _mismatch(difference: str, next_move: str) -> StateMismatchError:
    return StateMismatchError(f"Sample order would differ: {difference}. {next_move}")


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 100 else text[:97] + "..."


def _whole(what: str, value: Any, *, least: int | None) -> int:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or (least is not None and value < least):
        rule = "a whole number" if least is None else f"a whole number, {least} or more"
        raise ArgumentError(f"{what}: got {value!r}, but it is {rule}. Correct it.")
    return int(value)
