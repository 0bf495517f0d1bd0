"""Which member of a sample is its picture, and the picture itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .dataset import CurriculumDataset
from .decode import decode_image
from .draws import Draw
from .errors import ArgumentError, BadSampleError
from .extras import missing

try:
    from PIL import Image
except ImportError as error:
    raise missing("pillow", "data") from error

_ENDINGS = ("png", "jpg", "jpeg", "webp", "bmp", "ppm", "pgm", "tif", "tiff", "gif")


def picture_member(dataset: CurriculumDataset, bucket: str) -> str:
    """Return the extension of the picture in the first sample of a bucket.

    Of several, one without a dot comes first, then one called ``image`` (it may have masks beside it), then by name.

    Raises:
        ArgumentError: It has none.
    """
    members: list[str] = [name for name in dataset[Draw(bucket, 0)] if not name.startswith("__")]
    pictures = [name for name in members if name.rpartition(".")[2] in _ENDINGS]
    if not pictures:
        raise ArgumentError(
            f"The first sample of bucket {bucket!r} has no image, only {', '.join(members)}. Name the member that is one: "
            "member=."
        )
    return min(pictures, key=lambda name: ("." in name, not name.startswith("image."), name))


def member_picture(sample: Mapping[str, Any], member: str) -> Image.Image:
    """Return the picture that a member of a sample holds.

    Raises:
        ArgumentError: The sample has no such member.
        BadSampleError: The member is no picture.
    """
    key = sample["__key__"]
    if member not in sample:
        have = ", ".join(name for name in sample if not name.startswith("__"))
        raise ArgumentError(
            f"Sample {key!r} has no member {member!r}. It has: {have}. Name another with member=."
        )
    try:
        pixels = decode_image(sample[member])
    except Exception as error:  # whatever a damaged image raises
        raise BadSampleError(
            f"Sample {key!r}: its {member!r} is no picture ({error}). Correct it, or name another with member=."
        ) from error
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
