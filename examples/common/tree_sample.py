"""From the files of a person and a garment to the members that a trainer reads, whichever data set they came from."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
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
    """The files of one sample, and how to read them.

    Attributes:
        files: ``image``, the person wearing the garment; ``cloth``, the garment flat on white; and those of these that
            the data set has: ``cloth_mask``, else drawn from ``cloth``; ``agnostic_mask``, else drawn from the parse map
            and the joints; ``parse``, numbers of what is seen at each pixel, in the data set's own count; ``pose``, body
            surfaces as a picture, or as the 25 numbers of DensePose.
        parse_ids: For each number of ``parse`` the ``Parse`` id.
        keypoints: Reads the joints, given width and height of ``image``; None when the data set has none.
        facts: What goes into ``json`` beside the joints; ``category`` among it.
    """

    files: Mapping[str, Path]
    parse_ids: NDArray[np.uint8]
    keypoints: Callable[[tuple[int, int]], Keypoints] | None
    facts: dict[str, Any]

    def members(self, key: str) -> dict[str, Any]:
        """Return the sample as ``write_shards`` takes it. Pictures that are there stay as they are, byte for byte.

        Two are written anew: the parse map, as a palette picture of ``Parse`` ids, and numbers of DensePose, as colours
        of ``SURFACE_COLOURS``. Joints are in pixels of ``image``.

        Raises:
            ArgumentError: A file is missing or cannot be read.
        """
        with _picture(self.files["image"]) as image:
            size = image.size
        points = None if self.keypoints is None else self.keypoints(size)
        labels = self._labels(self.files["parse"]) if "parse" in self.files else None
        sample: dict[str, Any] = {"__key__": key}
        for name in ("image", "cloth", "cloth_mask", "agnostic_mask"):
            if name in self.files:
                sample[name + _ending(self.files[name])] = self.files[name].read_bytes()
        if "cloth_mask" not in self.files:
            with _picture(self.files["cloth"]) as cloth:
                sample["cloth_mask.png"] = _png(draw_cloth_mask(cloth))
        if "agnostic_mask" not in self.files:
            sample["agnostic_mask.png"] = _png(self._agnostic_mask(labels, points, size))
        if "pose" in self.files:
            ending, content = _surfaces(self.files["pose"])
            sample["pose" + ending] = content
        if labels is not None:
            sample["parse.png"] = _png(palette_picture(labels, PARSE_COLOURS))
        joints = {} if points is None else {"keypoints": points.round(2).tolist()}
        sample["json"] = {**self.facts, **joints}
        return sample

    def _agnostic_mask(
        self, labels: NDArray[np.uint8] | None, points: Keypoints | None, size: tuple[int, int]
    ) -> Image.Image:
        if labels is None or points is None:
            raise cs.ArgumentError(
                f"{self.files['image']}: there is no agnostic mask, and none can be drawn without "
                f"{'a parse map' if labels is None else 'joints'}. Restore one of these folders of the data set."
            )
        sized = np.array(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
        return draw_agnostic_mask(sized, points, self.facts["category"])

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
