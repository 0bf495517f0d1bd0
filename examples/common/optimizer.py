"""AdamW by the shared flags."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterable
from typing import Any

import torch

from curriculum_sampler.errors import MissingExtraError


def make_adamw(args: argparse.Namespace, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Return AdamW, or its 8-bit form; its rate is 0 until a step sets it.

    Raises:
        MissingExtraError: ``--use_8bit_adam`` without bitsandbytes.
    """
    kind: Any = torch.optim.AdamW
    if args.use_8bit_adam:
        try:
            kind = importlib.import_module("bitsandbytes").optim.AdamW8bit
        except ImportError as error:
            raise MissingExtraError(
                "--use_8bit_adam needs bitsandbytes: pip install bitsandbytes, or leave the flag out."
            ) from error
    optimizer: torch.optim.Optimizer = kind(
        list(parameters),
        lr=0.0,
        betas=(args.adam_beta1, args.adam_beta2),
        weight_decay=args.adam_weight_decay,
        eps=args.adam_epsilon,
    )
    return optimizer
