"""Draws in, samples out: the same from everywhere, in whichever worker."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from curriculum_sampler.build import write_shards
from curriculum_sampler.dataset import CurriculumDataset
from curriculum_sampler.draws import Draw, Draws
from curriculum_sampler.errors import ArgumentError, ShardError
from curriculum_sampler.manifest import Manifest
from curriculum_sampler.memory_storage import MemoryStorage
from curriculum_sampler.storage import Storage

from .data_fixtures import WatchedStorage, labelled, s3_bucket, s3_endpoint, storage

SIZES = {"easy": 11, "hard": 7}
BUCKETS = {name: labelled(size, first=100 * place) for place, (name, size) in enumerate(SIZES.items())}
draws = st.lists(
    st.one_of([st.tuples(st.just(name), st.integers(0, size - 1)) for name, size in SIZES.items()]).map(
        lambda p: Draw(*p)
    ),
    max_size=30,
)


def small(home: Any = None, **options: Any) -> CurriculumDataset:
    manifest = write_shards(MemoryStorage() if home is None else home, BUCKETS, samples_per_shard=4)
    return CurriculumDataset(manifest, **options)


def identity(sample: dict[str, Any]) -> tuple[str, str, int, int]:
    assert sample["npy"].tolist() == [sample["cls"] % 256] * 40
    return sample["__key__"], sample["__bucket__"], sample["__index__"], sample["cls"]


def expected(draw: Draw) -> tuple[str, str, int, int]:
    label = draw.index + 100 * list(SIZES).index(draw.bucket)
    return f"{label:05}", draw.bucket, draw.index, label


@given(draws)
def test_a_batch_is_its_draws_in_order_also_when_they_repeat(batch: list[Draw]) -> None:
    dataset = small()
    assert [identity(sample) for sample in dataset.__getitems__(batch)] == [expected(draw) for draw in batch]
    packed = Draws.of(batch)
    assert [identity(sample) for sample in dataset.__getitems__(packed)] == [expected(draw) for draw in batch]
    for draw in batch[:3]:
        assert identity(dataset[draw]) == identity(dataset[tuple(draw)]) == expected(draw)


def test_every_storage_holds_the_same_data_set(storage: Storage) -> None:
    dataset = small(storage)
    assert len(dataset) == 18
    assert [identity(sample) for sample in dataset.sequential()] == [
        expected(Draw(name, index)) for name, size in SIZES.items() for index in range(size)
    ]


def test_samples_drawn_twice_do_not_share_their_arrays() -> None:
    first, second = small().__getitems__([Draw("easy", 3), Draw("easy", 3)])
    first["npy"][:] = 0
    assert second["npy"].tolist() == [3] * 40


def keys(samples: list[dict[str, Any]]) -> list[str]:
    return [sample["__key__"] for sample in samples]


@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork")])
def test_a_loader_gets_the_same_batches_with_any_workers(
    tmp_path: Path, workers: int, method: str | None
) -> None:
    dataset = small(tmp_path)
    dataset[Draw("easy", 0)]
    batches = [Draws.of([Draw("easy", n), Draw("hard", n % 7), Draw("easy", 10 - n)]) for n in range(8)]
    loader = DataLoader(
        dataset, batch_sampler=batches, num_workers=workers, multiprocessing_context=method, collate_fn=keys
    )
    assert list(loader) == [[expected(draw)[0] for draw in batch] for batch in batches]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_from_s3_by_themselves(s3_bucket: str, s3_endpoint: str, method: str) -> None:
    url = f"s3://{s3_bucket}/v1"
    write_shards(url, BUCKETS, samples_per_shard=4, endpoint_url=s3_endpoint)
    dataset = CurriculumDataset(Manifest.load(url, endpoint_url=s3_endpoint))
    dataset[Draw("easy", 0)]  # the parent's connection must not be used by its children
    batches = [Draws.of([Draw("easy", n), Draw("hard", n % 7)]) for n in range(8)]
    loader = DataLoader(
        dataset, batch_sampler=batches, num_workers=2, multiprocessing_context=method, collate_fn=keys
    )
    assert list(loader) == [[expected(draw)[0] for draw in batch] for batch in batches]


def test_default_collation_makes_tensors_of_decoded_members() -> None:
    (batch,) = DataLoader(small(), batch_sampler=[Draws.of([Draw("easy", 1), Draw("hard", 2)])])
    assert batch["cls"].tolist() == [1, 102]
    assert batch["npy"].shape == (2, 40)
    assert batch["__bucket__"] == ["easy", "hard"]


def augment(sample: dict[str, Any], rng: np.random.Generator) -> tuple[str, int]:
    return sample["__key__"], int(rng.integers(1 << 62))


def test_a_transforms_randomness_depends_on_seed_bucket_pass_and_index_only() -> None:
    dataset = small(transform=augment)
    batch = [Draw("easy", 3), Draw("hard", 3), Draw("easy", 4), Draw("easy", 3)]
    whole = dataset.__getitems__(Draws.of(batch, passes=[0, 0, 0, 1], seed=17))
    alone = [
        dataset.__getitems__(Draws.of([draw], passes=[at], seed=17))[0]
        for draw, at in zip(batch, [0, 0, 0, 1], strict=True)
    ]
    assert whole == alone
    assert len({value for _, value in whole}) == 4
    assert dataset.__getitems__(Draws.of(batch, passes=[0, 0, 0, 1], seed=18)) != whole


def test_a_transform_without_rng_gets_the_sample_alone_and_any_callable_will_do() -> None:
    assert small(transform=lambda sample: sample["cls"])[Draw("easy", 3)] == 3
    assert small(transform=lambda sample, *, rng: rng is not None)[Draw("easy", 3)] is True
    assert small(transform=len)[Draw("easy", 3)] == 5
    assert small(transform=dict)[Draw("easy", 3)]["cls"] == 3


def fail_on_three(sample: dict[str, Any]) -> str:
    key: str = sample.pop("__key__")
    if sample["cls"] == 3:
        raise KeyError("sleeve")
    return key


def test_a_transform_that_fails_raises_its_own_error_with_the_sample_named(tmp_path: Path) -> None:
    dataset = small(tmp_path, transform=fail_on_three)
    told = f"sample '00003' (easy:3, pass 0) of {tmp_path}/train/easy/easy-000000.tar"
    with pytest.raises(KeyError, match="sleeve") as caught:
        dataset.__getitems__([Draw("easy", 2), Draw("easy", 3)])
    (note,) = caught.value.__notes__
    assert told in note
    # A worker's error is made anew in the parent, from its text.
    loader = DataLoader(dataset, batch_sampler=[[Draw("easy", 3)]], num_workers=2, collate_fn=list)
    with pytest.raises(KeyError, match="sleeve") as caught:
        next(iter(loader))
    assert told in str(caught.value)


def test_no_global_randomness_is_touched() -> None:
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    dataset = small(transform=augment)
    list(dataset.sequential())
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


def test_a_bucket_never_drawn_is_never_opened() -> None:
    home = WatchedStorage()
    dataset = small(home)
    home.touched.clear()
    dataset.__getitems__([Draw("easy", index) for index in range(11)])
    assert home.touched
    assert not [key for key in home.touched if "hard" in key]


def test_members_stay_bytes_or_take_own_decoders_on_demand() -> None:
    assert small(decode=None)[Draw("easy", 3)]["cls"] == b"3"
    found = small(decode={"cls": lambda data: -int(data)})[Draw("easy", 3)]
    assert (found["cls"], found["npy"].dtype) == (-3, np.uint8)


def test_a_sample_that_cannot_be_decoded_is_named_with_its_shard() -> None:
    manifest = write_shards(MemoryStorage("store"), {"easy": [{"__key__": "a", "cls": b"three"}]})
    with pytest.raises(
        ShardError, match=r"memory://store/train/easy/easy-000000\.tar, sample 'a' .easy:0.: Member 'cls'"
    ):
        CurriculumDataset(manifest)[Draw("easy", 0)]


@pytest.mark.parametrize("key", [3, "easy", ("easy",), ("easy", "3"), (3, "easy"), ("easy", 1.5)])
def test_what_is_no_draw_is_refused(key: Any) -> None:
    with pytest.raises(
        ArgumentError, match=r"asked for by Draw\(bucket, index\).*batch_sampler=MixtureSampler"
    ):
        small()[key]


def test_a_dataset_of_a_path_says_how_to_load_its_manifest() -> None:
    with pytest.raises(ArgumentError, match=r"not of 'data/v1'. Pass Manifest\.load\("):
        CurriculumDataset("data/v1")  # type: ignore[arg-type]


def test_a_draw_outside_the_data_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"index 11 is outside \[0, 11\)"):
        small()[Draw("easy", 11)]
    with pytest.raises(ArgumentError, match="No bucket 'medium'"):
        small()[Draw("medium", 0)]


def test_a_data_set_travels_with_its_schedule() -> None:
    dataset = small(schedule={"stages": 3}, transform=augment)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.schedule == {"stages": 3}
    assert copy[Draw("easy", 3)] == dataset[Draw("easy", 3)]
    assert small().schedule is None


@given(st.integers(1, 25))
def test_the_ranks_parts_are_the_whole_in_order_and_differ_by_one_at_most(world_size: int) -> None:
    dataset = small(transform=lambda sample: sample["__key__"])
    parts = [dataset.sequential(rank, world_size) for rank in range(world_size)]
    assert [key for part in parts for key in part] == list(dataset.sequential())
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(len(list(part)) == len(part) for part in parts)


def test_evaluation_works_through_a_loader_with_workers_and_repeats_itself(tmp_path: Path) -> None:
    part = small(tmp_path, transform=augment).sequential(1, 2)
    loader = DataLoader(part, batch_size=4, num_workers=2, collate_fn=list)
    assert [sample for batch in loader for sample in batch] == list(part) == list(part)
    assert part[0] == next(iter(part))
    with pytest.raises(IndexError, match=r"outside \[0, 9\)"):
        part[9]
    for rank, world_size in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ArgumentError, match=f"rank={rank} must be in"):
            small().sequential(rank, world_size)
