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
from .exposure import Exposure, ExposureTable
from .plan import Change, Plan, Position
from .sampler import MixtureSampler
from .schedule import Stage, StageSchedule

if TYPE_CHECKING:
    from .build import write_shards
    from .dataset import CurriculumDataset
    from .indexing import index_shards
    from .loader import CurriculumLoader
    from .manifest import Manifest
    from .memory_storage import MemoryStorage

_LAZY = {
    "CurriculumDataset": "dataset",
    "CurriculumLoader": "loader",
    "Manifest": "manifest",
    "MemoryStorage": "memory_storage",
    "index_shards": "indexing",
    "write_shards": "build",
}

__all__ = [
    "ArgumentError",
    "Change",
    "CurriculumDataset",
    "CurriculumError",
    "CurriculumLoader",
    "Draw",
    "Draws",
    "Exposure",
    "ExposureTable",
    "Manifest",
    "MemoryStorage",
    "MissingExtraError",
    "MixtureSampler",
    "Plan",
    "Position",
    "ShardError",
    "Stage",
    "StageSchedule",
    "StateMismatchError",
    "StorageError",
    "index_shards",
    "write_shards",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
