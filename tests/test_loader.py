"""The loader delivers what the order says, whoever fetches it, and counts what the caller received."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import shutil
import signal

import numpy as np
import pytest
import torch

import curriculum_sampler as cs
from curriculum_sampler.testing import check_rank_free, check_resume

SCHEDULE = cs.StageSchedule(
    [
        cs.Stage("easy", {"easy": 1}, steps=5, lr=1.0),
        cs.Stage("medium", {"easy": 3, "medium": 7}, steps=5, lr=0.5),
        cs.Stage("hard", {"easy": 1, "medium": 1, "hard": 2}, steps=5, lr=0.2),
    ]
)
SIZES = {"easy": 23, "medium": 19, "hard": 11}


def _augmented(sample, rng):
    return sample | {"noise": float(rng.random())}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("shards")
    buckets = {
        name: [
            {"__key__": f"{name}{n:03}", "npy": np.full(3, n, np.float32), "json": {"n": n}}
            for n in range(size)
        ]
        for name, size in SIZES.items()
    }
    cs.write_shards(str(home), buckets, samples_per_shard=7)
    return str(home)


@pytest.fixture
def dataset(folder):
    return cs.CurriculumDataset(cs.Manifest.load(folder), transform=_augmented, schedule=SCHEDULE)


def make(dataset, **options):
    return cs.CurriculumLoader(dataset, **({"batch_size": 8, "seed": 17} | options))


def told(batch) -> list[tuple[str, float]]:
    return list(zip(batch["__key__"], batch["noise"].tolist(), strict=True))


@pytest.fixture(params=["threads", "processes"])
def two_workers(request):
    return {"num_workers": 2, "workers": request.param}


@pytest.fixture
def expected(dataset):
    return [told(batch) for batch in make(dataset)]


def test_batches_are_the_samples_of_the_draws(dataset):
    loader = make(dataset)
    for step, batch in enumerate(loader):
        draws = loader.sampler.draws(step=step)
        assert batch["__key__"] == [f"{bucket}{index:03}" for bucket, index in draws]
        assert torch.equal(batch["npy"][:, 0], torch.tensor(draws.indices, dtype=torch.float32))
        assert batch["__bucket__"] == [draw.bucket for draw in draws]
    assert step == 14


@pytest.mark.parametrize(("num_workers", "context"), [(1, "fork"), (2, "fork"), (2, "spawn")])
def test_processes_change_neither_order_nor_augmentation(dataset, expected, num_workers, context):
    loader = make(dataset, num_workers=num_workers, workers="processes", multiprocessing_context=context)
    assert [told(batch) for batch in loader] == expected


@pytest.mark.parametrize(("num_workers", "prefetch_factor"), [(1, 1), (2, 2), (5, 4)])
def test_threads_change_neither_order_nor_augmentation(dataset, expected, num_workers, prefetch_factor):
    loader = make(dataset, num_workers=num_workers, prefetch_factor=prefetch_factor)
    assert [told(batch) for batch in loader] == expected


def test_each_batch_comes_with_its_step_stage_rate_and_mixture(dataset, two_workers):
    loader = make(dataset, **two_workers)
    assert (loader.step, loader.stage, loader.lr) == (0, "easy", 1.0)
    seen = [(loader.step, loader.stage, loader.lr, loader.mixture) for _ in loader]
    assert [step for step, *_ in seen] == list(range(15))
    assert seen[4][1:] == ("easy", 1.0, {"easy": 1.0})
    assert seen[5][1:] == ("medium", 0.5, {"easy": 0.3, "medium": 0.7})
    assert (loader.step, loader.stage, len(loader)) == (14, "hard", 0)
    assert list(loader) == []


@pytest.mark.parametrize("workers_then", [0, 3])
def test_a_state_counts_what_was_delivered_not_what_was_fetched_ahead(dataset, workers_then, two_workers):
    check_resume(
        lambda: make(dataset, **two_workers),
        make_resumed=lambda: make(dataset, num_workers=workers_then),
        stops=[1, 4, 5, 6, 15],
        describe=told,
        saved=lambda state: json.loads(json.dumps(state)),
    )


def test_a_resumed_loader_knows_its_step_and_rate(dataset):
    loader = make(dataset)
    for step in range(15):
        loader.load_state_dict(loader.sampler.state_dict(step=step))
        assert (loader.step, len(loader)) == (step, 15 - step)
        assert loader.lr == loader.plan.at(step).lr


def test_an_abandoned_iteration_loses_nothing(dataset, expected, two_workers):
    loader = make(dataset, **two_workers)
    received = []
    for batch in loader:
        received.append(told(batch))
        if len(received) == 6:
            break
    assert received + [told(batch) for batch in loader] == expected


def test_one_iteration_is_valid_at_a_time(dataset):
    loader = make(dataset)
    first = iter(loader)
    next(first)
    state = loader.state_dict()
    next(first)
    loader.load_state_dict(state)
    with pytest.raises(cs.CurriculumError, match="This iteration is over"):
        next(first)
    next(iter(loader))
    assert loader.step == 1


def test_accumulation_yields_the_parts_of_a_step(dataset, expected):
    loader = make(dataset, grad_accumulation=4)
    parts, steps, done = [], [], []
    for batch in loader:
        parts += told(batch)
        steps.append(loader.step)
        done.append(loader.steps_done)
    assert parts == [sample for batch in expected for sample in batch]
    assert steps == [step for step in range(15) for _ in range(4)]
    assert done[:5] == [0, 0, 0, 1, 1]


def test_ranks_share_the_global_batch(dataset):
    check_rank_free(
        lambda rank, world_size: make(dataset, rank=rank, world_size=world_size, grad_accumulation=2),
        world_sizes=(2, 4),
        grad_accumulation=2,
        items=told,
    )


def test_advancing_takes_effect_beyond_what_workers_were_asked_for_and_replays(dataset, two_workers):
    loader = make(dataset, **two_workers, prefetch_factor=1)
    keys = []
    for batch in loader:
        keys.append(batch["__key__"])
        if loader.step == 1:
            begins = loader.advance("plateau")
    assert 2 <= begins < 5
    assert loader.plan.boundaries[1] == begins
    replay = make(dataset)
    replay.load_state_dict(loader.sampler.state_dict(step=0))
    assert [batch["__key__"] for batch in replay] == keys


def test_advancing_ends_the_stage_of_the_loop_whatever_workers_fetched_ahead(dataset, two_workers):
    """A policy that fires twice, while workers are asked for batches of the next stage, ends one stage."""
    loader = make(dataset, **two_workers, prefetch_factor=4)
    for _ in loader:
        if loader.step in (1, 2):
            assert loader.stage == "easy"
            assert loader.advance("plateau") == 5
    assert (loader.plan.boundaries, loader.log) == ((0, 5, 10, 15), ())


def test_grown_data_joins_a_running_curriculum(folder, tmp_path):
    more = [{"__key__": f"more{n}", "npy": np.zeros(3, np.float32), "json": {"n": n}} for n in range(9)]
    cs.write_shards(str(tmp_path), {"easy": more})
    old, both = cs.Manifest.load(folder), cs.Manifest.load([folder, str(tmp_path)])
    schedule = cs.StageSchedule([cs.Stage("easy", {"easy": 1}, steps=12)])
    loader = make(cs.CurriculumDataset(old), schedule=schedule)
    batches = iter(loader)
    first = [next(batches)["__key__"] for _ in range(2)]
    unaware = loader.state_dict()
    loader.grow({"easy": 32}, "nine more pictures")
    state = loader.state_dict()

    resumed = make(cs.CurriculumDataset(both), schedule=schedule)
    with pytest.raises(cs.StateMismatchError, match=r"call grow\(\) in the running job"):
        resumed.load_state_dict(unaware)
    resumed.load_state_dict(state)
    keys = [key for batch in [*first, *(batch["__key__"] for batch in resumed)] for key in batch]
    assert sorted(keys[:23]) == sorted(f"easy{n:03}" for n in range(23))
    assert len(set(keys[23:55])) == 32
    again = make(cs.CurriculumDataset(both), schedule=schedule)
    again.load_state_dict(resumed.state_dict())

    swapped = make(cs.CurriculumDataset(cs.Manifest.load([str(tmp_path), folder])), schedule=schedule)
    with pytest.raises(cs.StateMismatchError, match="does not begin with that"):
        swapped.load_state_dict(state)


def test_global_random_numbers_are_untouched(dataset):
    before = torch.random.get_rng_state()
    for workers in ({}, {"num_workers": 2}, {"num_workers": 2, "workers": "processes"}):
        list(make(dataset, **workers))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_damaged_shard_is_an_error_with_and_without_workers(dataset, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "damaged")
    shard = next((tmp_path / "damaged").rglob("*medium*.tar"))
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    manifest = cs.Manifest.load(str(tmp_path / "damaged"))
    damaged = cs.CurriculumDataset(manifest, schedule=SCHEDULE, on_bad_sample="raise")
    for workers in ({}, {"num_workers": 2}, {"num_workers": 2, "workers": "processes"}):
        with pytest.raises(cs.ShardError, match=shard.name):
            list(make(damaged, **workers))


def test_after_an_error_the_workers_end_with_their_loader(folder, two_workers):
    """In a reference cycle they would end only when collected, and be waited for, five seconds each."""

    def fail(sample):
        raise ValueError("broken transform")

    loader = make(
        cs.CurriculumDataset(cs.Manifest.load(folder), transform=fail), schedule=SCHEDULE, **two_workers
    )
    gc.disable()
    try:
        list(loader)
    except ValueError as error:
        message = str(error)
    assert "broken transform" in message
    del loader
    assert not multiprocessing.active_children()
    gc.enable()


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_an_interrupt_from_the_terminal_leaves_the_workers_to_the_training_process(
    dataset, expected, context
):
    loader = make(dataset, num_workers=2, workers="processes", multiprocessing_context=context)
    received = []
    for batch in loader:
        received.append(told(batch))
        if len(received) == 3:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGINT)
    assert received == expected


def test_other_data_is_refused_on_resume(dataset, tmp_path):
    loader = make(dataset)
    next(iter(loader))
    buckets = {
        name: [{"__key__": f"{name}{n:03}", "npy": np.full(3, n + 1, np.float32)} for n in range(size)]
        for name, size in SIZES.items()
    }
    cs.write_shards(str(tmp_path), buckets)
    other = cs.CurriculumDataset(cs.Manifest.load(str(tmp_path)))
    with pytest.raises(cs.StateMismatchError, match="bucket 'easy' holds other samples"):
        make(other, schedule=SCHEDULE, plan_options={"run_sizes": loader.plan.run_sizes}).load_state_dict(
            loader.state_dict()
        )


def test_what_does_not_fit_is_refused_early(dataset, folder):
    with pytest.raises(
        cs.ArgumentError, match=r"got a list, but this loader reads a CurriculumDataset.*batch_sampler"
    ):
        cs.CurriculumLoader([1, 2, 3], SCHEDULE, batch_size=2, seed=17)
    with pytest.raises(cs.ArgumentError, match="The loader has no schedule"):
        make(cs.CurriculumDataset(cs.Manifest.load(folder)))
    with pytest.raises(cs.ArgumentError, match="grad_accumulation=3 = 3 micro-batches"):
        make(dataset, grad_accumulation=3)
    with pytest.raises(cs.ArgumentError, match="got rank=1 and world_size=None, but they go together"):
        make(dataset, rank=1)
    with pytest.raises(cs.ArgumentError, match=r"window is an option of the plan. Write plan_options"):
        make(dataset, window=4)
    with pytest.raises(
        cs.ArgumentError, match=r"collate_fn: the loader decides this itself.* Write collate="
    ):
        make(dataset, collate_fn=list)
    with pytest.raises(cs.ArgumentError, match="bucket 'absent', which is absent"):
        make(dataset, schedule=cs.StageSchedule([cs.Stage("x", {"absent": 1}, steps=1)]))
