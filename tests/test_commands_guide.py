"""Every command and every Python block of the guide runs, in the order it is read."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

import curriculum_sampler as cs

from .command_fixtures import Commands, cluttered, command
from .data_fixtures import tar_bytes

GUIDE = Path(__file__).parents[1] / "docs" / "prepare_your_data.md"


def pictures(folder: Path, samples: int, prefix: str) -> None:
    folder.mkdir()
    for number, sample in enumerate(cluttered(prefix, samples, 0.0, 0.9)):
        Image.fromarray(sample["png"]).save(folder / f"{sample['__key__']}.png")
        told = sample["json"] | {"person": number % 23}
        (folder / f"{sample['__key__']}.json").write_text(json.dumps(told))


def test_the_guide_runs(tmp_path: Path, command: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "pictures", 120, "p")
    pictures(tmp_path / "more_pictures", 40, "m")
    (tmp_path / "tars").mkdir()
    for name in ("easy-0", "hard-0"):
        (tmp_path / "tars" / f"{name}.tar").write_bytes(tar_bytes({f"{name}.txt": b"shirt"}))
    schedule = cs.StageSchedule([cs.Stage("easy", {"easy": 1}, steps=20)])
    world: dict[str, object] = {"cs": cs, "schedule": schedule}
    text = GUIDE.read_text()
    python = iter(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    exec(next(python), world)
    exec(next(python), world)
    (tmp_path / "table.csv").write_text(
        "".join(["key,level\n", *(f"p-{n:03},{n % 2}\n" for n in range(120))])
    )
    shell = "".join(re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    lines = [line for line in shell.splitlines() if line.startswith("curriculum-sampler")]
    assert len(lines) >= 12
    for line in lines:
        _, *words = shlex.split(line)
        if words[:1] == ["check-difficulty"]:
            scores = cs.recorded_scores(cs.Manifest.load("data/v1")) or {}
            rows = "".join(f"{key},{score}\n" for key, score in scores.items())
            (tmp_path / "losses.csv").write_text(f"key,loss\n{rows}")
        if words[:1] == ["append"]:
            dataset = cs.CurriculumDataset(cs.Manifest.load("data/v1"))
            world["loader"] = cs.CurriculumLoader(dataset, schedule, batch_size=8, seed=17)
        ran = command(*words)
        assert ran.exit_code == 0, f"{line}\n{ran.out}{ran.err}"
        if words[:1] == ["append"]:
            easy = cs.Manifest.load("data/v1").bucket_sizes["easy"]
            assert f"'easy': {easy}" in ran.out
            exec(re.sub(r'\{"easy": \d+\}', f'{{"easy": {easy}}}', next(python)), world)
    assert next(python, None) is None
    joined = list(world["samples"]())  # type: ignore[operator]
    assert len(joined) == 120
    assert joined[1]["json"] == {"key": "p-001", "level": "1"}
    assert joined[1]["png"][:4] == b"\x89PNG"
    score = world["signals"](cs.CurriculumDataset(cs.Manifest.load("data/v1"))["easy", 0])  # type: ignore[operator]
    assert set(score) == {"contrast", "clutter"}
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 500
