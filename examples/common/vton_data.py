"""The try-on data set of all trainers: a curriculum over shards, and samples as arrays for a model.

>>> curriculum_stages(DEFAULT_CURRICULUM)
['easy', 'medium', 'hard']
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common.body_labels import mirrored_surface
from common.braces import expand_braces
from common.factors import CATEGORIES
from common.tryon_members import three_channels, tryon_members
from numpy.typing import NDArray
from PIL import Image

import curriculum_sampler as cs

DEFAULT_CURRICULUM = "catvton"
"""The curriculum in force when none is given: Easy -> Medium -> Hard."""


def get_vton_dataset(
    difficulty: str | None = None,
    s3_prefixes: Sequence[str] = (),
    data_root: str | Path | None = None,
    split: str = "train",
    *,
    height: int | None = None,
    width: int | None = None,
    endpoint_url: str | None = None,
    curriculum: str | Path | cs.StageSchedule = DEFAULT_CURRICULUM,
    flip_probability: float = 0.0,
) -> cs.CurriculumDataset:
    """Return the try-on data with its curriculum: ``CurriculumLoader(dataset, ...)`` trains in that order.

    Args:
        difficulty: Name of a **stage**, whose mixture the data set then follows (``"medium"`` is 30 % easy, 70 %
            medium); ``None`` follows the whole curriculum.
        s3_prefixes: Where the shards are: ``s3://bucket/prefix``, local folders, brace patterns of either. Several are
            joined bucket by bucket, in the order given.
        data_root: One more place, after those.
        split: ``"train"``, ``"val"`` or ``"test"``.
        height: Rows of the pictures a model sees; ``None`` leaves them as stored.
        width: Columns, likewise.
        endpoint_url: S3 endpoint, when it is neither AWS nor named by ``AWS_ENDPOINT_URL``.
        curriculum: A TOML or JSON file, the name of a preset of the package, or a schedule.
        flip_probability: Share of the samples that are mirrored, all pictures of a sample alike.

    Raises:
        ArgumentError: If no place is given, or the curriculum has no such stage.
        FileNotFoundError: If the curriculum's file is missing.

    Each sample is a dict:

    ===================  ==============================================================================
    ``image``            ``float32[3, height, width]`` in [-1, 1]: the person wearing the garment
    ``cloth``            likewise: the garment, flat on white
    ``cloth_mask``       ``float32[1, height, width]``, 0 or 1: where the garment is in ``cloth``
    ``agnostic_mask``    likewise: where to paint
    ``agnostic``         ``image`` with what is to be painted set to 0, mid-grey
    ``pose``             ``float32[3, height, width]`` in [-1, 1]: body surfaces, black where there is no body
    ``category``         int, position in ``factors.CATEGORIES``
    ``bucket``           str
    ``difficulty``       float, higher is harder; NaN when the data does not say
    ``sample_id``        str, the sample's key
    ===================  ==============================================================================
    """
    places = [place for prefix in s3_prefixes for place in expand_braces(str(prefix))]
    if data_root is not None:
        places.append(str(data_root))
    if not places:
        raise cs.ArgumentError(
            "get_vton_dataset: got neither s3_prefixes nor data_root. "
            "Name where the shards are, e.g. s3_prefixes=['s3://my-bucket/vton/v1']."
        )
    options = {} if endpoint_url is None else {"endpoint_url": endpoint_url}
    schedule = _load_curriculum(curriculum)
    return cs.CurriculumDataset(
        cs.Manifest.load(places, split=split, **options),
        transform=TryOnArrays(height, width, flip_probability),
        schedule=schedule if difficulty is None else stage_alone(schedule, difficulty),
    )


def stage_alone(schedule: cs.StageSchedule, name: str) -> cs.StageSchedule:
    """Return a curriculum of one stage of another. Its ramp goes: there is no mixture before it to come from.

    Raises:
        ArgumentError: If there is no such stage; the message lists those there are.

    >>> alone = stage_alone(cs.StageSchedule.load(DEFAULT_CURRICULUM), "medium")
    >>> [(stage.name, stage.steps, stage.lr) for stage in alone.stages]
    [('medium', 15000, 5e-06)]
    """
    for stage in schedule.stages:
        if stage.name == name:
            told = {key: value for key, value in stage.to_dict().items() if key not in ("ramp", "ramp_lr")}
            return cs.StageSchedule([cs.Stage.from_dict(told)], epoch_size=schedule.epoch_size)
    known = ", ".join(stage.name for stage in schedule.stages)
    raise cs.ArgumentError(
        f"difficulty={name!r} is no stage of this curriculum, which has: {known}. "
        "Choose one of these, or add a [[stages]] table of that name to the curriculum's file."
    )


def curriculum_stages(curriculum: str | Path | cs.StageSchedule) -> list[str]:
    """Return the names of a curriculum's stages, in order."""
    return [stage.name for stage in _load_curriculum(curriculum).stages]


def _load_curriculum(curriculum: str | Path | cs.StageSchedule) -> cs.StageSchedule:
    return curriculum if isinstance(curriculum, cs.StageSchedule) else cs.StageSchedule.load(curriculum)


@dataclass(frozen=True, slots=True)
class TryOnArrays:
    """The transform from a decoded sample to what a model sees; see ``get_vton_dataset`` for its keys.

    Members are found by their first name, so ``image.png`` and ``image.jpg`` do alike. ``pose`` is left out when the
    data has none.

    Attributes:
        height: Rows, or None to leave pictures as stored.
        width: Columns, likewise.
        flip_probability: Share of the samples that are mirrored.
    """

    height: int | None = None
    width: int | None = None
    flip_probability: float = 0.0

    def __post_init__(self) -> None:
        if (self.height is None) != (self.width is None):
            raise cs.ArgumentError(
                f"TryOnArrays: got height={self.height}, width={self.width}; give both or neither."
            )
        if not 0.0 <= self.flip_probability <= 1.0:
            raise cs.ArgumentError(
                f"TryOnArrays: got flip_probability={self.flip_probability!r}; it lies in [0, 1]."
            )

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Return the arrays of one sample; ``rng`` decides whether it is mirrored, and nothing else."""
        flip = self.flip_probability > 0 and rng.random() < self.flip_probability
        members = tryon_members(sample)
        facts = members.get("json", {})
        image = self._picture(members["image"], flip)
        agnostic_mask = self._mask(members["agnostic_mask"], flip)
        arrays = {
            "image": image,
            "cloth": self._picture(members["cloth"], flip),
            "cloth_mask": self._mask(members["cloth_mask"], flip),
            "agnostic_mask": agnostic_mask,
            "agnostic": image * (1 - agnostic_mask),
            "category": CATEGORIES.index(facts.get("category", CATEGORIES[0])),
            "bucket": sample["__bucket__"],
            "difficulty": float(facts.get("difficulty", np.nan)),
            "sample_id": sample["__key__"],
        }
        if "pose" in members:
            arrays["pose"] = self._pose(members["pose"], flip)
        return arrays

    def _picture(self, pixels: NDArray[np.uint8], flip: bool) -> NDArray[np.float32]:
        return (
            _as_channels(self._sized(three_channels(pixels), Image.Resampling.LANCZOS), flip)
            / np.float32(127.5)
            - 1
        )

    def _pose(self, pixels: NDArray[np.uint8], flip: bool) -> NDArray[np.float32]:
        sized = self._sized(pixels[..., :3], Image.Resampling.NEAREST)
        return _as_channels(mirrored_surface(sized) if flip else sized, flip) / np.float32(127.5) - 1

    def _mask(self, pixels: NDArray[np.uint8], flip: bool) -> NDArray[np.float32]:
        sized = self._sized(np.ascontiguousarray(pixels[..., 0]), Image.Resampling.NEAREST)
        return _as_channels((sized >= 128).astype(np.uint8)[..., None], flip)

    def _sized(self, pixels: NDArray[np.uint8], resampling: Image.Resampling) -> NDArray[np.uint8]:
        if self.height is None or self.width is None or pixels.shape[:2] == (self.height, self.width):
            return pixels
        return np.array(Image.fromarray(pixels).resize((self.width, self.height), resampling))


def _as_channels(pixels: NDArray[np.uint8], flip: bool) -> NDArray[np.float32]:
    turned = pixels[:, ::-1] if flip else pixels
    return np.ascontiguousarray(turned.transpose(2, 0, 1), dtype=np.float32)
