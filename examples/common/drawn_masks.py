"""Masks that a data set lacks, drawn from what it has: of a flat garment, and of where a try-on has to paint."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from common.body_labels import Parse
from common.dilation import grow
from common.keypoints import Keypoints, joint
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_WHITE = 240
_MARGIN, _LIMB_WIDTH = 0.023, 0.07  # in picture heights
_ARMS = (Parse.LEFT_ARM, Parse.RIGHT_ARM)
_HEAD = (Parse.HAT, Parse.HAIR, Parse.SUNGLASSES, Parse.FACE)
_LEGS = (Parse.LEFT_LEG, Parse.RIGHT_LEG)
_SHOES = (Parse.LEFT_SHOE, Parse.RIGHT_SHOE)

GARMENT_LABELS: dict[str, tuple[Parse, ...]] = {
    "upper_body": (Parse.UPPER, Parse.DRESS, Parse.COAT),
    "lower_body": (Parse.PANTS, Parse.SKIRT),
    "dresses": (Parse.DRESS, Parse.UPPER, Parse.COAT, Parse.SKIRT, Parse.PANTS),
}
"""What the worn garment of a category may be labelled as."""

# Beside the garment, what another garment of the category may cover; and what stays, whatever is worn.
_MAY_BE_COVERED = {
    "upper_body": (*_ARMS, Parse.NECK, Parse.SCARF),
    "lower_body": (*_LEGS, Parse.SOCKS),
    "dresses": (*_ARMS, *_LEGS, Parse.NECK, Parse.SCARF),
}
_STAYS = {
    "upper_body": (*_HEAD, *_LEGS, *_SHOES, Parse.PANTS, Parse.SKIRT, Parse.SOCKS),
    "lower_body": (*_HEAD, *_ARMS, *_SHOES, Parse.UPPER, Parse.COAT),
    "dresses": (*_HEAD, *_SHOES),
}
_TRUNK = {
    "upper_body": ("right_shoulder", "left_shoulder", "left_hip", "right_hip"),
    "lower_body": ("right_hip", "left_hip", "left_knee", "right_knee"),
    "dresses": ("right_shoulder", "left_shoulder", "left_hip", "left_knee", "right_knee", "right_hip"),
}
_LIMBS = {
    "upper_body": [(f"{side}_shoulder", f"{side}_elbow", f"{side}_wrist") for side in ("right", "left")],
    "lower_body": [(f"{side}_hip", f"{side}_knee", f"{side}_ankle") for side in ("right", "left")],
}
_LIMBS["dresses"] = [*_LIMBS["upper_body"], *_LIMBS["lower_body"]]


def draw_cloth_mask(cloth: Image.Image) -> Image.Image:
    """Return where a garment on white is, 0 and 255: what has something that is not white on all four sides.

    So white inside the garment belongs to it, and the gap between two trouser legs does not.
    """
    ink = np.array(cloth.convert("RGB")).min(axis=-1) < _WHITE
    inside = np.ones_like(ink)
    for axis in (0, 1):
        inside &= np.logical_or.accumulate(ink, axis=axis)
        inside &= np.flip(np.logical_or.accumulate(np.flip(ink, axis), axis=axis), axis)
    return Image.fromarray(np.uint8(255) * inside)


def draw_agnostic_mask(labels: NDArray[np.uint8], points: Keypoints, category: str) -> Image.Image:
    """Return where a try-on has to paint, 0 and 255: garment, trunk and limbs that a garment may cover, and a margin.

    It hides the cut of the garment (a long sleeve and a bare arm are covered alike) and leaves head, hands, shoes and
    the other garments.

    Args:
        labels: ``Parse`` id of every pixel.
        points: The joints, in the same pixels.
        category: One of ``factors.CATEGORIES``.
    """
    height = len(labels)
    covered = np.isin(labels, (*GARMENT_LABELS[category], *_MAY_BE_COVERED[category]))
    mask = Image.fromarray(np.uint8(255) * covered)
    draw = ImageDraw.Draw(mask)
    trunk = [joint(points, name) for name in _TRUNK[category]]
    corners = [tuple(place) for place in trunk if place is not None]
    if len(corners) >= 3:
        draw.polygon(corners, fill=255)
    thick = max(1, round(_LIMB_WIDTH * height))
    for limb in _LIMBS[category]:
        places = [joint(points, name) for name in limb]
        for start, end in pairwise(places):
            if start is not None and end is not None:
                draw.line([*start, *end], fill=255, width=thick)
    wide = grow(np.array(mask) > 0, round(_MARGIN * height))
    stays = np.isin(labels, _STAYS[category]) | _hands(labels, points)
    return Image.fromarray(np.uint8(255) * (wide & ~stays))


def _hands(labels: NDArray[np.uint8], points: Keypoints) -> NDArray[np.bool_]:
    """Skin of an arm beyond its wrist."""
    around = Image.new("L", labels.shape[::-1], 0)
    draw = ImageDraw.Draw(around)
    for side in ("right", "left"):
        elbow, wrist = joint(points, f"{side}_elbow"), joint(points, f"{side}_wrist")
        if elbow is None or wrist is None:
            continue
        middle, radius = wrist + 0.3 * (wrist - elbow), 0.3 * float(np.hypot(*(wrist - elbow)))
        draw.ellipse([*(middle - radius), *(middle + radius)], fill=255)
    return (np.array(around) > 0) & np.isin(labels, _ARMS)
