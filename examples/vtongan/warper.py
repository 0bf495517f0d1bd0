"""Bend the flat garment onto the person: appearance flow, from coarse to fine.

Two feature pyramids see garment and person. From the coarsest level on, each level compares the person with the
garment as bent so far, in a small neighbourhood, and corrects where every pixel looks (after PF-AFN, Ge et al.,
arXiv 2103.04559). All of it is ``grid_sample`` and convolutions, so there is no kernel to compile.

A **flow** is ``float32[batch, 2, height, width]``: how far from its own place, in x and y, each pixel of the result
looks into the garment. The unit is that of ``grid_sample``: 2 is the width or height of the picture, at every
resolution. It is float32 under any autocast, since in half precision it cannot tell neighbouring pixels apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

_SLOPE = 0.1


def identity_grid(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return ``float32[1, 2, height, width]``: where every pixel's centre is, -1 and 1 being the picture's edges.

    >>> identity_grid(1, 2)[0, 0].tolist()
    [[-0.5, 0.5]]
    """
    x = (torch.arange(width, device=device, dtype=torch.float32) * 2 + 1) / width - 1
    y = (torch.arange(height, device=device, dtype=torch.float32) * 2 + 1) / height - 1
    return torch.stack([x.expand(height, width), y.unsqueeze(1).expand(height, width)]).unsqueeze(0)


def warp(pictures: Tensor, flow: Tensor, *, padding: str = "border") -> Tensor:
    """Return what each pixel sees that looks where ``flow`` says, in the dtype of ``pictures``.

    Args:
        pictures: ``[batch, channels, height, width]``; may have another size than the flow.
        flow: See the top of this file. Zero returns the pictures, resized where sizes differ.
        padding: What lies beyond the edge: ``border`` goes on with the last pixel, ``zeros`` is empty.
    """
    with torch.autocast(flow.device.type, enabled=False):
        height, width = flow.shape[-2:]
        places = identity_grid(height, width, flow.device) + flow.float()
        seen = F.grid_sample(
            pictures.float(), places.permute(0, 2, 3, 1), padding_mode=padding, align_corners=False
        )
    return seen.to(pictures.dtype)


def flow_of_places(places: NDArray[np.float64]) -> Tensor:
    """Return ``float32[2, height, width]``: the flow by which every pixel looks at its given place.

    Args:
        places: ``[height, width, 2]``: x and y in the garment's picture, of the same size, in pixels from its upper
            left corner; what ``TryOnSample.flow()`` of the rendered pictures returns. NaN, unknown, stays NaN.

    >>> flow_of_places(np.array([[[1.5, 0.5], [1.5, 0.5]]]))[0].tolist()
    [[1.0, 0.0]]
    """
    height, width, _ = places.shape
    grid = torch.from_numpy(2 * places / (width, height) - 1).float().permute(2, 0, 1)
    return grid - identity_grid(height, width)[0]


def resized_flow(flow: Tensor, size: Sequence[int]) -> Tensor:
    """The same flow at another resolution."""
    return F.interpolate(flow, size=tuple(size), mode="bilinear", align_corners=False)


def correlation(person: Tensor, garment: Tensor, radius: int) -> Tensor:
    """Return ``[batch, (2 * radius + 1) ** 2, height, width]``: likeness of each person pixel to garment pixels around it.

    Likeness is the cosine of two feature vectors. Neighbours come row by row, from ``radius`` up and left; those beyond
    the edge are 0.
    """
    height, width = person.shape[-2:]
    person, garment = F.normalize(person, dim=1), F.normalize(garment, dim=1)
    around = F.pad(garment, (radius,) * 4)
    steps = range(2 * radius + 1)
    return torch.stack(
        [
            (person * around[..., down : down + height, right : right + width]).sum(dim=1)
            for down in steps
            for right in steps
        ],
        dim=1,
    )


@dataclass
class Warped:
    """A garment bent onto a person.

    Attributes:
        flows: One per level, coarse to fine, each at its level's resolution.
        garment: The garment's picture as the finest flow shows it.
        mask: Its mask likewise, 0 to 1.
        visible: Occlusion map: 1 where the garment would be seen, 0 where an arm or hair lies in front of it.
    """

    flows: list[Tensor]
    garment: Tensor
    mask: Tensor
    visible: Tensor

    @property
    def flow(self) -> Tensor:
        """The flow in force, at the resolution of the pictures."""
        return resized_flow(self.flows[-1], self.garment.shape[-2:])

    @property
    def seen(self) -> Tensor:
        """Where the garment is seen: its mask without what lies in front."""
        return self.mask * self.visible


class Warper(nn.Module):
    """Says how to bend a garment onto a person; at first not at all.

    Args:
        garment_channels: Of picture and mask.
        person_channels: Of all that is known about the person without the garment.
        widths: Feature channels of each level, fine to coarse.
        hidden: Channels in the part that reads off the flow.
        halvings: How often the finest level is smaller than the picture by half.
        radius: How far a level looks around, in its own pixels.
    """

    def __init__(
        self,
        garment_channels: int,
        person_channels: int,
        *,
        widths: Sequence[int],
        hidden: int,
        halvings: int,
        radius: int,
    ) -> None:
        super().__init__()
        self.radius = radius
        self.garment_pyramid = FeaturePyramid(garment_channels, widths, halvings)
        self.person_pyramid = FeaturePyramid(person_channels, widths, halvings)
        window = (2 * radius + 1) ** 2
        self.corrections = nn.ModuleList(
            Correction(window + 2 * width + 5, hidden) for width in reversed(widths)
        )

    def forward(self, cloth: Tensor, cloth_mask: Tensor, person: Tensor) -> Warped:
        """Bend ``cloth`` onto ``person``, all ``[batch, channels, height, width]``."""
        garment_levels = self.garment_pyramid(torch.cat([cloth, cloth_mask], dim=1))
        person_levels = self.person_pyramid(person)
        coarsest = garment_levels[-1]
        flow = torch.zeros(len(cloth), 2, *coarsest.shape[-2:], device=coarsest.device, dtype=torch.float32)
        in_front = torch.zeros_like(flow[:, :1])
        flows = []
        for correct, garment, wearer in zip(
            self.corrections, reversed(garment_levels), reversed(person_levels), strict=True
        ):
            height, width = garment.shape[-2:]
            flow, in_front = resized_flow(flow, (height, width)), resized_flow(in_front, (height, width))
            bent = warp(garment, flow)
            here = identity_grid(height, width, flow.device).expand_as(flow)
            known = torch.cat([correlation(wearer, bent, self.radius), wearer, bent], dim=1)
            step = correct(torch.cat([known, here, flow, in_front], dim=1))
            # Corrections are in pixels of the level, so that each level has steps of its own size to learn.
            flow = flow + step[:, :2] * torch.tensor([2 / width, 2 / height], device=flow.device).view(
                1, 2, 1, 1
            )
            in_front = in_front + step[:, 2:]
            flows.append(flow)
        fine = resized_flow(flow, cloth.shape[-2:])
        return Warped(
            flows=flows,
            garment=warp(cloth.float(), fine),
            mask=warp(cloth_mask.float(), fine, padding="zeros"),
            visible=torch.sigmoid(
                2 - resized_flow(in_front, cloth.shape[-2:])
            ),  # at first hardly anything hides it
        )


class FeaturePyramid(nn.Module):
    """Features at several resolutions, each half the one before. No normalisation: colours must get through."""

    def __init__(self, channels: int, widths: Sequence[int], halvings: int) -> None:
        super().__init__()
        levels = []
        for number, width in enumerate(widths):
            layers: list[nn.Module] = []
            for _ in range(halvings if number == 0 else 1):
                layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.LeakyReLU(_SLOPE)]
                channels = width
            levels.append(nn.Sequential(*layers, ResidualBlock(width)))
        self.levels = nn.ModuleList(levels)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Return the levels, fine to coarse."""
        found = []
        for level in self.levels:
            pictures = level(pictures)
            found.append(pictures)
        return found


class ResidualBlock(nn.Module):
    """Two convolutions beside a straight way."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.LeakyReLU(_SLOPE), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, features: Tensor) -> Tensor:
        return F.leaky_relu(features + self.layers(features), _SLOPE)


class Correction(nn.Module):
    """Reads a correction off: x, y and how much hides the garment. It starts at zero, so the first warp is none."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.LeakyReLU(_SLOPE),
        )
        self.last = nn.Conv2d(hidden, 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, known: Tensor) -> Tensor:
        features = self.layers(known)
        with torch.autocast(features.device.type, enabled=False):
            step: Tensor = self.last(features.float())
        return step
