"""A picture of a dressed person, painted back to front: background, body, garment, what hides the garment, light."""

from __future__ import annotations

import numpy as np
from common.body_labels import Parse
from common.canvas import FOLDS_SPAN, Canvas, drape
from common.dilation import grow
from common.fabric import colour
from common.factors import Factors
from common.figure import SIDES, Figure
from common.garment import Garment
from common.geometry import UNIT_SQUARE, ellipse, homography, limb, project
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_SKINS = [(0.06, 0.28, 0.97), (0.07, 0.36, 0.88), (0.06, 0.45, 0.74), (0.055, 0.52, 0.55), (0.05, 0.5, 0.4)]
_HAIRS = [(0.08, 0.5, 0.16), (0.07, 0.6, 0.33), (0.11, 0.6, 0.75), (0.04, 0.7, 0.45), (0.6, 0.1, 0.22)]
_MOST_SHAPES = 14
_KEPT = (Parse.FACE, Parse.HAIR)


class Scene:
    """A finished picture at the fine resolution it was painted in.

    Attributes:
        canvas: Colours, labels and garment pieces.
        worn: One mask per garment piece: where it lies on the body, hidden or not.
    """

    def __init__(
        self,
        figure: Figure,
        garment: Garment,
        fabric: Image.Image,
        factors: Factors,
        rng: np.random.Generator,
        size: tuple[int, int],
    ) -> None:
        height, width = size
        self._figure, self._garment, self._fabric, self._factors = figure, garment, fabric, factors
        self._skin = colour(*_SKINS[int(rng.integers(len(_SKINS)))])
        self._hair = colour(*_HAIRS[int(rng.integers(len(_HAIRS)))])
        self._plain = colour(rng.uniform(0.5, 0.75), rng.uniform(0.1, 0.5), rng.uniform(0.2, 0.45))
        self._strands = 0.04 + 0.24 * factors.occlusion * rng.uniform(0.8, 1.0)
        self._folds = _folds(factors.lighting, rng)
        self.canvas = Canvas(height, width, _background(factors.clutter, rng, height, width))
        self.worn = [Image.new("L", (width, height), 0) for _ in garment.pieces]
        self._paint()
        self.canvas.colours = _light(self.canvas.colours, factors.lighting, rng)

    @property
    def occluded(self) -> float:
        """Share of the garment, sleeves aside, that something in front of it hides."""
        seen = np.array(self.canvas.pieces)
        whole = visible = 0
        for number, piece in enumerate(self._garment.pieces, start=1):
            if "sleeve" not in piece.name:
                whole += int(np.count_nonzero(np.array(self.worn[number - 1])))
                visible += int((seen == number).sum())
        return 1.0 - visible / whole if whole else 0.0

    def agnostic_mask(self, fine: int, looseness: float) -> Image.Image:
        """Return where a try-on must paint, ``fine`` times smaller than the canvas, as 0 and 255.

        The worn garment, hidden parts included, grown by 1.5 to 6 % of the picture's height, without the head and
        without the forearms in front of it.
        """
        worn = Image.fromarray(np.maximum.reduce([np.array(mask) for mask in self.worn]))
        # The centre of each coarse pixel decides, exactly as it does for the parse map.
        centre = np.s_[fine // 2 :: fine, fine // 2 :: fine]
        labels = np.array(self.canvas.labels)[centre]
        arms = np.isin(labels, (Parse.LEFT_ARM, Parse.RIGHT_ARM)) & (np.array(worn)[centre] > 0)
        small = np.array(worn.reduce(fine)) > 0
        radius = max(1, round((0.015 + 0.045 * looseness) * len(small)))
        mask = grow(small, radius) & ~(np.isin(labels, _KEPT) | arms)
        return Image.fromarray(np.uint8(255) * mask)

    def _paint(self) -> None:
        canvas, figure, factors = self.canvas, self._figure, self._factors
        self._hair_behind()
        self._legs()
        canvas.polygon(figure.torso, self._skin, Parse.NECK)
        if factors.category == "lower_body":
            canvas.polygon(figure.torso, self._plain, Parse.UPPER)
        for side in SIDES:
            self._arm(side, upper=True, lower=side not in figure.crossing)
        self._cloth(in_front=False)
        canvas.polygon(figure.neck, _shaded(self._skin, 0.88), Parse.NECK)
        if factors.category != "lower_body":
            self._cloth(in_front=False, only_main=True)
        self._head()
        for side in figure.crossing:
            self._arm(side, upper=False, lower=True)
        self._cloth(in_front=True)
        for side in figure.crossing:
            canvas.polygon(figure.hand(side), self._skin, _arm_label(side))
        self._hair_in_front()

    def _cloth(self, *, in_front: bool, only_main: bool = False) -> None:
        for number, piece in enumerate(self._garment.pieces, start=1):
            if piece.in_front != in_front or (only_main and "sleeve" in piece.name):
                continue
            mask = self.canvas.mask(project(homography(UNIT_SQUARE, piece.worn), piece.outline))
            if (box := mask.getbbox()) is not None:
                cloth = drape(self._fabric, piece.flat, piece.worn, self._folds, box)
                self.canvas.paint(cloth, mask, box, self._garment.label, number)
            self.worn[number - 1] = mask

    def _legs(self) -> None:
        dressed_below = self._factors.category == "upper_body"
        for side in SIDES:
            label = Parse.PANTS if dressed_below else Parse.LEFT_LEG if side == "left" else Parse.RIGHT_LEG
            fill = self._plain if dressed_below else self._skin
            self.canvas.polygon(self._figure.shin(side), fill, label)
            thigh = self._figure.thigh(side) if dressed_below else self._figure.bare_thigh(side)
            self.canvas.polygon(thigh, fill, label)
        if dressed_below:
            figure = self._figure
            hips = limb(
                figure.joints["mid_hip"] + figure.up * 0.05 * figure.unit,
                figure.joints["mid_hip"] - figure.up * 0.06 * figure.unit,
                0.19 * figure.unit,
                0.22 * figure.unit,
            )
            self.canvas.polygon(hips, fill, Parse.PANTS)

    def _arm(self, side: str, *, upper: bool, lower: bool) -> None:
        figure, label = self._figure, _arm_label(side)
        elbow = ellipse(figure.joints[f"{side}_elbow"], 0.027 * figure.unit, 0.027 * figure.unit)
        if upper:
            shoulder = ellipse(figure.joints[f"{side}_shoulder"], 0.034 * figure.unit, 0.034 * figure.unit)
            for outline in (shoulder, figure.upper_arm(side), elbow):
                self.canvas.polygon(outline, self._skin, label)
        if lower:
            for outline in (elbow, figure.forearm(side), figure.hand(side)):
                self.canvas.polygon(outline, _shaded(self._skin, 0.96), label)

    def _head(self) -> None:
        canvas, figure, unit = self.canvas, self._figure, self._figure.unit
        canvas.polygon(figure.head, self._skin, Parse.FACE)
        cap = figure.head
        middle = figure.joints["nose"] + figure.up * 0.035 * unit
        above = (cap - middle) @ figure.up > 0
        canvas.polygon(middle + (cap[above] - middle) * 1.08, self._hair, Parse.HAIR)
        for side in SIDES:
            eye = ellipse(figure.joints[f"{side}_eye"], 0.008 * unit, 0.007 * unit)
            canvas.polygon(eye, (40, 30, 30), Parse.FACE)
        face = (figure.joints["right_eye"] + figure.joints["left_eye"]) / 2 - figure.up * 0.062 * unit
        canvas.polygon(
            ellipse(face, 0.016 * unit, 0.006 * unit, figure.lean), _shaded(self._skin, 0.6), Parse.FACE
        )

    def _hair_behind(self) -> None:
        figure, unit = self._figure, self._figure.unit
        middle = figure.joints["nose"] + figure.up * 0.02 * unit
        self.canvas.polygon(
            ellipse(middle, 0.073 * unit, 0.085 * unit, figure.lean * 0.7), self._hair, Parse.HAIR
        )
        if self._strands > 0.08:
            end = middle - figure.up * (0.07 + self._strands * 0.5) * unit
            self.canvas.polygon(limb(middle, end, 0.15 * unit, 0.16 * unit), self._hair, Parse.HAIR)

    def _hair_in_front(self) -> None:
        """Two strands that fall from the ears over the shoulders, longer with more occlusion."""
        if self._strands < 0.1:
            return
        figure, unit = self._figure, self._figure.unit
        for side in SIDES:
            start = figure.joints[f"{side}_ear"] + figure.up * 0.01 * unit
            inward = (figure.joints["mid_hip"] - start) / np.hypot(*(figure.joints["mid_hip"] - start))
            end = start + (0.35 * inward - 0.75 * figure.up) * (0.1 + 0.6 * self._strands) * unit
            self.canvas.polygon(limb(start, end, 0.026 * unit, 0.036 * unit), self._hair, Parse.HAIR)
            self.canvas.polygon(ellipse(end, 0.018 * unit, 0.018 * unit), self._hair, Parse.HAIR)


def _arm_label(side: str) -> Parse:
    return Parse.LEFT_ARM if side == "left" else Parse.RIGHT_ARM


def _shaded(fill: tuple[int, int, int], factor: float) -> tuple[int, int, int]:
    red, green, blue = (round(part * factor) for part in fill)
    return red, green, blue


def _background(clutter: float, rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """A plain wall, lighter above, with up to 14 coloured things in front of it."""
    wall = np.array(colour(rng.uniform(), rng.uniform(0.02, 0.12), rng.uniform(0.82, 0.95)), float)
    fade = np.linspace(1.03, 0.9, height)[:, None, None]
    rows = np.clip(wall * fade, 0, 255).round().astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows, (height, width, 3))))
    draw = ImageDraw.Draw(image)
    for _ in range(round(_MOST_SHAPES * clutter)):
        centre = rng.uniform(0, 1, 2) * (width, height)
        reach = rng.uniform(0.04, 0.16, 2) * height
        fill = colour(rng.uniform(), rng.uniform(0.2, 0.7), rng.uniform(0.35, 0.9))
        if rng.random() < 0.5:
            outline = ellipse(centre, *reach)
        else:
            outline = limb(centre - reach, centre + reach, *rng.uniform(0.05, 0.2, 2) * height)
        draw.polygon([tuple(point) for point in outline], fill=fill)
    return image


def _folds(lighting: float, rng: np.random.Generator) -> Image.Image:
    """Brightness over ``FOLDS_SPAN`` of a piece of cloth: darker towards both sides, wavy where the light is strong."""
    low, high = FOLDS_SPAN
    down, over = low + (high - low) * np.mgrid[0:48, 0:48] / 47
    roundness = 1 - 0.3 * np.clip(np.abs(2 * over - 1), 0, 1) ** 3
    phase, slant = rng.uniform(0, 2 * np.pi), rng.uniform(-3, 3)
    waves = 1 - (0.02 + 0.2 * lighting) * (0.5 + 0.5 * np.sin(9 * over + slant * down + phase))
    return Image.fromarray((255 * roundness * waves).round().astype(np.uint8))


def _light(image: Image.Image, lighting: float, rng: np.random.Generator) -> Image.Image:
    """Darken a picture along one direction and tint it, by as much as the light is hard."""
    height, width = image.height, image.width
    angle = rng.uniform(0, 2 * np.pi)
    tint = 1 + lighting * rng.uniform(-0.12, 0.12, 3)
    rows, columns = np.ogrid[0:height, 0:width]
    along: NDArray[np.float64] = (columns / width - 0.5) * np.cos(angle) + (rows / height - 0.5) * np.sin(
        angle
    )
    shade = 1 - 0.6 * lighting * np.clip(along + 0.5, 0, 1)
    pixels = np.array(image)
    lit = np.empty((height, width))
    for channel in range(3):
        np.multiply(pixels[..., channel], shade, out=lit)
        np.multiply(lit, tint[channel], out=lit)
        pixels[..., channel] = np.rint(np.clip(lit, 0, 255, out=lit), out=lit)
    return Image.fromarray(pixels)
