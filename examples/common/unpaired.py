"""Other garments for the people of a test set: what nobody was photographed in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.whole_split import read_batches

import curriculum_sampler as cs
from curriculum_sampler.keys import derive

Pairing = Mapping[str, tuple[Sequence[cs.Draw], Sequence[cs.Draw]]]
"""By bucket: whose people, and whose garments they get."""

_GARMENT = ("cloth", "cloth_mask", "category")
_CHUNK = 64


def unpaired(dataset: cs.CurriculumDataset, people: Mapping[str, Sequence[cs.Draw]], seed: int) -> Pairing:
    """Return, for each bucket, people and as many garments, none beside its own; the same ones every time.

    Garments change places among people of one bucket and one category. Who is alone in that is left out.
    """
    facts = cs.CurriculumDataset(dataset.manifest, decode=None, transform=_kind, on_bad_sample="raise")
    pairing = {}
    for bucket, draws in people.items():
        circles: dict[str, list[tuple[int, cs.Draw]]] = {}
        for first in range(0, len(draws), _CHUNK):
            some = draws[first : first + _CHUNK]
            for draw, (category, key) in zip(some, facts.__getitems__(some), strict=True):
                circles.setdefault(category, []).append((derive(seed, "unpaired", bucket, key), draw))
        pairs: list[tuple[cs.Draw, cs.Draw]] = []
        for circle in circles.values():
            order = [draw for _, draw in sorted(circle)]
            if len(order) > 1:
                pairs += zip(order, order[1:] + order[:1], strict=True)
        pairs.sort()
        pairing[bucket] = ([person for person, _ in pairs], [garment for _, garment in pairs])
    return pairing


def dressed_in(
    dataset: cs.CurriculumDataset,
    people: Sequence[cs.Draw],
    garments: Sequence[cs.Draw],
    *,
    batch_size: int,
    num_workers: int,
) -> Iterator[dict[str, Any]]:
    """Yield collated batches of people, each with the garment of the same place in ``garments``."""
    how = {"batch_size": batch_size, "num_workers": num_workers}
    if people == garments:
        yield from read_batches(dataset, people, **how)
        return
    both = (read_batches(dataset, draws, **how) for draws in (people, garments))
    for persons, others in zip(*both, strict=True):
        yield persons | {name: others[name] for name in _GARMENT}


def _kind(sample: Mapping[str, Any]) -> tuple[str, str]:
    """Category and key of a sample that was not decoded."""
    facts = json.loads(bytes(sample.get("json", b"{}")))
    return facts.get("category", ""), sample["__key__"]
