"""The members of a decoded try-on sample, whatever their endings: ``image.png`` and ``image.jpg`` do alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NEEDED = {"image", "cloth", "cloth_mask", "agnostic_mask"}


def tryon_members(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a sample by their first name.

    Raises:
        ValueError: A picture that every try-on needs is missing.

    >>> needed = dict.fromkeys(["image.jpg", "cloth.jpg", "cloth_mask.png", "agnostic_mask.png"])
    >>> list(tryon_members({"__key__": "0007", **needed}))
    ['image', 'cloth', 'cloth_mask', 'agnostic_mask']
    """
    members = {name.split(".", 1)[0]: value for name, value in sample.items() if not name.startswith("__")}
    missing = _NEEDED - members.keys()
    if missing:
        raise ValueError(
            f"Sample {sample.get('__key__')!r} lacks {', '.join(sorted(missing))}: it has {', '.join(sorted(members))}. "
            "Write shards with these members, as examples/common/bucketed_shards.py does; samples of a public data set "
            "have them when they are read through common.viton_hd or common.dress_code."
        )
    return members


def three_channels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture in colours: grey in all three, without what may be transparent.

    >>> three_channels(np.zeros((2, 2, 1), np.uint8)).shape, three_channels(np.zeros((2, 2, 4), np.uint8)).shape
    ((2, 2, 3), (2, 2, 3))
    """
    return np.repeat(pixels[..., :1], 3, axis=-1) if pixels.shape[-1] < 3 else pixels[..., :3]
