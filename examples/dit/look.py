"""Look at the model from outside: held-out loss of each bucket, and a sheet of dressed persons."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from common.randomness import sample_generators
from common.validation import first, on_device, picture_metrics, save_sheet
from dit.generate import generate
from dit.model import TIME_SCALE, DiT
from dit.objectives import OBJECTIVES, Objective, dit_loss

_NOISE_LEVELS = 4


@torch.no_grad()
def held_out_losses(
    model: DiT, objective: Objective, samples: Mapping[str, Mapping[str, Any]], seed: int
) -> dict[str, float]:
    """Return the loss of each bucket at fixed noise and times, which is far steadier than the training loss."""
    losses = {}
    for bucket, batch in samples.items():
        found = []
        for number in range(_NOISE_LEVELS):
            time = TIME_SCALE * (2 * number + 1) / (2 * _NOISE_LEVELS)
            times = torch.full((len(batch["image"]),), time, device=batch["image"].device)
            generators = sample_generators(seed, "held-out", number, batch["sample_id"])
            found.append(dit_loss(model, objective, batch, generators, times=times).mean().item())
        losses[bucket] = sum(found) / len(found)
    return losses


def look(
    model: DiT,
    samples: Mapping[str, Mapping[str, Any]],
    args: argparse.Namespace,
    title: str,
    sheet: Path | None,
) -> dict[str, Any]:
    """Return the numbers of a validation, and save its sheet.

    Args:
        model: With the weights to look at.
        samples: A collated batch of pictures per bucket; the sheet shows the first few of each.
        args: The run's flags.
        title: Stands on the sheet.
        sheet: Where it goes; None saves none.
    """
    device = next(model.network.parameters()).device
    objective = OBJECTIVES[args.objective]()
    samples = {bucket: on_device(batch, device) for bucket, batch in samples.items()}
    shown = [first(batch, args.num_validation_samples) for batch in samples.values()]
    keys = [key for part in shown for key in part["sample_id"]]
    pictures = ["image", "cloth", "agnostic_mask", *(["pose"] if args.use_pose else [])]
    panel = {name: torch.cat([part[name] for part in shown]) for name in (*pictures, "category")}
    result = generate(
        model,
        objective,
        panel,
        sample_generators(args.seed, "panel", 0, keys),
        steps=args.num_validation_inference_steps,
        guidance=args.guidance_scale,
    )
    columns = {
        "garment": panel["cloth"],
        "masked": panel["image"] * (panel["agnostic_mask"] < 0.5),
        **({"pose": panel["pose"]} if args.use_pose else {}),
        "result": result,
        "truth": panel["image"],
    }
    if sheet is not None:
        save_sheet(sheet, columns, [name for part in shown for name in part["bucket"]], title)
    return {
        "loss_by_bucket": held_out_losses(model, objective, samples, args.seed),
        **picture_metrics(result, panel["image"], panel["agnostic_mask"]),
    }
