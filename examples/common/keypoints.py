"""The 25 joints of a person (BODY_25, see ``figure.JOINTS``), read from the files of OpenPose and of Dress Code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common.figure import JOINTS
from numpy.typing import NDArray

import curriculum_sampler as cs

Keypoints = NDArray[np.float64]
"""``float64[25, 3]``: x, y in pixels, confidence from 0 to 1. A joint that was not found is (0, 0, 0)."""

COCO_18 = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow"),
    *("left_wrist", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("right_eye", "left_eye", "right_ear", "left_ear"),
)
"""The order of Dress Code's joints."""

_COCO_ROWS = [JOINTS.index(name) for name in COCO_18]
_DRESS_CODE_SIZE = (384, 512)
_MOST_OUTSIDE = 1.05


def joint(points: Keypoints, name: str) -> NDArray[np.float64] | None:
    """Return (x, y) of a joint, or None when it was not found."""
    x, y, confidence = points[JOINTS.index(name)]
    return np.array([x, y]) if confidence > 0 else None


def read_openpose(path: Path, drawn_on: tuple[int, int], size: tuple[int, int]) -> Keypoints:
    """Read OpenPose's JSON of one picture; of several people it holds the first, of none every joint is missing.

    Args:
        path: The file.
        drawn_on: Width and height of the picture that OpenPose saw.
        size: Width and height of the picture that the joints are wanted for.

    Raises:
        ArgumentError: The file is no such JSON, or its joints lie outside the picture that OpenPose saw.
    """
    found = _numbers(
        path, lambda told: told["people"][0]["pose_keypoints_2d"] if told["people"] else [0] * 75
    )
    points = _rows(path, found, len(JOINTS), 3).copy()
    points[points[:, 2] <= 0] = 0
    return _scaled(path, points, drawn_on, size)


def read_dress_code(path: Path, size: tuple[int, int]) -> Keypoints:
    """Read Dress Code's 18 joints, whose places are those of a picture of 384 x 512; the hips' middle is their mean.

    Raises:
        ArgumentError: The file is no such JSON, or its joints lie outside the picture.
    """
    found = _rows(path, _numbers(path, lambda told: np.ravel(told["keypoints"]).tolist()), len(COCO_18), 4)
    points = np.zeros((len(JOINTS), 3))
    seen = (found[:, :1] > 1) & (found[:, 1:2] > 1)
    points[_COCO_ROWS] = np.concatenate([found[:, :2], seen], axis=1) * seen
    right, left = joint(points, "right_hip"), joint(points, "left_hip")
    if right is not None and left is not None:
        points[JOINTS.index("mid_hip")] = (*(right + left) / 2, 1.0)
    return _scaled(path, points, _DRESS_CODE_SIZE, size)


def _numbers(path: Path, pick: Any) -> Sequence[float]:
    try:
        found: Sequence[float] = pick(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise cs.ArgumentError(
            f"{path}: the joints cannot be read ({type(error).__name__}: {error}). Restore the file, or leave its person out."
        ) from error
    return found


def _rows(path: Path, numbers: Sequence[float], rows: int, columns: int) -> NDArray[np.float64]:
    try:
        points = np.array(numbers, float)
    except (ValueError, TypeError):
        points = np.array([np.nan])
    if points.size != rows * columns or not np.isfinite(points).all():
        raise cs.ArgumentError(
            f"{path}: got {points.size} numbers, but {rows} joints have {columns} finite numbers each. "
            "Restore the file, or leave its person out."
        )
    return points.reshape(rows, columns)


def _scaled(path: Path, points: Keypoints, drawn_on: tuple[int, int], size: tuple[int, int]) -> Keypoints:
    if (points[:, :2] > np.array(drawn_on) * _MOST_OUTSIDE).any():
        raise cs.ArgumentError(
            f"{path}: a joint at {points[:, :2].max(axis=0).round(1).tolist()} lies outside the picture of "
            f"{drawn_on[0]} x {drawn_on[1]} that it belongs to. Restore the pictures in the size that the pose was found in."
        )
    return np.asarray(points * np.array([size[0] / drawn_on[0], size[1] / drawn_on[1], 1.0]))
