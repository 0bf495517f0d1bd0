"""Randomness that belongs to a sample at a step, not to a process.

A generator per sample, keyed by seed, step and sample, makes noise the same after any resume, on any number of
ranks and for any number of workers; and validation cannot disturb training, having keys of its own.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from curriculum_sampler.keys import derive


def sample_generators(seed: int, purpose: str, step: int, sample_ids: Sequence[str]) -> list[torch.Generator]:
    """Return one CPU generator per sample.

    Args:
        seed: The run's seed.
        purpose: What the numbers are for, e.g. ``"noise"``; other purposes get unrelated numbers.
        step: Global step of the batch.
        sample_ids: Keys of the samples.

    >>> def first(step): return torch.rand(1, generator=sample_generators(17, "noise", step, ["a"])[0]).item()
    >>> first(3) == first(3), first(3) == first(4)
    (True, False)
    """
    return [torch.Generator().manual_seed(derive(seed, purpose, step, sample_id)) for sample_id in sample_ids]


def seed_globals(seed: int) -> None:
    """Seed the global generators, for whatever code draws from them behind our back."""
    random.seed(derive(seed, "python"))
    np.random.seed(derive(seed, "numpy") % 2**32)
    torch.manual_seed(derive(seed, "torch"))


def rng_state() -> dict[str, Any]:
    """Return the state of the global generators as tensors and plain types, loadable with ``weights_only=True``."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": list(random.getstate()[1]),
        "numpy": [str(name), [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore what `rng_state` returned; CUDA generators only where the machine has as many devices."""
    random.setstate((3, tuple(state["python"]), None))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
