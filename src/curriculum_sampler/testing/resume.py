"""Stop anywhere, continue exactly: tried at every stop that is asked for, with loaders that are broken off for it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from .comparing import same, shown

# All stops of a short run; of a longer one these many, spread evenly, with both ends.
_MOST_STOPS = 16


def _pickled(state: Any) -> Any:
    try:
        return pickle.loads(pickle.dumps(state))
    except Exception as error:
        raise AssertionError(f"state_dict() gave what no checkpoint can hold ({error!r}).") from error


def check_resume(
    make_loader: Callable[[], Any],
    *,
    make_resumed: Callable[[], Any] | None = None,
    stops: Iterable[int] | None = None,
    num_batches: int | None = None,
    describe: Callable[[Any], Any] | None = None,
    saved: Callable[[Any], Any] = _pickled,
) -> None:
    """Check that what is resumed delivers, in order, exactly what would have come.

    A loader is anything with ``iter()``, ``state_dict()`` and ``load_state_dict(state)``: a loader, a sampler, a loop
    of yours around them. One runs from beginning to end and tells what is expected. Then, for each stop, one delivers so
    many batches, gives its state, delivers one batch more (which the state must not notice) and is dropped; a fresh one
    loads the state and delivers the rest. At last one run is interrupted at all of the stops in turn.

    Args:
        make_loader: Makes a fresh loader, which begins at the beginning.
        make_resumed: Makes those that load a state, when they are to be others: with another number of workers, say.
        stops: After how many batches to stop. Default: after each, or after 16 of them if there are more.
        num_batches: How many batches of a long or endless run to look at. Default: all.
        describe: Batch -> what is compared. Default: the batch itself, in all its parts.
        saved: State -> state, as a checkpoint would have it. Default: through ``pickle``. It is called when the loader has
            gone on by a batch.

    Raises:
        AssertionError: Something differs. The message names the stop, the first batch that differs, what was expected and
            what came.

    >>> from curriculum_sampler import MixtureSampler, Stage, StageSchedule
    >>> plan = StageSchedule([Stage("easy", {"easy": 1}, steps=5)]).plan({"easy": 9}, batch_size=2)
    >>> check_resume(lambda: MixtureSampler(plan, seed=17))
    """
    make_resumed = make_loader if make_resumed is None else make_resumed

    def batches(loader: Any, most: int | None = None) -> Iterator[Any]:
        # Copies: a loader may use the memory of a batch again.
        return (
            copy.deepcopy(batch if describe is None else describe(batch)) for batch in islice(loader, most)
        )

    def take(loader: Any, count: int) -> tuple[list[Any], Any]:
        """Deliver so many batches; return them and the state that is saved while the loader goes on."""
        if not count:
            return [], saved(loader.state_dict())
        delivering = iter(loader)
        taken = list(batches(delivering, count))
        state = loader.state_dict()
        next(delivering, None)
        return taken, saved(state)

    def rest(loader: Any, position: int) -> list[Any]:
        # Of a whole run one more than is expected is asked for, so that one too many is noticed.
        return list(batches(loader, len(expected) - position + (num_batches is None)))

    expected = list(batches(make_loader(), num_batches))
    if not expected:
        raise AssertionError("The loader delivered no batch at all, so nothing can be checked.")
    _compare(rest(make_loader(), 0), expected, 0, "A second run from the beginning is another one")
    stops = _spread(len(expected)) if stops is None else sorted(set(stops))
    for stop in stops:
        if not 0 <= stop <= len(expected):
            raise AssertionError(f"Cannot stop after {stop} of {len(expected)} batches: the run is shorter.")
        _, state = take(make_loader(), stop)
        resumed = make_resumed()
        resumed.load_state_dict(state)
        story = f"Stopped after {stop} of {len(expected)} batches and resumed"
        _compare(rest(resumed, stop), expected[stop:], stop, story)
    position, loader = 0, make_loader()
    for stop in stops:
        story = f"Interrupted at {stops[: stops.index(stop)]} of {len(expected)} batches, resumed each time"
        part, state = take(loader, stop - position)
        _compare(part, expected[position:stop], position, story)
        position, loader = stop, make_resumed()
        loader.load_state_dict(state)
    _compare(
        rest(loader, position),
        expected[position:],
        position,
        f"Interrupted at {stops} of {len(expected)} batches, resumed each time",
    )


def _spread(num_batches: int) -> list[int]:
    if num_batches < _MOST_STOPS:
        return list(range(num_batches + 1))
    return sorted({num_batches * number // (_MOST_STOPS - 1) for number in range(_MOST_STOPS)})


def _compare(came: list[Any], expected: list[Any], first: int, story: str) -> None:
    for number, (one, other) in enumerate(zip(came, expected, strict=False), first):
        if not same(one, other):
            raise AssertionError(
                f"{story}: batch {number} differs (counted from 0).\n  expected: {shown(other)}\n  came:     {shown(one)}"
            )
    if len(came) < len(expected):
        missed = expected[len(came)]
        raise AssertionError(
            f"{story}: it ended before batch {first + len(came)} (counted from 0).\n  expected: {shown(missed)}"
        )
    if len(came) > len(expected):
        raise AssertionError(
            f"{story}: it went on after the last batch.\n  expected: the end\n  came:     {shown(came[len(expected)])}"
        )
