"""A picture painted back to front, which remembers for every pixel what it shows."""

from __future__ import annotations

import numpy as np
from common.body_labels import Parse
from common.fabric import Colour
from common.geometry import UNIT_SQUARE, Points, homography
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

FOLDS_SPAN = (-0.25, 1.25)
"""Part of a piece's own coordinates that its folds cover: more than 0 to 1, since a cut may reach over its square."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom lie outside."""


class Canvas:
    """Colours, parse labels and garment pieces of one picture, always in step.

    Attributes:
        colours: The picture.
        labels: ``Parse`` id of what is seen at each pixel.
        pieces: Number of the garment piece seen at each pixel, from 1; 0 elsewhere.
    """

    def __init__(self, height: int, width: int, background: Image.Image) -> None:
        self.size = (width, height)
        self.colours = background
        self.labels = Image.new("L", self.size, int(Parse.BACKGROUND))
        self.pieces = Image.new("L", self.size, 0)

    def polygon(self, outline: Points, fill: Colour, label: Parse) -> None:
        """Paint a shape of one colour."""
        mask = self.mask(outline)
        if (box := mask.getbbox()) is not None:
            self.paint(fill, mask, box, label)

    def paint(
        self, what: Image.Image | Colour, mask: Image.Image, box: Box, label: Parse, piece: int = 0
    ) -> None:
        """Paint one colour, or cloth that has already been brought into place, through a mask.

        Args:
            what: A picture is as large as the box.
            mask: As large as the whole picture.
            box: Where the mask is not empty. Most shapes are far smaller than the picture.
            label: What is seen there now.
            piece: Number of the garment's piece, 0 for none.
        """
        inside = mask.crop(box)
        self.colours.paste(what, box, inside)
        self.labels.paste(int(label), box, inside)
        self.pieces.paste(piece, box, inside)

    def mask(self, outline: Points) -> Image.Image:
        """Return the pixels inside a shape, as 0 and 255."""
        mask = Image.new("L", self.size, 0)
        ImageDraw.Draw(mask).polygon([tuple(point) for point in outline], fill=255)
        return mask


def drape(cloth: Image.Image, flat: Points, worn: Points, folds: Image.Image, box: Box) -> Image.Image:
    """Bring a flat piece of cloth onto a body: warped and shaded, the part of the picture inside a box.

    Args:
        cloth: A whole canvas of cloth.
        flat: Corners of the piece in it.
        worn: Where the corners go.
        folds: Brightness over ``FOLDS_SPAN`` in both directions, a grey picture; 255 leaves the cloth as it is.
        box: The part that is wanted.
    """
    # From the corner of the picture on: a pixel's place, and so its rounding, is then that of the whole picture.
    size = box[2:]
    warped = warp(cloth, homography(worn, flat), size).crop(box)
    low, high = FOLDS_SPAN
    scale = np.array([folds.width, folds.height]) / (high - low)
    place = np.array([[scale[0], 0, -low * scale[0]], [0, scale[1], -low * scale[1]], [0, 0, 1]])
    shade = warp(folds, place @ homography(worn, UNIT_SQUARE), size).crop(box)
    return ImageChops.multiply(warped, Image.merge("RGB", [shade] * 3))


def warp(image: Image.Image, matrix: NDArray[np.float64], size: tuple[int, int]) -> Image.Image:
    """Return the picture whose pixel p shows ``image`` at ``matrix @ p``."""
    coefficients = (matrix / matrix[2, 2]).ravel()[:8].tolist()
    return image.transform(size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR)
