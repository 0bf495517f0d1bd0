"""Which shards of a build are written, and which names at the destination are its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import AbsentError, ArgumentError
from .index import INDEX_SUFFIX
from .journal import Journal
from .manifest_file import Shard, index_digest
from .shard_tasks import shard_name
from .storage import Storage, read_all


class ShardJournal:
    """The shards that are whole at a destination.

    Names are claimed before the first shard is written: from then on what lies there under such a name is this build's,
    whole or not. A claim is for one plan; shards that were written by another plan are written again.
    """

    def __init__(self, journal: Journal, home: Storage) -> None:
        self._home = home
        self._journal = journal
        self._shards: dict[str, Shard] = {}
        self._plan: str | None = None
        self._own: dict[tuple[str, str], int] = {}
        self.is_publishing = False
        for _, line in self._journal.lines():
            if "plan" in line:
                self._begin(line["plan"], line["shards"])
            elif "publishing" in line:
                self.is_publishing = True
            else:
                self._shards[line["name"]] = Shard(**line)

    def claim(self, plan: str, counts: Mapping[str, Mapping[str, int]], *, overwrite: bool) -> None:
        """Claim the names of all shards of a plan.

        Args:
            plan: Names the plan.
            counts: Split -> bucket -> number of shards.
            overwrite: Take names under which something else lies.

        Raises:
            ArgumentError: Something else lies under one of them.
        """
        if not overwrite:
            self._refuse_foreign(counts)
        if plan != self._plan:
            self._journal.append({"plan": plan, "shards": counts})
            self._begin(plan, counts)

    def _begin(self, plan: str, counts: Mapping[str, Mapping[str, int]]) -> None:
        self._plan, self._shards, self.is_publishing = plan, {}, False
        for split, buckets in counts.items():
            for bucket, count in buckets.items():
                self._own[split, bucket] = max(count, self._own.get((split, bucket), 0))

    def _refuse_foreign(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        for split, buckets in counts.items():
            there = set(self._home.list(f"{split}/"))
            for bucket, count in buckets.items():
                for number in range(self._own.get((split, bucket), 0), count):
                    if (name := shard_name(split, bucket, number)) in there:
                        raise ArgumentError(
                            f"{self._home.url}/{name} is there already, and no manifest names it: something else wrote it. "
                            "Move it away, choose another destination, or pass overwrite=True."
                        )

    def done(self, name: str) -> Shard | None:
        """Return a shard that was written whole and is still there."""
        shard = self._shards.get(name)
        if shard is None:
            return None
        try:
            tar = self._home.stat(name)
            index = read_all(self._home, name + INDEX_SUFFIX)
        except AbsentError:
            return None
        return shard if tar.num_bytes == shard.num_bytes and index_digest(index) == shard.digest else None

    def note(self, shard: Shard) -> None:
        """Write down that a shard is whole."""
        told: dict[str, Any] = {
            "name": shard.name,
            "samples": shard.samples,
            "num_bytes": shard.num_bytes,
            "digest": shard.digest,
        }
        self._journal.append(told)

    def begin_publishing(self) -> None:
        """Write down that the manifest may name these shards from now on."""
        if not self.is_publishing:
            self._journal.append({"publishing": True})
            self.is_publishing = True
