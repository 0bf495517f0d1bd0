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
    from .append import append_shards, append_tars
    from .build import write_shards
    from .dataset import CurriculumDataset
    from .dataset_build import build_dataset
    from .difficulty_check import check_difficulty
    from .indexing import index_shards
    from .learning_rate import CurriculumLR
    from .loader import CurriculumLoader
    from .local_storage import LocalStorage
    from .locations import open_storage
    from .manifest import Manifest
    from .memory_storage import MemoryStorage
    from .mixed_streams import mix_streams
    from .mixture_plot import plot_metrics, plot_plan
    from .picture_probe import picture_losses
    from .preview import contact_sheet
    from .recut import rebucket
    from .reporters import JsonlReporter, Reporter
    from .resumable_indexing import index_resumably
    from .s3 import S3Storage
    from .sample_columns import recorded_scores, sample_numbers
    from .sample_lookup import find_sample, sample_keys
    from .simulation import Simulation, simulate
    from .storage import Storage
    from .survey import survey_buckets
    from .training_report import TrainingReport
    from .verify import verify_dataset

_LAZY = {
    "CurriculumDataset": "dataset",
    "CurriculumLR": "learning_rate",
    "CurriculumLoader": "loader",
    "JsonlReporter": "reporters",
    "LocalStorage": "local_storage",
    "Manifest": "manifest",
    "MemoryStorage": "memory_storage",
    "Reporter": "reporters",
    "S3Storage": "s3",
    "Simulation": "simulation",
    "Storage": "storage",
    "TrainingReport": "training_report",
    "append_shards": "append",
    "append_tars": "append",
    "build_dataset": "dataset_build",
    "check_difficulty": "difficulty_check",
    "contact_sheet": "preview",
    "find_sample": "sample_lookup",
    "index_resumably": "resumable_indexing",
    "index_shards": "indexing",
    "mix_streams": "mixed_streams",
    "open_storage": "locations",
    "picture_losses": "picture_probe",
    "plot_metrics": "mixture_plot",
    "plot_plan": "mixture_plot",
    "rebucket": "recut",
    "recorded_scores": "sample_columns",
    "sample_keys": "sample_lookup",
    "sample_numbers": "sample_columns",
    "simulate": "simulation",
    "survey_buckets": "survey",
    "verify_dataset": "verify",
    "write_shards": "build",
}

__all__ = [
    "ArgumentError",
    "Change",
    "CurriculumDataset",
    "CurriculumError",
    "CurriculumLR",
    "CurriculumLoader",
    "Draw",
    "Draws",
    "Exposure",
    "ExposureTable",
    "JsonlReporter",
    "LocalStorage",
    "Manifest",
    "MemoryStorage",
    "MissingExtraError",
    "MixtureSampler",
    "Plan",
    "Position",
    "Reporter",
    "S3Storage",
    "ShardError",
    "Simulation",
    "Stage",
    "StageSchedule",
    "StateMismatchError",
    "Storage",
    "StorageError",
    "TrainingReport",
    "append_shards",
    "append_tars",
    "build_dataset",
    "check_difficulty",
    "contact_sheet",
    "find_sample",
    "index_resumably",
    "index_shards",
    "mix_streams",
    "open_storage",
    "picture_losses",
    "plot_metrics",
    "plot_plan",
    "rebucket",
    "recorded_scores",
    "sample_keys",
    "sample_numbers",
    "simulate",
    "survey_buckets",
    "verify_dataset",
    "write_shards",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("curriculum-sampler")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
