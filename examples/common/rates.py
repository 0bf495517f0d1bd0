"""The learning rate as a function of the step, so that it is right after any load and at any switch."""

from __future__ import annotations

import math
from typing import Literal

import torch

import curriculum_sampler as cs

Kind = Literal["constant", "constant_with_warmup", "cosine"]


def learning_rate(plan: cs.Plan, step: int, kind: Kind = "constant", warmup_steps: int = 0) -> float:
    """Return the rate of a global step: the stage's, times a factor that starts anew in every stage.

    With ``t`` steps into a stage of length ``n``: during warm-up ``(t + 1) / warmup_steps``; after it 1, or for
    ``cosine`` half a wave that falls from 1 towards 0 at the stage's end.

    Raises:
        ArgumentError: If the stage declares no rate.

    >>> plan = cs.StageSchedule([cs.Stage("a", {"x": 1}, steps=4, lr=0.5), cs.Stage("b", {"x": 1}, steps=4, lr=0.1)]).plan({"x": 9}, 1)
    >>> [learning_rate(plan, step, "constant_with_warmup", 2) for step in range(6)]
    [0.25, 0.5, 0.5, 0.5, 0.05, 0.1]
    """
    position = plan.at(step)
    if position.lr is None:
        raise cs.ArgumentError(
            f"Stage {position.stage!r} has no learning rate. Set lr in the curriculum file, or pass --learning_rate."
        )
    gone = position.stage_step
    if gone < warmup_steps:
        return position.lr * (gone + 1) / warmup_steps
    if kind != "cosine":
        return position.lr
    length = plan.boundaries[position.stage_index + 1] - plan.boundaries[position.stage_index]
    share = (gone - warmup_steps) / max(1, length - warmup_steps)
    return position.lr * 0.5 * (1.0 + math.cos(math.pi * share))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group ``rate`` times its own factor (1 unless the group holds ``rate_factor``).

    Loading an optimiser brings back the rate it was saved with. A trainer that sets the rate from the step, every
    step, cannot keep a stage's rate in the next one.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = rate * group.get("rate_factor", 1.0)
