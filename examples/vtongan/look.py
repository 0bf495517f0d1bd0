"""Look at the model from outside: held-out error of each bucket, and a sheet of dressed persons and how they came about."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from common.validation import first, on_device, picture_metrics, save_sheet
from torch import Tensor
from vtongan.losses import discriminator_terms, flow_error, masked_l1
from vtongan.model import VTONGAN, TryOn


@torch.no_grad()
def look(
    model: VTONGAN,
    samples: Mapping[str, Mapping[str, Any]],
    args: argparse.Namespace,
    title: str,
    sheet: Path,
) -> dict[str, Any]:
    """Return the numbers of a validation, and save its sheet. Nothing of the model changes.

    Args:
        model: With the weights to look at.
        samples: A collated batch per bucket; the sheet shows the first few of each.
        args: The run's flags.
        title: Stands on the sheet.
        sheet: Where it goes.

    Returns:
        ``loss_by_bucket`` is the mean absolute error inside the mask, on a scale of 2: it means the same at every
        step, as the discriminator's opinion does not. Beside it the warped garment's own error, the true flow's where
        the data knows it, the scores of true and painted pictures, and the usual measures of pictures.
    """
    device = next(model.dresser.parameters()).device
    numbers: dict[str, dict[str, float]] = {}
    shown: list[dict[str, Any]] = []
    columns: dict[str, list[Tensor]] = {}
    was_training = model.dresser.training, model.discriminator.training
    model.dresser.eval()
    model.discriminator.eval()
    for bucket, held in samples.items():
        batch = on_device(held, device)
        worn: TryOn = model.dresser(batch)
        for name, value in _numbers(model, batch, worn).items():
            numbers.setdefault(f"{name}_by_bucket", {})[bucket] = value
        shown.append(first({**batch, "result": worn.result}, args.num_validation_samples))
        for label, pictures in _columns(batch, worn).items():
            columns.setdefault(label, []).append(pictures[: args.num_validation_samples])
    model.dresser.train(was_training[0])
    model.discriminator.train(was_training[1])
    save_sheet(
        sheet,
        {label: torch.cat(parts) for label, parts in columns.items()},
        [name for part in shown for name in part["bucket"]],
        title,
    )
    result, truth, mask = (
        torch.cat([part[name] for part in shown]) for name in ("result", "image", "agnostic_mask")
    )
    return {**numbers, **picture_metrics(result, truth, mask)}


def _numbers(model: VTONGAN, batch: Mapping[str, Any], worn: TryOn) -> dict[str, float]:
    image, mask = batch["image"], batch["agnostic_mask"]
    scores = discriminator_terms(model.discriminator, batch, worn.result)[1]
    found = {
        "loss": masked_l1(worn.result, image, mask),
        "warped_l1": masked_l1(worn.warped.garment, image, batch.get("worn_mask", mask)),
        "d_real": scores["d_real"],
        "d_fake": scores["d_fake"],
    }
    if "flow" in batch:
        found["flow_error"] = flow_error(worn.warped.flow, batch["flow"])
    return {name: values.mean().item() for name, values in found.items()}


def _columns(batch: Mapping[str, Any], worn: TryOn) -> dict[str, Tensor]:
    return {
        "garment": batch["cloth"],
        "pose": batch["pose"],
        "agnostic": batch["agnostic"],
        "warped": worn.warped.garment,
        "composite": (2 * worn.composite - 1).expand_as(worn.render),
        "render": worn.render,
        "result": worn.result,
        "truth": batch["image"],
    }
