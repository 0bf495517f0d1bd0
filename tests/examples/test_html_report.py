"""The page about trainings: complete in itself, and true to the rows."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from common.html_report import write_report
from common.metrics_rows import read_rows
from common.stage_outcomes import stage_outcomes
from PIL import Image


class Page(HTMLParser):
    """Every address that a page refers to, and the cells of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.rows: list[list[str]] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._in_cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data.strip()


def trained(folder: Path) -> Path:
    """What a training of two stages leaves; a restart told of the second stage twice."""

    def row(kind: str, step: int, stage: str, **more: Any) -> str:
        return json.dumps({"kind": kind, "step": step, "stage": stage, **more}) + "\n"

    def train(step: int, stage: str, lr: float, target: dict[str, float], waited: float, **seen: int) -> str:
        told = {"lr": lr, "target_mixture": target, "samples_by_bucket": seen, "data_wait_share": waited}
        return row("train", step, stage, loss_by_bucket={"easy": 0.5}, samples_per_second=4.0, **told)

    def look(step: int, stage: str, **losses: float) -> str:
        numbers = {"ssim": 0.5, "psnr": 20.0, "masked_l1": 0.25}
        return row("validation", step, stage, loss_by_bucket=losses, **numbers)

    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(
        look(0, "easy", easy=2.0, hard=4.0)
        + train(2, "easy", 1e-3, {"easy": 1.0}, 0.5, easy=8, hard=0)
        + look(2, "easy", easy=1.0, hard=3.0)
        + row("stage", 2, "<hard>")
        + row("stage", 2, "<hard>")
        + train(3, "<hard>", 5e-4, {"easy": 0.25, "hard": 0.75}, 0.0, easy=9, hard=3)
        + train(6, "<hard>", 5e-4, {"easy": 0.25, "hard": 0.75}, 0.2, easy=12, hard=12)
        + look(6, "<hard>", easy=0.9, hard=1.5)
    )
    (folder / "samples").mkdir()
    for step in (0, 2, 4, 6):
        Image.new("RGB", (8, 8)).save(folder / "samples" / f"step_{step}.png")
    (folder / "checkpoint_stage1-easy_step_2.pt").touch()
    return folder


def test_a_page_holds_all_it_shows_and_refers_to_nothing_else(tmp_path: Path) -> None:
    folders = [trained(tmp_path / f"checkpoints_{name}_curriculum") for name in ("catvton", "dit")]
    write_report(folders, tmp_path / "reports" / "report.html")
    text = (tmp_path / "reports" / "report.html").read_text()
    addresses = Page(text).addresses
    assert addresses[:2] == ["#catvton_curriculum", "#dit_curriculum"]
    pictures = [address for address in addresses if not address.startswith("#")]
    assert all(re.match(r"data:image/(svg\+xml|png);base64,\w", address) for address in pictures)
    # a plot, and the sheets of steps 0, 2 and 6: those between stages' ends are left out
    assert len(pictures) == 2 * 4
    assert "<hard>" not in text, "names are text, never markup"


def test_a_page_sets_the_drawn_mixture_beside_the_planned_one(tmp_path: Path) -> None:
    write_report([trained(tmp_path / "run")], tmp_path / "report.html")
    rows = Page((tmp_path / "report.html").read_text()).rows
    assert ["easy", "0 to 2", "0.001", "100.0 / 100.0", "0.0 / 0.0", "50.0"] in rows
    assert ["<hard>", "2 to 6", "0.0005", "25.0 / 25.0", "75.0 / 75.0", "15.0"] in rows
    assert ["before training", "2.0000", "4.0000", "0.500", "20.0", "0.250"] in rows
    assert ["after easy", "1.0000", "3.0000", "0.500", "20.0", "0.250"] in rows
    assert ["after <hard>", "0.9000", "1.5000", "0.500", "20.0", "0.250"] in rows


def test_a_stage_is_told_by_its_own_rows(tmp_path: Path) -> None:
    first, second = stage_outcomes(read_rows(trained(tmp_path / "run") / "metrics.jsonl"))
    assert (first.first_step, first.last_step, second.first_step, second.last_step) == (0, 2, 2, 6)
    assert second.drawn == {"easy": 0.25, "hard": 0.75}
    assert second.waited == pytest.approx(0.15)


def test_a_training_without_validation_or_sheets_has_a_page_too(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run")
    kept = [line for line in (folder / "metrics.jsonl").read_text().splitlines() if "validation" not in line]
    (folder / "metrics.jsonl").write_text("\n".join(kept))
    for sheet in (folder / "samples").iterdir():
        sheet.unlink()
    write_report([folder], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "Held-out loss of each bucket</h3>" not in text
    assert "paints" not in text
