"""Looking at a model from outside: fixed held-out samples, a sheet of pictures, and numbers for each bucket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from common.whole_split import draws_by_bucket
from diffusers.training_utils import EMAModel
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

import curriculum_sampler as cs

_CELL_HEIGHT = 160  # small pictures are enlarged to about this, so that a person can see something
_LABEL, _MARGIN = 18, 4


def held_out(dataset: cs.CurriculumDataset, per_bucket: int) -> dict[str, dict[str, Any]]:
    """Return one collated batch per bucket: its first samples, the same ones every time.

    Buckets come in the order in which the data set's schedule names them. Fewer samples where a bucket is smaller;
    a bucket without any is left out.
    """
    return {
        bucket: default_collate(dataset.__getitems__(draws))
        for bucket, draws in draws_by_bucket(dataset, per_bucket).items()
    }


def first(batch: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The first ``count`` samples of a collated batch."""
    return {name: values[:count] for name, values in batch.items()}


def on_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors moved; strings and lists stay."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }


@contextmanager
def averaged_weights(ema: EMAModel | None, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Lend the averaged weights to the network; the trained ones are back afterwards, bit for bit."""
    if ema is None:
        yield
        return
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)


def picture_metrics(result: Tensor, truth: Tensor, mask: Tensor) -> dict[str, float]:
    """SSIM, PSNR and mean absolute error inside the mask, of pictures in [-1, 1].

    The error is in that same unit: 0 is perfect, 2 the worst.
    """
    ours, theirs = (result.float().clamp(-1, 1) + 1) / 2, (truth.float() + 1) / 2
    covered = mask.expand_as(truth)
    masked_l1 = ((result - truth).abs() * covered).sum() / covered.sum().clamp_min(1)
    ssim = structural_similarity_index_measure(ours, theirs, data_range=1.0)
    assert isinstance(ssim, Tensor)
    return {
        "ssim": round(float(ssim), 6),
        "psnr": round(float(peak_signal_noise_ratio(ours, theirs, data_range=1.0)), 4),
        "masked_l1": round(float(masked_l1), 6),
    }


def save_sheet(path: Path, columns: Mapping[str, Tensor], row_labels: Sequence[str], title: str) -> None:
    """Save pictures in [-1, 1] as one PNG: a labelled column per entry, a row per sample.

    Args:
        path: Where to.
        columns: Batches ``[rows, 3, height, width]`` by column label.
        row_labels: One per row.
        title: Stands on top.
    """
    height, width = next(iter(columns.values())).shape[-2:]
    factor = max(1, round(_CELL_HEIGHT / height))
    cell_width, cell_height = width * factor + _MARGIN, height * factor + _MARGIN
    font = ImageFont.load_default(size=13)
    left = 12 + max(int(font.getlength(label)) for label in row_labels)
    size = (left + cell_width * len(columns), 2 * _LABEL + cell_height * len(row_labels))
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((left, 1), title, fill="black", font=font)
    for column, (label, pictures) in enumerate(columns.items()):
        x = left + column * cell_width
        pen.text((x, _LABEL), label, fill="black", font=font)
        for row, picture in enumerate(pictures):
            pixels = ((picture.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()
            image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
            enlarged = image.resize((width * factor, height * factor), Image.Resampling.BICUBIC)
            sheet.paste(enlarged, (x, 2 * _LABEL + row * cell_height))
    for row, label in enumerate(row_labels):
        pen.text((4, 2 * _LABEL + (row + 0.5) * cell_height - 8), label, fill="black", font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
