"""In which order the buckets of a data set get harder."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import ArgumentError
from .manifest import Manifest


def easiest_first(manifest: Manifest, order: Sequence[str] | None = None) -> tuple[list[str], bool]:
    """Return the buckets, easiest first, and whether that is known.

    It is known when ``order`` says so, or when every bucket states its difficulties: then the middle of the range
    decides. Else the buckets come in the order of their names.

    Raises:
        ArgumentError: ``order`` does not name every bucket once.

    >>> from curriculum_sampler.build import write_shards
    >>> one = [{"__key__": "a", "cls": 1}]
    >>> ranges = {"hard": (0.5, 1.0), "easy": (0.0, 0.5)}
    >>> easiest_first(write_shards("memory://easiest-first", {"hard": one, "easy": one}, difficulties=ranges))
    (['easy', 'hard'], True)
    """
    names = list(manifest.buckets)
    if order is not None:
        if sorted(order) != sorted(names):
            raise ArgumentError(
                f"order={list(order)!r} must name every bucket once, easiest first. There are: {', '.join(names)}."
            )
        return list(order), True
    if all(name in manifest.difficulties for name in names):
        return sorted(names, key=lambda name: sum(manifest.difficulties[name])), True
    return names, len(names) == 1
