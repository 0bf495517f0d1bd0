"""Signals of the masks: how much is to be painted, how ragged it is, how far the garment has to change its shape."""

from __future__ import annotations

import numpy as np
from common.annotations import Annotations
from common.convex_hull import fill_hull
from common.drawn_masks import GARMENT_LABELS
from numpy.typing import NDArray
from PIL import Image

_BOX = (64, 64)


def mask_signals(annotations: Annotations) -> dict[str, float]:
    """Return ``mask_area``, ``mask_ragged`` and, with a parse map, ``shape_gap``."""
    mask = annotations.agnostic_mask
    area, hull = mask.sum(), fill_hull(mask).sum()
    found = {"mask_area": float(area / mask.size), "mask_ragged": float(1.0 - area / hull) if hull else 1.0}
    if annotations.labels is not None:
        worn = np.isin(annotations.labels, GARMENT_LABELS[annotations.category])
        found["shape_gap"] = _gap(worn, annotations.cloth_mask)
    return found


def _gap(worn: NDArray[np.bool_], flat: NDArray[np.bool_]) -> float:
    """1 - overlap of two shapes, each in its bounding box; 1 when one of them is empty."""
    if not worn.any() or not flat.any():
        return 1.0
    one, other = _boxed(worn), _boxed(flat)
    return float(1.0 - (one & other).sum() / (one | other).sum())


def _boxed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    picture = Image.fromarray(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return np.array(picture.resize(_BOX, Image.Resampling.NEAREST))
