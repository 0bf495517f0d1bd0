"""Every command of the page on planning runs, and prints what the page shows."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

import curriculum_sampler as cs

from .command_fixtures import Commands, command, write_cluttered

PAGE = Path(__file__).parents[1] / "docs" / "plan.md"
COMMAND = re.compile(
    r"^```bash\ncurriculum-sampler ([^\n]+)\n```\n(?:\n```text\n(.*?)^```)?", re.MULTILINE | re.DOTALL
)


def names_in(picture: Path) -> set[str]:
    return set(re.findall(r"<!-- (.*?) -->", picture.read_text()))


def test_the_page_runs(tmp_path: Path, command: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text()
    (schedule,) = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    Path("curriculum.toml").write_text(schedule)
    write_cluttered("data/v1")
    row = {"kind": "train", "step": 5, "stage": "easy", "target_mixture": {"easy": 1.0}, "lr": 1e-4}
    Path("metrics.jsonl").write_text(json.dumps(row | {"samples_by_bucket": {"easy": 320}}) + "\n")
    found = COMMAND.findall(text)
    assert [words.split()[0] for words, _ in found] == [
        "plan",
        "plan",
        "simulate",
        "simulate",
        "compare",
        "plot",
    ]
    for words, printed in found:
        ran = command(*shlex.split(words))
        assert ran.exit_code == 0, f"{words}\n{ran.err}"
        if printed:
            assert ran.out == printed, words
    assert Path("mixture.png").read_bytes().startswith(b"\x89PNG")
    assert names_in(Path("plan.svg")) == names_in(PAGE.parent / "images" / "plan.svg")
    assert command("plan", "dit").exit_code == 0
