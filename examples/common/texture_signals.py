"""Signals of texture: of the flat garment, and of what surrounds the person."""

from __future__ import annotations

import numpy as np
from common.annotations import Annotations
from common.body_labels import Parse
from common.dilation import shrink
from numpy.typing import NDArray

_EDGE = 24
_RIM = 2  # pixels at the rim of a mask that are left out, since the rim itself is an edge


def texture_signals(annotations: Annotations) -> dict[str, float]:
    """Return ``texture``, ``colours`` and, with a parse map, ``clutter``."""
    inside = shrink(annotations.cloth_mask, _RIM)
    found = {
        "texture": max(_edges(annotations.cloth, inside)),
        "colours": _colour_bits(annotations.cloth[inside]),
    }
    if annotations.labels is not None:
        outside = shrink((annotations.labels == Parse.BACKGROUND) & ~annotations.agnostic_mask, _RIM)
        found["clutter"] = sum(_edges(annotations.image, outside))
    return found


def _edges(pixels: NDArray[np.uint8], inside: NDArray[np.bool_]) -> tuple[float, float]:
    """Share of the steps inside a mask, across and down, at which a colour changes by more than ``_EDGE``."""
    shares = []
    for axis in (1, 0):
        after, before = (np.s_[:, 1:], np.s_[:, :-1]) if axis == 1 else (np.s_[1:], np.s_[:-1])
        change = np.maximum(pixels[after], pixels[before]) - np.minimum(pixels[after], pixels[before])
        both = inside[after] & inside[before]
        steps = int(both.sum())
        shares.append(float((change.max(axis=-1) > _EDGE)[both].mean()) if steps else 0.0)
    return shares[0], shares[1]


def _colour_bits(colours: NDArray[np.uint8]) -> float:
    """Entropy of colours, three bits a channel; 0 of none."""
    if len(colours) == 0:
        return 0.0
    coarse = (colours >> 5).astype(np.int32)
    counts = np.bincount((coarse[:, 0] << 6) | (coarse[:, 1] << 3) | coarse[:, 2])
    shares = counts[counts > 0] / len(colours)
    return float(-(shares * np.log2(shares)).sum())
