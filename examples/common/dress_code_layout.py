"""Write rendered samples in the folder layout of Dress Code, so that whatever reads that data set reads these.

::

    {upper_body,lower_body,dresses}/
        train_pairs.txt  test_pairs_paired.txt  test_pairs_unpaired.txt      "000000_0.jpg 000000_1.jpg"
        images/ID_0.jpg ID_1.jpg   label_maps/ID_4.png   skeletons/ID_5.jpg   dense/ID_5.png   keypoints/ID_2.json
    factors.jsonl                                        ours: the true difficulty of each picture

Joints are 18 rows of four numbers, places in a picture of 384 x 512; one that was not found is (-1, -1, 0, -1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from common.body_labels import PARSE_COLOURS, SURFACE_COLOURS, Parse, numbers_of
from common.dress_code import LABELS
from common.factors import CATEGORIES, LEVELS, draw_factors
from common.figure import JOINTS
from common.keypoints import COCO_18
from common.synthetic import TryOnSample, render_sample
from common.tree_sample import palette_picture
from common.viton_hd_layout import draw_skeleton, write_pictures
from PIL import Image

_SIZE = (384, 512)
_CATEGORY_OFFSET, _TEST_OFFSET = 10_000, 5_000


def write_dress_code(
    folder: Path | str, counts: Mapping[str, int], seed: int = 0, height: int = 192, width: int = 144
) -> None:
    """Render pictures of all three categories into ``folder``; in each category the three levels take turns.

    Args:
        folder: Created when missing; files in it are overwritten.
        counts: Pictures per split in each category, of ``"train"`` and ``"test"``; at most 5,000.
        seed: The generator's seed.
        height: Rows of every picture.
        width: Columns of every picture.

    Raises:
        ValueError: If a split is unknown or has no or too many pictures.
    """
    root, rows = Path(folder), []
    for split, count in counts.items():
        if split not in ("train", "test"):
            raise ValueError(f"write_dress_code: got split {split!r}; Dress Code has 'train' and 'test'.")
        if not 1 <= count <= _TEST_OFFSET:
            raise ValueError(
                f"write_dress_code: got {count} pictures for {split!r}; give 1 to {_TEST_OFFSET}."
            )
    for place, category in enumerate(CATEGORIES):
        for split, count in counts.items():
            first = place * _CATEGORY_OFFSET + (_TEST_OFFSET if split == "test" else 0)
            numbers = [f"{first + number:06d}" for number in range(count)]
            for number, name in enumerate(numbers):
                level = tuple(LEVELS)[number % len(LEVELS)]
                rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, int(name), 3])))
                factors = replace(draw_factors(level, rng), category=category)
                write_person(root / category, name, render_sample(factors, int(name), seed, height, width))
                rows.append({"key": f"{category}-{name}", "level": level, **asdict(factors)})
            _write_pairs(root / category, split, numbers)
    (root / "factors.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_pairs(folder: Path, split: str, numbers: list[str]) -> None:
    paired = "".join(f"{number}_0.jpg {number}_1.jpg\n" for number in numbers)
    if split == "train":
        (folder / "train_pairs.txt").write_text(paired)
        return
    others = numbers[1:] + numbers[:1]
    unpaired = "".join(f"{one}_0.jpg {other}_1.jpg\n" for one, other in zip(numbers, others, strict=True))
    (folder / "test_pairs_paired.txt").write_text(paired)
    (folder / "test_pairs_unpaired.txt").write_text(unpaired)


def write_person(folder: Path, name: str, sample: TryOnSample) -> None:
    """Write the files of one person into the folder of a category."""
    pictures = {
        f"images/{name}_0.jpg": sample.image,
        f"images/{name}_1.jpg": sample.cloth,
        f"label_maps/{name}_4.png": palette_picture(_NUMBERS[np.array(sample.parse)], PARSE_COLOURS),
        f"skeletons/{name}_5.jpg": draw_skeleton(sample),
        f"dense/{name}_5.png": Image.fromarray(numbers_of(np.array(sample.pose), SURFACE_COLOURS)),
    }
    write_pictures(folder, pictures)
    path = folder / "keypoints" / f"{name}_2.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"keypoints": _joints(sample)}))


def _joints(sample: TryOnSample) -> list[list[float]]:
    width, height = sample.image.size
    scale = np.array(_SIZE) / (width, height)
    found = []
    for number, name in enumerate(COCO_18):
        x, y, confidence = sample.keypoints[JOINTS.index(name)]
        place = [round(float(x * scale[0]), 2), round(float(y * scale[1]), 2)]
        found.append([*place, float(confidence), float(number)] if confidence else [-1.0, -1.0, 0.0, -1.0])
    return found


_NUMBERS = np.array([LABELS.index(label) if label in LABELS else 0 for label in Parse], np.uint8)
_NUMBERS[Parse.NECK] = LABELS.index(Parse.FACE)  # Dress Code counts it to the head
