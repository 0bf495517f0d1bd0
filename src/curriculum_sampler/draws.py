"""A draw names one sample; a batch of draws is a read-only sequence backed by arrays.

The arrays are what travels to a worker (a few hundred bytes for a batch of 64); a ``Draw`` object
exists only when someone asks for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray


class Draw(NamedTuple):
    """One choice by the sampler: sample number ``index`` (from 0) of a bucket.

    Of a sampler over labels or scores, ``index`` is a dataset index. Draws compare as pairs do.

    >>> draw = Draw("easy", 3)
    >>> draw.bucket, draw.index, draw == ("easy", 3)
    ('easy', 3, True)
    """

    bucket: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a pair


class Draws(Sequence[Draw]):
    """An immutable batch of draws.

    Attributes:
        names: Bucket names that ``bucket_ids`` refer to.
        bucket_ids: ``uint16[n]``, position of each draw's bucket in ``names``.
        indices: ``int64[n]``, sample number within the bucket.
        passes: ``int64[n]``, which pass over the bucket the draw belongs to, from 0.
        seed: The sampler's seed, so that a transform's randomness can be keyed wherever it runs.

    >>> batch = Draws.of([Draw("easy", 3), Draw("hard", 0)])
    >>> batch[0], batch.buckets.tolist(), batch.indices.tolist()
    (Draw(bucket='easy', index=3), ['easy', 'hard'], [3, 0])
    """

    __slots__ = ("bucket_ids", "indices", "names", "passes", "seed")

    names: tuple[str, ...]
    bucket_ids: NDArray[np.uint16]
    indices: NDArray[np.int64]
    passes: NDArray[np.int64]
    seed: int

    def __init__(
        self,
        names: tuple[str, ...],
        bucket_ids: NDArray[np.uint16],
        indices: NDArray[np.int64],
        passes: NDArray[np.int64],
        seed: int,
    ) -> None:
        self.names = names
        self.bucket_ids = bucket_ids
        self.indices = indices
        self.passes = passes
        self.seed = seed

    @classmethod
    def of(cls, draws: Iterable[Draw], *, passes: Iterable[int] | None = None, seed: int = 0) -> Draws:
        """Pack draws made by hand; ``passes`` default to 0."""
        listed = list(draws)
        names = tuple(sorted({draw.bucket for draw in listed}))
        ids = np.array([names.index(draw.bucket) for draw in listed], dtype=np.uint16)
        indices = np.array([draw.index for draw in listed], dtype=np.int64)
        told = np.zeros(len(listed), np.int64) if passes is None else np.array(list(passes), np.int64)
        return cls(names, _frozen(ids), _frozen(indices), _frozen(told), seed)

    @property
    def buckets(self) -> NDArray[np.str_]:
        """Bucket name of each draw, as a read-only array of strings."""
        names: NDArray[np.str_] = _frozen(np.array(self.names, dtype=np.str_)[self.bucket_ids])
        return names

    def counts(self) -> dict[str, int]:
        """Number of draws of each bucket that occurs.

        >>> Draws.of([Draw("easy", 3), Draw("hard", 0), Draw("easy", 1)]).counts()
        {'easy': 2, 'hard': 1}
        """
        found = np.bincount(self.bucket_ids, minlength=len(self.names)).tolist()
        return {name: count for name, count in zip(self.names, found, strict=True) if count}

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, position: int) -> Draw: ...
    @overload
    def __getitem__(self, position: slice) -> Draws: ...
    def __getitem__(self, position: int | slice) -> Draw | Draws:
        if isinstance(position, slice):
            return Draws(
                self.names,
                self.bucket_ids[position],
                self.indices[position],
                self.passes[position],
                self.seed,
            )
        return Draw(self.names[self.bucket_ids[position]], int(self.indices[position]))

    def __iter__(self) -> Iterator[Draw]:
        names = self.names
        for bucket, index in zip(self.bucket_ids.tolist(), self.indices.tolist(), strict=True):
            yield Draw(names[bucket], index)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Draws):
            return np.array_equal(self.indices, other.indices) and np.array_equal(self.buckets, other.buckets)
        if isinstance(other, Sequence) and not isinstance(other, str | bytes):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{draw.bucket}:{draw.index}" for draw in self[:6])
        return f"<{len(self)} draws: {shown}{', ...' if len(self) > 6 else ''}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # Only the names that occur, and numbers in as few bytes as they need: a batch of 64 is a few hundred bytes.
        # (Not by np.unique, whose first call imports numpy.ma: a tenth of a second.)
        occurring = np.flatnonzero(np.bincount(self.bucket_ids, minlength=1))
        ids = np.searchsorted(occurring, self.bucket_ids)
        names = tuple(self.names[number] for number in occurring.tolist())
        return (_unpickle, (names, _packed(ids), _packed(self.indices), _packed(self.passes), self.seed))


def _packed(numbers: Any) -> tuple[str, bytes]:
    narrow = np.min_scalar_type(int(numbers.max())) if numbers.size else np.dtype(np.uint8)
    return narrow.str, numbers.astype(narrow).tobytes()


def _unpickle(
    names: tuple[str, ...],
    ids: tuple[str, bytes],
    indices: tuple[str, bytes],
    passes: tuple[str, bytes],
    seed: int,
) -> Draws:
    def unpacked(packed: tuple[str, bytes], wanted: type) -> Any:
        return _frozen(np.frombuffer(packed[1], dtype=packed[0]).astype(wanted))

    return Draws(
        names, unpacked(ids, np.uint16), unpacked(indices, np.int64), unpacked(passes, np.int64), seed
    )


def _frozen(array: Any) -> Any:
    array.setflags(write=False)
    return array
