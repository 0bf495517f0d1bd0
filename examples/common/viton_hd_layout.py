"""Write rendered samples in the folder layout of VITON-HD, so that whatever reads that data set reads these.

::

    train_pairs.txt  test_pairs.txt               "person.jpg cloth.jpg", mismatched as in the original
    {train,test}/image  cloth  cloth-mask  agnostic-mask  agnostic-v3.2  image-parse-v3  image-parse-agnostic-v3.2
                 image-densepose  openpose_img  openpose_json
    {train,test}_factors.jsonl                    ours: the true difficulty of each picture

``image/X.jpg`` wears ``cloth/X.jpg``. The second column of both pair files names **another** garment: a trainer that
follows it learns nothing about cloth.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from common.body_labels import SURFACE_COLOURS, Parse
from common.factors import LEVELS, draw_factors
from common.synthetic import TryOnSample, render_sample
from PIL import Image, ImageDraw

_BONES = (
    *((1, 0), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (10, 11)),
    *((8, 12), (12, 13), (13, 14), (0, 15), (0, 16), (15, 17), (16, 18)),
)
_TEST_OFFSET = 1_000_000


def write_viton_hd(
    folder: Path | str, counts: Mapping[str, int], seed: int = 0, height: int = 192, width: int = 144
) -> None:
    """Render pictures into ``folder``; the three levels take turns and every garment is for the upper body.

    Args:
        folder: Created when missing; files in it are overwritten.
        counts: Pictures per split, of ``"train"`` and ``"test"``; at least 2, since pairs are mismatched.
        seed: The generator's seed.
        height: Rows of every picture.
        width: Columns of every picture.

    Raises:
        ValueError: If a split is unknown or has fewer than two pictures.
    """
    root = Path(folder)
    for split, count in counts.items():
        if split not in ("train", "test"):
            raise ValueError(f"write_viton_hd: got split {split!r}; VITON-HD has 'train' and 'test'.")
        if count < 2:
            raise ValueError(
                f"write_viton_hd: got {count} pictures for {split!r}; mismatched pairs need at least 2."
            )
        levels, rows = tuple(LEVELS), []
        for number in range(count):
            index, level = number + (_TEST_OFFSET if split == "test" else 0), levels[number % len(levels)]
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index, 1])))
            factors = replace(draw_factors(level, rng), category="upper_body")
            sample = render_sample(factors, index, seed, height, width)
            write_person(root / split, f"{number:05d}_00", sample)
            rows.append({"image": f"{number:05d}_00.jpg", "level": level, **asdict(factors)})
        (root / f"{split}_factors.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (root / f"{split}_pairs.txt").write_text(_mismatched_pairs(count, seed))


def _mismatched_pairs(count: int, seed: int) -> str:
    """Pair every person with the garment of another: neighbours in a random circle."""
    circle = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, count, 2]))).permutation(count)
    partner = dict(zip(circle.tolist(), np.roll(circle, -1).tolist(), strict=True))
    return "".join(f"{person:05d}_00.jpg {partner[person]:05d}_00.jpg\n" for person in range(count))


def write_person(folder: Path, name: str, sample: TryOnSample) -> None:
    """Write the files of one person into the folder of a split."""
    agnostic_parse = sample.parse.copy()
    agnostic_parse.paste(int(Parse.BACKGROUND), (0, 0), sample.agnostic_mask)
    pictures = {
        f"image/{name}.jpg": sample.image,
        f"cloth/{name}.jpg": sample.cloth,
        f"cloth-mask/{name}.jpg": sample.cloth_mask,
        f"agnostic-mask/{name}_mask.png": sample.agnostic_mask,
        f"agnostic-v3.2/{name}.jpg": sample.agnostic,
        f"image-parse-v3/{name}.png": sample.parse,
        f"image-parse-agnostic-v3.2/{name}.png": agnostic_parse,
        f"image-densepose/{name}.jpg": sample.pose,
        f"openpose_img/{name}_rendered.png": draw_skeleton(sample),
    }
    write_pictures(folder, pictures)
    path = folder / "openpose_json" / f"{name}_keypoints.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    points = [round(value, 3) for value in sample.keypoints.ravel().tolist()]
    path.write_text(
        json.dumps({"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": points}]})
    )


def write_pictures(folder: Path, pictures: Mapping[str, Image.Image]) -> None:
    """Write each picture to its place in the folder."""
    for place, picture in pictures.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".jpg":
            picture.save(path, quality=95, subsampling=0)
        else:
            picture.save(path)


def draw_skeleton(sample: TryOnSample) -> Image.Image:
    """Draw the visible bones and joints on black, as OpenPose renders them."""
    picture = Image.new("RGB", sample.image.size)
    draw = ImageDraw.Draw(picture)
    thick = max(1, sample.image.height // 64)
    colours = [tuple(row) for row in SURFACE_COLOURS.tolist()]
    for number, (start, end) in enumerate(_BONES):
        (x0, y0, seen0), (x1, y1, seen1) = sample.keypoints[[start, end]].tolist()
        if seen0 and seen1:
            draw.line([x0, y0, x1, y1], fill=colours[1 + number], width=thick)
    for number, (x, y, seen) in enumerate(sample.keypoints.tolist()):
        if seen:
            draw.ellipse([x - thick, y - thick, x + thick, y + thick], fill=colours[number % 24 + 1])
    return picture
