"""A person as a skeleton of 25 joints and the limbs around it, posed by the factors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from common.factors import Factors
from common.geometry import Points, across, direction, ellipse, limb

JOINTS = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow"),
    *("left_wrist", "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee"),
    *("left_ankle", "right_eye", "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe"),
    *("left_heel", "right_big_toe", "right_small_toe", "right_heel"),
)
"""The BODY_25 order of OpenPose."""

SIDES = ("right", "left")
"""The person's own sides: right is on the left of the picture."""

_SIGN = {"right": -1.0, "left": 1.0}


@dataclass(frozen=True, slots=True)
class Figure:
    """A posed person, in the pixels of the canvas it was made for.

    Attributes:
        joints: Where each joint is, by name; some lie outside the picture.
        unit: Length of one picture height, the measure of all widths.
        lean: Degrees by which the upper body leans to the picture's right.
        crossing: Sides whose forearm lies in front of the torso.
        turn: Width of the shoulders as a share of the frontal one.
    """

    joints: dict[str, Points]
    unit: float
    lean: float
    crossing: tuple[str, ...]
    turn: float

    @property
    def up(self) -> Points:
        """Unit vector along the spine."""
        return -direction(-self.lean)

    @property
    def head(self) -> Points:
        """Outline of the head."""
        return ellipse(
            self.joints["nose"] + self.up * 0.012 * self.unit,
            0.058 * self.unit,
            0.078 * self.unit,
            self.lean * 0.7,
        )

    @property
    def neck(self) -> Points:
        """Outline of the neck, reaching into head and torso."""
        base = self.joints["neck"]
        return limb(
            base + self.up * 0.08 * self.unit,
            base - self.up * 0.03 * self.unit,
            0.055 * self.unit,
            0.085 * self.unit,
        )

    @property
    def torso(self) -> Points:
        """Outline of the trunk: shoulders, waist, hips."""
        neck, hip = self.joints["neck"], self.joints["mid_hip"]
        outline = []
        for side in ("right", "left"):
            shoulder, edge = self.joints[f"{side}_shoulder"], self.joints[f"{side}_hip"]
            outward = across(hip, neck) * -_SIGN[side]
            waist = (0.55 * edge + 0.45 * shoulder) - outward * 0.012 * self.unit
            points = [shoulder + self.up * 0.012 * self.unit, waist, edge + outward * 0.03 * self.unit]
            outline.extend(points if side == "left" else [neck + self.up * 0.015 * self.unit, *points][::-1])
        return np.stack(outline)

    def upper_arm(self, side: str) -> Points:
        """Outline of the upper arm."""
        return self._limb(f"{side}_shoulder", f"{side}_elbow", 0.066, 0.054)

    def forearm(self, side: str) -> Points:
        """Outline of the forearm."""
        return self._limb(f"{side}_elbow", f"{side}_wrist", 0.054, 0.04)

    def hand(self, side: str) -> Points:
        """Outline of the hand."""
        elbow, wrist = self.joints[f"{side}_elbow"], self.joints[f"{side}_wrist"]
        along = (wrist - elbow) / max(float(np.hypot(*(wrist - elbow))), 1e-9)
        angle = float(np.degrees(np.arctan2(along[1], along[0])))
        return ellipse(wrist + along * 0.018 * self.unit, 0.032 * self.unit, 0.022 * self.unit, angle)

    def thigh(self, side: str) -> Points:
        """Outline of the thigh."""
        return self._limb(f"{side}_hip", f"{side}_knee", 0.125, 0.092)

    def bare_thigh(self, side: str) -> Points:
        """Outline of the part of a thigh that a skirt may leave bare."""
        hip, knee = self.joints[f"{side}_hip"], self.joints[f"{side}_knee"]
        return limb(hip + (knee - hip) * 0.35, knee, 0.113 * self.unit, 0.092 * self.unit)

    def shin(self, side: str) -> Points:
        """Outline of the lower leg, most of it below the picture."""
        return self._limb(f"{side}_knee", f"{side}_ankle", 0.092, 0.06)

    def _limb(self, start: str, end: str, start_width: float, end_width: float) -> Points:
        unit = self.unit
        return limb(self.joints[start], self.joints[end], start_width * unit, end_width * unit)


def pose_figure(factors: Factors, rng: np.random.Generator, height: int, width: int) -> Figure:
    """Pose a person from the head to the knees in a canvas.

    ``pose`` leans the trunk by up to 24 degrees, turns the shoulders to as little as 0.55 of their width and spreads
    the arms. ``occlusion`` lays first one forearm over the torso, then both, and ever further across.
    """
    unit = min(height, width / 0.75)
    lean = 24.0 * factors.pose * rng.uniform(0.55, 1.0) * rng.choice([-1.0, 1.0])
    turn = 1.0 - 0.45 * factors.pose
    size = unit * (1.0 + rng.uniform(-0.03, 0.03))
    up = -direction(-lean)
    outward = np.array([-up[1], up[0]])
    shift = np.array([rng.uniform(-0.02, 0.02) - 0.13 * np.sin(np.radians(lean)), rng.uniform(-0.01, 0.015)])
    hip = np.array([width / 2, height - 0.33 * unit]) + shift * unit
    neck = hip + up * 0.38 * size
    joints: dict[str, Points] = {"mid_hip": hip, "neck": neck}

    face = np.array([(1 - turn) * 0.05 * rng.choice([-1.0, 1.0]) * size, 0.0])
    joints["nose"] = neck + up * 0.12 * size
    for side in SIDES:
        eye = outward * _SIGN[side]
        joints[f"{side}_eye"] = joints["nose"] + face + up * 0.022 * size + eye * 0.024 * size
        joints[f"{side}_ear"] = joints["nose"] + up * 0.015 * size + eye * 0.056 * size

    # Thresholds rather than coin tosses: the first arm crosses somewhere in .25-.5, the second in .55-.85.
    thresholds = dict(
        zip(rng.permutation(SIDES).tolist(), rng.uniform([0.25, 0.55], [0.5, 0.85]), strict=True)
    )
    crossing = []
    for side in SIDES:
        sign = _SIGN[side]
        shoulder = neck - up * 0.035 * size + outward * sign * 0.118 * turn * size
        joints[f"{side}_shoulder"] = shoulder
        relaxed, spread, bend = (
            rng.uniform(9, 17),
            factors.pose * rng.uniform(-0.1, 0.9),
            rng.uniform(-0.4, 1.0),
        )
        reach, rise = rng.uniform(0.0, 0.03), rng.uniform(0.05, 0.15)
        past = factors.occlusion - thresholds[side]
        if past > 0:
            crossing.append(side)
            elbow = shoulder + direction(sign * (relaxed + 6) - lean * 0.7) * 0.175 * size
            target = hip + up * (rise + 0.08 * past) * size - outward * sign * (reach + 0.16 * past) * size
            way = target - elbow
            wrist = elbow + way / np.hypot(*way) * min(float(np.hypot(*way)), 0.175 * size)
        else:
            angle = sign * (relaxed + 62 * spread) - lean * 0.7
            elbow = shoulder + direction(angle) * 0.18 * size
            wrist = elbow + direction(angle - sign * (4 + 55 * factors.pose * bend)) * 0.165 * size
        joints[f"{side}_elbow"], joints[f"{side}_wrist"] = elbow, wrist
        joints[f"{side}_hip"] = hip + outward * sign * 0.062 * (0.4 + 0.6 * turn) * size
        knee = (
            joints[f"{side}_hip"]
            + direction(sign * rng.uniform(1, 5) + rng.uniform(-4, 4) * factors.pose) * 0.3 * size
        )
        joints[f"{side}_knee"] = knee
        joints[f"{side}_ankle"] = knee + direction(sign * 2) * 0.27 * size
        joints[f"{side}_heel"] = joints[f"{side}_ankle"] + np.array([0.0, 0.02 * size])
        joints[f"{side}_big_toe"] = joints[f"{side}_heel"] + np.array([sign * 0.03 * size, 0.02 * size])
        joints[f"{side}_small_toe"] = joints[f"{side}_heel"] + np.array([sign * 0.05 * size, 0.01 * size])
    return Figure(joints=joints, unit=size, lean=lean, crossing=tuple(crossing), turn=turn)
