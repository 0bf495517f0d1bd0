"""Every sample of a split once, in order, for whoever uses or measures a model."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from common.vton_data import get_vton_dataset
from torch.utils.data import DataLoader

import curriculum_sampler as cs


def split_of(args: argparse.Namespace, height: int, width: int) -> cs.CurriculumDataset:
    """Return the data that the flags name. A sample that cannot be used is an error: none may stand in for another.

    Raises:
        ArgumentError: There is no such place or split.
    """
    dataset = get_vton_dataset(
        s3_prefixes=args.s3_prefixes,
        data_root=args.data_root,
        split=args.split,
        height=height,
        width=width,
        endpoint_url=args.endpoint_url,
    )
    return cs.CurriculumDataset(
        dataset.manifest,
        transform=dataset.transform,
        schedule=dataset.schedule,
        on_bad_sample="raise",
    )


def draws_by_bucket(dataset: cs.CurriculumDataset, limit: int | None) -> dict[str, list[cs.Draw]]:
    """Return the samples of each bucket that has any, at most ``limit`` of each, in order.

    Buckets come in the order in which the data set's schedule names them.
    """
    sizes = dataset.manifest.bucket_sizes
    stages = dataset.schedule.stages if dataset.schedule is not None else ()
    named = [bucket for stage in stages for bucket in stage.mixture if bucket in sizes]
    return {
        bucket: [cs.Draw(bucket, index) for index in range(min(sizes[bucket], limit or sizes[bucket]))]
        for bucket in dict.fromkeys([*named, *sizes])
        if sizes[bucket]
    }


def read_batches(
    dataset: cs.CurriculumDataset, draws: Sequence[cs.Draw], *, batch_size: int, num_workers: int
) -> Iterator[dict[str, Any]]:
    """Yield collated batches of these samples, in this order; the last may be smaller."""
    source: Any = dataset  # torch's types ask for a subclass of its own
    batches = [list(draws[first : first + batch_size]) for first in range(0, len(draws), batch_size)]
    yield from DataLoader(source, batch_sampler=batches, num_workers=num_workers)
