"""What a user declares: stages, their mixtures, lengths and learning rates. It knows no sizes."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from .checks import finite
from .errors import ArgumentError
from .plan import Plan
from .preset import preset_names, preset_text
from .quota import exact_share

EpochSize: TypeAlias = Literal["stage", "all"] | int

_UNITS = ("steps", "epochs", "samples")
_STAGE_KEYS = ("name", "mixture", *_UNITS, "lr", "ramp", "ramp_lr")
# Words of other libraries, for the hint after an unknown key.
_SYNONYMS = {
    "weights": "mixture",
    "probs": "mixture",
    "learning_rate": "lr",
    "phases": "stages",
    "max_train_steps": "steps",
}
_SCHEDULE_KEYS = ("epoch_size", "stages")


@dataclass(frozen=True, repr=False, eq=False)
class Stage:
    """A named span of training with one target mixture.

    Args:
        name: Unique within a schedule.
        mixture: Weight of each bucket: non-negative numbers of any sum. A bucket with weight 0 is never drawn.
        steps: Length in global steps (optimiser updates); or
        epochs: in epochs, which may be a fraction (an epoch's size is the schedule's ``epoch_size``); or
        samples: in draws. Exactly one of the three. Epochs and samples are rounded up to whole steps, at least 1.
        lr: Learning rate of the stage, or None when the schedule carries none.
        ramp: First part of the stage, in the unit of its length, during which the mixture moves linearly from
            the one in force before it: ``a + (b - a) * t / ramp`` at step ``t`` of the stage, so ``a`` at
            ``t = 0`` and ``b`` from ``t = ramp`` on. 0 is a hard switch.
        ramp_lr: Whether the learning rate moves along the same ramp.

    Raises:
        ArgumentError: A ``ValueError`` that names the value, the rule and the next move.

    >>> Stage("medium", {"easy": 30, "medium": 70}, steps=15_000, lr=5e-6)
    Stage('medium', {'easy': 30, 'medium': 70}, steps=15000, lr=5e-06)
    >>> Stage("a", {"x": 1, "y": 1}, steps=5) == Stage("a", {"x": 0.5, "y": 0.5, "z": 0}, steps=5)
    True
    """

    name: str
    mixture: Mapping[str, int | float]
    steps: int | None = None
    epochs: int | float | None = None
    samples: int | None = None
    lr: float | None = None
    ramp: int | float = 0
    ramp_lr: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ArgumentError(
                f"Stage name: got {self.name!r}, but it is a non-empty string. Give the stage a name."
            )
        object.__setattr__(self, "mixture", MappingProxyType(self._checked_mixture()))
        given = {unit: getattr(self, unit) for unit in _UNITS if getattr(self, unit) is not None}
        if len(given) != 1:
            told = " and ".join(f"{unit}={value!r}" for unit, value in given.items()) or "no duration"
            raise ArgumentError(
                f"{self._place}: got {told}, but a stage has one duration. "
                "Keep the one you mean: steps=, epochs= or samples=."
            )
        unit, length = given.popitem()
        object.__setattr__(self, unit, self._checked_amount(unit, length, whole=unit != "epochs"))
        if self.ramp != 0:
            ramp = self._checked_amount("ramp", self.ramp, whole=unit != "epochs")
            if ramp > length:
                raise ArgumentError(
                    f"{self._place}: got ramp={ramp!r}, longer than the stage ({unit}={length!r}). "
                    "Shorten the ramp or lengthen the stage."
                )
            object.__setattr__(self, "ramp", ramp)
        if self.lr is not None:
            lr = finite(self.lr)
            if lr is None or lr < 0:
                raise ArgumentError(
                    f"{self._place}: got lr={self.lr!r}, but a learning rate is a finite number, 0 or more. "
                    "Correct it, or leave lr out."
                )
            object.__setattr__(self, "lr", float(lr))
        if not isinstance(self.ramp_lr, bool):
            raise ArgumentError(
                f"{self._place}: got ramp_lr={self.ramp_lr!r}, but it is True or False. Correct it."
            )
        if self.ramp_lr and not self.ramp:
            raise ArgumentError(
                f"{self._place}: got ramp_lr=True without a ramp to follow. Set ramp=, or drop ramp_lr."
            )

    @property
    def unit(self) -> Literal["steps", "epochs", "samples"]:
        """The unit of ``length`` and ``ramp``."""
        return "steps" if self.steps is not None else "epochs" if self.epochs is not None else "samples"

    @property
    def length(self) -> int | float:
        """Length of the stage in its own unit."""
        length = getattr(self, self.unit)
        assert isinstance(length, int | float)
        return length

    @property
    def shares(self) -> dict[str, Fraction]:
        """Exact share of every bucket with a weight above zero."""
        return exact_share(self.mixture)

    def to_dict(self) -> dict[str, Any]:
        """Return the stage as plain JSON types, without what has its default."""
        told: dict[str, Any] = {"name": self.name, "mixture": dict(self.mixture), self.unit: self.length}
        if self.lr is not None:
            told["lr"] = self.lr
        if self.ramp:
            told["ramp"] = self.ramp
        if self.ramp_lr:
            told["ramp_lr"] = True
        return told

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Stage:
        """Make a stage from plain types; an unknown key is an error that suggests the near miss."""
        _check_keys(
            told, _STAGE_KEYS, f"stage {told.get('name', '?')!r}" if isinstance(told, Mapping) else "stage"
        )
        for key in ("name", "mixture"):
            if key not in told:
                raise ArgumentError(f"A stage lacks {key!r}: got {dict(told)!r}. Add the key.")
        return cls(**told)

    def scaled(self, factor: float) -> Stage:
        """Return the stage at ``factor`` times its length, at least one step, sample or its part of an epoch."""
        told = self.to_dict()

        def scale(amount: int | float) -> int | float:
            exact = Fraction(str(amount)) * Fraction(str(factor))
            return float(exact) if self.unit == "epochs" else max(1, round(exact))

        told[self.unit] = scale(self.length)
        if self.ramp:
            told["ramp"] = min(scale(self.ramp), told[self.unit])
        return Stage.from_dict(told)

    def __repr__(self) -> str:
        told = self.to_dict()
        name, mixture = told.pop("name"), told.pop("mixture")
        rest = "".join(f", {key}={value!r}" for key, value in told.items())
        return f"Stage({name!r}, {mixture!r}{rest})"

    def _meaning(self) -> tuple[Any, ...]:
        return (
            self.name,
            frozenset(self.shares.items()),
            self.unit,
            self.length,
            self.lr,
            self.ramp,
            self.ramp_lr,
        )

    def __eq__(self, other: object) -> bool:
        return self._meaning() == other._meaning() if isinstance(other, Stage) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._meaning())

    def __reduce__(self) -> tuple[Any, ...]:
        return (Stage.from_dict, (self.to_dict(),))

    @property
    def _place(self) -> str:
        return f"Stage {self.name!r}"

    def _checked_mixture(self) -> dict[str, int | float]:
        if not isinstance(self.mixture, Mapping) or not self.mixture:
            raise ArgumentError(
                f"{self._place}: got mixture={self.mixture!r}, but a mixture maps bucket names to weights. "
                'Write for example {"easy": 0.3, "medium": 0.7}.'
            )
        weights: dict[str, int | float] = {}
        for bucket, weight in self.mixture.items():
            if not isinstance(bucket, str) or not bucket:
                raise ArgumentError(
                    f"{self._place}: got bucket name {bucket!r}, but names are non-empty strings. "
                    "Name the bucket by a string."
                )
            number = finite(weight)
            if number is None or number < 0:
                raise ArgumentError(
                    f"{self._place}: got weight {weight!r} for bucket {bucket!r}, but a weight is a finite "
                    "number, 0 or more. Correct the weight."
                )
            weights[bucket] = number
        if not any(weights.values()):
            raise ArgumentError(
                f"{self._place}: the weights {weights!r} sum to zero, so there is nothing to draw. "
                "Give at least one bucket a weight above 0."
            )
        return weights

    def _checked_amount(self, what: str, amount: Any, *, whole: bool) -> int | float:
        number = finite(amount)
        if number is None or number <= 0 or (whole and number != int(number)):
            kind = "whole number" if whole else "finite number"
            raise ArgumentError(
                f"{self._place}: got {what}={amount!r}, but it is a {kind} above 0"
                f"{', in the unit of the stage, or 0 for none' if what == 'ramp' else ''}. Correct it."
            )
        return int(number) if whole else number


@dataclass(frozen=True, init=False, repr=False)
class StageSchedule:
    """An ordered, immutable sequence of stages.

    Args:
        stages: At least one ``Stage``, each name once.
        epoch_size: How many draws an epoch of a stage is: ``"stage"``, the summed size of the buckets it draws
            from; ``"all"``, of all buckets; or a number of draws.

    Raises:
        ArgumentError: Empty schedule, duplicate stage, or a ramp on the first stage.

    >>> schedule = StageSchedule([
    ...     Stage("easy", {"easy": 1}, steps=10, lr=1e-5),
    ...     Stage("hard", {"easy": 1, "hard": 3}, steps=20, lr=5e-6),
    ... ])
    >>> plan = schedule.plan(bucket_sizes={"easy": 500, "hard": 100}, batch_size=8)
    >>> plan.boundaries, plan.at(step=10).stage, plan.at(step=10).mixture
    ((0, 10, 30), 'hard', {'easy': 0.25, 'hard': 0.75})
    >>> StageSchedule.from_toml(schedule.to_toml()) == schedule
    True
    """

    stages: tuple[Stage, ...]
    epoch_size: EpochSize

    def __init__(self, stages: Iterable[Stage], *, epoch_size: EpochSize = "stage") -> None:
        listed = tuple(stages) if isinstance(stages, Iterable) else (stages,)
        if not listed:
            raise ArgumentError(
                "The schedule has no stages, so there is nothing to train. Give at least one Stage."
            )
        for position, stage in enumerate(listed):
            if not isinstance(stage, Stage):
                raise ArgumentError(
                    f"Stage {position + 1} of {len(listed)}: got {stage!r}, but a schedule is made of Stage objects. "
                    "Wrap it in Stage(...), or use StageSchedule.from_dict."
                )
        names = [stage.name for stage in listed]
        for name in names:
            if names.count(name) > 1:
                raise ArgumentError(
                    f"Stage {name!r} occurs {names.count(name)} times, but stage names are unique. Rename one."
                )
        if listed[0].ramp:
            raise ArgumentError(
                f"Stage {names[0]!r}: got ramp={listed[0].ramp!r}, but the first stage has no mixture to come from. "
                "Drop its ramp."
            )
        for before, stage in pairwise(listed):
            if stage.ramp_lr and (before.lr is None or stage.lr is None):
                raise ArgumentError(
                    f"Stage {stage.name!r}: ramp_lr=True moves between two learning rates, but got "
                    f"{before.lr!r} before and {stage.lr!r} here. Give both stages an lr."
                )
        if epoch_size not in ("stage", "all") and not _is_count(epoch_size):
            raise ArgumentError(
                f"epoch_size: got {epoch_size!r}, but it is 'stage', 'all' or a number of draws above 0. Correct it."
            )
        object.__setattr__(self, "stages", listed)
        object.__setattr__(self, "epoch_size", epoch_size if isinstance(epoch_size, str) else int(epoch_size))

    @property
    def buckets(self) -> tuple[str, ...]:
        """Every bucket that some stage draws from, in name order."""
        return tuple(sorted({name for stage in self.stages for name in stage.shares}))

    def plan(
        self,
        bucket_sizes: Mapping[str, int],
        batch_size: int,
        *,
        window: int | None = None,
        run_sizes: Mapping[str, int] | int | None = None,
        block_runs: int = 32,
        max_passes: float | None = None,
    ) -> Plan:
        """Resolve the schedule against the data: every stage becomes a whole number of steps.

        Args:
            bucket_sizes: Number of samples in each bucket; buckets that no stage draws from may be present.
            batch_size: The global batch: draws of one optimiser step over all ranks and accumulations.
            window: Draws within which the order of buckets is shuffled, and at whose edges the mixture holds
                to within its bound. Default: ``batch_size``, so that every global batch holds the mixture.
            run_sizes: Consecutive samples that are read together, per bucket or for all. Default 1: a uniform shuffle.
            block_runs: How many runs are shuffled together, sample by sample.
            max_passes: Refuse a plan in which a stage passes over some bucket more often than this.

        Raises:
            ArgumentError: A bucket is absent or empty, a number is out of range, or ``max_passes`` is exceeded.

        >>> schedule = StageSchedule([Stage("easy", {"easy": 1}, epochs=3)])
        >>> schedule.plan({"easy": 100}, batch_size=32).total_steps  # 300 draws, rounded up to whole steps
        10
        """
        return Plan(
            self,
            bucket_sizes,
            batch_size,
            window=window,
            run_sizes=run_sizes,
            block_runs=block_runs,
            max_passes=max_passes,
        )

    def scaled(self, factor: float) -> StageSchedule:
        """Return the same curriculum at ``factor`` times its length, for smoke runs. No stage vanishes.

        >>> StageSchedule([Stage("a", {"x": 1}, steps=10_000), Stage("b", {"x": 1}, steps=30)]).scaled(0.01)
        StageSchedule([
            Stage('a', {'x': 1}, steps=100),
            Stage('b', {'x': 1}, steps=1),
        ])
        """
        number = finite(factor)
        if number is None or number <= 0:
            raise ArgumentError(
                f"scaled: got {factor!r}, but the factor is a finite number above 0. Correct it."
            )
        return StageSchedule([stage.scaled(number) for stage in self.stages], epoch_size=self.epoch_size)

    def to_dict(self) -> dict[str, Any]:
        """Return the schedule as plain JSON types."""
        return {"epoch_size": self.epoch_size, "stages": [stage.to_dict() for stage in self.stages]}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> StageSchedule:
        """Make a schedule from plain types; an unknown key is an error that suggests the near miss."""
        _check_keys(told, _SCHEDULE_KEYS, "the schedule")
        stages = told.get("stages", [])
        if not isinstance(stages, list | tuple):
            raise ArgumentError(
                f"stages: got {stages!r}, but it is a list of stages. Write [[stages]] tables in TOML."
            )
        return cls(map(Stage.from_dict, stages), epoch_size=told.get("epoch_size", "stage"))

    def to_json(self) -> str:
        """Return the schedule as JSON text."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> StageSchedule:
        """Read JSON text as ``to_json`` writes it."""
        try:
            return cls.from_dict(json.loads(text, object_pairs_hook=_without_repeats))
        except json.JSONDecodeError as error:
            raise ArgumentError(f"The schedule is not valid JSON: {error}. Correct the file.") from error

    def to_toml(self) -> str:
        """Return the schedule as TOML text."""
        lines = [f"epoch_size = {_toml(self.epoch_size)}"]
        for stage in self.stages:
            lines += [
                "",
                "[[stages]]",
                *(f"{key} = {_toml(value)}" for key, value in stage.to_dict().items()),
            ]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> StageSchedule:
        """Read TOML text as ``to_toml`` writes it."""
        try:
            return cls.from_dict(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise ArgumentError(f"The schedule is not valid TOML: {error}. Correct the file.") from error

    @classmethod
    def load(cls, path: str | Path) -> StageSchedule:
        """Read a ``.toml`` or ``.json`` file, or a preset by its name (see ``presets``).

        Raises:
            ArgumentError: The file's text is no schedule, or it is no name of a preset.
            FileNotFoundError: There is no such file.

        >>> len(StageSchedule.load(StageSchedule.presets()[0]).stages)
        3
        """
        path = Path(path)
        if str(path) in preset_names():
            return cls.from_toml(preset_text(str(path)))
        if not path.suffix:
            raise ArgumentError(
                f"{path}: this is neither a preset ({', '.join(preset_names())}) nor a file that ends in .toml or .json. "
                "Name one of these."
            )
        _check_suffix(path)
        read = cls.from_toml if path.suffix == ".toml" else cls.from_json
        try:
            return read(path.read_text(encoding="utf-8"))
        except ArgumentError as error:
            raise ArgumentError(f"{path}: {error}") from error

    @staticmethod
    def presets() -> tuple[str, ...]:
        """Return the names of the schedules that come with the package; ``load`` takes them for a file's."""
        return preset_names()

    def save(self, path: str | Path) -> None:
        """Write a ``.toml`` or ``.json`` file."""
        path = Path(path)
        _check_suffix(path)
        path.write_text(self.to_toml() if path.suffix == ".toml" else self.to_json(), encoding="utf-8")

    def __repr__(self) -> str:
        lines = "".join(f"\n    {stage!r}," for stage in self.stages)
        epoch = "" if self.epoch_size == "stage" else f", epoch_size={self.epoch_size!r}"
        return f"StageSchedule([{lines}\n]{epoch})"


def _is_count(value: Any) -> bool:
    number = finite(value)
    return isinstance(number, int) and number > 0


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    # JSON's strings, integers, floats and booleans are also TOML's.
    return json.dumps(value)


def _check_keys(told: Any, known: tuple[str, ...], place: str) -> None:
    if not isinstance(told, Mapping):
        raise ArgumentError(f"{place}: got {told!r}, but it is a table of {', '.join(known)}. Correct it.")
    for key in told:
        if key not in known:
            near = difflib.get_close_matches(_SYNONYMS.get(key, str(key)), known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
            raise ArgumentError(f"Unknown key {key!r} in {place}. {hint}")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    told = dict(pairs)
    if len(told) < len(pairs):
        repeated = sorted({key for key, _ in pairs if [other for other, _ in pairs].count(key) > 1})
        raise ArgumentError(
            f"The schedule has {', '.join(map(repr, repeated))} twice in one object. Keep one."
        )
    return told


def _check_suffix(path: Path) -> None:
    if path.suffix not in (".toml", ".json"):
        raise ArgumentError(
            f"{path}: a schedule file ends in .toml or .json. Rename it, or choose one of the two."
        )
