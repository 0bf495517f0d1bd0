"""Say what a checkpoint is: where its training stands, what it has seen, and what it was made with.

python inspect_checkpoint.py checkpoints_catvton_curriculum/latest_checkpoint.pt
python inspect_checkpoint.py checkpoints_catvton_curriculum --json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.stages import plan_of_checkpoint
from common.trained import saved_at
from torch import Tensor

import curriculum_sampler as cs


def summary_of(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return what there is to say about a checkpoint, in plain types.

    ``mixture`` and ``rates`` are those of the last update; ``rates`` has one entry per group of the optimizer, which VTON-GAN
    has several of. ``samples_seen`` counts since the start of the training.
    """
    step, plan = saved["global_step"], plan_of_checkpoint(saved["loader_state"])
    position, place = plan.at(max(step - 1, 0)), saved["stage"]["index"]
    trained: Mapping[str, Tensor] = saved["model"]
    average = saved["ema"]
    return {
        "trainer": saved["trainer"],
        "global_step": step,
        "total_steps": plan.total_steps,
        "stage": {
            "name": saved["stage"]["name"],
            "number": place + 1,
            "first_step": saved["stage"]["start_step"],
            "end_step": plan.boundaries[place + 1],
        },
        "epoch": saved["epoch"],
        "rates": [group["lr"] for group in saved["optimizer"]["param_groups"]],
        "mixture": dict(position.mixture),
        "global_batch": plan.batch_size,
        "samples_seen": dict(saved["samples_seen"]),
        "bucket_loss": dict(saved["bucket_loss"]),
        "base": saved["base_model"]["name"],
        "numbers_in_tensors": sum(tensor.numel() for tensor in trained.values()),
        "ema_decay": average["decay"] if average else None,
        "wandb": dict(saved["wandb"]),
        "versions": {"format": saved["format_version"], **saved["versions"]},
        "args": dict(saved["args"]),
    }


def as_lines(told: Mapping[str, Any]) -> list[str]:
    """The summary for a terminal, without the flags."""
    stage = told["stage"]
    average = f"average decays by {told['ema_decay']}" if told["ema_decay"] is not None else "no average"
    rows = {
        "step": f"{told['global_step']:,} of {told['total_steps']:,}, epoch {told['epoch']}",
        "stage": f"{stage['number']} {stage['name']}, steps {stage['first_step']:,} to {stage['end_step']:,}",
        "rate": ", ".join(f"{rate:g}" for rate in told["rates"]),
        "mixture": _shares(told["mixture"]),
        "global batch": f"{told['global_batch']:,}",
        "samples seen": _counts(told["samples_seen"]),
        "loss": ", ".join(f"{bucket} {loss:.4f}" for bucket, loss in told["bucket_loss"].items()),
        "weights": f"{told['numbers_in_tensors']:,}, {average}; base: {told['base']}",
        "W&B runs": ", ".join(f"{name}: {run}" for name, run in told["wandb"].items()) or "none",
        "versions": ", ".join(f"{name} {version}" for name, version in told["versions"].items()),
    }
    return [told["trainer"], *(f"  {name:<13} {text}" for name, text in rows.items())]


def _shares(mixture: Mapping[str, float]) -> str:
    return ", ".join(f"{bucket} {share:.0%}" for bucket, share in mixture.items())


def _counts(seen: Mapping[str, int]) -> str:
    total = max(1, sum(seen.values()))
    return ", ".join(f"{bucket} {count:,} ({count / total:.0%})" for bucket, count in seen.items())


def main(argv: Sequence[str] | None = None) -> None:
    """Print the summary of one checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, help="a .pt file, or the folder of a run")
    parser.add_argument("--json", action="store_true", help="for programs; with all flags of the run")
    args = parser.parse_args(argv)
    told = summary_of(saved_at(args.checkpoint))
    print(json.dumps(told, indent=2) if args.json else "\n".join(as_lines(told)))


if __name__ == "__main__":
    try:
        main()
    except cs.CurriculumError as error:
        sys.exit(f"error: {error}")
