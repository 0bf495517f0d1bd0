"""The one command of the README, for real: pictures, S3 server, shards, VAE, three trainers, report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from .demo_runs import TRAINERS, run, same, weights_of

pytestmark = pytest.mark.slow

# Held-out loss at the end, as a share of that before training: noise prediction, velocity, error inside the mask.
AT_MOST = {"catvton": 0.2, "dit": 0.25, "vtongan": 0.7}
MIXTURES = {
    "easy": {"easy": 1.0},
    "medium": {"easy": 0.30, "medium": 0.70},
    "hard": {"easy": 0.25, "medium": 0.25, "hard": 0.50},
}
BATCH = 4


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_demo_trains_through_its_curriculum_and_learns_in_every_bucket(
    demo: tuple[Path, str], trainer: str
) -> None:
    home, told = demo
    folder = home / f"checkpoints_{trainer}_curriculum"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows if row["kind"] == "stage"] == ["easy", "medium", "hard"]

    looks = [row for row in rows if row["kind"] == "validation"]
    for bucket, before in looks[0]["loss_by_bucket"].items():
        assert looks[-1]["loss_by_bucket"][bucket] < AT_MOST[trainer] * before, bucket
    assert looks[-1]["masked_l1"] < 0.6 * looks[0]["masked_l1"]

    training = [row for row in rows if row["kind"] == "train"]
    # A row covers whole batches, so it holds the mixture of its stage to within a draw or two.
    assert all(sum(row["samples_by_bucket"].values()) == row["step"] * BATCH for row in training)
    ends = [max(row["step"] for row in training if row["stage"] == name) for name in MIXTURES]
    lengths = dict(zip(MIXTURES, [ends[0], ends[1] - ends[0], ends[2] - ends[1]], strict=True))
    for bucket, count in training[-1]["samples_by_bucket"].items():
        planned = sum(BATCH * lengths[stage] * shares.get(bucket, 0) for stage, shares in MIXTURES.items())
        assert abs(count - planned) <= 3, bucket

    finals = [
        f"checkpoint_stage{number}-{stage}_step_{end}.pt"
        for number, (stage, end) in enumerate(zip(MIXTURES, ends, strict=True), start=1)
    ]
    sheets = [f"samples/step_{step}.png" for step in (0, *ends)]
    for name in [*finals, *sheets, "latest_checkpoint.pt", "training.log", "mixture.png"]:
        assert (folder / name).is_file(), name
    assert all(str(folder / name) in told for name in [*finals, sheets[0], sheets[-1], "mixture.png"])
    with Image.open(folder / "mixture.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.timeout(2400)
def test_the_demo_ends_with_one_page_and_has_nothing_left_to_do(demo: tuple[Path, str]) -> None:
    home, told = demo
    page = home / "training_report.html"
    assert str(page) in told
    text = page.read_text()
    assert all(f'id="{trainer}_curriculum"' in text for trainer in TRAINERS)
    assert text.count("data:image/png") == len(TRAINERS) * 4
    before = {trainer: weights_of(home, trainer) for trainer in TRAINERS}
    again = run(home)
    assert again.count("done before") + again.count("Nothing to do") == 3 * len(TRAINERS)
    assert all(same(weights_of(home, trainer), before[trainer]) for trainer in TRAINERS)
