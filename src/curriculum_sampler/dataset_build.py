"""From samples without order to a data set cut by difficulty: list, score, cut, shuffle, write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Unpack

from .locations import Location, StorageOptions
from .source import Source

Scorer = str | Callable[[Mapping[str, Any]], float | Mapping[str, float]]
BatchScorer = str | Callable[[Sequence[Mapping[str, Any]]], Sequence[float | Mapping[str, float]]]

THIRDS = {"easy": 0.4, "medium": 0.35, "hard": 0.25}


class Progress(NamedTuple):
    """How far a build is: told after every piece of work.

    Attributes:
        part: What is being done.
        done: Samples done, those of an earlier, killed run among them.
        total: Samples there are; None while they are being listed.
        num_bytes: Bytes of the samples done, roughly.
    """

    part: Literal["list", "score", "write"]
    done: int
    total: int | None
    num_bytes: int


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did, or with ``dry_run`` would do.

    Attributes:
        bucket_sizes: Split -> bucket -> samples, easiest bucket first.
        difficulties: Split -> bucket -> (lowest, highest) score; buckets of given labels without a score have none.
        quarantined: Samples left out because their score lies above the rule's limit.
        num_shards: Shards of the splits built.
        num_bytes: Bytes of their tars (with ``dry_run``: of the samples, roughly).
        scored, written: Samples scored and shards written by this call; the rest was done by an earlier one.
        seconds: Part -> time it took in this call.
        dry_run: Whether nothing was written.
    """

    bucket_sizes: Mapping[str, Mapping[str, int]]
    difficulties: Mapping[str, Mapping[str, tuple[float, float]]]
    quarantined: int
    num_shards: int
    num_bytes: int
    scored: int
    written: int
    seconds: Mapping[str, float]
    dry_run: bool


def build_dataset(
    source: str | os.PathLike[str] | Source | Iterable[Mapping[str, Any]],
    destination: Location,
    *,
    score: Scorer | Sequence[Scorer] | None = None,
    score_batch: BatchScorer | None = None,
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
    raise NotImplementedError
