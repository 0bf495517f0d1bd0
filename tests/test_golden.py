"""The order is pinned: equal inputs give these draws for ever, or the order version rises.

To change the order: raise ``ORDER_VERSION``, run ``python -m tests.test_golden``, and say so under *Order changed*
in the changelog, in a commit of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

import curriculum_sampler as cs
from curriculum_sampler.keys import derive, sample_rng
from curriculum_sampler.plan import ORDER_VERSION

GOLDEN = Path(__file__).parent / "golden" / "order.json"


def pinned() -> dict[str, object]:
    schedule = cs.StageSchedule(
        [
            cs.Stage("easy", {"easy": 1.0}, steps=4),
            cs.Stage("medium", {"easy": 0.30, "medium": 0.70}, steps=4, ramp=2),
            cs.Stage("hard", {"easy": 0.25, "medium": 0.25, "hard": 0.50}, steps=4),
        ]
    )
    sizes = {"easy": 23, "medium": 5_000, "hard": 10**12}
    found: dict[str, object] = {
        "order_version": ORDER_VERSION,
        "key": derive(17, "bucket", "easy", "pass", 0),
    }
    found["rng"] = int(sample_rng(17, "easy", 0, 3).integers(10**9))
    for name, options in (
        ("plain", {}),
        ("runs", {"run_sizes": {"easy": 4, "medium": 30, "hard": 700}, "block_runs": 4}),
        ("window", {"window": 5}),
    ):
        plan = schedule.plan(sizes, 8, **options)
        sampler = cs.MixtureSampler(plan, seed=17)
        found[name] = {
            "fingerprint": plan.fingerprint,
            "draws": [
                " ".join(f"{bucket}:{index}" for bucket, index in sampler.draws(step=s)) for s in range(12)
            ],
        }
    return found


def test_the_order_is_the_pinned_one():
    assert pinned() == json.loads(GOLDEN.read_text())


def test_adding_a_bucket_leaves_the_others_in_order():
    """The pinned draws, with one more bucket in the data."""
    plan = cs.StageSchedule([cs.Stage("easy", {"easy": 1.0}, steps=4)]).plan({"easy": 23, "added": 9}, 8)
    draws = [
        " ".join(f"{b}:{i}" for b, i in cs.MixtureSampler(plan, seed=17).draws(step=s)) for s in range(4)
    ]
    assert draws == json.loads(GOLDEN.read_text())["plain"]["draws"][:4]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(pinned(), indent=1) + "\n")
