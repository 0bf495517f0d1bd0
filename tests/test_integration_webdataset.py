"""A pipeline of the real webdataset over our draws: the order of the plan, cut among ranks and workers once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import webdataset
from torch.utils.data import DataLoader

import curriculum_sampler as cs
from curriculum_sampler.integrations.webdataset import DrawnSamples

SCHEDULE = cs.StageSchedule(
    [cs.Stage("easy", {"easy": 1}, steps=4), cs.Stage("hard", {"easy": 1, "hard": 2}, steps=7)]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = str(tmp_path_factory.mktemp("shards"))
    buckets = {
        name: [{"__key__": f"{name}{n:02}", "npy": np.full(2, n, np.float32), "cls": n} for n in range(size)]
        for name, size in {"easy": 9, "hard": 7}.items()
    }
    cs.write_shards(home, buckets, samples_per_shard=4)
    return home


@pytest.fixture
def dataset(folder):
    return cs.CurriculumDataset(cs.Manifest.load(folder))


def sampler_of(dataset, **options):
    return cs.MixtureSampler(SCHEDULE.plan(dataset.manifest.bucket_sizes, batch_size=6), 17, **options)


def pipeline(dataset, sampler):
    return webdataset.DataPipeline(
        DrawnSamples(dataset, sampler),
        webdataset.map(add_sum),
        webdataset.to_tuple("__key__", "npy", "sum"),
        webdataset.batched(sampler.batch_size),
    )


def add_sum(sample):
    return sample | {"sum": float(sample["npy"].sum())}


def keys(batches):
    return [list(batch[0]) for batch in batches]


def expected(dataset, sampler):
    return [[f"{bucket}{index:02}" for bucket, index in batch] for batch in sampler]


def test_stages_get_the_samples_in_the_order_of_the_draws(dataset):
    batches = list(pipeline(dataset, sampler_of(dataset)))
    assert keys(batches) == expected(dataset, sampler_of(dataset))
    for names, pixels, sums in batches:
        numbers = [int(name[-2:]) for name in names]
        assert pixels[:, 0].tolist() == numbers
        assert list(sums) == [2.0 * n for n in numbers]


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3])
def test_workers_make_whole_batches_in_turn(dataset, num_workers):
    loader = DataLoader(pipeline(dataset, sampler_of(dataset)), batch_size=None, num_workers=num_workers)
    assert keys(loader) == expected(dataset, sampler_of(dataset))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_ranks_have_their_parts_of_the_global_batch(dataset, num_workers):
    ranks = []
    for rank in range(3):
        sampler = sampler_of(dataset, rank=rank, world_size=3)
        loader = webdataset.WebLoader(pipeline(dataset, sampler), batch_size=None, num_workers=num_workers)
        ranks.append(keys(loader))
    together = [list(itertools.chain(*parts)) for parts in zip(*ranks, strict=True)]
    assert together == expected(dataset, sampler_of(dataset))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 3, 4, 11])
def test_it_goes_on_from_the_position(dataset, num_workers, stop):
    sampler = sampler_of(dataset)
    loader = DataLoader(pipeline(dataset, sampler), batch_size=None, num_workers=num_workers)
    found = keys(itertools.islice(loader, stop))
    state = sampler.state_dict(step=stop)
    other = sampler_of(dataset)
    loader = DataLoader(pipeline(dataset, other), batch_size=None, num_workers=num_workers)
    other.load_state_dict(state)
    assert found + keys(loader) == expected(dataset, sampler_of(dataset))
    assert other.step == stop, "the source reads from the position, and leaves it"


def test_a_change_holds_from_the_next_iteration(dataset):
    sampler = sampler_of(dataset)
    sampler.seek(2)
    assert sampler.advance("plateau") == 2
    found = keys(DataLoader(pipeline(dataset, sampler), batch_size=None, num_workers=2))
    assert len(found) == 7
    assert {key[:4] for key in found[0]} == {"easy", "hard"}


def test_webdatasets_own_decoder_may_do_the_decoding(folder):
    raw = cs.CurriculumDataset(cs.Manifest.load(folder), decode=None)
    fluid = webdataset.FluidWrapper(DrawnSamples(raw, sampler_of(raw)))
    found = list(fluid.decode().to_tuple("__key__", "cls").batched(6))
    assert keys(found) == expected(raw, sampler_of(raw))
    assert list(found[0][1]) == [int(key[-2:]) for key in found[0][0]]


def test_workers_that_persist_are_refused_a_second_iteration(dataset):
    options = {"batch_size": None, "num_workers": 1, "persistent_workers": True}
    loader = DataLoader(pipeline(dataset, sampler_of(dataset)), **options)
    assert len(list(loader)) == 11
    with pytest.raises(cs.CurriculumError, match="Leave out persistent_workers=True"):
        list(loader)


def test_only_our_sampler_has_an_order(dataset):
    with pytest.raises(cs.ArgumentError, match="the order comes from a MixtureSampler"):
        DrawnSamples(dataset, [0, 1])
