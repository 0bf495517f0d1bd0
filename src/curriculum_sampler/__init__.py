"""Deterministic curriculum sampling for training from sharded data: easy to hard.

Importing this package loads numpy and the standard library only; what needs torch, boto3 or a checksum
library is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .draws import Draw, Draws
from .errors import (
    ArgumentError,
    CurriculumError,
    MissingExtraError,
    ShardError,
    StateMismatchError,
    StorageError,
)
from .plan import Change, Exposure, ExposureTable, Plan, Position
from .sampler import MixtureSampler
from .schedule import Stage, StageSchedule

if TYPE_CHECKING:
    from .loader import CurriculumLoader

_LAZY = {
    "CurriculumLoader": "loader",
}

__all__ = [
    "ArgumentError",
    "Change",
    "CurriculumError",
    "CurriculumLoader",
    "Draw",
    "Draws",
    "Exposure",
    "ExposureTable",
    "MissingExtraError",
    "MixtureSampler",
    "Plan",
    "Position",
    "ShardError",
    "Stage",
    "StageSchedule",
    "StateMismatchError",
    "StorageError",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
