"""One bucket's stream of the user's own: pass after pass, with a place that can be returned to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, Protocol, TypeAlias, cast, runtime_checkable

from .errors import ArgumentError, CurriculumError, StateMismatchError

Source: TypeAlias = Iterable[Any] | Callable[[int], Iterable[Any]]

_LOG = logging.getLogger("curriculum_sampler")


@runtime_checkable
class Stateful(Protocol):
    """What can tell and restore its own position."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class Stream:
    """Samples of a bucket, opened when the first is asked for, begun again where they end.

    Args:
        bucket: Its name, for errors.
        source: What is iterated: see ``mix_streams``.
        least: Samples that every pass must have.
        resume: Whether a source without a state of its own may be returned to by skipping.
    """

    def __init__(self, bucket: str, source: Source, least: int, resume: Literal["replay", "state"]) -> None:
        if not callable(source) and not isinstance(source, Iterable):
            raise ArgumentError(
                f"Stream {bucket!r}: got {source!r}, but a stream is an iterable, or a function of the pass number that "
                "returns one. Pass one of these."
            )
        self.bucket = bucket
        self.bucket_pass = 0
        self.taken = 0
        """Samples taken in this pass."""
        self.skipped = 0
        """Samples read and thrown away in order to return to a place."""
        self._source = source
        self._least = max(1, least)
        self._resume = resume
        self._state: dict[str, Any] | None = None
        self._iterator: Iterator[Any] | None = None
        self._stateful: Stateful | None = None
        self._was_begun = False

    def take(self) -> Any:
        """Return the next sample.

        Raises:
            CurriculumError: A pass is empty or shorter than promised, or an iterator that ended cannot be begun again.
        """
        iterator = self._begun() if self._iterator is None else self._iterator
        for sample in iterator:
            self.taken += 1
            return sample
        if self.taken < self._least:
            told = (
                f"only {self.taken:,} of the {self._least:,} samples promised" if self.taken else "no samples"
            )
            raise CurriculumError(
                f"Stream {self.bucket!r} had {told} in pass {self.bucket_pass}. Correct the bucket's size in the plan, or "
                "look why the stream ends early."
            )
        self.bucket_pass, self.taken, self._iterator = self.bucket_pass + 1, 0, None
        return self.take()

    def place(self) -> dict[str, Any]:
        """Return where the stream is: plain numbers, and its own state if it has one."""
        told: dict[str, Any] = {"pass": self.bucket_pass, "taken": self.taken}
        if self._stateful is not None:
            told["state"] = self._stateful.state_dict()
        elif self._state is not None:  # loaded, and not opened since
            told["state"] = self._state
        return told

    def go_to(self, place: Mapping[str, Any]) -> None:
        """Be at a place when the next sample is asked for."""
        self.bucket_pass, self.taken, self._state = place["pass"], place["taken"], place.get("state")
        self._iterator = self._stateful = None

    def go_back(self, bucket_pass: int, taken: int) -> bool:
        """Undo what was taken since then; return whether that can be done: where the place is ours to count."""
        if self._stateful is not None:
            return False
        self.bucket_pass, self.taken, self._iterator = bucket_pass, taken, None
        return True

    def _begun(self) -> Iterator[Any]:
        """Begin the pass, and go to where in it the stream was."""
        source = self._source if isinstance(self._source, Iterable) else self._source(self.bucket_pass)
        if hasattr(source, "set_epoch"):
            source.set_epoch(self.bucket_pass)
        restored = self._state is not None and isinstance(source, Stateful)
        if restored:
            cast("Stateful", source).load_state_dict(cast("dict[str, Any]", self._state))
        iterator = iter(source)
        stateful = next((one for one in (source, iterator) if isinstance(one, Stateful)), None)
        if self._state is not None and stateful is not None and not restored:
            stateful.load_state_dict(self._state)
            restored = True
        if stateful is None and self._resume == "state":
            raise ArgumentError(
                f"Stream {self.bucket!r} has no state_dict() and load_state_dict(), so it cannot be resumed by its state. Give "
                'it both, or let it be read up to its place: resume="replay".'
            )
        if iterator is self._source and self._was_begun and not restored:
            raise CurriculumError(
                f"Stream {self.bucket!r} is an iterator, which cannot be begun a second time. Give an iterable, or a function "
                "of the pass number."
            )
        if not restored:
            self._skip(iterator)
        self._iterator, self._stateful, self._state, self._was_begun = iterator, stateful, None, True
        return iterator

    def _skip(self, iterator: Iterator[Any]) -> None:
        if self.taken:
            _LOG.info("Stream %r: reading past %d samples to where it was", self.bucket, self.taken)
        for number in range(self.taken):
            try:
                next(iterator)
            except StopIteration:
                raise StateMismatchError(
                    f"Stream {self.bucket!r} ended after {number:,} samples of pass {self.bucket_pass}, of which {self.taken:,} "
                    "were taken before. Give the stream that was saved."
                ) from None
            self.skipped += 1
