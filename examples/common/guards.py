"""Refusals on the way: an update that would break the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from curriculum_sampler.errors import CurriculumError


def refuse_not_a_number(
    loss: float,
    gradient_norm: float,
    *,
    step: int,
    stage: str,
    sample_ids: Sequence[str],
    latest: Path,
    is_scaled: bool = False,
) -> None:
    """Stop before an update that is not a number reaches weights or disk.

    Args:
        loss: Of the step.
        gradient_norm: Before clipping; the same on all ranks, so all stop together.
        step: Global step in progress.
        stage: Its stage.
        sample_ids: Samples of the step on this rank.
        latest: Where the newest checkpoint is, if one was written; named in the message.
        is_scaled: Under fp16 an infinite gradient is normal: the scaler skips the step.

    Raises:
        CurriculumError: The loss or the gradient is NaN or infinite.
    """
    if math.isfinite(loss) and (math.isfinite(gradient_norm) or is_scaled):
        return
    kept = f"{latest} holds the state saved last" if latest.exists() else "no checkpoint was written before"
    raise CurriculumError(
        f"Step {step}, stage {stage!r}: loss {loss}, gradient norm {gradient_norm}, not finite numbers. Nothing was"
        f" updated or saved; {kept}. Look at the samples {', '.join(sample_ids)},"
        " or lower the learning rate."
    )
