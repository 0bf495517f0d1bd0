"""What a build tells: how far it is, and what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

Part = Literal["list", "score", "write"]


class Progress(NamedTuple):
    """How far a build is: told after every piece of work.

    Attributes:
        part: What is being done.
        done: Samples done, those of an earlier, killed run among them.
        total: Samples there are; None while they are being listed.
        num_bytes: Bytes of the samples done, roughly.
    """

    part: Part
    done: int
    total: int | None
    num_bytes: int


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did, or with ``dry_run`` would do.

    Attributes:
        bucket_sizes: Split -> bucket -> samples, easiest bucket first.
        difficulties: Split -> bucket -> (lowest, highest) score; none where samples have labels and no score.
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
