"""The numbers that public try-on data sets use for what is seen in a picture, and their colours."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Parse(IntEnum):
    """Ids of VITON-HD's ``image-parse-v3``; the generator draws those without a comment."""

    BACKGROUND = 0
    HAT = 1  # not drawn
    HAIR = 2
    GLOVE = 3  # not drawn; whatever is held, bags of other data sets too
    SUNGLASSES = 4  # not drawn
    UPPER = 5
    DRESS = 6
    COAT = 7  # not drawn
    SOCKS = 8  # not drawn
    PANTS = 9
    NECK = 10
    SCARF = 11  # not drawn
    SKIRT = 12
    FACE = 13
    LEFT_ARM = 14
    RIGHT_ARM = 15
    LEFT_LEG = 16
    RIGHT_LEG = 17
    LEFT_SHOE = 18  # not drawn
    RIGHT_SHOE = 19  # not drawn


class Surface(IntEnum):
    """Ids of DensePose's body surface, one of front and back for each limb. Left is the person's left."""

    NONE = 0
    TORSO = 2
    RIGHT_HAND = 3
    LEFT_HAND = 4
    RIGHT_THIGH = 9
    LEFT_THIGH = 10
    RIGHT_SHIN = 13
    LEFT_SHIN = 14
    LEFT_UPPER_ARM = 17
    RIGHT_UPPER_ARM = 18
    LEFT_FOREARM = 21
    RIGHT_FOREARM = 22
    HEAD = 24


def _distinct_colours(count: int, offset: float) -> NDArray[np.uint8]:
    """Return ``count`` colours of which the first is black, well apart and all different."""
    numbers = np.arange(count)
    hue = (numbers * 0.61803398875 + offset) % 1.0
    value = 0.65 + 0.35 * ((numbers % 3) / 2)
    wheel = np.abs(hue[:, None] * 6 - np.array([3.0, 2.0, 4.0]))
    rgb = np.clip(np.stack([wheel[:, 0] - 1, 2 - wheel[:, 1], 2 - wheel[:, 2]], axis=1), 0, 1)
    colours = (255 * value[:, None] * (0.2 + 0.8 * rgb)).round().astype(np.uint8)
    colours[0] = 0
    return colours


PARSE_COLOURS = _distinct_colours(20, 0.1)
"""Palette of a parse map, ``uint8[20, 3]``."""

SURFACE_COLOURS = _distinct_colours(25, 0.35)
"""Palette of a pose map, ``uint8[25, 3]``."""


def numbers_of(pixels: NDArray[np.uint8], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the numbers of a decoded parse or pose map: of its colours, or its one channel, which holds them already.

    Args:
        pixels: ``uint8[height, width, channels]``.
        colours: ``PARSE_COLOURS`` or ``SURFACE_COLOURS``.

    Raises:
        ValueError: A colour is none of them.

    >>> numbers_of(PARSE_COLOURS[[[Parse.HAIR, Parse.UPPER]]], PARSE_COLOURS).tolist()
    [[2, 5]]
    """
    if pixels.shape[-1] == 1:
        return np.asarray(pixels[..., 0])
    packed, known = _packed(pixels), _packed(colours)
    order = np.argsort(known)
    place = np.searchsorted(known[order], packed).clip(max=len(known) - 1)
    numbers: NDArray[np.uint8] = order.astype(np.uint8)[place]
    strange = known[numbers] != packed
    if strange.any():
        raise ValueError(
            f"numbers_of: got the colour {pixels[strange][0].tolist()}, which is none of the {len(known)} known. "
            "Store the map as a palette picture with these colours, or as one channel of numbers."
        )
    return numbers


def _packed(pixels: NDArray[np.uint8]) -> NDArray[np.int32]:
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return (red << 16) | (green << 8) | blue


def mirrored_surface(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Exchange the colours of left and right in a pose map, as a mirrored picture needs.

    Colours that are not in ``SURFACE_COLOURS`` stay as they are.

    Args:
        pixels: ``uint8[..., 3]``.

    >>> left, right = SURFACE_COLOURS[[Surface.LEFT_FOREARM, Surface.RIGHT_FOREARM]]
    >>> bool((mirrored_surface(left) == right).all())
    True
    """
    result = pixels.copy()
    for surface in Surface:
        if "LEFT" not in surface.name and "RIGHT" not in surface.name:
            continue
        side, other = ("LEFT", "RIGHT") if "LEFT" in surface.name else ("RIGHT", "LEFT")
        partner = Surface[surface.name.replace(side, other)]
        result[(pixels == SURFACE_COLOURS[surface]).all(axis=-1)] = SURFACE_COLOURS[partner]
    return result
