"""What the tests of VTON-GAN share: small rendered pictures, collated as the data set gives them, and their truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from common.bucketed_shards import encoded_sample
from common.synthetic import render_sample
from common.vton_data import TryOnArrays
from torch.utils.data import default_collate
from vtongan.warper import Warper, flow_of_places

torch.set_num_threads(1)

HEIGHT, WIDTH = 32, 24
PICTURES = ("image", "cloth", "cloth_mask", "agnostic_mask", "pose")


def rendered_batch(
    level: str = "easy",
    first: int = 0,
    count: int = 3,
    *,
    height: int = HEIGHT,
    width: int = WIDTH,
    with_truth: bool = False,
) -> dict[str, Any]:
    """A collated batch; ``with_truth`` adds where the garment is worn, and the true flow."""
    arrays = TryOnArrays()
    samples = []
    for index in range(first, first + count):
        rendered = render_sample(level, index, 17, height, width)
        members = {
            name: np.atleast_3d(np.asarray(getattr(rendered, name), dtype=np.uint8)) for name in PICTURES
        }
        facts = {"json": encoded_sample("", rendered)["json"]}
        named = {"__key__": f"{level}-{index}", "__bucket__": level}
        sample = arrays(members | facts | named, np.random.default_rng(0))
        if with_truth:
            sample["worn_mask"] = (rendered.pieces > 0).astype(np.float32)[None]
            sample["flow"] = flow_of_places(rendered.flow())
        samples.append(sample)
    batch: dict[str, Any] = default_collate(samples)
    return batch


def one_of(batch: dict[str, Any], place: int) -> dict[str, Any]:
    """The batch of one sample alone."""
    return {name: value[place : place + 1] for name, value in batch.items()}


def bend_at_random(warper: Warper) -> None:
    """Give a new warper, whose flow is zero, some other flow."""
    for name, weight in warper.named_parameters():
        if name.endswith("last.weight"):
            torch.nn.init.normal_(weight, std=0.1)
