"""Signals of the pose, from the joints alone."""

from __future__ import annotations

import numpy as np
from common.annotations import Annotations
from common.figure import JOINTS
from common.keypoints import Keypoints, joint
from numpy.typing import NDArray

_ARMS = (
    *("neck", "right_shoulder", "right_elbow", "right_wrist"),
    *("left_shoulder", "left_elbow", "left_wrist"),
)
_UPPER = ("nose", *_ARMS, "mid_hip")
_LOWER = ("mid_hip", "right_hip", "right_knee", "left_hip", "left_knee")
_NEEDED = {"upper_body": _UPPER, "lower_body": _LOWER, "dresses": (*_UPPER, *_LOWER[1:])}

# Beyond what any pose gives.
_HARDEST_FOLDED, _HARDEST_TURN, _HARDEST_LEAN = 0.0, 0.0, 180.0


def pose_signals(annotations: Annotations) -> dict[str, float]:
    """Return ``pose_folded``, ``pose_turn``, ``pose_lean``, ``pose_missing``; nothing when the data has no joints."""
    points = annotations.keypoints
    if points is None:
        return {}
    trunk = trunk_length(points)
    needed = points[[JOINTS.index(name) for name in _NEEDED[annotations.category]], 2]
    return {
        "pose_folded": _folded(points, trunk),
        "pose_turn": _turn(points, trunk),
        "pose_lean": _lean(points),
        "pose_missing": float(1.0 - np.clip(needed, 0.0, 1.0).mean()),
    }


def trunk_length(points: Keypoints) -> float | None:
    """Return the distance from neck to hips, the measure of a person; None when either was not found."""
    trunk = _trunk(points)
    return None if trunk is None else max(float(np.hypot(*trunk)), 1.0)


def _trunk(points: Keypoints) -> NDArray[np.float64] | None:
    neck, hip = joint(points, "neck"), joint(points, "mid_hip")
    return None if neck is None or hip is None else neck - hip


def _folded(points: Keypoints, trunk: float | None) -> float:
    found = [place for name in _ARMS if (place := joint(points, name)) is not None]
    if trunk is None or len(found) < len(_ARMS) - 2:
        return _HARDEST_FOLDED
    places = np.stack(found)
    return float(-np.abs(places - places.mean(axis=0)).sum(axis=1).mean() / trunk)


def _turn(points: Keypoints, trunk: float | None) -> float:
    right, left = joint(points, "right_shoulder"), joint(points, "left_shoulder")
    if trunk is None or right is None or left is None:
        return _HARDEST_TURN
    return float(-np.hypot(*(left - right)) / trunk)


def _lean(points: Keypoints) -> float:
    trunk = _trunk(points)
    if trunk is None:
        return _HARDEST_LEAN
    return float(np.degrees(np.abs(np.arctan2(trunk[0], -trunk[1]))))
