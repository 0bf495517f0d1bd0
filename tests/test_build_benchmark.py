"""The benchmark of building runs without peers, and every sample arrives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def test_every_case_of_ours_writes_every_sample_and_the_table_stands_between_the_markers(
    tmp_path: Path,
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- build: begin -->\nold\n<!-- build: end -->\nafter\n")
    command = [sys.executable, str(BENCHMARKS / "build.py"), "--data", str(tmp_path), "--small"]
    command += ["--peers", "none", "--json", str(tmp_path / "build.json"), "--docs", str(page)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stderr
    rows = json.loads((tmp_path / "build.json").read_text())["rows"]
    assert len(rows) == 5
    assert all(row.get("whole") for row in rows), rows
    text = page.read_text()
    assert text.startswith("before\n<!-- build: begin -->")
    assert text.endswith("<!-- build: end -->\nafter\n")
    assert "| ours, cut by a table |" in text
    assert "old" not in text
