"""From samples without order to a data set cut by difficulty: list, score, cut, shuffle, write.

Samples are listed once, then scored in tasks of some in a row; both are journaled locally. From the scores alone follows
where every sample goes. Each shard is then a task of its own, and the manifest comes last. Nothing depends on who does
which task when, so a build that is killed goes on, with any number of processes, and its bytes are the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from .build_plan import BuildPlan, Cut, plan_build
from .build_report import BuildReport, Part, Progress
from .checks import whole
from .difficulty_file import RULE, read_rule, write_difficulties
from .engine import Engine, LocalEngine
from .errors import ArgumentError
from .folder_source import FolderSource
from .keys import digest
from .listing import Listing
from .local_storage import LocalStorage
from .locations import Location, StorageOptions, open_storage
from .manifest import read_manifest
from .manifest_file import MANIFEST, Bucket, ManifestFile, Shard, check_name
from .memory_storage import MemoryStorage
from .publishing import make_room
from .score_tasks import ScoreWork
from .scored_listing import ScoredListing
from .scoring import BatchScore, Score, Scoring
from .shard_journal import ShardJournal
from .shard_tasks import ShardTask, ShardWork, shard_name, write
from .source import Source
from .source_by_name import Samples, source_by_name
from .spool import SpooledSource, spool
from .storage import Storage, read_all
from .tar_source import TarSource
from .work_folder import clear, default_work_dir, work_folder


def build_dataset(
    source: str | os.PathLike[str] | Source | Samples,
    destination: Location,
    *,
    score: str | Score | Sequence[str | Score] | None = None,
    score_batch: str | BatchScore | None = None,
    batch_size: int = 32,
    weights: Mapping[str, float] | None = None,
    category: str | None = None,
    shares: Mapping[str, float] | None = None,
    thresholds: Mapping[str, float] | None = None,
    label: str | None = None,
    rule: str | os.PathLike[str] | None = None,
    quarantine: float = 0.0,
    group: str | None = None,
    splits: Mapping[str, float] | str | None = None,
    require: Sequence[str] | None = None,
    seed: int = 0,
    samples_per_shard: int | None = None,
    max_shard_bytes: int = 64 << 20,
    processes: int = 1,
    engine: str = "local",
    work_dir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Callable[[Progress], None] | None = None,
    **options: Unpack[StorageOptions],
) -> BuildReport:
    """Score samples, cut them into buckets by difficulty, shuffle them, and write shards and manifest.

    Args:
        source: A folder of files or of tars, ``s3://`` url of tars, ``module:function`` or
            ``module:function:argument`` (returning a ``Source`` or samples), a ``Source``, or any iterable of samples.
        destination: Folder, url or storage. A data set that is there already gains the splits.
        score: What makes a sample hard, higher is harder: a function of a decoded sample that returns a number or
            named numbers ("signals"), its ``module:function``, ``json:FIELD``, or ``FILE.csv:COLUMN`` (also
            ``.parquet``; the samples are named in its column ``key``). A list of these gives several signals.
        score_batch: As a function ``score``, but of a list of samples; for models.
        batch_size: Samples in such a list.
        weights: Signal -> weight in the score, the weighted mean of ranks (default: all alike).
        category: Field within whose values ranks are taken: ``json:FIELD`` or ``FILE.csv:COLUMN``.
        shares: Bucket -> share of the training samples, easiest first (default: easy 40, medium 35, hard 25 %).
        thresholds: Bucket -> lowest score in it, easiest first; instead of ``shares``.
        label: Field that names the bucket; instead of a cut by score.
        rule: A data set, or its ``difficulty.json``, by whose rule to cut; instead of measuring one.
        quarantine: Share of the training samples, those of the highest scores, to leave out.
        group: Field whose samples never lie in two splits, such as a person's name.
        splits: Split -> share (default: all is ``train``), or the field that names the split. The rule is measured on
            ``train``.
        require: Extensions that every sample must have (default for folders: those of the first sample).
        seed: Decides the shuffle and the splits.
        samples_per_shard: Most samples in a shard.
        max_shard_bytes: About how large a shard may be.
        processes: Processes that score and write; with 1 all happens in this one.
        engine: ``local``, ``ray``, or the ``ray://`` address of a cluster. All write the same bytes.
        work_dir: Where the journal of the build is kept until it is done.
        overwrite: Replace splits that exist.
        dry_run: Score and cut, and write nothing; a build that follows goes on from there.
        progress: Called often with a ``Progress``.
        **options: Options of ``s3://`` urls.
    """
