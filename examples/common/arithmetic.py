"""How exactly a GPU calculates: TF32 or not, and whether the same numbers give the same bits."""

from __future__ import annotations

import argparse
import os

import torch


def set_arithmetic(args: argparse.Namespace) -> None:
    """Obey ``--allow_tf32`` and ``--deterministic``, before anything is calculated on a GPU.

    An operation that has no deterministic kernel, such as the gradient of ``grid_sample`` in VTON-GAN's warper, warns
    and stays as it is.
    """
    torch.backends.cuda.matmul.allow_tf32 = args.allow_tf32
    if args.deterministic:
        # cuBLAS reads it when it begins, and would otherwise share its workspace between streams.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(args.deterministic, warn_only=True)
