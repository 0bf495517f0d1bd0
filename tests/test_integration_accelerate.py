"""Accelerate: each process reads its part of the global batch once, in checkpoints, accumulation and rates too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import send_to_device

import curriculum_sampler as cs
from curriculum_sampler.integrations.accelerate import curriculum_loader, keep_whole

from .two_ranks import on_two_ranks

SCHEDULE = cs.StageSchedule(
    [
        cs.Stage("easy", {"easy": 1}, steps=3, lr=0.1),
        cs.Stage("hard", {"easy": 1, "hard": 2}, steps=4, lr=0.01, ramp=2),
    ]
)


def write_shards(folder):
    def samples(bucket):
        return [{"__key__": f"{bucket}{n:02}", "npy": np.full(4, n / 20, np.float32)} for n in range(20)]

    cs.write_shards(str(folder), {name: samples(name) for name in ("easy", "hard")})
    return cs.CurriculumDataset(cs.Manifest.load(str(folder)))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(autouse=True)
def _fresh_state():
    """Accelerate keeps its state in the process."""
    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


class Training:
    """A loop as Accelerate's guides have it, with the loader iterated as it is."""

    def __init__(self, dataset, accumulation=1, **options):
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
        self.loader = curriculum_loader(
            self.accelerator, dataset, SCHEDULE, batch_size=12, seed=17, **options
        )
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        rates = cs.CurriculumLR(optimizer, self.loader)
        self.model, self.optimizer, self.rates = self.accelerator.prepare(model, optimizer, rates)
        self.seen: list[list[str]] = []
        self.lrs: list[float] = []

    def run(self, stop=None):
        """Train; leave after ``stop`` micro-batches."""
        for batch in self.loader:
            self.seen.append(batch["__key__"])
            batch = send_to_device(batch, self.accelerator.device)
            with self.accelerator.accumulate(self.model):
                self.accelerator.backward(self.model(batch["npy"]).square().mean())
                if self.accelerator.sync_gradients:
                    self.lrs.append(self.optimizer.param_groups[0]["lr"])
                self.optimizer.step()
                self.rates.step()
                self.optimizer.zero_grad()
            if len(self.seen) == stop:
                break
        return self


def keys(dataset, **options):
    loader = cs.CurriculumLoader(dataset, SCHEDULE, batch_size=12, seed=17, **options)
    return [batch["__key__"] for batch in loader]


def planned_rates(dataset):
    plan = SCHEDULE.plan(dataset.manifest.bucket_sizes, batch_size=12)
    return [plan.at(step).lr for step in range(plan.total_steps)]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_training_is_the_plan(dataset, accumulation):
    training = Training(dataset, accumulation, num_workers=2).run()
    assert training.seen == keys(dataset, grad_accumulation=accumulation)
    assert training.lrs == planned_rates(dataset)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_resuming_at_any_batch_trains_what_was_left(tmp_path, dataset, accumulation):
    whole = Training(dataset, accumulation).run()
    for stop in range(1, len(whole.seen)):
        folder = str(tmp_path / str(stop))
        Training(dataset, accumulation).run(stop).accelerator.save_state(folder)
        resumed = Training(dataset, accumulation, num_workers=2)
        resumed.accelerator.load_state(folder)
        resumed.run()
        # An accumulation that was interrupted is done anew: its gradients were lost.
        steps = stop // accumulation
        assert resumed.seen == whole.seen[steps * accumulation :]
        assert resumed.lrs == whole.lrs[steps:]
        assert torch.equal(resumed.model.weight, whole.model.weight)


def test_the_loader_passes_through_prepare_as_it_is(dataset):
    training = Training(dataset)
    assert training.accelerator.prepare(training.loader) is training.loader


@pytest.mark.parametrize("guard", ["curriculum_loader", "keep_whole"])
def test_a_data_loader_over_our_sampler_is_refused(dataset, guard):
    accelerator = Training(dataset).accelerator if guard == "curriculum_loader" else Accelerator(cpu=True)
    if guard == "keep_whole":
        keep_whole(accelerator)
    sampler = cs.MixtureSampler(SCHEDULE.plan(dataset.manifest.bucket_sizes, batch_size=12), seed=17)
    batches = torch.utils.data.DataLoader(dataset, batch_sampler=sampler)
    with pytest.raises(cs.ArgumentError, match="each process would read a part of its part"):
        accelerator.prepare(batches)
    others = torch.utils.data.DataLoader(range(8), batch_size=4)
    assert [batch.tolist() for batch in accelerator.prepare(others)] == [[0, 1, 2, 3], [4, 5, 6, 7]]


RANKS = """
import json, sys
import torch
import curriculum_sampler as cs
from tests.test_integration_accelerate import Training

shards, out = sys.argv[1:]
training = Training(cs.CurriculumDataset(cs.Manifest.load(shards)), accumulation=2, num_workers=1).run(8)
training.accelerator.save_state(f"{out}/saved")
training.run()
json.dump({"seen": training.seen, "rates": training.lrs}, open(f"{out}/{training.accelerator.process_index}.json", "w"))
training.accelerator.end_training()
"""


@pytest.mark.slow
def test_two_ranks_share_each_global_batch_and_one_goes_on_alone(tmp_path):
    dataset = write_shards(tmp_path / "shards")
    ranks = on_two_ranks(RANKS, tmp_path, tmp_path / "shards")
    together = [[*a, *b] for a, b in zip(*(rank["seen"] for rank in ranks), strict=True)]
    assert together == keys(dataset, grad_accumulation=2)
    assert ranks[0]["rates"] == ranks[1]["rates"] == planned_rates(dataset)
    alone = Training(dataset)
    alone.accelerator.load_state(str(tmp_path / "saved"))
    assert alone.run().seen == keys(dataset)[4:]
    assert alone.lrs == planned_rates(dataset)[4:]


def test_a_scheduler_made_after_prepare_sets_the_same_rates(dataset):
    training = Training(dataset)
    model = torch.nn.Linear(4, 1)
    optimizer = training.accelerator.prepare(torch.optim.SGD(model.parameters(), lr=1.0))
    scheduler = cs.CurriculumLR(optimizer, training.loader)
    rates = []
    for batch in training.loader:
        model(batch["npy"].float()).mean().backward()
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        scheduler.step()
    assert rates == [training.loader.plan.at(step).lr for step in range(7)]
