"""What the difficulty signals look at: the pictures of a decoded sample, all at one working size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from common.body_labels import PARSE_COLOURS, numbers_of
from common.factors import CATEGORIES
from common.figure import JOINTS
from common.keypoints import Keypoints
from common.tryon_members import three_channels, tryon_members
from numpy.typing import NDArray
from PIL import Image

WORKING_HEIGHT = 256
"""Rows at which signals are measured: fine enough for a pattern of twelve stripes, and the same cost for any picture."""


@dataclass(frozen=True, slots=True)
class Annotations:
    """One sample at its working size.

    Attributes:
        image: ``uint8[height, width, 3]``.
        cloth: Likewise, of its own width.
        cloth_mask: ``bool``, as large as ``cloth``.
        agnostic_mask: ``bool``, as large as ``image``.
        labels: ``Parse`` ids, as large as ``image``; None without a parse map.
        keypoints: In pixels of ``image``; None when the data has none.
        category: One of ``factors.CATEGORIES``.
    """

    image: NDArray[np.uint8]
    cloth: NDArray[np.uint8]
    cloth_mask: NDArray[np.bool_]
    agnostic_mask: NDArray[np.bool_]
    labels: NDArray[np.uint8] | None
    keypoints: Keypoints | None
    category: str


def read_annotations(sample: Mapping[str, Any]) -> Annotations:
    """Return a decoded sample at its working size; smaller pictures stay as they are.

    Raises:
        ValueError: A picture is missing, the joints are not 25, or the parse map has foreign colours.
    """
    members = tryon_members(sample)
    facts = members.get("json", {})
    size, cloth_size = _working_size(members["image"]), _working_size(members["cloth"])
    return Annotations(
        image=_colours(members["image"], size),
        cloth=_colours(members["cloth"], cloth_size),
        cloth_mask=_nearest(members["cloth_mask"], cloth_size)[..., 0] >= 128,
        agnostic_mask=_nearest(members["agnostic_mask"], size)[..., 0] >= 128,
        labels=numbers_of(_nearest(members["parse"], size), PARSE_COLOURS) if "parse" in members else None,
        keypoints=_joints(facts["keypoints"], members["image"], size) if "keypoints" in facts else None,
        category=facts.get("category", CATEGORIES[0]),
    )


def _working_size(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """Rows and columns."""
    height, width = pixels.shape[:2]
    if height <= WORKING_HEIGHT:
        return height, width
    return WORKING_HEIGHT, max(1, round(width * WORKING_HEIGHT / height))


def _colours(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    three = three_channels(pixels)
    if three.shape[:2] == size:
        return three
    return np.array(Image.fromarray(np.ascontiguousarray(three)).resize(size[::-1], Image.Resampling.BOX))


def _nearest(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Take the pixel in the middle of each coarse one."""
    if pixels.shape[:2] == size:
        return pixels
    rows, columns = (
        ((np.arange(few) + 0.5) * many / few).astype(int)
        for few, many in zip(size, pixels.shape[:2], strict=True)
    )
    return np.asarray(pixels[rows[:, None], columns])


def _joints(told: Any, pixels: NDArray[np.uint8], size: tuple[int, int]) -> Keypoints:
    points = np.array(told, float)
    if points.shape != (len(JOINTS), 3):
        raise ValueError(
            f"json: keypoints of shape {points.shape}, but they are {len(JOINTS)} rows of x, y and confidence. "
            "Read the data set through common.viton_hd or common.dress_code."
        )
    return np.asarray(points * [size[1] / pixels.shape[1], size[0] / pixels.shape[0], 1.0])
