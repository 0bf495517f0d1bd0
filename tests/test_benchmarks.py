"""The benchmark of order runs without peers, and what it measures of ours keeps the promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    """Result and page of one run of ours alone."""
    folder = tmp_path_factory.mktemp("order")
    page = folder / "page.md"
    page.write_text("before\n<!-- order: begin -->\nold\n<!-- order: end -->\nafter\n")
    command = [sys.executable, str(BENCHMARKS / "order.py"), "--quick", "--only", "ours"]
    command += ["--json", str(folder / "order.json"), "--docs", str(page)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return json.loads((folder / "order.json").read_text()), page.read_text()


def test_resume_is_exact_at_every_bucket_size(quick_run):
    speed = quick_run[0]["speed"]["ours"]
    assert list(speed) == ["1e+06", "1e+08", "1e+12"]
    assert all(found["resume_is_exact"] and found["draws_per_second"] > 0 for found in speed.values())


def test_memory_stays_small_however_large_the_bucket(quick_run):
    assert all(found["memory_mb"] < 10 for found in quick_run[0]["speed"]["ours"].values())


def test_batches_and_prefixes_keep_the_mixture_within_the_bound(quick_run):
    mixture = quick_run[0]["mixture"]["ours"]
    bounds = {"25/25/50": 2, "30/70": 1, "0.137/0.863": 1, "0.37/0.29/0.17/0.113/0.057": 3}
    assert mixture.keys() == bounds.keys()
    for weights, bound in bounds.items():
        assert max(mixture[weights]["batch"], mixture[weights]["prefix"]) < bound


def test_the_tables_replace_what_stood_between_the_markers(quick_run):
    page = quick_run[1]
    assert page.startswith("before\n<!-- order: begin -->")
    assert page.endswith("<!-- order: end -->\nafter\n")
    assert "| ours |" in page
    assert "old" not in page


def test_a_page_without_markers_is_refused_and_left_alone(tmp_path):
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from order_tables import replace_between_markers
    finally:
        sys.path.remove(str(BENCHMARKS))
    page = tmp_path / "page.md"
    page.write_text("nothing here\n")
    with pytest.raises(ValueError, match="Add both lines"):
        replace_between_markers(page, "| table |")
    assert page.read_text() == "nothing here\n"
