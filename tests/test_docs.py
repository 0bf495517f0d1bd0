"""Every Python block in README and docs runs, against a real S3 server, in the order it is read."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import curriculum_sampler as cs

from .s3_server import moto_server

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def store(monkeypatch):
    import boto3

    with moto_server() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="my-bucket")
        yield


def samples(bucket: str) -> list[dict[str, object]]:
    return [{"__key__": f"{bucket}{n:03}", "npy": np.full(4, n, np.float32)} for n in range(30)]


def test_the_readme_runs(store):
    world: dict[str, object] = {f"{name}_samples": samples(name) for name in ("easy", "medium", "hard")}
    rates: list[float] = []
    world |= {
        "torch": torch,
        "checkpoint": {},
        "train": lambda batch, lr: rates.append(lr),
        "scores": np.arange(1000) % 97,
        "my_dataset": torch.arange(1000),
        "plateau": lambda loss: True,
        "validation_loss": [1.0],
    }
    first, *rest = python_blocks(README)
    shards = next(block for block in rest if "write_shards" in block)
    exec(f"import curriculum_sampler as cs\n{shards}", world)
    # The lengths of the first screen are real; a test takes a thousandth.
    exec(re.sub(r"(\d+)_000,", r"\1,", first), world)
    assert rates == [1e-5] * 10 + [5e-6] * 15 + [2e-6] * 15
    assert world["checkpoint"]["loader"]["draws"] == 40 * 64
    exec(first.partition("dataset =")[0], world)
    world["loader"].load_state_dict(world["loader"].sampler.state_dict(step=3))
    for block in rest:
        if "write_shards" not in block:
            exec(block, world)
    assert len(world["batches"]) == world["plan"].total_steps == 40_000
    assert len(next(iter(world["batches"]))) == 64
    assert world["loader"].plan.boundaries == (0, 3, 18, 33)


def test_the_page_on_streaming_runs(store, capsys):
    buckets = {name: samples(name) for name in ("easy", "medium", "hard")}
    cs.write_shards("s3://my-bucket/pictures/v1", buckets, overwrite=True)
    rates: list[float] = []
    world = {
        "schedule": cs.StageSchedule([cs.Stage("all", {"easy": 1, "medium": 1, "hard": 2}, steps=4, lr=1.0)]),
        "train": lambda batch, lr: rates.append(lr),
    }
    (block,) = python_blocks(ROOT / "docs" / "streaming.md")
    exec(block, world)
    assert rates == [1.0] * 4
    assert "'median'" in capsys.readouterr().out


def test_the_tests_that_the_readme_names_exist():
    promises = (ROOT / "tests" / "test_promises.py").read_text()
    named = re.findall(r"`(test_\w+)`", README.read_text())
    assert len(named) >= 6
    for name in named:
        assert f"def {name}(" in promises


@pytest.mark.parametrize(
    "page", [README, *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
