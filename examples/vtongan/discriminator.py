"""Judge pictures patch by patch, at one or two scales (pix2pixHD, Wang et al., arXiv 1711.11585).

Each patch of the picture gets a score, seen beside the same patch of the person without the garment. Spectral
normalisation holds every layer, instance normalisation works within one picture, so a score depends on no other
picture in the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vtongan.spectral import SpectralConv2d

Judgement = list[list[Tensor]]
"""Per scale what each layer found; the last entry of a scale holds the scores of its patches."""

_KERNEL, _SLOPE = 4, 0.2


class PatchJudge(nn.Module):
    """One scale: ``layers`` halvings, then two convolutions at that resolution."""

    def __init__(self, channels: int, width: int, layers: int) -> None:
        super().__init__()
        widths = [width * min(8, 2**layer) for layer in range(layers + 1)]
        blocks: list[nn.Module] = [
            nn.Sequential(SpectralConv2d(channels, width, _KERNEL, stride=2, padding=1), nn.LeakyReLU(_SLOPE))
        ]
        for number, (into, out) in enumerate(pairwise(widths), start=1):
            conv = SpectralConv2d(
                into, out, _KERNEL, stride=2 if number < layers else 1, padding=1, bias=False
            )
            blocks.append(nn.Sequential(conv, nn.InstanceNorm2d(out), nn.LeakyReLU(_SLOPE)))
        blocks.append(SpectralConv2d(widths[-1], 1, _KERNEL, padding=1))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        found = []
        for block in self.blocks:
            pictures = block(pictures)
            found.append(pictures)
        return found


class Discriminator(nn.Module):
    """Judges at full resolution, and at half of it for each further scale.

    Args:
        channels: Of person without garment and picture together.
        width: Features of the first layer.
        layers: Of each scale, before the last two.
        scales: How many.
    """

    def __init__(self, channels: int, *, width: int, layers: int, scales: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(PatchJudge(channels, width, layers) for _ in range(scales))

    def forward(self, agnostic: Tensor, pictures: Tensor) -> Judgement:
        seen = torch.cat([agnostic, pictures], dim=1)
        judged = []
        for number, scale in enumerate(self.scales):
            if number:
                seen = F.avg_pool2d(seen, 3, stride=2, padding=1, count_include_pad=False)
            judged.append(scale(seen))
        return judged


@contextmanager
def frozen(discriminator: nn.Module) -> Iterator[None]:
    """Within, no weight of the discriminator gets a gradient.

    A step of the generator goes through it so. Gradients still pass, to the picture that is judged.
    """
    wanted = [(parameter, parameter.requires_grad) for parameter in discriminator.parameters()]
    discriminator.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)
