"""What the tests of the trainers share: small data, a short curriculum, and calls of the real ``train.py``."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from common import training_run
from common.bucketed_shards import write_bucketed_shards
from torch.optim.optimizer import register_optimizer_step_pre_hook

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TRAINERS = ("catvton", "dit", "vtongan")
COUNTS = {
    "train": {"easy": 12, "medium": 12, "hard": 12},
    "val": {"easy": 3, "medium": 3, "hard": 3},
}
STAGES = [("easy", 3, 2e-3), ("medium", 3, 1e-3), ("hard", 2, 5e-4)]
ENDS = [3, 6, 8]
BATCH = 4
MIXTURES = {
    "easy": "{ easy = 1.0 }",
    "medium": "{ easy = 0.30, medium = 0.70 }",
    "hard": "{ easy = 0.25, medium = 0.25, hard = 0.50 }",
}


def curriculum(stages: Iterable[tuple[str, int, float]] = STAGES, unit: str = "steps") -> str:
    """A curriculum file of the specification's stages, with other lengths and rates."""
    return "".join(
        f'[[stages]]\nname = "{name}"\nmixture = {MIXTURES[name]}\n{unit} = {length}\nlr = {rate}\n\n'
        for name, length, rate in stages
    )


class Runs:
    """Calls of one trainer on one set of shards.

    Args:
        folder: Where shards and curriculum lie; written by whoever is first.
        trainer: One of `TRAINERS`.

    Attributes:
        train: The trainer's module, its ``train.py``.
        rates: By output folder, the rates of the optimizer's groups at every update made in this process.
    """

    def __init__(self, folder: Path, trainer: str) -> None:
        torch.set_num_threads(1)
        self.trainer = trainer
        self.train: Any = importlib.import_module(f"{trainer}.train")
        self.rates: defaultdict[Path, list[list[float]]] = defaultdict(list)
        self.shards = folder / "shards"
        self.curriculum = folder / "curriculum.toml"
        if not self.curriculum.exists():
            write_bucketed_shards(str(self.shards), COUNTS, seed=3, samples_per_shard=4, height=32, width=24)
            self.curriculum.write_text(curriculum())

    def flags(self, output: Path, *more: Any) -> list[str]:
        """A tiny run's flags; ``more`` wins over those before it."""
        fixed = (
            "--model_preset tiny --height 32 --width 24 --train_batch_size 4 --dataloader_num_workers 0"
            " --logging_steps 2 --checkpointing_steps 2 --validation_steps 1000 --num_validation_samples 1"
            f" --report_to jsonl --log_sample_ids --s3_prefixes {self.shards}"
            f" --curriculum_config {self.curriculum} --output_dir {output}"
        )
        if self.trainer != "vtongan":  # which paints in one step
            fixed += " --num_validation_inference_steps 2"
        if torch.cuda.is_available():  # whose gradients of convolutions are otherwise another sum every time
            fixed += " --deterministic"
        return [*fixed.split(), *(str(word) for word in more)]

    def __call__(self, output: Path, *more: Any) -> int:
        """Train in this process."""
        told = self.rates[output]
        hook = register_optimizer_step_pre_hook(
            lambda optimizer, args, values: told.append([group["lr"] for group in optimizer.param_groups])
        )
        try:
            code: int = self.train.main(self.flags(output, *more))
        finally:
            hook.remove()
        return code

    def stage_by_stage(self, output: Path, *more: Any) -> None:
        """Train as the specification's scripts do: one call per stage, each from where the one before ended."""
        for (name, _, rate), end in zip(STAGES, ENDS, strict=True):
            path = "latest" if name == "easy" else output / "latest_checkpoint.pt"
            given = ("--difficulty", name, "--max_train_steps", end, "--learning_rate", rate)
            assert self(output, *given, "--resume_from_checkpoint", path, *more) == 0

    def cut_off(self, output: Path, step: int, *more: Any) -> None:
        """Train until the power fails in the middle of a step, with nothing saved of it."""

        def fail(*args: Any, **values: Any) -> None:
            if values["step"] == step:
                raise PowerCut

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training_run, "refuse_not_a_number", fail)
            try:
                self(output, *more)
            except PowerCut:
                return
        raise AssertionError(f"step {step} was never begun")

    def command(self, output: Path, *more: Any, ranks: int = 1) -> list[str]:
        """The command line of a run in a process of its own."""
        launcher = [sys.executable]
        if ranks > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
        return [*launcher, str(EXAMPLES / self.trainer / "train.py"), *self.flags(output, *more)]

    def start(self, output: Path, *more: Any, ranks: int = 1) -> subprocess.Popen[str]:
        """Start a run in a process of its own."""
        environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
        return subprocess.Popen(
            self.command(output, *more, ranks=ranks),
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def together(self, output: Path, *more: Any) -> None:
        """Train in two processes."""
        process = self.start(output, *more, ranks=2)
        said, _ = process.communicate(timeout=250)
        assert process.returncode == 0, said


class PowerCut(BaseException):
    """Nothing of the trainer's may catch it."""


def rows(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.jsonl``."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if kind in (None, row["kind"])]


def by_step(folder: Path, name: str) -> dict[int, Any]:
    """A value of the training rows by step; each row is about the steps since the one before."""
    return {row["step"]: row[name] for row in rows(folder, "train")}


def samples_by_step(folder: Path) -> dict[int, list[str]]:
    """Keys of the samples between each two training rows."""
    return by_step(folder, "sample_ids")


def latest(folder: Path) -> dict[str, Any]:
    """The run's newest checkpoint."""
    content: dict[str, Any] = torch.load(folder / "latest_checkpoint.pt", weights_only=True)
    return content


def assert_same(a: Any, b: Any, where: str = "checkpoint") -> None:
    """Two nested structures are equal, tensors bit for bit."""
    if isinstance(a, torch.Tensor):
        assert isinstance(b, torch.Tensor), where
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for place, (one, other) in enumerate(zip(a, b, strict=True)):
            assert_same(one, other, f"{where}[{place}]")
    else:
        assert a == b, where


TRAINED = (
    "model",
    "ema",
    "optimizer",
    "scaler",
    "rng",
    "samples_seen",
    "bucket_loss",
    "global_step",
    "epoch",
    "stage",
)


def assert_same_training(one: Path, other: Path) -> None:
    """Two runs ended in the same state: weights, averages, moments, generators, counts, data position."""
    a, b = latest(one), latest(other)
    for part in TRAINED:
        assert_same(a[part], b[part], part)
    assert a["loader_state"]["draws"] == b["loader_state"]["draws"]
    assert samples_by_step(one) == samples_by_step(other)
