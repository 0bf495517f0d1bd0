"""Cloth by the metre: one colour, stripes, checks or dots, and a logo, finer as the texture factor grows."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
from common.geometry import Points, ellipse
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
_Places = Callable[[], NDArray[np.float64]]

GARMENT_WIDTH = 0.34
"""Width of a flat garment's body, in picture heights."""


def colour(hue: float, saturation: float, value: float) -> Colour:
    """Return a colour as three bytes.

    >>> colour(0.0, 1.0, 1.0)
    (255, 0, 0)
    """
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue % 1.0, saturation, value))
    return red, green, blue


def weave(
    height: int,
    width: int,
    texture: float,
    rng: np.random.Generator,
    *,
    logo_at: Points,
    unit: float,
    finest: float = 12.0,
) -> Image.Image:
    """Fill a canvas with cloth.

    Below 0.15 it is one colour; above, a pattern of 1 to 12 cycles over a garment's width, linear in ``texture``; above
    0.5 a logo is added.

    Args:
        height: Rows of the canvas.
        width: Columns of the canvas.
        texture: The factor, in [0, 1].
        rng: Where colours and pattern come from.
        logo_at: Centre of the logo, in pixels.
        unit: Length of one picture height in pixels.
        finest: Most cycles that the final picture can hold; more would only flicker.
    """
    hue, contrast = rng.uniform(), rng.uniform(0.25, 0.5) * rng.choice([-1.0, 1.0])
    base = colour(hue, rng.uniform(0.55, 0.9), rng.uniform(0.45, 0.85))
    second = colour(hue + contrast, rng.uniform(0.2, 0.8), rng.uniform(0.75, 1.0))
    third = colour(hue + 0.5, 0.75, 0.25 if sum(base) > 330 else 0.95)
    kind, angle, phase = rng.integers(4), rng.uniform(-20, 20), rng.uniform(size=2)
    shape = rng.integers(3)
    if texture < 0.15:
        return Image.new("RGB", (width, height), base)
    cycles = 1 + (min(12.0, finest) - 1) * texture
    rows, columns = (places / (GARMENT_WIDTH * unit) for places in np.ogrid[0:height, 0:width])
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))

    def over() -> NDArray[np.float64]:
        return np.asarray(((columns * cosine + rows * sine) * cycles + phase[0]) % 1.0)

    def down() -> NDArray[np.float64]:
        return np.asarray(((rows * cosine - columns * sine) * cycles + phase[1]) % 1.0)

    image = _pattern(int(kind), over, down, base, second)
    if texture > 0.5:
        _logo(ImageDraw.Draw(image), int(shape), logo_at, 0.05 * unit, third)
    return image


def _pattern(kind: int, over: _Places, down: _Places, base: Colour, second: Colour) -> Image.Image:
    if kind == 0:
        parts, which = 1, (down() < 0.45).astype(np.uint8)
    elif kind == 1:
        parts, which = 1, (over() < 0.45).astype(np.uint8)
    elif kind == 2:
        parts, which = 2, (over() < 0.45).astype(np.uint8) + (down() < 0.45)
    else:
        parts, which = 1, (np.hypot(over() - 0.5, down() - 0.5) < 0.3).astype(np.uint8)
    share = np.arange(parts + 1)[:, None] / parts
    mixed = (1 - share) * np.array(base) + share * np.array(second)
    image = Image.fromarray(which)
    image.putpalette(mixed.round().astype(np.uint8).tobytes())
    return image.convert("RGB")


def _logo(draw: ImageDraw.ImageDraw, shape: int, centre: Points, radius: float, ink: Colour) -> None:
    """Draw a ring, a star or three bars: something whose place and form a model has to carry over."""
    if shape == 0:
        draw.polygon([tuple(point) for point in ellipse(centre, radius, radius)], fill=ink)
        draw.polygon(
            [tuple(point) for point in ellipse(centre, radius * 0.5, radius * 0.5)], fill=(250, 250, 250)
        )
    elif shape == 1:
        around = np.linspace(0, 2 * np.pi, 10, endpoint=False) - np.pi / 2
        reach = np.where(np.arange(10) % 2 == 0, 1.2, 0.5) * radius
        points = centre + np.stack([reach * np.cos(around), reach * np.sin(around)], axis=1)
        draw.polygon([tuple(point) for point in points], fill=ink)
    else:
        for step in (-1, 0, 1):
            left, top = centre + np.array([-radius, (step - 0.25) * radius * 0.8])
            draw.rectangle([left, top, left + 2 * radius, top + 0.4 * radius], fill=ink)
