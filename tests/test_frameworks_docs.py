"""The page on training frameworks runs as it is read, section by section, in the real frameworks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

import curriculum_sampler as cs

from .test_docs import ROOT, python_blocks

PAGE = ROOT / "docs" / "frameworks.md"


def blocks(title: str) -> list[str]:
    """The blocks of a section."""
    text = PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    return [code for code in python_blocks(PAGE) if code in text]


def section(title: str) -> str:
    """The first block of a section: the only one but for reports."""
    return blocks(title)[0]


def samples(bucket: str) -> list[dict[str, object]]:
    return [{"__key__": f"{bucket}{n:03}", "npy": np.full(4, n / 30, np.float32)} for n in range(30)]


@pytest.fixture(autouse=True)
def _shards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    cs.write_shards("data/v1", {name: samples(name) for name in ("easy", "hard")})
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def test_every_block_is_in_a_section_that_runs():
    titles = re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE)
    assert titles == ["Lightning", "Hugging Face Trainer", "Accelerate", "Reports"]
    assert python_blocks(PAGE) == [
        *map(section, titles[:-1]),
        *blocks("Reports"),
    ]
    assert len(blocks("Reports")) == 3


@pytest.mark.filterwarnings(
    "ignore:.*ckpt_path=.last.:UserWarning", "ignore:.*Checkpoint directory:UserWarning"
)
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:Warning")
def test_lightning():
    first: dict[str, object] = {}
    exec(section("Lightning").replace("max_epochs=-1", "max_epochs=-1, max_steps=24"), first)
    assert first["trainer"].global_step == 24
    # Run again, it goes on from the last checkpoint.
    again: dict[str, object] = {}
    exec(section("Lightning"), again)
    assert again["trainer"].global_step == 40
    assert again["data"].loader.steps_done == 40
    assert Path("checkpoints/last.ckpt").exists()


def test_the_trainer():
    world: dict[str, object] = {}
    exec(section("Hugging Face Trainer"), world)
    assert world["trainer"].state.global_step == 40
    resumed: dict[str, object] = {}
    code = section("Hugging Face Trainer")
    exec(
        code.replace("trainer.train()  ", "trainer.train(resume_from_checkpoint='run/checkpoint-20')  "),
        resumed,
    )
    assert torch.equal(resumed["trainer"].model.layer.weight, world["trainer"].model.layer.weight)


def test_accelerate():
    world: dict[str, object] = {}
    exec(section("Accelerate").replace("% 10 == 0", "== 20"), world)
    assert world["loader"].steps_done == 40
    assert world["optimizer"].param_groups[0]["lr"] == 1e-3
    again: dict[str, object] = {}
    AcceleratorState._reset_state(True)
    exec(section("Accelerate").replace("# accelerator.load_state", "accelerator.load_state"), again)
    assert torch.equal(world["model"].weight, again["model"].weight)


def rows_of(path: str) -> list[dict[str, object]]:
    rows = map(json.loads, Path(path).read_text().splitlines())
    return [row for row in rows if row["kind"] == "train"]


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:Warning")
def test_reports():
    world: dict[str, object] = {}
    for block in blocks("Reports"):
        exec(block, world)
    # Evaluation goes through compute_loss as well, and adds nothing.
    world["trainer"].label_names = ["vector"]
    assert "eval_loss" in world["trainer"].evaluate([{"vector": np.ones(4, np.float32)}] * 3)
    rows = rows_of("run/metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(5, 41, 5))
    # Two micro-batches make a step, and its samples are counted once.
    for other in ("run/lightning.jsonl", "run/trainer.jsonl"):
        counted = [(row["step"], row["samples_by_bucket"]) for row in rows_of(other)]
        assert counted == [(row["step"], row["samples_by_bucket"]) for row in rows]
        assert all(row["loss_by_bucket"] for row in rows_of(other))
    assert Path("run/mixture.png").stat().st_size > 10_000
    assert list(Path("run/tensorboard").iterdir())
    assert list(Path("run/wandb").glob("offline-run-*"))
