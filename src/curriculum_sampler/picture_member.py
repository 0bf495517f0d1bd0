"""Which member of a sample is its picture."""

from __future__ import annotations

from .dataset import CurriculumDataset
from .draws import Draw
from .errors import ArgumentError

_ENDINGS = ("png", "jpg", "jpeg", "webp", "bmp", "ppm", "pgm", "tif", "tiff", "gif")


def picture_member(dataset: CurriculumDataset, bucket: str) -> str:
    """Return the extension of the picture in the first sample of a bucket; one without a dot comes before others.

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
    return min(pictures, key=lambda name: ("." in name, name))
