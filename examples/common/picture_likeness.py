"""How like a painted picture is to the true one, sample by sample."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from curriculum_sampler.errors import MissingExtraError

Likeness = Callable[[Tensor, Tensor], Tensor]
"""Of result and truth in [-1, 1], one number for each sample."""

_MOST_PSNR = 100.0  # of equal pictures it is infinite, and one of them would be all of a mean


def likenesses(result: Tensor, truth: Tensor, mask: Tensor, lpips: Likeness | None) -> dict[str, Tensor]:
    """Return, for each sample, how like the truth it is. ``masked_l1`` is on a scale of 2; ``psnr`` is 100 at most."""
    ours, theirs = (result.float().clamp(-1, 1) + 1) / 2, (truth.float() + 1) / 2
    covered = mask.expand_as(truth)
    ssim = structural_similarity_index_measure(ours, theirs, data_range=1.0, reduction="none")
    psnr = peak_signal_noise_ratio(ours, theirs, data_range=1.0, dim=(1, 2, 3), reduction="none")
    assert isinstance(ssim, Tensor)
    numbers = {
        "ssim": ssim,
        "psnr": psnr.clamp_max(_MOST_PSNR),
        "masked_l1": ((result - truth).abs() * covered).flatten(1).sum(1)
        / covered.flatten(1).sum(1).clamp_min(1),
    }
    return numbers | ({"lpips": lpips(result, truth)} if lpips is not None else {})


def lpips_likeness(device: str | None) -> Likeness:
    """LPIPS with SqueezeNet, as the published numbers have it.

    Raises:
        MissingExtraError: torchvision is not installed.
    """
    try:
        metric = LearnedPerceptualImagePatchSimilarity(net_type="squeeze")
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "--lpips needs torchvision, whose network it measures with (and downloads once):"
            " pip install 'torchmetrics[image]', or leave the flag out."
        ) from error
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    metric = metric.to(place)

    def likeness(result: Tensor, truth: Tensor) -> Tensor:
        pairs = zip(torch.split(result.to(place), 1), torch.split(truth.to(place), 1), strict=True)
        return torch.stack([metric(one.clamp(-1, 1), other).detach().cpu() for one, other in pairs])

    return likeness
