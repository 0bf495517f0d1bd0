"""Try-on pictures from nothing: person, garment, masks, pose, and the true difficulty of each.

Everything follows from (seed, index, level): the same call gives the same bytes, in any process, in any order.

>>> sample = render_sample("easy", index=3, seed=17, height=64, width=48)
>>> sample.image.size, sample.factors.category, sample.occluded
((48, 64), 'upper_body', 0.0)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from common.body_labels import PARSE_COLOURS, SURFACE_COLOURS, Surface
from common.fabric import weave
from common.factors import Factors, draw_factors
from common.figure import JOINTS, SIDES, Figure, pose_figure
from common.garment import Garment, cut_garment
from common.geometry import UNIT_SQUARE, homography, project
from common.scene import Scene
from numpy.typing import NDArray
from PIL import Image, ImageDraw

GENERATOR_VERSION = 1
"""Rises when the same seed and index would give other bytes; caches of pictures carry it."""


@dataclass(frozen=True, slots=True)
class TryOnSample:
    """One person in one garment, and all that is known about the picture.

    Attributes:
        image: The person wearing the garment.
        cloth: The garment, flat on white.
        cloth_mask: Where the garment is in ``cloth``, 0 and 255.
        agnostic_mask: Where a try-on has to paint: the garment and a margin, without what lies in front of it.
        pose: Body surfaces in the colours of ``SURFACE_COLOURS``, as DensePose would draw them.
        parse: Palette picture of ``Parse`` ids.
        keypoints: ``float64[25, 3]``: x, y, confidence of BODY_25; a joint outside the picture is (0, 0, 0).
        factors: What made it as hard as it is.
        occluded: Share of the garment, sleeves aside, that something hides.
        pieces: ``uint8[height, width]``: garment piece seen at each pixel, from 1; 0 elsewhere.
        cloth_from_image: ``float64[pieces, 3, 3]``: homographies from pixels of ``image`` to pixels of ``cloth``.
    """

    image: Image.Image
    cloth: Image.Image
    cloth_mask: Image.Image
    agnostic_mask: Image.Image
    pose: Image.Image
    parse: Image.Image
    keypoints: NDArray[np.float64]
    factors: Factors
    occluded: float
    pieces: NDArray[np.uint8]
    cloth_from_image: NDArray[np.float64]

    @property
    def agnostic(self) -> Image.Image:
        """The person with the region to paint greyed out."""
        grey = Image.new("RGB", self.image.size, (128, 128, 128))
        return Image.composite(grey, self.image, self.agnostic_mask)

    def flow(self) -> NDArray[np.float64]:
        """Return ``float64[height, width, 2]``: the (x, y) in ``cloth`` that each pixel of the worn garment shows.

        Pixels that show no garment are NaN. Coordinates are continuous: the first pixel's centre is (0.5, 0.5).
        """
        height, width = self.pieces.shape
        rows, columns = np.mgrid[0:height, 0:width] + 0.5
        places = np.stack([columns, rows], axis=-1)
        result = np.full((height, width, 2), np.nan)
        for number, matrix in enumerate(self.cloth_from_image, start=1):
            seen = self.pieces == number
            result[seen] = project(matrix, places[seen])
        return result


def render_sample(
    level_or_factors: str | Factors, index: int, seed: int, height: int = 192, width: int = 144
) -> TryOnSample:
    """Render sample number ``index`` of a level, or one with given factors.

    Args:
        level_or_factors: ``"easy"``, ``"medium"``, ``"hard"``, or the factors themselves.
        index: Number of the sample, from 0.
        seed: The generator's seed.
        height: Rows of the picture, at least 24.
        width: Columns of the picture, at least 16.

    Raises:
        ValueError: If the level is unknown or the picture is too small.
    """
    if height < 24 or width < 16:
        raise ValueError(
            f"render_sample: got {height}x{width}, but a person needs at least 24 rows and 16 columns."
        )
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))
    factors_rng, figure_rng, garment_rng, fabric_rng, scene_rng = rng.spawn(5)
    factors = (
        level_or_factors
        if isinstance(level_or_factors, Factors)
        else draw_factors(level_or_factors, factors_rng)
    )

    # At least twice as fine as the result, and never so coarse that limbs become stairs.
    fine = max(2, -(-256 // height))
    rows, columns = height * fine, width * fine
    unit = min(rows, columns / 0.75)
    figure = pose_figure(factors, figure_rng, rows, columns)
    garment = cut_garment(factors.category, figure, garment_rng, rows, columns)
    fabric = weave(
        rows,
        columns,
        factors.texture,
        fabric_rng,
        logo_at=garment.logo_at,
        unit=unit,
        finest=0.1 * unit / fine,
    )
    scene = Scene(figure, garment, fabric, factors, scene_rng, (rows, columns))
    cloth, cloth_mask = _lay_flat(garment, fabric)
    return TryOnSample(
        image=scene.canvas.colours.reduce(fine),
        cloth=cloth.reduce(fine),
        cloth_mask=cloth_mask.reduce(fine).point(lambda value: 255 * (value >= 128)),
        agnostic_mask=scene.agnostic_mask(fine, factors.looseness),
        pose=_with_palette(_surfaces(figure, rows, columns), fine, SURFACE_COLOURS).convert("RGB"),
        parse=_with_palette(scene.canvas.labels, fine, PARSE_COLOURS),
        keypoints=_keypoints(figure, fine, height, width),
        factors=factors,
        occluded=scene.occluded,
        pieces=_centres(scene.canvas.pieces, fine),
        cloth_from_image=_correspondence(garment, fine),
    )


def _lay_flat(garment: Garment, fabric: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Return the garment on white, and its mask."""
    mask = Image.new("L", fabric.size, 0)
    draw = ImageDraw.Draw(mask)
    for piece in garment.pieces:
        cut = project(homography(UNIT_SQUARE, piece.flat), piece.outline)
        draw.polygon([tuple(point) for point in cut], fill=255)
    return Image.composite(fabric, Image.new("RGB", fabric.size, (255, 255, 255)), mask), mask


def _surfaces(figure: Figure, rows: int, columns: int) -> Image.Image:
    """Paint the body's surfaces without clothes or hair; what is in front comes last."""
    surfaces = Image.new("L", (columns, rows), int(Surface.NONE))
    draw = ImageDraw.Draw(surfaces)
    shapes = []
    for side in SIDES:
        named = {
            name: Surface[f"{side.upper()}_{name}"]
            for name in ("SHIN", "THIGH", "UPPER_ARM", "FOREARM", "HAND")
        }
        arms = [
            (figure.upper_arm(side), named["UPPER_ARM"]),
            (figure.forearm(side), named["FOREARM"]),
            (figure.hand(side), named["HAND"]),
        ]
        depth = 2 if side in figure.crossing else 1
        shapes += [(0, figure.shin(side), named["SHIN"]), (0, figure.thigh(side), named["THIGH"])]
        shapes += [(depth, outline, surface) for outline, surface in arms]
    shapes += [
        (1, figure.torso, Surface.TORSO),
        (1, figure.neck, Surface.TORSO),
        (1, figure.head, Surface.HEAD),
    ]
    for _, outline, surface in sorted(shapes, key=lambda shape: shape[0]):
        draw.polygon([tuple(point) for point in outline], fill=int(surface))
    return surfaces


def _centres(picture: Image.Image, fine: int) -> NDArray[np.uint8]:
    """Shrink a picture of numbers, which must not be averaged: the centre of each coarse pixel decides."""
    return np.ascontiguousarray(np.array(picture)[fine // 2 :: fine, fine // 2 :: fine])


def _with_palette(picture: Image.Image, fine: int, colours: NDArray[np.uint8]) -> Image.Image:
    shrunk = Image.fromarray(_centres(picture, fine))
    shrunk.putpalette(colours.tobytes())
    return shrunk


def _keypoints(figure: Figure, fine: int, height: int, width: int) -> NDArray[np.float64]:
    found = np.zeros((len(JOINTS), 3))
    for row, name in enumerate(JOINTS):
        x, y = figure.joints[name] / fine
        if 0 <= x < width and 0 <= y < height:
            found[row] = (x, y, 1.0)
    return found


def _correspondence(garment: Garment, fine: int) -> NDArray[np.float64]:
    matrices = [homography(piece.worn / fine, piece.flat / fine) for piece in garment.pieces]
    return np.stack(matrices)
