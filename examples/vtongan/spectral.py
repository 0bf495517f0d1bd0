"""A convolution whose weight has spectral norm 1: what keeps both sides of an adversarial training in reach of each other.

Miyato et al., Spectral Normalization for Generative Adversarial Networks, arXiv 1802.05957.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FIRST_ROUNDS = 15


class SpectralConv2d(nn.Conv2d):
    """``Conv2d`` with its weight divided by its largest singular value, found by power iteration.

    A forward pass begins at ``left``, the left singular vector found so far, and leaves it as it is: into how many
    micro-batches a step is cut, how often a layer is computed in it, or that somebody looks at the model, makes no
    difference. ``advance`` moves it, once after each update of the weight. It follows from the weights alone, so ranks
    agree on it; but it is state: a checkpoint without it goes on a little differently.

    The division is done in float32 under any autocast: in half precision a norm of 1 is off by some thousandths,
    layer upon layer.
    """

    left: Tensor

    def __init__(
        self, into: int, out: int, kernel: int, *, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__(into, out, kernel, stride=stride, padding=padding, bias=bias)
        left = F.normalize(torch.randn(out), dim=0)
        with torch.no_grad():
            for _ in range(_FIRST_ROUNDS):
                left = self._next(left)[0]
        self.register_buffer("left", left)

    @torch.no_grad()
    def advance(self) -> None:
        """Follow the weight to where an update has brought it."""
        self.left.copy_(self._next(self.left)[0])

    def _next(self, left: Tensor) -> tuple[Tensor, Tensor]:
        matrix = self.weight.float().flatten(1)
        right = F.normalize(matrix.T @ left, dim=0)
        return F.normalize(matrix @ right, dim=0), right

    def normalised_weight(self) -> Tensor:
        """The weight in use, in float32."""
        with torch.autocast(self.weight.device.type, enabled=False):
            with torch.no_grad():
                left, right = self._next(self.left)
            norm = left @ (self.weight.float().flatten(1) @ right)
            weight: Tensor = self.weight.float() / norm.clamp_min(1e-8)
        return weight

    def forward(self, inputs: Tensor) -> Tensor:
        weight = self.normalised_weight()
        return F.conv2d(inputs, weight, self.bias, stride=self.stride, padding=self.padding)
