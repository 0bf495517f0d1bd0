"""The exact mixture over streams of the user's own: any iterables, one for each bucket."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

from .errors import ArgumentError, CurriculumError, StateMismatchError
from .plan import Plan, Position
from .sampler import MixtureSampler
from .schedule import StageSchedule
from .stream import Source, Stream


def mix_streams(
    plan: Plan | StageSchedule,
    streams: Mapping[str, Source],
    *,
    seed: int,
    batch_size: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    sharded: bool | None = None,
    collate: Callable[[list[Any]], Any] | None = None,
    resume: Literal["replay", "state"] = "replay",
) -> MixedStreams:
    """Mix one stream for each bucket: the plan says whose turn it is, the stream says with which sample.

    A stream is an iterable, such as a list, a webdataset pipeline or a Hugging Face ``IterableDataset``; an endless
    iterator; or a function that is called with the number of the pass, from 0, and returns an iterable. A stream that
    ends is begun again, which is its next pass; one with ``set_epoch`` is told the number first. A stream is opened when
    its first sample is due, and one that is never due is never opened.

    Args:
        plan: A plan, whose bucket sizes are the least that a pass of each stream must have; or a schedule in steps or
            samples with ``batch_size``, which promises nothing about the streams.
        streams: Bucket name -> stream, at least for all that the plan draws from.
        seed: Decides the order of buckets within a window; the order of samples is the streams' own.
        batch_size: The global batch, where ``plan`` is a schedule.
        rank, world_size: Taken as given.
        sharded: With several ranks: True if each rank's streams are its own part of the data. False if they are the same on
            every rank: each then reads them whole, and keeps its own draws.
        collate: Makes a batch of a list of samples. Default: the list.
        resume: A stream, or else its iterator, with ``state_dict`` and ``load_state_dict`` is resumed by them. Others are
            begun again and read up to where they were (``"replay"``; exact if they repeat themselves), or refused
            (``"state"``).

    Raises:
        ArgumentError: A stream is absent or of an unknown bucket, sizes are wanted and there are none, ``sharded`` is not
            said, or what the plan and ``MixtureSampler`` refuse.

    >>> from curriculum_sampler import Stage, StageSchedule
    >>> schedule = StageSchedule([Stage("all", {"easy": 1, "hard": 1}, steps=2)])
    >>> mixed = mix_streams(schedule, {"easy": "abc", "hard": lambda bucket_pass: [bucket_pass]}, seed=1, batch_size=4)
    >>> [sorted(batch, key=str) for batch in mixed]
    [[0, 1, 'a', 'b'], [2, 3, 'a', 'c']]
    """
    least: Mapping[str, int] = {}
    if isinstance(plan, Plan):
        if batch_size is not None:
            raise ArgumentError(f"batch_size: got {batch_size!r} beside a plan, which has one. Leave it out.")
        known, least = tuple(plan.bucket_sizes), plan.bucket_sizes
    else:
        known, plan = _planned(plan, batch_size)
    for name in streams:
        if name not in known:
            raise ArgumentError(
                f"Stream {name!r} is of no bucket of the plan, which has {', '.join(known)}. Correct the name."
            )
    for name in plan.schedule.buckets:
        if name not in streams:
            raise ArgumentError(
                f"The schedule draws from bucket {name!r}, but the streams are {', '.join(streams) or 'none'}. Add its stream."
            )
    if resume not in ("replay", "state"):
        raise ArgumentError(f"resume={resume!r} must be 'replay' or 'state'. Correct it.")
    if world_size > 1 and sharded is None:
        raise ArgumentError(
            f"sharded: with world_size={world_size} say whether each rank's streams are its own part of the data (True), or the "
            "same on every rank (False)."
        )
    parts = world_size if sharded else 1
    return MixedStreams(
        plan,
        {
            name: Stream(name, streams.get(name, partial(_absent, name)), least.get(name, 0) // parts, resume)
            for name in known
        },
        seed,
        rank,
        world_size,
        sharded=bool(sharded),
        collate=collate,
    )


class MixedStreams:
    """Batches from ``mix_streams``: iterate, and ask for ``step``, ``stage``, ``lr``, ``mixture`` as with a loader.

    Nothing is made ahead: what was delivered is what was read. ``sampler`` has the draws of the global batches, the log,
    and the changes at run time (``mixed.sampler.advance("plateau")``, on every rank after the same batch).
    """

    def __init__(
        self,
        plan: Plan,
        streams: Mapping[str, Stream],
        seed: int,
        rank: int,
        world_size: int,
        *,
        sharded: bool,
        collate: Callable[[list[Any]], Any] | None,
    ) -> None:
        size = MixtureSampler(plan, seed, rank, world_size).batch_size
        self.sampler = MixtureSampler(plan, seed)
        self._streams = streams
        self._collate = collate or list
        self._mine = range(rank * size, (rank + 1) * size)
        self._part = [rank, world_size] if sharded else None
        self._resumed_at = 0
        self._failed = False

    @property
    def plan(self) -> Plan:
        """The plan in force, changes at run time included."""
        return self.sampler.plan

    @property
    def step(self) -> int:
        """Global step of the batch last returned; before the first, the step it will belong to."""
        return max(self.sampler.step - 1, self._resumed_at)

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
        """Learning rate of ``step``."""
        return self.position.lr

    @property
    def mixture(self) -> dict[str, float]:
        """Target mixture of ``step``."""
        return self.position.mixture

    @property
    def skipped(self) -> dict[str, int]:
        """Samples that each stream was made to read past in order to resume."""
        return {name: stream.skipped for name, stream in self._streams.items()}

    def __len__(self) -> int:
        """Return the number of batches left."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:
        """Yield this rank's batches from the position on, one for each global step.

        Raises:
            CurriculumError: A stream is empty or too short. What a stream itself raises is raised as it is, with a note that
                names bucket and draw. Iterating again tries that batch again, unless a stream has a state of its own.
        """
        _refuse_copies()
        self._refuse_failed()
        for draws in self.sampler:
            yield self._batch([draw.bucket for draw in draws])

    def _batch(self, buckets: list[str]) -> Any:
        step = self.sampler.step - 1
        before = {name: (stream.bucket_pass, stream.taken) for name, stream in self._streams.items()}
        samples = []
        asked: Stream | None = None
        try:
            for number, bucket in enumerate(buckets):
                asked = self._streams[bucket]
                if number in self._mine:
                    samples.append(asked.take())
                elif not self._part:
                    asked.take()
            asked = None
            return self._collate(samples)
        except BaseException as error:
            if asked is not None:
                error.add_note(
                    f"From stream {asked.bucket!r}, sample {asked.taken} of pass {asked.bucket_pass}, "
                    f"for draw {step * len(buckets) + number} (step {step})."
                )
            # The batch is not delivered: where every stream can be taken back to its beginning, nothing is lost.
            self.sampler.seek(step)
            for name, stream in self._streams.items():
                if stream is asked or (stream.bucket_pass, stream.taken) != before[name]:
                    self._failed |= not stream.go_back(*before[name])
            raise

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the mixture, a few numbers, with the place and any own state of each stream opened.

        With ``sharded=True`` every rank has its own. JSON types, as far as the streams' own states are.

        Raises:
            CurriculumError: A stream failed within a batch, and one with a state of its own cannot be taken back.
        """
        self._refuse_failed()
        places = {name: stream.place() for name, stream in self._streams.items()}
        return {
            "sampler": self.sampler.state_dict(),
            "part": self._part,
            "streams": {name: place for name, place in places.items() if place != {"pass": 0, "taken": 0}},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken. Streams are opened and brought there when their next sample is due.

        Raises:
            StateMismatchError: Not such a state, one of another part of the data, or one that the plan cannot honour; nothing
                was changed.
        """
        if not isinstance(state, Mapping) or not {"sampler", "part", "streams"} <= state.keys():
            raise StateMismatchError(
                "Not a state of mix_streams: it lacks sampler, part or streams. Pass what state_dict() returned."
            )
        if state["part"] != self._part:
            raise StateMismatchError(
                f"The state is of the streams of [rank, world_size] {state['part']}, these are {self._part} (None: the same on "
                "every rank). Sharded streams continue on the rank that saved them, with as many ranks."
            )
        self.sampler.load_state_dict(state["sampler"])
        self._resumed_at = self.sampler.step
        for name, stream in self._streams.items():
            stream.go_to(state["streams"].get(name, {"pass": 0, "taken": 0}))
        self._failed = False

    def _refuse_failed(self) -> None:
        if self._failed:
            raise CurriculumError(
                "A stream failed within a batch, and one with a state of its own is ahead of what was delivered. Load the last "
                "state saved."
            )


def _planned(schedule: StageSchedule, batch_size: int | None) -> tuple[tuple[str, ...], Plan]:
    """Plan a schedule over streams whose sizes nobody knows: of each bucket only the name counts."""
    if not isinstance(schedule, StageSchedule) or batch_size is None:
        raise ArgumentError(
            f"plan: got {schedule!r} and batch_size={batch_size!r}, but it is a plan, or a schedule with batch_size=. Pass one."
        )
    for stage in schedule.stages:
        if stage.unit == "epochs" and isinstance(schedule.epoch_size, str):
            raise ArgumentError(
                f"Stage {stage.name!r} lasts epochs={stage.epochs!r}, but the sizes of the streams are not known. Give steps= "
                "or samples=, or pass schedule.plan(bucket_sizes, batch_size)."
            )
    known = tuple(sorted({name for stage in schedule.stages for name in stage.mixture}))
    return known, schedule.plan(dict.fromkeys(known, 1), batch_size)


def _absent(bucket: str, bucket_pass: int) -> Iterator[Any]:
    raise CurriculumError(
        f"A change of the mixture draws from bucket {bucket!r}, which has no stream. Make the mixture anew with a stream for it, "
        "and load the last state."
    )


def _refuse_copies() -> None:
    """Each worker of a torch DataLoader would deliver every batch. Where torch was not imported, there is none."""
    data = sys.modules.get("torch.utils.data")
    worker = data.get_worker_info() if data is not None else None
    if worker is not None and worker.num_workers > 1:
        raise CurriculumError(
            f"Each of num_workers={worker.num_workers} DataLoader workers would deliver all of the mixture. Iterate it in the "
            "training process, over streams that have workers of their own."
        )
