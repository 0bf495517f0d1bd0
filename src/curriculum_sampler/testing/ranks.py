"""The global sequence does not know how many ranks there are: their batches together are the global batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

from .comparing import shown

_END = object()


def check_rank_free(
    make_loader: Callable[[int, int], Iterable[Any]],
    *,
    world_sizes: Iterable[int] = (2,),
    grad_accumulation: int = 1,
    items: Callable[[Any], Iterable[Hashable]] = list,
) -> None:
    """Check that, step by step, the batches of all ranks are a partition of the batch that one rank alone would get.

    Also that all ranks have equally many batches, of equal size: one that ended early would leave the others waiting.

    Args:
        make_loader: ``(rank, world_size)`` -> that rank's batches, from the beginning.
        world_sizes: Numbers of ranks to try; each is compared with one rank alone.
        grad_accumulation: Micro-batches per step. Which micro-batch of a step holds a sample is left open.
        items: Batch -> what tells its samples apart, such as ``lambda batch: batch["__key__"]``. Default: the elements of the
            batch, as those of a sampler's.

    Raises:
        AssertionError: The message names the first step that differs, what is lacking and what is too much.

    >>> from curriculum_sampler import MixtureSampler, Stage, StageSchedule
    >>> plan = StageSchedule([Stage("easy", {"easy": 1}, steps=5)]).plan({"easy": 9}, batch_size=6)
    >>> check_rank_free(lambda rank, world_size: MixtureSampler(plan, 17, rank, world_size), world_sizes=(2, 3, 6))
    """

    def step_of(ranks: list[Iterator[Any]], step: int) -> list[list[Hashable]] | None:
        parts: list[list[Hashable]] = []
        for micro in range(grad_accumulation):
            found = [next(rank, _END) for rank in ranks]
            ended = [rank for rank, batch in enumerate(found) if batch is _END]
            if ended and (len(ended) < len(ranks) or micro):
                raise AssertionError(
                    f"Step {step} with world_size={len(ranks)}: rank {ended[0]} has ended, "
                    f"{'others have not' if len(ended) < len(ranks) else f'within the step, after {micro} micro-batches'}."
                )
            if ended:
                return None
            parts += [list(items(batch)) for batch in found]
        return parts

    for world_size in world_sizes:
        alone, ranks = (
            [iter(make_loader(0, 1))],
            [iter(make_loader(rank, world_size)) for rank in range(world_size)],
        )
        step = 0
        while True:
            whole, parts = step_of(alone, step), step_of(ranks, step)
            if whole is None and parts is None:
                break
            where = f"Step {step} with world_size={world_size}"
            if whole is None or parts is None:
                early = "the ranks have" if parts is None else "one rank alone has"
                raise AssertionError(f"{where}: {early} ended, but not the other.")
            if len({len(part) for part in parts}) > 1:
                raise AssertionError(
                    f"{where}: the ranks' batches hold {shown([len(part) for part in parts])} samples."
                )
            expected = Counter(item for part in whole for item in part)
            came = Counter(item for part in parts for item in part)
            if came != expected:
                raise AssertionError(
                    f"{where}: the ranks' batches are not the global batch.\n"
                    f"  expected: {shown(list((expected - came).elements()))}\n"
                    f"  came:     {shown(list((came - expected).elements()))}"
                )
            step += 1
        if not step:
            raise AssertionError("No rank delivered a batch, so nothing can be checked.")
