"""What VTON-GAN is trained on, term by term and sample by sample.

Every function returns **terms**: ``float32[batch]`` by name, unweighted. ``weighted`` makes one loss per sample of them,
so a bucket's loss can be told from another's. A step computes the dresser's result once and uses it twice:

    worn = dresser(batch)
    judging = discriminator_terms(discriminator, batch, worn.result.detach())
    dressing = dresser_terms(discriminator, perceptual, batch, worn)

Both look at the same discriminator, before either is updated (as pix2pixHD does), so a step may be made of several
micro-batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vtongan.discriminator import Judgement, frozen
from vtongan.flags import ADVERSARIAL_TERMS
from vtongan.model import TryOn
from vtongan.perceptual import filtered
from vtongan.warper import Warped, warp

Terms = dict[str, Tensor]


def weighted(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the loss of each sample: every term times its weight. A term without a weight is an error.

    >>> weighted({"l1": torch.tensor([1.0, 2.0]), "tv": torch.tensor([0.0, 4.0])}, {"l1": 5.0, "tv": 0.5}).tolist()
    [5.0, 12.0]
    """
    total: Tensor = sum((weights[name] * term for name, term in terms.items()), torch.zeros(()))
    return total


def weights_at(weights: Mapping[str, float], step: int, d_warmup_steps: int) -> dict[str, float]:
    """Return the weights of a global step: while the discriminator warms up, nobody listens to it.

    >>> weights_at({"hinge": 1.0, "l1": 5.0}, step=0, d_warmup_steps=10)
    {'hinge': 0.0, 'l1': 5.0}
    """
    is_warming = step < d_warmup_steps
    return {
        name: 0.0 if is_warming and name in ADVERSARIAL_TERMS else weight for name, weight in weights.items()
    }


def discriminator_terms(
    discriminator: nn.Module, batch: Mapping[str, Any], result: Tensor, *, with_r1: bool = False
) -> tuple[Terms, Terms]:
    """Return the terms of the discriminator's loss, and what to log of it, for each sample.

    Args:
        discriminator: The network, wrapped or not.
        batch: With ``image``, the truth, and ``agnostic``.
        result: What the dresser painted, detached.
        with_r1: Add ``r1``, the squared gradient of the score at true pictures (arXiv 1801.04406).

    Returns:
        ``judge_hinge`` and perhaps ``r1``; and ``d_real``, ``d_fake`` (mean scores), ``d_accuracy`` (share of patches
        on their side of 0).
    """
    agnostic, image = batch["agnostic"], batch["image"]
    judged: Judgement = discriminator(
        torch.cat([agnostic, agnostic]), torch.cat([image, result.to(image.dtype)])
    )
    scores = [scale[-1].float() for scale in judged]
    real, fake = zip(*(score.chunk(2) for score in scores), strict=True)
    terms = {"judge_hinge": discriminator_hinge(real, fake)}
    if with_r1:
        terms["r1"] = _r1(discriminator, agnostic, image)
    with torch.no_grad():
        right = mean_of_scales([score > 0 for score in real]) + mean_of_scales([score < 0 for score in fake])
        seen = {
            "d_real": mean_of_scales(real),
            "d_fake": mean_of_scales(fake),
            "d_accuracy": right / 2,
        }
    return terms, seen


def dresser_terms(
    discriminator: nn.Module,
    perceptual: nn.Module | None,
    batch: Mapping[str, Any],
    worn: TryOn,
) -> Terms:
    """Return the terms of warper and generator for each sample.

    Args:
        discriminator: The network itself, not a wrapper; frozen meanwhile.
        perceptual: None leaves the term out.
        batch: With ``image``, the truth. Where the data has them, ``worn_mask`` (where the garment is seen on the
            person) sharpens the warper's terms, and ``flow`` (the true one, NaN where unknown) adds ``flow_truth``.
        worn: The dresser's result on this batch.
    """
    agnostic, image = batch["agnostic"], batch["image"]
    with frozen(discriminator):
        with torch.no_grad():
            of_real: Judgement = discriminator(agnostic, image)
        of_fake: Judgement = discriminator(agnostic, worn.result.to(image.dtype))
    mask = batch["agnostic_mask"]
    terms = {
        "hinge": generator_hinge([scale[-1].float() for scale in of_fake]),
        "feature_matching": feature_matching(of_real, of_fake),
        # The render too: else whatever the composite covers at first would never learn to be painted.
        "l1": (masked_l1(worn.result, image, mask) + masked_l1(worn.render, image, mask)) / 2,
        **warp_terms(batch, worn.warped),
    }
    if perceptual is not None:
        terms["perceptual"] = perceptual(worn.result, image)
    return terms


def discriminator_hinge(real: Any, fake: Any) -> Tensor:
    """Zero once every patch of true pictures scores 1 or more and every painted one -1 or less.

    >>> discriminator_hinge([torch.tensor([[[[0.5]]]])], [torch.tensor([[[[-2.0]]]])]).tolist()
    [0.5]
    """
    return mean_of_scales([F.relu(1 - score) for score in real]) + mean_of_scales(
        [F.relu(1 + score) for score in fake]
    )


def generator_hinge(fake: Any) -> Tensor:
    """The painted picture's score, with its sign turned."""
    return -mean_of_scales(fake)


def feature_matching(of_real: Judgement, of_fake: Judgement) -> Tensor:
    """Distance of what the discriminator's layers find in truth and painting: summed over layers, mean over scales."""
    total = torch.zeros(len(of_real[0][0]), device=of_real[0][0].device)
    for real, fake in zip(of_real, of_fake, strict=True):
        for ours, theirs in zip(fake[:-1], real[:-1], strict=True):
            total = total + per_sample((ours.float() - theirs.detach().float()).abs())
    return total / len(of_real)


def warp_terms(batch: Mapping[str, Any], warped: Warped) -> Terms:
    """Return the terms of the warper: likeness at every level, coarse ones counting less, and what keeps flows sane.

    ``flow_l1`` and ``edge`` compare the bent garment with the person where it is worn; ``smooth`` and ``tv`` hold the
    flow together; ``mask`` wants the garment seen where it is worn. Without ``worn_mask`` the region to paint stands
    in for it, and ``mask`` only forbids the garment to reach beyond that.
    """
    image, cloth = batch["image"].float(), batch["cloth"].float()
    region = batch.get("worn_mask", batch["agnostic_mask"]).float()
    count = len(warped.flows)
    shares = [2 * (level + 1) / (count * (count + 1)) for level in range(count)]
    flow_l1 = edge = smooth = torch.zeros(len(image), device=image.device)
    for share, flow in zip(shares, warped.flows, strict=True):
        size = flow.shape[-2:]
        here, truth = (F.interpolate(picture, size=size, mode="area") for picture in (region, image))
        bent = warp(F.interpolate(cloth, size=size, mode="area"), flow)
        flow_l1 = flow_l1 + share * masked_l1(bent, truth, here)
        edge = edge + share * masked_l1(filtered(bent), filtered(truth), here)
        smooth = smooth + share * second_order(flow)
    if "worn_mask" in batch:
        mask = per_sample((warped.seen - region).abs())
    else:
        mask = per_sample(warped.seen * (1 - region))
    terms = {
        # At the pictures' own resolution once more: that is what will be seen.
        "flow_l1": (flow_l1 + masked_l1(warped.garment, image, region)) / 2,
        "edge": edge,
        "smooth": smooth,
        "tv": total_variation(warped.flows[-1]),
        "mask": mask,
    }
    if "flow" in batch:
        terms["flow_truth"] = flow_error(warped.flow, batch["flow"])
    return terms


def flow_error(flow: Tensor, truth: Tensor) -> Tensor:
    """Mean distance from the true flow, over the pixels where it is known; 0 for a sample that has none.

    The unit is that of a flow: 2 is the picture's width or height.
    """
    known = truth.isfinite().all(dim=1, keepdim=True)
    off = torch.where(known, flow - truth.nan_to_num(), 0.0).abs().sum(dim=1)
    return off.flatten(1).sum(1) / known.flatten(1).sum(1).clamp_min(1)


def second_order(flow: Tensor) -> Tensor:
    """How much a flow bends: 0 for every shift, stretch, turn and shear; along rows, columns and both diagonals."""
    middle = 2 * flow[..., 1:-1, 1:-1]
    pairs = (
        (flow[..., 1:-1, :-2], flow[..., 1:-1, 2:]),
        (flow[..., :-2, 1:-1], flow[..., 2:, 1:-1]),
        (flow[..., :-2, :-2], flow[..., 2:, 2:]),
        (flow[..., :-2, 2:], flow[..., 2:, :-2]),
    )
    bends = [per_sample((before + after - middle).abs()) for before, after in pairs]
    return torch.stack(bends).mean(0)


def total_variation(flow: Tensor) -> Tensor:
    """Mean change of a flow from pixel to pixel, across and down: 0 for a shift."""
    return per_sample(flow.diff(dim=-1).abs()) + per_sample(flow.diff(dim=-2).abs())


def masked_l1(pictures: Tensor, truths: Tensor, region: Tensor) -> Tensor:
    """Mean absolute difference within ``[batch, 1, height, width]`` of a region, its values counting as weights."""
    off = (pictures.float() - truths.float()).abs().mean(dim=1, keepdim=True) * region
    return off.flatten(1).sum(1) / region.flatten(1).sum(1).clamp_min(1.0)


def per_sample(values: Tensor) -> Tensor:
    """Mean over everything but the batch, in float32."""
    return values.float().flatten(1).mean(1)


def mean_of_scales(scores: Any) -> Tensor:
    """Mean over the patches of each scale, then over scales, so that a scale with more patches counts no more."""
    return torch.stack([per_sample(score) for score in scores]).mean(0)


def _r1(discriminator: nn.Module, agnostic: Tensor, image: Tensor) -> Tensor:
    with torch.autocast(image.device.type, enabled=False):
        asked = image.detach().float().requires_grad_()
        scores = mean_of_scales([scale[-1] for scale in discriminator(agnostic.float(), asked)])
        (slope,) = torch.autograd.grad(scores.sum(), asked, create_graph=True)
    return slope.square().flatten(1).sum(1)
