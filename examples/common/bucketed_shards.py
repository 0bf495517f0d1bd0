"""Render the three levels into WebDataset shards, one bucket per level."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict

from common.factors import LEVELS
from common.synthetic import GENERATOR_VERSION, TryOnSample, render_sample
from PIL import Image

import curriculum_sampler as cs

SPLITS = ("train", "val", "test")
"""Splits with pictures of their own: no index, hence no person and no garment, is in two of them."""

_PER_BUCKET = 1_000_000


def sample_index(split: str, level: str, number: int) -> int:
    """Return the generator's index of picture ``number`` of a level in a split; no two are equal.

    >>> sample_index("train", "easy", 5), sample_index("val", "hard", 0)
    (5, 5000000)

    Raises:
        ValueError: If split or level is unknown, or a bucket has more than a million pictures.
    """
    if split not in SPLITS:
        raise ValueError(f"sample_index: got split={split!r}; the splits are {', '.join(SPLITS)}.")
    if level not in LEVELS:
        raise ValueError(f"sample_index: got level={level!r}; the levels are {', '.join(LEVELS)}.")
    if not 0 <= number < _PER_BUCKET:
        raise ValueError(f"sample_index: got number={number}; a bucket holds 0 to {_PER_BUCKET - 1}.")
    return (SPLITS.index(split) * len(LEVELS) + list(LEVELS).index(level)) * _PER_BUCKET + number


def write_bucketed_shards(
    destination: str,
    counts: Mapping[str, Mapping[str, int]],
    *,
    seed: int = 0,
    height: int = 192,
    width: int = 144,
    samples_per_shard: int = 256,
) -> None:
    """Render pictures and write them as shards with index and manifest.

    Args:
        destination: Local folder or ``s3://`` prefix.
        counts: Pictures per split and level, e.g. ``{"train": {"easy": 300, "hard": 100}, "val": {"easy": 32}}``.
        seed: The generator's seed.
        height: Rows of every picture.
        width: Columns of every picture.
        samples_per_shard: Pictures per tar.
    """
    for split, levels in counts.items():
        buckets = {
            level: rendered_bucket(split, level, count, seed=seed, height=height, width=width)
            for level, count in levels.items()
        }
        cs.write_shards(
            destination,
            buckets,
            split=split,
            samples_per_shard=samples_per_shard,
            difficulties={level: LEVELS[level] for level in levels},
        )


def rendered_bucket(
    split: str, level: str, count: int, *, seed: int, height: int, width: int
) -> Iterator[dict[str, object]]:
    """Yield the pictures of one bucket as ``write_shards`` wants them, rendering as they are asked for."""
    for number in range(count):
        sample = render_sample(level, sample_index(split, level, number), seed, height, width)
        yield encoded_sample(f"{split}-{level}-{number:06d}", sample)


def encoded_sample(key: str, sample: TryOnSample) -> dict[str, object]:
    """Return a rendered sample as the members of a shard."""
    facts = {
        **asdict(sample.factors),
        "difficulty": sample.factors.difficulty,
        "occluded": round(sample.occluded, 6),
        "generator_version": GENERATOR_VERSION,
    }
    return {
        "__key__": key,
        "image.png": _png(sample.image),
        "cloth.png": _png(sample.cloth),
        "cloth_mask.png": _png(sample.cloth_mask),
        "agnostic_mask.png": _png(sample.agnostic_mask),
        "pose.png": _png(sample.pose),
        "parse.png": _png(sample.parse),
        "json": facts,
    }


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()
