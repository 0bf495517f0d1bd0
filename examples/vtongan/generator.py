"""Paint the person: a U-Net whose decoder is told at every resolution what belongs where.

Normalisation wipes out what is constant over a region, and a garment's colour is just that. SPADE (Park et al., arXiv
1903.07291) gives it back: each block is scaled and shifted, pixel by pixel, by what the condition shows there. The
normalisation is that of each picture alone, so results depend neither on the batch nor on the number of ranks.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vtongan.spectral import SpectralConv2d

_SLOPE = 0.2


class Spade(nn.Module):
    """Normalise features, then scale and shift each pixel as the condition says."""

    def __init__(self, width: int, condition_channels: int, hidden: int) -> None:
        super().__init__()
        self.normalise = nn.InstanceNorm2d(width)
        self.read = nn.Conv2d(condition_channels, hidden, 3, padding=1)
        self.scale = nn.Conv2d(hidden, width, 3, padding=1)
        self.shift = nn.Conv2d(hidden, width, 3, padding=1)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        told = F.relu(self.read(condition))
        placed: Tensor = self.normalise(features) * (1 + self.scale(told)) + self.shift(told)
        return placed


class SpadeBlock(nn.Module):
    """Two convolutions, each after a `Spade`, beside a straight way."""

    def __init__(self, into: int, out: int, condition_channels: int, hidden: int) -> None:
        super().__init__()
        self.spade_1 = Spade(into, condition_channels, hidden)
        self.conv_1 = SpectralConv2d(into, out, 3, padding=1)
        self.spade_2 = Spade(out, condition_channels, hidden)
        self.conv_2 = SpectralConv2d(out, out, 3, padding=1)
        self.straight = SpectralConv2d(into, out, 1, bias=False) if into != out else nn.Identity()

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        inner = self.conv_1(F.leaky_relu(self.spade_1(features, condition), _SLOPE))
        inner = self.conv_2(F.leaky_relu(self.spade_2(inner, condition), _SLOPE))
        result: Tensor = self.straight(features) + inner
        return result


class Generator(nn.Module):
    """From all that is known to a painted person, and how much of the warped garment to keep.

    Args:
        channels: Of the condition.
        width: Features at full resolution; they double with every halving.
        most_width: Where doubling ends.
        halvings: Resolutions below the full one.
        hidden: Channels that read the condition in `Spade`, at most; a narrow level takes its own width.
    """

    def __init__(self, channels: int, *, width: int, most_width: int, halvings: int, hidden: int) -> None:
        super().__init__()
        widths = [min(most_width, width * 2**level) for level in range(halvings + 1)]
        self.first = SpectralConv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(
            nn.Sequential(
                nn.LeakyReLU(_SLOPE),
                SpectralConv2d(into, out, 3, stride=2, padding=1),
                nn.LeakyReLU(_SLOPE),
                SpectralConv2d(out, out, 3, padding=1),
            )
            for into, out in pairwise(widths)
        )
        self.bottom = SpadeBlock(widths[-1], widths[-1], channels, min(hidden, widths[-1]))
        self.up = nn.ModuleList(
            SpadeBlock(below + beside, beside, channels, min(hidden, beside))
            for below, beside in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.last = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return a picture in [-1, 1] and a share in [0, 1] of the warped garment, both float32.

        Args:
            condition: ``[batch, channels, height, width]``; height and width are multiples of ``2 ** halvings``.
        """
        features: Tensor = self.first(condition)
        beside = [features]
        for down in self.down:
            features = down(features)
            beside.append(features)
        features = self.bottom(beside.pop(), self._resized(condition, features))
        for up in self.up:
            skipped = beside.pop()
            raised = F.interpolate(features, size=skipped.shape[-2:], mode="nearest")
            features = up(torch.cat([raised, skipped], dim=1), self._resized(condition, skipped))
        painted: Tensor = self.last(F.leaky_relu(features, _SLOPE)).float()
        return torch.tanh(painted[:, :3]), torch.sigmoid(painted[:, 3:])

    @staticmethod
    def _resized(condition: Tensor, like: Tensor) -> Tensor:
        if condition.shape[-2:] == like.shape[-2:]:
            return condition
        return F.interpolate(condition, size=like.shape[-2:], mode="area")
