"""A batch of draws that tells its reader what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from .draws import Draws

# A bucket, and the number of a run in it.
Run: TypeAlias = tuple[str, int]


class ForeseenDraws(Draws):
    """Draws of a plan whose runs are known.

    The order is a function, so whoever makes the batches knows the future; readers, which may be other processes,
    are told it along with their batches.

    Attributes:
        run_sizes: Bucket -> samples per run, for the buckets of this batch and of ``coming``.
        coming: Runs that this batch's reader shall fetch, in order of need.

    >>> import pickle
    >>> from curriculum_sampler import Draw
    >>> batch = ForeseenDraws(Draws.of([Draw("easy", 3)]), {"easy": 8}, (("easy", 1),))
    >>> copy = pickle.loads(pickle.dumps(batch))
    >>> copy == batch, copy.run_sizes, copy.coming
    (True, {'easy': 8}, (('easy', 1),))
    """

    __slots__ = ("coming", "run_sizes")

    def __init__(self, draws: Draws, run_sizes: Mapping[str, int], coming: tuple[Run, ...]) -> None:
        super().__init__(draws.names, draws.bucket_ids, draws.indices, draws.passes, draws.seed)
        self.run_sizes = run_sizes
        self.coming = coming

    def __reduce__(self) -> tuple[Any, ...]:
        plain = Draws(self.names, self.bucket_ids, self.indices, self.passes, self.seed)
        named = {*plain.counts(), *(bucket for bucket, _ in self.coming)}
        return ForeseenDraws, (plain, {name: self.run_sizes[name] for name in named}, self.coming)
