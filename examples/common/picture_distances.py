"""How far two sets of pictures are from each other: FID and KID, of whatever features an extractor finds in them.

No network and no torchvision is needed: the extractor is a TorchScript file. With NVIDIA's ``inception-2015-12-05.pt``, the
network of StyleGAN and clean-fid, the numbers are like theirs; of other extractors they compare among themselves only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from curriculum_sampler.errors import ArgumentError

_ROWS = 1024


class Extractor:
    """Pictures to features.

    Args:
        path: A TorchScript file: ``float32[n, 3, size, size]`` from 0 to 255 to ``float[n, num_features]``. Where its
            ``forward`` has a parameter ``return_features``, as NVIDIA's has, that is true.
        device: Where it works.
        size: Pictures are brought to this height and width.

    Attributes:
        num_features: Numbers for each picture.

    Raises:
        ArgumentError: The file holds no such network.
    """

    def __init__(self, path: Path, device: torch.device, size: int = 299) -> None:
        self._device, self._size = device, size
        try:
            jit: Any = torch.jit
            self._network: Any = jit.load(str(path), map_location=device).eval()
            names = [argument.name for argument in self._network.forward.schema.arguments]
            self._options = {"return_features": True} if "return_features" in names else {}
            found = self(torch.zeros(2, 3, size, size))
        except RuntimeError as error:
            raise ArgumentError(
                f"--fid_extractor {path}: no TorchScript network that takes pictures of {size} x {size} pixels ({error})."
                " Save one by torch.jit.script(network).save(path), or choose --fid_size."
            ) from error
        if found.ndim != 2 or len(found) != 2:
            raise ArgumentError(
                f"--fid_extractor {path}: two pictures gave features of shape {tuple(found.shape)}; wanted is one row for"
                " each picture. Flatten them in the network."
            )
        self.num_features = found.shape[1]

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Return ``float32[n, num_features]`` on the CPU, of pictures in [-1, 1] as they would be read from a PNG."""
        levels = ((pictures.to(self._device).float().clamp(-1, 1) + 1) * 127.5).round()
        if levels.shape[-2:] != (self._size, self._size):
            levels = F.interpolate(
                levels, size=(self._size, self._size), mode="bicubic", antialias=True, align_corners=False
            ).clamp(0, 255)
        features: Tensor = self._network(levels, **self._options)
        return features.float().cpu()


def fid(real: Tensor, fake: Tensor) -> float:
    """Fréchet distance of two Gaussians fitted to the features (arXiv 1706.08500); by torchmetrics.

    It is biased: the fewer the samples, the larger. With fewer samples than features the covariance is not even of full
    rank, so compare only numbers of as many samples.
    """
    metric = FrechetInceptionDistance(feature=_AsGiven(real.shape[1]))
    metric.update(real.double(), real=True)
    metric.update(fake.double(), real=False)
    return float(metric.compute())


def kid(real: Tensor, fake: Tensor) -> float:
    """Squared maximum mean discrepancy of the features under the kernel ``(x·y / num_features + 1)³``, unbiased.

    Of all samples at once (arXiv 1801.01401); others average over random subsets, which estimates the same. Being
    unbiased it is right for few samples too, only less certain, and may fall below 0.

    >>> round(kid(torch.zeros(2, 4), torch.ones(2, 4)), 6)  # 1³ among zeros, 2³ among ones, 1³ between
    7.0
    """
    x, y = real.double(), fake.double()

    def sums(a: Tensor, b: Tensor) -> Tensor:
        return sum(
            ((rows @ b.T / b.shape[1] + 1) ** 3).sum() for rows in torch.split(a, _ROWS)
        ) + a.new_zeros(())

    def among(a: Tensor) -> Tensor:  # a sample is not paired with itself
        alone = ((a.square().sum(1) / a.shape[1] + 1) ** 3).sum()
        return (sums(a, a) - alone) / (len(a) * (len(a) - 1))

    return float(among(x) + among(y) - 2 * sums(x, y) / (len(x) * len(y)))


class _AsGiven(nn.Module):
    """Stands where torchmetrics wants an extractor, for features that have been extracted already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features
