"""The benchmarks run without peers, and what they measure of ours keeps the promises."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"

needs_nginx = pytest.mark.skipif(
    shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None,
    reason="nginx is not installed",
)


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
        from marked_page import replace_between_markers
    finally:
        sys.path.remove(str(BENCHMARKS))
    page = tmp_path / "page.md"
    page.write_text("nothing here\n")
    with pytest.raises(ValueError, match="Add both lines"):
        replace_between_markers(page, "order", "| table |")
    assert page.read_text() == "nothing here\n"


def streaming_run(folder, *options):
    """Report and page of a small run of the benchmark of streaming."""
    page = folder / "page.md"
    page.write_text("before\n<!-- streaming: begin -->\nstale\n<!-- streaming: end -->\nafter\n")
    command = [sys.executable, str(BENCHMARKS / "streaming.py"), "--data", str(folder / "data"), "--small"]
    command += ["--json", str(folder / "streaming.json"), "--docs", str(page), *options]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert ran.returncode == 0, ran.stderr
    return json.loads((folder / "streaming.json").read_text()), page.read_text()


@pytest.fixture(scope="module")
def local_run(tmp_path_factory):
    """A run over a folder, with one peer that the tests do not install."""
    folder = tmp_path_factory.mktemp("streaming")
    return streaming_run(folder, "--only", "local,resume", "--peers", "megatron-energon")


def ours(rows):
    return [row for row in rows if row["reader"].startswith("ours")]


def test_one_pass_over_a_folder_has_every_sample_once_with_its_content(local_run):
    rows = ours(local_run[0]["local"]) + ours(local_run[0]["workers"])
    assert [row["reader"] for row in rows] == ["ours", "ours, threads", "ours, processes"]
    for row in rows:
        assert row["content"] == {"missing": 0, "repeated": 0, "wrong": 0}
        assert row["cpu_seconds_per_gb"] > 0


def test_resume_is_exact_in_the_data_and_in_larger_manifests(local_run):
    rows = ours(local_run[0]["resume"]) + local_run[0]["resume_large"]
    assert len(rows) == 3 + 3 * 2
    assert all(row["is_exact"] for row in rows)
    assert all(row["state_bytes"] < 1000 for row in ours(local_run[0]["resume"]))


@pytest.mark.skipif(importlib.util.find_spec("megatron") is not None, reason="the peer is installed")
def test_a_peer_that_cannot_run_is_a_row_that_says_why(local_run):
    row = next(row for row in local_run[0]["local"] if row["reader"] == "megatron-energon")
    assert "No module named" in row["refusal"] or "energon" in row["refusal"]
    assert "| megatron-energon | n/a (" in local_run[1]


def test_the_streaming_tables_replace_what_stood_between_the_markers(local_run):
    page = local_run[1]
    assert page.startswith("before\n<!-- streaming: begin -->")
    assert page.endswith("<!-- streaming: end -->\nafter\n")
    assert "every sample once" in page
    assert "stale" not in page


@needs_nginx
@pytest.mark.slow
def test_one_pass_from_a_server_fetches_little_more_than_it_hands_out(tmp_path):
    report, _ = streaming_run(tmp_path, "--only", "s3", "--peers", "none")
    rows = ours(report["s3"])
    assert len(rows) == 4
    for row in rows:
        assert row["content"] == {"missing": 0, "repeated": 0, "wrong": 0}
        # What a worker's first batch needs is fetched beside the runs it lies in, which weighs in so small a data set.
        assert 1 < row["fetched_per_byte"] < 1.25


@needs_nginx
@pytest.mark.slow
def test_a_stage_switch_is_timed_on_a_throttled_server(tmp_path):
    report, page = streaming_run(tmp_path, "--only", "switch", "--peers", "none")
    assert all(len(row["waits_ms"]) == 50 for row in report["switch"])
    assert "p99 of the 20 after the switch" in page


@needs_nginx
def test_the_server_counts_what_it_sent(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import nginx

    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "object").write_bytes(bytes(range(100)))
    with nginx.serving(tmp_path) as server:
        mark = server.mark()
        request = urllib.request.Request(f"{server.url}/bucket/object", headers={"Range": "bytes=10-29"})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request) as answer:
            assert (answer.status, answer.read()) == (206, bytes(range(10, 30)))
        assert server.sent_since(mark) == (1, 20)
        assert server.sent_since(server.mark()) == (0, 0)


def test_the_script_does_not_hide_the_peer_of_its_name(tmp_path):
    package = tmp_path / "streaming"
    package.mkdir()
    (package / "__init__.py").write_text("from .part import told\n")
    (package / "part.py").write_text("told = 'the package'\n")
    code = "import streaming; print(streaming.told)"
    environment = os.environ | {"PYTHONPATH": f"{BENCHMARKS}{os.pathsep}{tmp_path}"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert ran.stdout == "the package\n", ran.stderr


@pytest.mark.slow
def test_the_trainers_are_timed_by_what_they_say_of_themselves(tmp_path):
    page, result = tmp_path / "page.md", tmp_path / "result.json"
    page.write_text("before\n<!-- trainers: begin -->\nold\n<!-- trainers: end -->\nafter\n")
    command = [sys.executable, str(BENCHMARKS / "trainers.py"), "--model_preset", "tiny", "--compile", "no"]
    ran = subprocess.run(
        [*command, "--steps", "8", "--json", str(result), "--docs", str(page)],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stderr
    rows = json.loads(result.read_text())["rows"]
    assert [row["trainer"] for row in rows] == ["catvton", "dit", "vtongan"]
    for row in rows:
        assert row["steps_per_second"] == pytest.approx(row["samples_per_second"] / row["batch"])
        assert 0 <= row["data_wait_share"] < 1
    text = page.read_text()
    assert text.startswith("before\n<!-- trainers: begin -->\n")
    assert text.endswith("<!-- trainers: end -->\nafter\n")
    assert "old" not in text
    assert all(f"| {row['trainer']} | no | 4 |" in text for row in rows)
