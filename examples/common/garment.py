"""Garments as a few flat pieces, and where each piece lies on a person.

Every piece is a quadrilateral with an outline inside it. Laid flat it has one place, worn it has another, and the
homography between the two says exactly which point of the cloth is seen where.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from common.body_labels import Parse
from common.fabric import GARMENT_WIDTH
from common.figure import SIDES, Figure
from common.geometry import UNIT_SQUARE, Points, limb

_SIGN = {"right": -1.0, "left": 1.0}


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of cloth.

    Attributes:
        name: What it covers: ``body``, ``right_upper_sleeve``, ...
        flat: Corners in the flat picture, in pixels.
        worn: Corners on the person, in pixels.
        outline: The cut, as points of the unit square that ``flat`` and ``worn`` are images of.
        in_front: Whether it lies on a forearm that crosses the torso.
    """

    name: str
    flat: Points
    worn: Points
    outline: Points
    in_front: bool = False


@dataclass(frozen=True, slots=True)
class Garment:
    """The pieces of one garment, in drawing order, and the label they get."""

    pieces: tuple[Piece, ...]
    label: Parse
    logo_at: Points


def cut_garment(category: str, figure: Figure, rng: np.random.Generator, height: int, width: int) -> Garment:
    """Cut a garment of a category, lay it flat in a canvas and dress a figure with it."""
    return _CUTS[category](figure, rng, height, width)


def _upper_body(figure: Figure, rng: np.random.Generator, height: int, width: int) -> Garment:
    flat_unit, centre = min(height, width / 0.75), width / 2
    sleeve = float(rng.choice([0.5, 1.0, 2.0], p=[0.25, 0.5, 0.25]))
    fit, length = rng.uniform(0.0, 0.025), rng.uniform(-0.01, 0.035)
    top, half = height / 2 - 0.27 * flat_unit, GARMENT_WIDTH / 2 * flat_unit
    flat = _box(centre - half, top, centre + half, top + 0.5 * flat_unit)
    body = Piece(
        "body",
        flat,
        _trunk(figure, fit, 0.04 + length, 0.105 + fit),
        _neckline(rng, bare_shoulders=sleeve < 1),
    )
    sleeves = _sleeves(figure, body, sleeve, flat_unit) if sleeve >= 1 else ()
    return Garment((*sleeves, body), Parse.UPPER, _logo_place(body))


def _dress(figure: Figure, rng: np.random.Generator, height: int, width: int) -> Garment:
    flat_unit, centre = min(height, width / 0.75), width / 2
    sleeve = float(rng.choice([0.5, 1.0], p=[0.5, 0.5]))
    flare, length = rng.uniform(0.03, 0.08), rng.uniform(0.16, 0.24)
    top, half = height / 2 - 0.42 * flat_unit, 0.14 * flat_unit
    waist = top + 0.42 * flat_unit
    flat = _box(centre - half, top, centre + half, waist)
    body = Piece("body", flat, _trunk(figure, 0.0, 0.01, 0.1), _neckline(rng, bare_shoulders=sleeve < 1))
    low = _below(figure, length, 0.11 + flare)
    skirt_flat = np.stack(
        [
            flat[3],
            flat[2],
            *(
                np.array([centre + sign * (half + flare * flat_unit), waist + 0.4 * flat_unit])
                for sign in (1, -1)
            ),
        ]
    )
    skirt = Piece("skirt", skirt_flat, np.stack([body.worn[3], body.worn[2], low[1], low[0]]), _straight(0.0))
    sleeves = _sleeves(figure, body, sleeve, flat_unit) if sleeve >= 1 else ()
    return Garment((*sleeves, skirt, body), Parse.DRESS, _logo_place(body))


def _lower_body(figure: Figure, rng: np.random.Generator, height: int, width: int) -> Garment:
    flat_unit, centre = min(height, width / 0.75), width / 2
    is_skirt, flare, length = bool(rng.random() < 0.4), rng.uniform(0.01, 0.06), rng.uniform(0.12, 0.2)
    hip, up = figure.joints["mid_hip"], figure.up
    outward = np.array([-up[1], up[0]])
    unit = figure.unit
    waist = [hip + up * 0.05 * unit + outward * _SIGN[side] * 0.105 * unit for side in SIDES]
    top, half = height / 2 - 0.3 * flat_unit, 0.14 * flat_unit
    if is_skirt:
        low = _below(figure, length, 0.115 + flare)
        flat = _box(centre - half, top, centre + half, top + 0.5 * flat_unit)
        flat[2:, 0] += np.array([1, -1]) * flare * flat_unit
        pieces = (Piece("skirt", flat, np.stack([*waist, low[1], low[0]]), _straight(0.02)),)
        return Garment(pieces, Parse.SKIRT, flat.mean(axis=0))
    legs = []
    for side in SIDES:
        sign = _SIGN[side]
        flat = _box(centre, top, centre + sign * half, top + 0.62 * flat_unit)
        flat[2:, 0] += np.array([0.35, 0.2]) * sign * half
        knee, ankle = figure.joints[f"{side}_knee"], figure.joints[f"{side}_ankle"]
        end = knee + (ankle - knee) * 0.2
        outward_end = np.array([sign * 0.062 * unit, 0.0])
        middle, edge = (waist[0] + waist[1]) / 2, waist[SIDES.index(side)]
        worn = np.stack([middle, edge, end + outward_end, end - outward_end])
        legs.append(Piece(f"{side}_leg", flat, worn, _TROUSER_LEG))
    return Garment(tuple(legs), Parse.PANTS, legs[0].flat.mean(axis=0))


_CUTS: dict[str, Callable[[Figure, np.random.Generator, int, int], Garment]] = {
    "upper_body": _upper_body,
    "lower_body": _lower_body,
    "dresses": _dress,
}


def _sleeves(figure: Figure, body: Piece, length: float, flat_unit: float) -> tuple[Piece, ...]:
    """Cut both sleeves: to above the elbow for a length of 1, to the wrist for 2."""
    pieces = []
    for side in SIDES:
        sign, crosses = _SIGN[side], side in figure.crossing
        shoulder, elbow, wrist = (
            figure.joints[f"{side}_{joint}"] for joint in ("shoulder", "elbow", "wrist")
        )
        corner = body.flat[0] if side == "right" else body.flat[1]
        root = corner + np.array([-sign * 0.055, 0.068]) * flat_unit
        way = np.array([sign * 0.5, 0.87])
        first, second = root + way * 0.18 * flat_unit, root + way * 0.38 * flat_unit
        unit, along = figure.unit, (elbow - shoulder) / max(float(np.hypot(*(elbow - shoulder))), 1e-9)
        end = elbow + along * 0.015 * unit if length > 1 else shoulder + (elbow - shoulder) * 0.62
        start = shoulder - along * 0.035 * unit
        upper_flat = limb(root, first, 0.125 * flat_unit, 0.11 * flat_unit)
        worn = limb(start, end, 0.094 * unit, (0.075 if length > 1 else 0.088) * unit)
        pieces.append(Piece(f"{side}_upper_sleeve", upper_flat, worn, _sleeve_cut(rounded=True)))
        if length > 1:
            lower = (wrist - elbow) / max(float(np.hypot(*(wrist - elbow))), 1e-9)
            cuff = limb(
                elbow - lower * 0.02 * unit, elbow + (wrist - elbow) * 0.9, 0.074 * unit, 0.055 * unit
            )
            lower_flat = limb(first, second, 0.11 * flat_unit, 0.075 * flat_unit)
            pieces.append(
                Piece(f"{side}_lower_sleeve", lower_flat, cuff, _sleeve_cut(rounded=False), in_front=crosses)
            )
    return tuple(pieces)


def _trunk(figure: Figure, fit: float, below_hip: float, half_hem: float) -> Points:
    """Corners of the front of the body: over both shoulders, down to a little below the hip."""
    hip, unit, up = figure.joints["mid_hip"], figure.unit, figure.up
    outward = np.array([-up[1], up[0]])
    shoulders = [
        figure.joints[f"{side}_shoulder"]
        + up * 0.045 * unit
        + outward * _SIGN[side] * (0.026 + fit / 2) * unit
        for side in SIDES
    ]
    narrow = 0.4 + 0.6 * figure.turn
    hem = [hip - up * below_hip * unit + outward * _SIGN[side] * half_hem * narrow * unit for side in SIDES]
    return np.stack([shoulders[0], shoulders[1], hem[1], hem[0]])


def _below(figure: Figure, length: float, half_width: float) -> Points:
    """Both ends of a hem that hangs straight down from the hip, right first."""
    hip, unit = figure.joints["mid_hip"], figure.unit
    return np.stack([hip + np.array([_SIGN[side] * half_width, length]) * unit for side in SIDES])


def _neckline(rng: np.random.Generator, *, bare_shoulders: bool) -> Points:
    """The cut of a body: neckline round or pointed, shoulders, armholes, straight sides."""
    deep, half, pointed = rng.uniform(0.09, 0.19), rng.uniform(0.15, 0.21), bool(rng.random() < 0.4)
    across_neck = np.linspace(-1, 1, 13)
    depth = deep * (1 - np.abs(across_neck)) if pointed else deep * np.sqrt(np.clip(1 - across_neck**2, 0, 1))
    neck = np.stack([0.5 + half * across_neck, 0.01 + depth], axis=1)
    shoulder = 0.13 if bare_shoulders else 0.0
    right = [[0.0, 1.0], [0.03, 0.6], [0.02, 0.34], [0.05 + shoulder, 0.2], [shoulder, 0.075]]
    left = [[1 - x, y] for x, y in reversed(right)]
    return np.concatenate([np.array(right), neck, np.array(left)])


def _sleeve_cut(*, rounded: bool) -> Points:
    if not rounded:
        return UNIT_SQUARE
    return np.array([[0.0, 0.2], [0.15, 0.05], [0.5, 0.0], [0.85, 0.05], [1.0, 0.2], [1.0, 1.0], [0.0, 1.0]])


def _straight(inset: float) -> Points:
    return UNIT_SQUARE + np.array([[inset, 0], [-inset, 0], [0, 0], [0, 0]])


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)


def _logo_place(body: Piece) -> Points:
    left, right, low_right, low_left = body.flat
    return np.asarray(0.56 * (left + right) / 2 + 0.44 * (low_left + low_right) / 2)


# The inner edge bulges past the middle above the crotch, so that the two legs overlap there.
_TROUSER_LEG: Points = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [-0.02, 0.5], [-0.16, 0.3]], float)
