"""Losses of a model that everybody has: how badly a picture is redrawn from what the other pictures have in common.

The model is the smallest honest one: thumbnails, and the principal components of half of them, by which the other half is
redrawn (and the other way round, so that no picture is judged by a model that has seen it). Its loss says how unusual or
busy a picture looks. It says nothing of what is hard about a task; the losses of your own model say more.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .dataset import CurriculumDataset
from .draws import Draw
from .errors import ArgumentError
from .extras import missing
from .manifest import Manifest
from .picture_member import member_picture, picture_member
from .survey import spread

try:
    from PIL import Image
except ImportError as error:
    raise missing("pillow", "data") from error

Rows: TypeAlias = NDArray[np.float64]

_SIDE = 16
_COMPONENTS = 32
_AT_ONCE = 64


def picture_losses(
    manifest: Manifest, *, member: str | None = None, samples_per_bucket: int = 1000
) -> dict[str, float]:
    """Return key -> loss: the mean squared error of a thumbnail as the model redraws it, in units of its pixels' range.

    Args:
        manifest: The data.
        member: Extension of the picture. Default: as for a contact sheet.
        samples_per_bucket: Most samples of a bucket that are looked at, evenly spread.

    Raises:
        ArgumentError: No such pictures, or fewer than ten.
        BadSampleError: A picture cannot be decoded.

    >>> import numpy as np
    >>> from curriculum_sampler import write_shards
    >>> pictures = [{"__key__": f"{n:02}", "png": np.full((16, 16, 3), 20 * n, np.uint8)} for n in range(12)]
    >>> losses = picture_losses(write_shards("memory://probed", {"easy": pictures}))
    >>> len(losses), max(losses.values()) < 0.01
    (12, True)
    """
    dataset = CurriculumDataset(manifest, decode=None, on_bad_sample="raise")
    shown = member or picture_member(dataset, next(iter(manifest.buckets)))
    keys: list[str] = []
    rows: list[Rows] = []
    for bucket, size in manifest.bucket_sizes.items():
        draws = [Draw(bucket, index) for index in spread(size, samples_per_bucket)]
        for start in range(0, len(draws), _AT_ONCE):
            for sample in dataset.__getitems__(draws[start : start + _AT_ONCE]):
                keys.append(sample["__key__"])
                rows.append(_thumbnail(member_picture(sample, shown)))
    if len(rows) < 10:
        raise ArgumentError(
            f"There are {len(rows)} pictures, but a model takes ten or more. Give the losses of one of your own."
        )
    thumbnails = np.stack(rows)
    losses = np.empty(len(rows))
    # Neighbours in a bucket fall into different halves, so that each half knows every bucket.
    for half in (0, 1):
        losses[half::2] = _redrawn_badly(thumbnails[half::2], by=thumbnails[1 - half :: 2])
    return dict(zip(keys, losses.tolist(), strict=True))


def _thumbnail(picture: Image.Image) -> Rows:
    small = picture.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float64).reshape(-1) / 255


def _redrawn_badly(rows: Rows, *, by: Rows) -> Rows:
    """Return the mean squared error of rows in the space of the first principal components of others."""
    mean = by.mean(axis=0)
    # No more components than a fraction of the rows: with as many as rows the model would know each by heart.
    count = min(_COMPONENTS, len(by) // 4 + 1)
    _, sizes, directions = np.linalg.svd(by - mean, full_matrices=False)
    # Where pictures are alike, what is left of them is rounding, and its directions mean nothing.
    directions = directions[:count][sizes[:count] > 1e-6]
    centred = rows - mean
    error: Rows = ((centred - centred @ directions.T @ directions) ** 2).mean(axis=1)
    return error
