"""How much lies in front of the trunk: forearms, hair, bags."""

from __future__ import annotations

import numpy as np
from common.annotations import Annotations
from common.body_labels import Parse
from common.convex_hull import fill_hull, fill_polygon
from common.drawn_masks import GARMENT_LABELS
from common.keypoints import Keypoints, joint
from common.pose_signals import trunk_length
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_IN_FRONT = (Parse.LEFT_ARM, Parse.RIGHT_ARM, Parse.HAIR, Parse.GLOVE)
_CORNERS = ("right_shoulder", "left_shoulder", "left_hip", "right_hip")
_SIDES = ("right", "left")
_FOREARM_WIDTH = 0.12


def occlusion_signals(annotations: Annotations) -> dict[str, float]:
    """Return ``arm_over_torso``; nothing when the data has no parse map.

    A forearm counts by its joints too, since a sleeve has the label of the garment that it lies over.
    """
    labels, points = annotations.labels, annotations.keypoints
    if labels is None:
        return {}
    trunk = _trunk(labels, points, annotations.category)
    if not trunk.any():
        return {"arm_over_torso": 1.0}
    in_front = np.isin(labels, _IN_FRONT)
    if points is not None:
        in_front |= _forearms(points, labels.shape)
    return {"arm_over_torso": float((in_front & trunk).sum() / trunk.sum())}


def _trunk(labels: NDArray[np.uint8], points: Keypoints | None, category: str) -> NDArray[np.bool_]:
    """The quadrilateral of shoulders and hips; where they were not found, the hull of the worn garment."""
    corners = [] if points is None else [joint(points, name) for name in _CORNERS]
    found = [place for place in corners if place is not None]
    if len(found) == len(_CORNERS):
        return fill_polygon(np.stack(found), labels.shape)
    return fill_hull(np.isin(labels, GARMENT_LABELS[category]))


def _forearms(points: Keypoints, shape: tuple[int, int]) -> NDArray[np.bool_]:
    picture = Image.new("1", shape[::-1])
    width = max(1, round(_FOREARM_WIDTH * (trunk_length(points) or 0.0)))
    for side in _SIDES:
        elbow, wrist = joint(points, f"{side}_elbow"), joint(points, f"{side}_wrist")
        if elbow is not None and wrist is not None:
            ImageDraw.Draw(picture).line([*elbow, *wrist], fill=1, width=width)
    return np.array(picture)
