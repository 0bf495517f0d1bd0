"""What makes a try-on picture hard, measured from its annotations: numbers of which higher means harder.

No number means anything by itself, since each depends on whoever found the pose and drew the masks; only ranks do. So a
build ranks each signal within the category of the garment, and cuts the mean of the ranks by quantiles:

    curriculum-sampler build common.viton_hd:source:/data/viton-hd s3://my-bucket/vton/v1 \\
        --score common.difficulty:signals --category json:category --group json:garment
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.annotations import read_annotations
from common.mask_signals import mask_signals
from common.occlusion_signals import occlusion_signals
from common.pose_signals import pose_signals
from common.texture_signals import texture_signals

WEIGHTS: dict[str, float] = {
    "pose_folded": 0.5,
    "pose_turn": 1.0,
    "pose_lean": 0.5,
    "pose_missing": 0.5,
    "arm_over_torso": 1.0,
    "mask_area": 0.25,
    "mask_ragged": 0.25,
    "shape_gap": 0.5,
    "texture": 1.0,
    "colours": 0.5,
    "clutter": 0.5,
}
"""A weight for each signal, for ``weights=`` of a build: what changes the worn garment counts more than what is near."""


def signals(sample: Mapping[str, Any]) -> dict[str, float]:
    """Return the signals of one sample, as a ``score`` of ``build_dataset``.

    ==================  ==================================================================================
    ``pose_folded``     neck, shoulders, elbows and wrists close together (ACGPN), by the length of the trunk
    ``pose_turn``       shoulders narrow against the trunk: turned away
    ``pose_lean``       degrees between trunk and vertical
    ``pose_missing``    share of the joints that the category needs and that were not found, or hardly
    ``arm_over_torso``  share of the trunk that forearms, hair or bags lie over (HR-VITON, ACGPN)
    ``mask_area``       share of the picture to paint
    ``mask_ragged``     share of the hull of what to paint that must not be painted
    ``shape_gap``       1 - overlap of the flat and the worn garment, each in its bounding box
    ``texture``         edges met on the way across the flat garment
    ``colours``         bits of colour of the flat garment
    ``clutter``         edges outside the person
    ==================  ==================================================================================

    What cannot be measured, such as the lean of a person whose hips were not found, counts as hardest. Signals of an
    annotation that the data set lacks are left out: those of the pose without ``json: keypoints``, all that rest on
    labels without ``parse``. So every sample of one data set has the same.

    Args:
        sample: As a ``CurriculumDataset`` decodes it: ``image``, ``cloth``, ``cloth_mask``, ``agnostic_mask``, ``parse`` if
            there is one, and ``json`` with ``keypoints`` and ``category``; ``common.viton_hd`` and
            ``common.dress_code`` write such samples.

    Raises:
        ValueError: The sample lacks a picture, or its parse map has foreign colours.
    """
    annotations = read_annotations(sample)
    return {
        **pose_signals(annotations),
        **occlusion_signals(annotations),
        **mask_signals(annotations),
        **texture_signals(annotations),
    }
