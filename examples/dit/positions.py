"""Where a token is in the picture, as sines and cosines; a function of row and column, so any rectangle will do."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_positions(
    rows: int,
    columns: int,
    width: int,
    *,
    first_column: int = 0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return ``float32[rows * columns, width]``, row by row, as DiT has them.

    The first half of the width tells the column, the second the row; each is sines, then cosines, of wavelengths
    from 2 pi to 20,000 pi tokens.

    Args:
        rows: Tokens from top to bottom.
        columns: Tokens from left to right.
        width: Of a token; a multiple of 4.
        first_column: Where the leftmost token stands. The garment stands beside the person, not on top.
        device: Where the result lies.

    >>> positions = sincos_positions(3, 2, 8)
    >>> positions.shape, positions[0].tolist()
    (torch.Size([6, 8]), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0])
    >>> torch.equal(sincos_positions(1, 1, 8, first_column=1), positions[1:2])
    True
    """
    frequencies = 10_000 ** -(torch.arange(width // 4, device=device) / (width // 4))
    down = torch.arange(rows, device=device).repeat_interleave(columns)
    across = (torch.arange(columns, device=device) + first_column).repeat(rows)
    angles = [place[:, None] * frequencies for place in (across, down)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
