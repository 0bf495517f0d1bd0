"""What is known of a sample before it is cut: its signals (higher is harder), and the names it is sorted by."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .checks import finite
from .column import Column, column, is_column
from .decode import SampleDecoder
from .encode import encode
from .errors import ArgumentError, BadSampleError, CurriculumError
from .keys import digest
from .named_function import named_function

Score = Callable[[Mapping[str, Any]], float | Mapping[str, float]]
BatchScore = Callable[[Sequence[Mapping[str, Any]]], Sequence[float | Mapping[str, float]]]

_DECODER = SampleDecoder()


class DecodedSample(Mapping[str, Any]):
    """A sample as a ``CurriculumDataset`` gives it, whose members are decoded when they are asked for.

    >>> sample = DecodedSample("0007", {"json": b'{"sleeve": "long"}', "cls": 3})
    >>> sample["__key__"], sample["json"], sample["cls"], sorted(sample)
    ('0007', {'sleeve': 'long'}, 3, ['__key__', 'cls', 'json'])
    """

    def __init__(self, key: str, members: Mapping[str, Any]) -> None:
        self._members = members
        self._decoded: dict[str, Any] = {"__key__": key}

    def __getitem__(self, name: str) -> Any:
        if name not in self._decoded:
            if name not in self:
                raise KeyError(name)
            # By way of the bytes, so that a scorer sees what training will see.
            data = encode(name, self._members[name])
            try:
                self._decoded[name] = _DECODER.member(name, data)
            except BadSampleError as error:
                who = f"Sample {self._decoded['__key__']!r}"
                raise BadSampleError(f"{who}: {error}. Mend it, or leave the sample out.") from error
        return self._decoded[name]

    def __contains__(self, name: object) -> bool:
        return name == "__key__" or (name in self._members and not str(name).startswith("__"))

    def __iter__(self) -> Iterator[str]:
        yield "__key__"
        yield from (name for name in self._members if not name.startswith("__"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True)
class Scoring:
    """Where the signals and names of samples come from. Picklable where its functions are.

    Attributes:
        scores: Functions and columns, each of one or several signals.
        score_batch: A function of ``batch_size`` samples at a time.
        fields: ``category``, ``group``, ``label``, ``split`` -> where it is found, for those that are used.
    """

    scores: tuple[Score | Column, ...]
    score_batch: BatchScore | None
    batch_size: int
    fields: Mapping[str, Column]

    @classmethod
    def of(
        cls,
        scores: Sequence[str | Score],
        score_batch: str | BatchScore | None,
        batch_size: int,
        fields: Mapping[str, str | None],
    ) -> Scoring:
        """Resolve what a user names.

        Raises:
            ArgumentError: A column or function that is not there.
        """
        found = tuple(_scorer(score) if isinstance(score, str) else score for score in scores)
        for scorer in (*found, score_batch):
            if not (
                scorer is None or callable(scorer) or isinstance(scorer, str) or hasattr(scorer, "value")
            ):
                raise ArgumentError(
                    f"score: got {scorer!r}, but it is a function, 'module:function', or a column such as "
                    "'json:FIELD' or 'scores.csv:COLUMN'."
                )
        batch = named_function(score_batch) if isinstance(score_batch, str) else score_batch
        columns = {name: column(text, "text") for name, text in fields.items() if text is not None}
        return cls(found, batch, batch_size, columns)

    @property
    def reads_samples(self) -> bool:
        """Whether samples must be read to know it."""
        if self.score_batch is not None:
            return True
        columns = (*self.scores, *self.fields.values())
        return any(getattr(found, "reads_samples", True) for found in columns)

    @property
    def samples_together(self) -> int:
        """Samples in a batch, which are the same however the work is shared out; 1 where there are no batches."""
        return 1 if self.score_batch is None else self.batch_size

    @property
    def identity(self) -> str:
        """Names the signals: what is journaled under another identity is not used."""
        told = [
            *map(_identity, self.scores),
            self.score_batch and _identity(self.score_batch),
            self.batch_size,
        ]
        return digest([told, {name: found.identity for name, found in self.fields.items()}])

    def of_samples(self, samples: Sequence[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """Return for each (key, members) its ``signals`` and fields.

        Raises:
            ArgumentError: A score is no finite number, a field is missing, or a function failed; the key is named.
            BadSampleError: A member that is asked for cannot be decoded; the key is named.
        """
        decoded = [(key, DecodedSample(key, members)) for key, members in samples]
        found = [self._of_sample(key, sample) for key, sample in decoded]
        if self.score_batch is not None:
            for start in range(0, len(decoded), self.batch_size):
                part = decoded[start : start + self.batch_size]
                for (key, _), told, scores in zip(
                    part, found[start : start + self.batch_size], self._batch(part), strict=True
                ):
                    _add(told["signals"], key, _name(self.score_batch), scores)
        return found

    def _of_sample(self, key: str, sample: DecodedSample) -> dict[str, Any]:
        who = f"Sample {key!r}"
        signals: dict[str, float] = {}
        for score in self.scores:
            if callable(score):
                name, found = _name(score), _told(who, _name(score), score, sample)
            else:
                name, found = score.name, _told(who, score.name, score.value, key, sample)
            _add(signals, key, name, found)
        told: dict[str, Any] = {"signals": signals}
        for name, where in self.fields.items():
            value = _told(who, where.name, where.value, key, sample)
            if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
                raise ArgumentError(
                    f"Sample {key!r}: its {name} ({where.name!r}) is {value!r}, but it is a name. Correct it."
                )
            told[name] = str(value)
        return told

    def _batch(self, part: Sequence[tuple[str, DecodedSample]]) -> Sequence[Any]:
        assert self.score_batch is not None
        who = f"Samples {part[0][0]!r} to {part[-1][0]!r}"
        name = _name(self.score_batch)
        scores = list(_told(who, name, self.score_batch, [sample for _, sample in part]))
        if len(scores) != len(part):
            raise ArgumentError(
                f"{who}: {name} returned {len(scores)} scores for {len(part)} samples. It must return one for each."
            )
        return scores


def _scorer(text: str) -> Score | Column:
    if is_column(text):
        return column(text, "number")
    if ":" not in text:
        raise ArgumentError(
            f"score: got {text!r}, which is neither a column nor a function. A field of the json is 'json:{text}', a column of a table "
            f"'scores.csv:{text}', a function 'module:{text}'."
        )
    return named_function(text)


def _told(who: str, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except CurriculumError as error:
        told = str(error)
        raise type(error)(told if told.startswith(who) else f"{who}: {told}") from error
    except Exception as error:
        raise ArgumentError(
            f"{who}: {name} failed with {type(error).__name__}: {error}. Correct the function or the sample."
        ) from error


def _add(signals: dict[str, float], key: str, name: str, found: Any) -> None:
    for signal, value in found.items() if isinstance(found, Mapping) else [(name, found)]:
        number = finite(value.item() if hasattr(value, "item") else value)
        if number is None:
            raise ArgumentError(
                f"Sample {key!r}: its score {signal!r} is {value!r}, but a score is a finite number. Leave the sample "
                "out, or have it scored otherwise."
            )
        if signal in signals:
            raise ArgumentError(f"Two scores are called {signal!r}. Rename one.")
        signals[str(signal)] = float(number)


def _name(score: Any) -> str:
    return str(getattr(score, "__name__", type(score).__name__))


def _identity(score: Any) -> str:
    """Name a scorer by its module's text and its settings. One whose settings nobody can compare is never the same."""
    if hasattr(score, "identity"):
        return str(score.identity)
    code = score if inspect.isroutine(score) or inspect.isclass(score) else type(score)
    content = hashlib.blake2b(digest_size=16)
    try:
        content.update(inspect.getsource(inspect.getmodule(code) or code).encode())
    except (OSError, TypeError):  # built in, or typed at a prompt
        content.update(getattr(getattr(code, "__code__", None), "co_code", b""))
    try:
        content.update(pickle.dumps(_settings(score)))
    except Exception:
        content.update(os.urandom(16))
    return f"{code.__module__}:{code.__qualname__} {content.hexdigest()}"


def _settings(score: Any) -> Any:
    if isinstance(score, functools.partial):
        return _identity(score.func), score.args, score.keywords
    if inspect.ismethod(score):
        return score.__self__
    if inspect.isfunction(score):
        cells = [cell.cell_contents for cell in score.__closure__ or ()]
        return cells, score.__defaults__, score.__kwdefaults__
    return None if inspect.isroutine(score) else score
