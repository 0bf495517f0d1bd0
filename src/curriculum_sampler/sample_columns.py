"""A number for every sample of a data set, by key: its difficulty or its loss, from its json or from a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

from .checks import finite
from .column import JsonField
from .dataset import CurriculumDataset
from .difficulty_file import read_difficulties
from .errors import ArgumentError
from .keyed_numbers import keyed_numbers
from .manifest import Manifest
from .storage import Storage


def sample_numbers(manifest: Manifest, place: str) -> dict[str, float]:
    """Return key -> number, such as a difficulty or a loss.

    Args:
        manifest: The data.
        place: ``json:FIELD`` (reads every sample), or a table as ``keyed_numbers`` takes it.

    Raises:
        ArgumentError: A field that is missing or is no finite number; see also ``keyed_numbers``.

    >>> from curriculum_sampler.build import write_shards
    >>> samples = [{"__key__": "a", "json": {"clutter": 0.25}}]
    >>> sample_numbers(write_shards("memory://sample-numbers", {"easy": samples}), "json:clutter")
    {'a': 0.25}
    """
    if not place.startswith("json:"):
        return keyed_numbers(place)
    field = JsonField(place.removeprefix("json:"))
    found: dict[str, float] = {}
    for sample in CurriculumDataset(manifest, decode=None, on_bad_sample="raise").sequential():
        key = sample["__key__"]
        value = field.value(key, _with_json(key, sample))
        number = finite(value)
        if number is None:
            raise ArgumentError(
                f"Sample {key!r}: its field {field.name!r} is {value!r}, but a finite number is wanted. Correct it."
            )
        found[key] = float(number)
    return found


def recorded_scores(manifest: Manifest) -> dict[str, float] | None:
    """Return key -> score as ``build_dataset`` recorded them beside the manifest; None unless every sample has one.

    >>> from curriculum_sampler.build import write_shards
    >>> recorded_scores(write_shards("memory://recorded-scores", {"easy": [{"__key__": "a", "cls": 1}]})) is None
    True
    """
    homes: dict[str, Storage] = {}
    sizes: dict[str, Counter[str]] = {}
    for bucket, shards in manifest.buckets.items():
        for placed in shards:
            homes[placed.indexes.url] = placed.indexes
            sizes.setdefault(placed.indexes.url, Counter())[bucket] += placed.shard.samples
    found: dict[str, float] = {}
    for url, home in homes.items():
        if not has_difficulties(home, manifest.split):
            return None
        told = [
            (line["key"], line["score"], line["index"] < sizes[url][line["bucket"]])
            for line in read_difficulties(home, manifest.split)
            if "bucket" in line and "score" in line
        ]
        # An append that was interrupted may have written on, behind the samples that the manifest lists.
        is_longer = len(told) > sizes[url].total()
        found |= {key: score for key, score, is_listed in told if is_listed or not is_longer}
    return found if len(found) == len(manifest) else None


def has_difficulties(home: Storage, split: str) -> bool:
    """Say whether difficulties of a split were recorded there."""
    try:
        next(read_difficulties(home, split), None)
    except ArgumentError:
        return False
    return True


def _with_json(key: str, sample: Mapping[str, bytes]) -> Mapping[str, object]:
    if "json" not in sample:
        return sample
    try:
        return {"json": json.loads(sample["json"])}
    except ValueError as error:
        raise ArgumentError(
            f"Sample {key!r}: its json cannot be read ({error}). Correct the sample."
        ) from error
