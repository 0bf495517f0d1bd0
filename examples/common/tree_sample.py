"""From the files of a person and a garment to the members that a trainer reads, whichever data set they came from."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common.body_labels import PARSE_COLOURS, SURFACE_COLOURS
from common.drawn_masks import draw_agnostic_mask, draw_cloth_mask
from common.keypoints import Keypoints
from numpy.typing import NDArray
from PIL import Image

import curriculum_sampler as cs


@dataclass(frozen=True, slots=True)
class TreeSample:
    """The files of one sample; those that the data set lacks are None.

    Attributes:
        image: The person wearing the garment.
        cloth: The garment, flat on white.
        cloth_mask: Drawn from ``cloth`` when absent.
        agnostic_mask: Drawn from the parse map and the joints when absent.
        parse: Numbers of what is seen at each pixel, in the data set's own count.
        parse_ids: For each of those numbers the ``Parse`` id.
        pose: Body surfaces as a picture, or as the 25 numbers of DensePose.
        keypoints: Reads the joints, given width and height of ``image``; None when the data set has none.
        facts: What goes into ``json`` beside the joints; ``category`` among it.
    """

    image: Path
    cloth: Path
    cloth_mask: Path | None
    agnostic_mask: Path | None
    parse: Path | None
    parse_ids: NDArray[np.uint8]
    pose: Path | None
    keypoints: Callable[[tuple[int, int]], Keypoints] | None
    facts: dict[str, Any]

    def members(self, key: str) -> dict[str, Any]:
        """Return the sample as ``write_shards`` takes it. Pictures that are there stay as they are, byte for byte.

        Two are written anew: the parse map, as a palette picture of ``Parse`` ids, and numbers of DensePose, as colours
        of ``SURFACE_COLOURS``. Joints are in pixels of ``image``.

        Raises:
            ArgumentError: A file is missing or cannot be read.
        """
        with _picture(self.image) as image:
            size = image.size
        points = None if self.keypoints is None else self.keypoints(size)
        labels = None if self.parse is None else self._labels(self.parse)
        sample: dict[str, Any] = {"__key__": key}
        for name, path in (("image", self.image), ("cloth", self.cloth)):
            sample[name + _ending(path)] = path.read_bytes()
        if self.cloth_mask is not None:
            sample["cloth_mask" + _ending(self.cloth_mask)] = self.cloth_mask.read_bytes()
        else:
            with _picture(self.cloth) as cloth:
                sample["cloth_mask.png"] = _png(draw_cloth_mask(cloth))
        if self.agnostic_mask is not None:
            sample["agnostic_mask" + _ending(self.agnostic_mask)] = self.agnostic_mask.read_bytes()
        elif labels is not None and points is not None:
            sized = np.array(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
            sample["agnostic_mask.png"] = _png(draw_agnostic_mask(sized, points, self.facts["category"]))
        else:
            raise cs.ArgumentError(
                f"{self.image}: there is no agnostic mask, and none can be drawn without "
                f"{'a parse map' if labels is None else 'joints'}. Restore one of these folders of the data set."
            )
        if self.pose is not None:
            ending, content = _surfaces(self.pose)
            sample["pose" + ending] = content
        if labels is not None:
            sample["parse.png"] = _png(palette_picture(labels, PARSE_COLOURS))
        joints = {} if points is None else {"keypoints": points.round(2).tolist()}
        sample["json"] = {**self.facts, **joints}
        return sample

    def _labels(self, path: Path) -> NDArray[np.uint8]:
        with _picture(path) as parse:
            if parse.mode not in ("P", "L"):
                raise cs.ArgumentError(
                    f"{path}: a parse map is one channel of numbers, not a {parse.mode} picture. "
                    "Restore the original; colours drawn from it do not say enough."
                )
            numbers = np.array(parse)
        if numbers.max() >= len(self.parse_ids):
            raise cs.ArgumentError(
                f"{path}: label {numbers.max()} is unknown; this data set has 0 to {len(self.parse_ids) - 1}. "
                "Restore the original parse map."
            )
        return np.asarray(self.parse_ids[numbers])


def palette_picture(numbers: NDArray[np.uint8], colours: NDArray[np.uint8]) -> Image.Image:
    """Return numbers as a picture that shows a colour for each."""
    picture = Image.fromarray(numbers)
    picture.putpalette(colours.tobytes())
    return picture


def _surfaces(path: Path) -> tuple[str, bytes]:
    with _picture(path) as surfaces:
        if surfaces.mode not in ("P", "L"):
            return _ending(path), path.read_bytes()
        numbers = np.array(surfaces)
    if numbers.max() >= len(SURFACE_COLOURS):
        raise cs.ArgumentError(
            f"{path}: surface {numbers.max()} is unknown; DensePose has 0 to {len(SURFACE_COLOURS) - 1}. "
            "Restore the original file."
        )
    return ".png", _png(palette_picture(numbers, SURFACE_COLOURS))


@contextmanager
def _picture(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise cs.ArgumentError(
            f"{path}: the picture cannot be read ({type(error).__name__}: {error}). "
            "Restore the file, or leave its sample out."
        ) from error


def _ending(path: Path) -> str:
    return path.suffix.lower()


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()
