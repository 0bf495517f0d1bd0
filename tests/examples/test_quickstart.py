"""The quickstart runs as a newcomer would run it, and says truthfully what it did."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from curriculum_sampler import MixtureSampler, Stage, StageSchedule

QUICKSTART = Path(__file__).resolve().parents[2] / "examples" / "quickstart"
SHARES = {"easy": 0.40, "medium": 0.35, "hard": 0.25}


@pytest.fixture(scope="module")
def digits():
    sys.path.insert(0, str(QUICKSTART))
    try:
        import digits
    finally:
        sys.path.remove(str(QUICKSTART))
    return digits


def test_the_script_trains_tells_and_draws(tmp_path):
    plot = tmp_path / "digits.png"
    script = [sys.executable, str(QUICKSTART / "train.py")]
    ran = subprocess.run(
        [*script, "--seeds", "2", "--scale", "0.1", "--plot", str(plot)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"easy +medium +hard +all\n", ran.stdout)
    for number, last in enumerate((4, 12, 40), start=1):
        for arm in ("curriculum", "plain shuffle"):
            assert re.search(rf"stage {number}, step {last}: {arm}( +\d+\.\d){{4}}\n", ran.stdout)
    assert "At the end, curriculum against plain shuffle:" in ran.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_loop_script_stays_under_sixty_lines():
    assert len((QUICKSTART / "train.py").read_text().splitlines()) < 60


def test_the_example_cuts_buckets_exactly_as_the_sampler_does(digits):
    scores = digits.load_scored_digits()[0].scores
    schedule = StageSchedule([Stage(name, {name: 1}, epochs=1) for name in SHARES])
    sampler = MixtureSampler.from_scores(schedule, scores, SHARES, batch_size=1, seed=17)
    buckets = digits.cut(scores, SHARES)
    drawn = {name: set() for name in SHARES}
    for step, batch in enumerate(sampler):
        drawn[sampler.plan.at(step).stage].update(batch)
    assert drawn == {name: set(np.flatnonzero(buckets == name).tolist()) for name in SHARES}


def test_harder_buckets_are_harder_for_the_linear_model(digits):
    for split in digits.load_scored_digits():
        buckets = digits.cut(split.scores, SHARES)
        wrong = [float(np.mean(split.scores[buckets == name] > 0)) for name in SHARES]
        assert wrong[0] == wrong[1] == 0 < wrong[2] < 0.5
