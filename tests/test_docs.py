"""Every Python block of README and docs runs, page by page, in the order it is read; what a page shows as printed is printed."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import curriculum_sampler as cs

from .s3_server import moto_server

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+) -->\n)?```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```)?",
    re.MULTILINE | re.DOTALL,
)
# Pages whose blocks another test runs, since they want a world of their own: the test names the page.
RUN_BY = {
    "README.md": "test_docs.py",
    "docs/frameworks.md": "test_frameworks_docs.py",
    "docs/integrations.md": "test_integrations_docs.py",
    "docs/many_gpus.md": "test_many_gpus_docs.py",
    "docs/prepare_your_data.md": "test_commands_guide.py",
    "docs/streaming.md": "test_docs.py",
    "docs/testing.md": "test_testing_docs.py",
}
World = dict[str, Any]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def python_blocks(page: Path) -> list[str]:
    return [block["code"] for block in BLOCK.finditer(page.read_text()) if block["reason"] is None]


def run(page: Path, world: World) -> None:
    """Run a page's blocks one after the other in one world, and compare what they print with what the page shows."""
    for block in BLOCK.finditer(page.read_text()):
        if block["reason"] is None:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(block["code"], name(page), "exec"), world)
            if block["printed"] is not None:
                assert printed.getvalue() == block["printed"], name(page)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_python_block_escapes(page):
    """One that is indented, or called py, would be shown and not run."""
    text = page.read_text()
    assert len(BLOCK.findall(text)) == len(re.findall(r"```\s*(?:py|ipy)", text))


def samples(bucket: str) -> list[dict[str, object]]:
    return [{"__key__": f"{bucket}{n:03}", "npy": np.full(4, n, np.float32)} for n in range(30)]


@pytest.fixture
def store(monkeypatch):
    import boto3

    with moto_server() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bucket = boto3.resource("s3").Bucket("my-bucket")
        bucket.create()
        bucket.objects.delete()  # a server of moto has what others of this process were given
        yield


def with_shards() -> World:
    """A folder of shards as data/v1, with buckets easy and hard."""
    cs.write_shards("data/v1", {bucket: samples(bucket) for bucket in ("easy", "hard")})
    return {}


def with_a_trained_model() -> World:
    """What a loop has in hand when it saves."""
    with_shards()
    schedule = cs.StageSchedule([cs.Stage("easy", {"easy": 1}, steps=4)])
    dataset = cs.CurriculumDataset(cs.Manifest.load("data/v1"))
    return {
        "model": torch.nn.Linear(1, 1),
        "loader": cs.CurriculumLoader(dataset, schedule, batch_size=4, seed=17),
    }


def with_vton_shards() -> World:
    """What examples/ assumes: its folder on sys.path, and try-on shards where the page says."""
    sys.path.insert(0, str(ROOT / "examples"))
    members = {
        "image.png": np.zeros((8, 6, 3), np.uint8),
        "json": {"category": "upper_body", "difficulty": 0.1},
    }
    members |= {f"{name}.png": members["image.png"] for name in ("cloth", "cloth_mask", "agnostic_mask")}
    buckets = {b: [{"__key__": f"{b}{n}", **members} for n in range(3)] for b in ("easy", "medium", "hard")}
    cs.write_shards("s3://my-bucket/vton/v1", buckets)
    return {"cs": cs}


# What a page may use without having made it. A page that is not named here makes all that it uses.
WORLDS: dict[str, Callable[[], World]] = {
    "docs/custom_loop.md": with_shards,
    "docs/resume.md": with_a_trained_model,
    "examples/README.md": with_vton_shards,
}
IN_A_STORE = {"examples/README.md"}


@pytest.mark.parametrize("page", [p for p in PAGES if python_blocks(p) and name(p) not in RUN_BY], ids=name)
def test_the_code_of_a_page_runs_as_it_is_read(page, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    if name(page) in IN_A_STORE:
        request.getfixturevalue("store")
    random = torch.random.get_rng_state()
    run(page, WORLDS.get(name(page), dict)())
    torch.random.set_rng_state(random)


@pytest.mark.parametrize("page", sorted(RUN_BY))
def test_a_page_that_another_test_runs_is_run_there(page):
    assert Path(page).stem.upper() in (ROOT / "tests" / RUN_BY[page]).read_text().upper()
    assert python_blocks(ROOT / page)


def test_the_readme_runs(store):
    world: World = {f"{name}_samples": samples(name) for name in ("easy", "medium", "hard")}
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
    cs.write_shards("s3://my-bucket/pictures/v1", buckets)
    rates: list[float] = []
    world: World = {
        "schedule": cs.StageSchedule([cs.Stage("all", {"easy": 1, "medium": 1, "hard": 2}, steps=4, lr=1.0)]),
        "train": lambda batch, lr: rates.append(lr),
    }
    (block,) = python_blocks(ROOT / "docs" / "streaming.md")
    exec(block, world)
    assert rates == [1.0] * 4
    assert "'median'" in capsys.readouterr().out


def shell_lines(page: Path) -> Iterator[str]:
    for block in re.findall(r"^```(?:bash|sh)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()


COMMANDS = sorted(
    {
        tuple(line.split()[1:2])
        for page in PAGES
        for line in shell_lines(page)
        if line.startswith("curriculum-sampler ")
    }
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_that_a_page_names_exists(command):
    told = subprocess.run(
        [sys.executable, "-m", "curriculum_sampler", *command, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 0, told.stderr


def test_scripts_that_pages_call_exist():
    for page in PAGES:
        for line in shell_lines(page):
            for path in re.findall(r"(?<!\S)((?:examples|scripts|benchmarks)/\S+\.(?:py|sh))", line):
                assert (ROOT / path).exists(), f"{name(page)} calls {path}"


def test_the_tests_that_the_readme_names_exist():
    promises = (ROOT / "tests" / "test_promises.py").read_text()
    named = re.findall(r"`(test_\w+)`", README.read_text())
    assert len(named) >= 6
    for test in named:
        assert f"def {test}(" in promises


def test_the_picture_of_draws_is_what_the_sampler_draws():
    script = [sys.executable, str(ROOT / "scripts" / "draw_order.py")]
    drawn = subprocess.run(script, capture_output=True, text=True, check=True, timeout=60).stdout
    assert drawn == (ROOT / "docs" / "assets" / "draws.svg").read_text()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
