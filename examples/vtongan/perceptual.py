"""Likeness of two pictures beyond single pixels: by the features of VGG-19, or without any weights by their gradients."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from curriculum_sampler.errors import ArgumentError, MissingExtraError

PerceptualKind = Literal["vgg", "gradient", "none", "random-vgg"]

_BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 1))  # VGG-19 up to relu5_1
_TAPS = {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}  # relu1_1 ... relu5_1, as in pix2pixHD
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SCALES = 3


def build_perceptual(kind: PerceptualKind, vgg_weights: str | None = None, seed: int = 0) -> nn.Module | None:
    """Return a module that gives, for pictures and truths in [-1, 1], the loss of each sample; None for ``none``.

    Args:
        kind: ``vgg`` is what the papers use; ``gradient`` needs no weights; ``random-vgg`` has weights that know
            nothing, to test the way that a real run takes.
        vgg_weights: For ``vgg``: a file with torchvision's names (``features.0.weight``, ...), or the word
            ``torchvision``, which lets that library fetch them.
        seed: Of ``random-vgg``.

    Raises:
        ArgumentError: ``vgg`` without weights, or with a file that is missing or holds something else.
        MissingExtraError: ``torchvision`` where it is not installed.
    """
    if kind == "none":
        return None
    if kind == "gradient":
        return GradientLoss()
    if kind == "random-vgg":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return VggLoss()
    if vgg_weights is None:
        raise ArgumentError(
            "--perceptual vgg needs the weights of VGG-19 and got none. Pass --vgg_weights with a file of torchvision's"
            " vgg19, or the word torchvision where that is installed; --perceptual gradient needs no weights."
        )
    vgg = VggLoss()
    vgg.take(*_read(vgg_weights))
    return vgg


class VggLoss(nn.Module):
    """Distance of features at five depths of VGG-19, deeper ones counting more (Johnson et al., arXiv 1603.08155)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, count in _BLOCKS:
            if layers:
                layers.append(nn.MaxPool2d(2))
            for _ in range(count):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)  # numbered as in torchvision, so its file fits
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def take(self, weights: Mapping[str, Tensor], place: str) -> None:
        """Take the trunk's weights out of a whole VGG-19; ``place`` is named where something is amiss.

        Raises:
            ArgumentError: If a tensor is missing or of another shape.
        """
        ours = self.state_dict()
        for name, tensor in ours.items():
            found = tuple(weights[name].shape) if name in weights else "absent"
            if found != tuple(tensor.shape):
                raise ArgumentError(
                    f"--vgg_weights {place}: {name} is {found}, but VGG-19 has {tuple(tensor.shape)}."
                    " Give the file of torchvision's vgg19 (not vgg16, not a batch-norm variant)."
                )
        self.load_state_dict({name: weights[name] for name in ours})

    def _taps(self, pictures: Tensor) -> list[Tensor]:
        seen = ((pictures.float() + 1) / 2 - self.mean) / self.deviation
        found = []
        for number, layer in enumerate(self.features):
            seen = layer(seen)
            if number in _TAPS:
                found.append(seen)
        return found

    def forward(self, pictures: Tensor, truths: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self._taps(truths)
        loss = torch.zeros(len(pictures), device=pictures.device)
        for weight, ours, theirs in zip(_TAPS.values(), self._taps(pictures), wanted, strict=True):
            loss = loss + weight * (ours.float() - theirs.float()).abs().flatten(1).mean(1)
        return loss


class GradientLoss(nn.Module):
    """Distance of edges (Sobel) and of fine detail (Laplacian), at full, half and quarter resolution."""

    def forward(self, pictures: Tensor, truths: Tensor) -> Tensor:
        difference = pictures.float() - truths.float()
        loss = torch.zeros(len(pictures), device=pictures.device)
        for scale in range(_SCALES):
            if scale:
                difference = F.avg_pool2d(difference, 2)
            # Filters are linear: the filtered difference is the difference of the filtered.
            loss = loss + filtered(difference).abs().flatten(1).mean(1) / _SCALES
        return loss


def filtered(pictures: Tensor) -> Tensor:
    """Return Sobel x, Sobel y and Laplacian of every channel, ``[batch, 3 * channels, height, width]``, in float32.

    A step of 1 per pixel has a Sobel of 1. The picture goes on beyond its edge with its last pixel.
    """
    channels = pictures.shape[1]
    smooth, slope, bend = torch.tensor([1.0, 2, 1]), torch.tensor([-1.0, 0, 1]), torch.tensor([1.0, -2, 1])
    kernels = torch.stack(
        [
            torch.outer(smooth, slope) / 8,
            torch.outer(slope, smooth) / 8,
            (torch.outer(smooth, bend) + torch.outer(bend, smooth)) / 8,
        ]
    ).to(pictures.device)
    with torch.autocast(pictures.device.type, enabled=False):
        padded = F.pad(pictures.float(), (1, 1, 1, 1), mode="replicate")
        return F.conv2d(padded, kernels.unsqueeze(1).repeat(channels, 1, 1, 1), groups=channels)


def _read(place: str) -> tuple[Mapping[str, Tensor], str]:
    """Return the tensors of a file, or of torchvision's own VGG-19, and where they are from."""
    if place == "torchvision":
        try:
            models = importlib.import_module("torchvision.models")
        except ImportError as error:
            raise MissingExtraError(
                "--vgg_weights torchvision: torchvision is not installed. Install the one that belongs to your torch,"
                " or give the path of a file with the weights of its vgg19."
            ) from error
        weights: Mapping[str, Tensor] = models.vgg19(weights="IMAGENET1K_V1").state_dict()
        return weights, place
    path = Path(place)
    if not path.is_file():
        raise ArgumentError(
            f"--vgg_weights {place}: there is no such file. Correct the path, or pass the word torchvision."
        )
    if path.suffix == ".safetensors":
        return load_file(path), place
    loaded: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return loaded, place
