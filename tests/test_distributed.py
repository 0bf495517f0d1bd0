"""Two processes under torchrun, gloo: one global mixture, and disagreement is an error rather than a hang."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import curriculum_sampler as cs

from .two_ranks import on_two_ranks

SCRIPT = """
import json, sys
import torch.distributed as distributed
import curriculum_sampler as cs

folder, out, disagree = sys.argv[1:]
distributed.init_process_group("gloo")
rank = distributed.get_rank()
schedule = cs.StageSchedule([
    cs.Stage("easy", {"easy": 1}, steps=3), cs.Stage("hard", {"easy": 1, "hard": 2}, steps=4, ramp=2)
])
dataset = cs.CurriculumDataset(cs.Manifest.load(folder))
seed = 17 + rank * int(disagree)
loader = cs.CurriculumLoader(dataset, schedule, batch_size=12, seed=seed, num_workers=1, grad_accumulation=2)
try:
    keys = [batch["__key__"] for batch in loader]
except cs.StateMismatchError as error:
    keys = str(error)
json.dump({"keys": keys, "state": loader.state_dict()}, open(f"{out}/{rank}.json", "w"))
distributed.destroy_process_group()
"""


def torchrun(tmp_path: Path, disagree: int) -> list[dict[str, object]]:
    shards = tmp_path / "shards"
    buckets = {
        name: [{"__key__": f"{name}{n:02}", "npy": np.zeros(1, np.float32)} for n in range(20)]
        for name in ("easy", "hard")
    }
    cs.write_shards(str(shards), buckets)
    return on_two_ranks(SCRIPT, tmp_path, shards, str(disagree))


def test_two_ranks_share_the_global_batches_of_one_process(tmp_path):
    ranks = torchrun(tmp_path, disagree=0)
    assert ranks[0]["state"] == ranks[1]["state"]
    dataset = cs.CurriculumDataset(cs.Manifest.load(str(tmp_path / "shards")))
    schedule = cs.StageSchedule.from_dict(ranks[0]["state"]["plan"]["schedule"])
    alone = [batch["__key__"] for batch in cs.CurriculumLoader(dataset, schedule, batch_size=12, seed=17)]
    together = [
        [key for part in (0, 1) for rank in ranks for key in rank["keys"][2 * step + part]]
        for step in range(len(alone))
    ]
    assert together == alone


def test_ranks_that_disagree_are_told_so(tmp_path):
    for rank in torchrun(tmp_path, disagree=1):
        assert "Ranks disagree about" in str(rank["keys"])


@pytest.mark.parametrize("given", [{"rank": 0, "world_size": 2}, {"rank": 1, "world_size": 2}])
def test_ranks_may_be_given_instead(tmp_path, given):
    cs.write_shards(str(tmp_path), {"easy": [{"__key__": str(n), "cls": n} for n in range(8)]})
    dataset = cs.CurriculumDataset(cs.Manifest.load(str(tmp_path)))
    schedule = cs.StageSchedule([cs.Stage("easy", {"easy": 1}, steps=2)])
    loader = cs.CurriculumLoader(dataset, schedule, batch_size=4, seed=17, **given)
    part = slice(2 * given["rank"], 2 * given["rank"] + 2)
    for step, batch in enumerate(loader):
        assert batch["cls"].tolist() == loader.sampler.draws(step=step).indices[part].tolist()
