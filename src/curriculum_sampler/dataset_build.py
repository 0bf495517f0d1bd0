"""From samples without order to a data set cut by difficulty: list, score, cut, shuffle, write.

Samples are listed once, then scored in tasks of some in a row; both are journaled locally. From the scores alone follows
where every sample goes. Each shard is then a task of its own, and the manifest comes last. Nothing depends on who does
which task when, so a build that is killed goes on, with any number of processes, and its bytes are the same.

Quantiles are exact, on a cluster too: scores come back to the one process that cuts, at 8 bytes a sample and signal, so
a hundred million samples take less than a gigabyte for each. A sketch merged from many machines would save that, and make
the buckets depend on who merged what first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from .build_plan import TRAIN, BuildPlan, Cut, PlannedShard, Scored, plan_build
from .build_report import BuildReport, Part, Progress
from .checks import whole
from .difficulty_file import RULE, read_rule, write_difficulties
from .engine import Engine, LocalEngine
from .errors import ArgumentError
from .folder_source import FolderSource
from .journal import Journal
from .keys import digest
from .listing import Listing
from .locations import Location, StorageOptions, open_storage
from .manifest import read_manifest
from .manifest_file import MANIFEST, Bucket, ManifestFile, Shard
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

DEFAULT_SHARES = {"easy": 0.4, "medium": 0.35, "hard": 0.25}


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
        work_dir: Local folder where the journal of the build is kept until it is done, and the samples of an iterable
            (default: ``~/.cache/curriculum-sampler/builds``).
        overwrite: Replace splits that exist.
        dry_run: Score and cut, and write nothing; a build that follows goes on from there.
        progress: Called often with a ``Progress``.
        **options: Options of ``s3://`` urls.

    The same call goes on with a build that was killed or failed, as long as its source, scores and destination are the
    same. Functions are known by their module's text and by their settings, if these can be pickled; else they score anew.

    Beside the manifest lie the rule of the cut (``difficulty.json``) and a line for every sample (see
    ``difficulty_file``). The samples themselves gain nothing.

    Raises:
        ArgumentError: A bad argument or sample; it is named, and what was at the destination is untouched.
        BadSampleError: A member that a score asks for cannot be decoded.
        StorageError: Something cannot be read or written. The same call goes on from there.

    >>> import tempfile
    >>> samples = [{"__key__": f"{n:04}", "json": {"area": n % 10 + n / 100}} for n in range(100)]
    >>> report = build_dataset(
    ...     samples, "memory://build-dataset", score="json:area", splits={"train": 0.8, "val": 0.2},
    ...     work_dir=tempfile.mkdtemp(),
    ... )
    >>> report.bucket_sizes["train"], report.difficulties["train"]["hard"]
    ({'easy': 32, 'medium': 27, 'hard': 20}, (7.47, 9.99))
    """
    home = open_storage(destination, **options)
    fields = {"category": category, "group": group, "label": label}
    fields["split"] = splits if isinstance(splits, str) else None
    uncut = label is None and rule is None and thresholds is None
    cut = Cut(
        shares=DEFAULT_SHARES if uncut and shares is None else shares,
        thresholds=thresholds,
        rule=None if rule is None else read_rule(rule, **options),
        weights=weights,
        has_labels=label is not None,
        quarantine=quarantine,
        splits=None if isinstance(splits, str) else {TRAIN: 1.0} if splits is None else splits,
        seed=seed,
        samples_per_shard=samples_per_shard,
        max_shard_bytes=max_shard_bytes,
    )
    scores = [] if score is None else [score] if isinstance(score, str) or callable(score) else list(score)
    scoring = Scoring.of(scores, score_batch, whole("batch_size", batch_size, least=1), fields)
    if not scores and score_batch is None and label is None:
        raise ArgumentError(
            "There is nothing to cut by. Give score=, such as 'json:FIELD' or a function, or label= for given buckets."
        )
    runner = engine_of(engine, processes)
    if runner.is_elsewhere and isinstance(home, MemoryStorage):
        raise ArgumentError(
            f"{home.url} is the memory of this process, which others cannot write to. Build with processes=1."
        )
    found = source_by_name(source, require, **options)
    with work_folder(Path(work_dir) if work_dir else default_work_dir(), home.url) as folder:
        read_from = found if isinstance(found, Source) else spool(found, folder / "samples")
        _refuse_within(read_from, home)
        build = _Build(read_from, home, scoring, cut, tuple(require or ()), runner, overwrite, progress)
        report = build.run(folder, dry_run=dry_run)
        if not dry_run:
            clear(folder)
    return report


class _Build:
    """One build, from listing to manifest."""

    def __init__(
        self,
        source: Source,
        home: Storage,
        scoring: Scoring,
        cut: Cut,
        require: tuple[str, ...],
        engine: Engine,
        overwrite: bool,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._source, self._home, self._scoring, self._cut = source, home, scoring, cut
        self._require, self._engine, self._overwrite = require, engine, overwrite
        self._progress = progress or (lambda told: None)
        self._seconds: dict[str, float] = {}

    def run(self, folder: Path, *, dry_run: bool) -> BuildReport:
        scored_as = digest([self._source.identity, self._scoring.identity, self._require])
        known = folder / scored_as
        with ExitStack() as files:
            with self._timed("list"):
                journal = files.enter_context(Journal(known / "samples.jsonl"))
                listing = Listing(journal, self._source, partial(self._told, "list", None))
            shards = ShardJournal(files.enter_context(Journal(folder / "shards.jsonl")), self._home)
            if self._cut.splits is not None:
                self._check_room(self._cut.splits, shards, dry_run=True)
            with self._timed("score"):
                told = partial(self._told, "score", len(listing))
                work = ScoreWork(self._source, self._scoring, self._require)
                # Looking scores up in a table is done before other processes would have begun.
                engine = self._engine if self._scoring.reads_samples else LocalEngine(1)
                journal = files.enter_context(Journal(known / "scores.jsonl"))
                scored = ScoredListing(journal, listing, work, engine, told)
            columns = Scored(
                scored.signals,
                scored.names,
                scored.groups,
                listing.num_bytes,
                "group" in self._scoring.fields,
            )
            plan = plan_build(self._cut, columns, scored.group)
            self._check_rule(plan)
            self._check_room(plan.split_names, shards, dry_run=True)
            if dry_run:
                return self._report(plan, scored, int(listing.num_bytes[plan.buckets >= 0].sum()), 0, dry_run)
            with self._timed("write"):
                shards.claim(
                    digest([scored_as, scored.identity, self._cut.identity]),
                    plan.counts,
                    overwrite=self._overwrite,
                )
                self._check_room(plan.split_names, shards, dry_run=False)
                written, made = self._write_shards(plan, listing, shards)
                self._write_difficulties(plan, scored)
                shards.begin_publishing()
                self._publish(plan, made)
            num_bytes = sum(shard.num_bytes for shard in made.values())
            return self._report(plan, scored, num_bytes, written, dry_run)

    def _write_shards(
        self, plan: BuildPlan, listing: Listing, shards: ShardJournal
    ) -> tuple[int, dict[str, Shard]]:
        total = sum(len(part.order) for part in plan.shuffled)
        made: dict[str, Shard] = {}
        done = num_bytes = 0
        missing: list[PlannedShard] = []
        for planned in plan.shards:
            shard = shards.done(shard_name(planned.samples.split, planned.samples.bucket, planned.number))
            if shard is None:
                missing.append(planned)
            else:
                made[shard.name] = shard
                done, num_bytes = done + shard.samples, num_bytes + shard.num_bytes
        self._told("write", total, done, num_bytes)
        tasks = (
            ShardTask(
                planned.samples.split,
                planned.samples.bucket,
                planned.number,
                listing.entries(planned.samples.order[planned.first : planned.stop].tolist()),
            )
            for planned in missing
        )
        work = ShardWork(self._source, self._home, self._require)
        with closing(self._engine.run(write, work, tasks)) as shards_written:
            for _, shard in shards_written:
                shards.note(shard)
                made[shard.name] = shard
                done, num_bytes = done + shard.samples, num_bytes + shard.num_bytes
                self._told("write", total, done, num_bytes)
        return len(missing), made

    def _write_difficulties(self, plan: BuildPlan, scored: ScoredListing) -> None:
        indices = plan.indices()
        for number, split in enumerate(plan.split_names):
            write_difficulties(self._home, split, _difficulty_lines(plan, scored, number, indices))
        if plan.rule is not None:
            self._home.write(RULE, plan.rule.to_bytes())

    def _publish(self, plan: BuildPlan, made: Mapping[str, Shard]) -> None:
        """Write the manifest with all splits in it, once."""
        splits: dict[str, dict[str, Bucket]] = {}
        for part in plan.shuffled:
            count = plan.counts[part.split][part.bucket]
            listed = tuple(made[shard_name(part.split, part.bucket, number)] for number in range(count))
            splits.setdefault(part.split, {})[part.bucket] = Bucket(listed, plan.difficulty(part))
        before = read_manifest(self._home) if self._home.exists(MANIFEST) else ManifestFile()
        after = before
        for split, buckets in splits.items():
            after = after.with_split(split, buckets)
        if after != before:
            self._home.write(MANIFEST, after.to_bytes())

    def _check_room(self, split_names: Iterable[str], shards: ShardJournal, *, dry_run: bool) -> None:
        """Refuse splits that exist; with ``overwrite`` take them from the manifest, unless this build put them there."""
        if shards.is_publishing:
            return
        for split in split_names:
            if not dry_run or not self._overwrite:
                make_room(self._home, split, overwrite=self._overwrite)

    def _check_rule(self, plan: BuildPlan) -> None:
        if plan.rule is None or self._overwrite or not self._home.exists(RULE):
            return
        if read_all(self._home, RULE) != plan.rule.to_bytes():
            raise ArgumentError(
                f"{self._home.url} was cut by another rule, so its buckets would not mean the same as these. Pass "
                f"rule={self._home.url!r} to cut alike, choose another destination, or pass overwrite=True."
            )

    def _report(
        self, plan: BuildPlan, scored: ScoredListing, num_bytes: int, written: int, dry_run: bool
    ) -> BuildReport:
        sizes: dict[str, dict[str, int]] = {}
        difficulties: dict[str, dict[str, tuple[float, float]]] = {}
        for part in plan.shuffled:
            sizes.setdefault(part.split, {})[part.bucket] = len(part.order)
            found = plan.difficulty(part)
            if found is not None:
                difficulties.setdefault(part.split, {})[part.bucket] = found
        return BuildReport(
            sizes,
            difficulties,
            plan.num_quarantined,
            len(plan.shards),
            num_bytes,
            scored.scored,
            written,
            self._seconds,
            dry_run,
        )

    def _told(self, part: Part, total: int | None, done: int, num_bytes: int) -> None:
        self._progress(Progress(part, done, total, num_bytes))

    @contextmanager
    def _timed(self, part: Part) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self._seconds[part] = time.monotonic() - begun


def engine_of(name: str, processes: int) -> Engine:
    """Return what ``engine=`` names.

    Raises:
        ArgumentError: There is none of that name.
    """
    if name == "local":
        return LocalEngine(processes)
    if name == "ray" or name.startswith("ray://"):
        # Optional extra: Ray is loaded only by those who have a cluster.
        from .ray_engine import RayEngine  # noqa: PLC0415

        return RayEngine(None if name == "ray" else name)
    raise ArgumentError(f"engine={name!r} must be 'local', 'ray', or the ray:// address of a cluster.")


def _difficulty_lines(
    plan: BuildPlan, scored: ScoredListing, split: int, indices: NDArray[np.int64]
) -> Iterator[dict[str, Any]]:
    for number, (key, told) in enumerate(scored.told()):
        if plan.splits[number] != split:
            continue
        bucket, index = int(plan.buckets[number]), int(indices[number])
        line: dict[str, Any] = {"key": key}
        if index >= 0:
            line |= {"bucket": plan.bucket_names[bucket], "index": index}
        if plan.scores is not None:
            line["score"] = float(plan.scores[number])
        yield {**line, **told}


def _refuse_within(source: Source, home: Storage) -> None:
    """What is written into the folder that is read would be read, too."""
    if isinstance(source, FolderSource):
        root = str(source.root)
    elif isinstance(source, TarSource) and not isinstance(source, SpooledSource):
        root = source.storage.url
    else:
        return
    if f"{home.url}/".startswith(f"{root}/"):
        raise ArgumentError(
            f"The destination {home.url} lies in the source {root}, so that a later build would read what this one "
            "writes. Choose a destination beside it."
        )
