"""A bad sample is replaced by the same other one everywhere, told once, and only within the limit."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import curriculum_sampler as cs
from curriculum_sampler.bad_samples import BadSamples, others
from curriculum_sampler.build import write_shards
from curriculum_sampler.dataset import CurriculumDataset
from curriculum_sampler.draws import Draw
from curriculum_sampler.errors import ArgumentError, ShardError, StorageError
from curriculum_sampler.index import INDEX_SUFFIX
from curriculum_sampler.manifest import Manifest
from curriculum_sampler.shards import open_shard
from curriculum_sampler.storage import ObjectStat
from curriculum_sampler.tally import BadSample

from .data_fixtures import FarStorage, WatchedStorage, labelled

SIZE, PER_SHARD = 40, 10
SCHEDULE = cs.StageSchedule([cs.Stage("all", {"easy": 1, "hard": 1}, steps=20)])


def shard_name(bucket: str, number: int) -> str:
    return f"train/{bucket}/{bucket}-{number:06}.tar"


def data(kind: type[WatchedStorage], *bad: tuple[str, int]) -> tuple[WatchedStorage, Manifest]:
    """Two buckets of 40 samples, some of which are damaged for good."""
    home = kind()
    manifest = write_shards(
        home, {"easy": labelled(SIZE), "hard": labelled(SIZE)}, samples_per_shard=PER_SHARD
    )
    for bucket, index in bad:
        number, position = divmod(index, PER_SHARD)
        at = open_shard(manifest.buckets[bucket][number]).index.starts.item(position)
        name = shard_name(bucket, number)
        tar = home.objects[name]
        home.objects[name] = tar[:at] + bytes(512) + tar[at + 512 :]
    return home, manifest


def loader(dataset: CurriculumDataset, **options: Any) -> cs.CurriculumLoader:
    return cs.CurriculumLoader(
        dataset,
        SCHEDULE,
        **{  # type: ignore[arg-type]
            "batch_size": 8,
            "seed": 17,
            "collate": list,
            "plan_options": {"run_sizes": 8, "block_runs": 2},
            **options,
        },
    )


def received(loader: cs.CurriculumLoader) -> list[tuple[str, int]]:
    return [(sample["__bucket__"], sample["__index__"]) for batch in loader for sample in batch]


def drawn(loader: cs.CurriculumLoader) -> list[tuple[str, int]]:
    return [
        tuple(draw) for step in range(loader.plan.total_steps) for draw in loader.sampler.draws(step=step)
    ]


def told(loader: cs.CurriculumLoader) -> list[tuple[str, int]]:
    return [(bad["bucket"], bad["index"]) for bad in loader.stats()["bad_samples"]]


both = pytest.mark.parametrize("kind", [WatchedStorage, FarStorage], ids=["near", "far"])


@given(st.integers(1, 5000), st.data())
def test_those_that_stand_in_are_others_each_once_the_neighbour_first(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    found = list(others(index, size))
    assert index not in found
    assert len(set(found)) == len(found)
    assert all(0 <= other < size for other in found)
    assert found[:1] == ([(index + 1) % size] if size > 1 else [])
    assert len(found) <= size.bit_length()
    # However the bad samples lie, a block of them is left behind soon.
    assert not found or max((other - index) % size for other in found) >= size // 2


@both
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_workers": 3},
        {"num_workers": 2, "workers": "processes"},
        {"rank": 0, "world_size": 2},
        {"rank": 1, "world_size": 2},
        {"grad_accumulation": 2},
    ],
    ids=["alone", "threads", "processes", "rank 0", "rank 1", "accumulated"],
)
def test_the_same_sample_stands_in_for_every_number_of_workers_and_ranks(
    kind: type[WatchedStorage], options: dict[str, Any], tmp_path: Any
) -> None:
    # The last has the first for a neighbour; behind 18 and 19 lie 19 (bad) and 20.
    stand_ins = {("easy", 39): ("easy", 0), ("hard", 18): ("hard", 20), ("hard", 19): ("hard", 20)}
    _, manifest = data(kind, *stand_ins)
    run = loader(CurriculumDataset(manifest, max_bad_fraction=0.05), cache_dir=tmp_path, **options)
    rank, per_step = options.get("rank", 0), 8 // options.get("world_size", 1)
    expected = [
        stand_ins.get(draw, draw)
        for position, draw in enumerate(drawn(run))
        if position % 8 // per_step == rank
    ]
    assert received(run) == expected
    assert set(told(run)) <= set(stand_ins)


@both
@pytest.mark.parametrize(
    "workers",
    [{}, {"num_workers": 2}, {"num_workers": 2, "workers": "processes"}],
    ids=["none", "threads", "processes"],
)
def test_each_is_listed_with_its_reason_and_logged_once(
    kind: type[WatchedStorage], workers: dict[str, Any], tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [("easy", 3), ("hard", 7), ("hard", 30)]
    _, manifest = data(kind, *bad)
    dataset = CurriculumDataset(manifest, max_bad_fraction=0.05)
    run = loader(dataset, cache_dir=tmp_path, **workers)
    with caplog.at_level(logging.WARNING, logger="curriculum_sampler"):
        assert len(received(run)) == 160  # each bucket twice
    assert told(run) == bad
    for one in run.stats()["bad_samples"]:
        shard = f"{one['bucket']}-{one['index'] // PER_SHARD:06}.tar"
        assert shard in one["reason"]
        assert "damaged" in one["reason"]
    lines = [record.getMessage() for record in caplog.records]
    assert sorted(line.split(" is replaced")[0] for line in lines[:-1]) == [
        "Sample easy:3",
        "Sample hard:30",
        "Sample hard:7",
    ]
    assert sorted(lines[-1]) == sorted("Samples replaced because they were bad: {'easy': 1, 'hard': 2}")


@given(st.integers(1, 300), st.integers(0, 1000).map(lambda n: n / 1000), st.data())
def test_as_many_as_the_share_rounded_up_are_tolerated_and_not_one_more(
    size: int, share: float, data: st.DataObject
) -> None:
    bad = BadSamples({"easy": size, "hard": size}, share)
    limit = bad.limit("easy")
    assert share * size <= limit < share * size + 1 + 1e-9
    order = data.draw(st.permutations(range(size)))
    for index in order[:limit]:
        for _ in range(2):  # the same again is no other
            bad.add(BadSample("easy", index, "damaged"))
    assert bad.count() == ({"easy": limit} if limit else {})
    assert [one.index for one in bad.listed()] == sorted(order[:limit])
    for index in order[limit : limit + 2]:
        for _ in range(2):  # it is not forgiven
            with pytest.raises(ShardError, match=rf"'easy' has \d+ bad samples.*allows {limit}\."):
                bad.add(BadSample("easy", index, "damaged"))
    if bad.limit("hard"):
        bad.add(BadSample("hard", 0, "damaged"))  # each bucket has a limit of its own


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "half", None])
def test_a_limit_that_is_no_share_is_refused(share: Any) -> None:
    _, manifest = data(WatchedStorage)
    with pytest.raises(ArgumentError, match=r"max_bad_fraction=.* must be from 0 to 1"):
        CurriculumDataset(manifest, max_bad_fraction=share)


@both
@pytest.mark.parametrize(
    "workers",
    [{}, {"num_workers": 2}, {"num_workers": 2, "workers": "processes"}],
    ids=["none", "threads", "processes"],
)
def test_one_more_than_the_limit_is_an_error_that_says_what_to_do_and_stays_one(
    kind: type[WatchedStorage], workers: dict[str, Any], tmp_path: Any
) -> None:
    _, manifest = data(kind, ("easy", 3), ("easy", 12), ("easy", 25))
    run = loader(CurriculumDataset(manifest, max_bad_fraction=0.05), cache_dir=tmp_path, **workers)
    for _ in range(2):
        message = refusal(run)
        assert (
            "Bucket 'easy' has 3 bad samples, but max_bad_fraction=0.05 of its 40 samples allows 2" in message
        )
        assert "is damaged" in message
        assert "Repair the data, or raise max_bad_fraction." in message


def refusal(run: cs.CurriculumLoader) -> str:
    # Not by pytest.raises: what it keeps would hold the loader's processes until garbage is collected.
    try:
        received(run)
    except ShardError as error:
        return str(error)
    raise AssertionError("All samples were received.")


@both
def test_with_raise_the_first_bad_sample_is_an_error_that_names_its_shard(kind: type[WatchedStorage]) -> None:
    _, manifest = data(kind, ("hard", 7))
    dataset = CurriculumDataset(manifest, on_bad_sample="raise")
    for read in (
        lambda: dataset[Draw("hard", 7)],
        lambda: received(loader(dataset)),
        lambda: received(loader(dataset, num_workers=2)),
        lambda: list(dataset.sequential()),
    ):
        with pytest.raises(ShardError, match=r"hard-000000\.tar: .* is damaged"):
            read()
    with pytest.raises(ArgumentError, match="on_bad_sample='ignore' must be 'replace' or 'raise'"):
        CurriculumDataset(manifest, on_bad_sample="ignore")  # type: ignore[arg-type]


@pytest.mark.parametrize("what", [".tar", INDEX_SUFFIX])
@both
def test_a_store_that_cannot_be_reached_is_never_a_matter_of_bad_samples(
    kind: type[WatchedStorage], what: str
) -> None:
    class Unplugged(kind):  # type: ignore[misc, valid-type]
        is_plugged = True

        def read_into(
            self, key: str, buffer: memoryview, offset: int = 0, etag: str | None = None
        ) -> ObjectStat:
            if not self.is_plugged and key.endswith(what):
                raise StorageError("the cable is out. Put it in.")
            return super().read_into(key, buffer, offset, etag)

    home, manifest = data(Unplugged)
    run = loader(CurriculumDataset(manifest, max_bad_fraction=1.0))
    home.is_plugged = False  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match="the cable is out"):
        received(run)
    assert told(run) == []
    home.is_plugged = True  # type: ignore[attr-defined]
    assert received(run) == drawn(run)  # and nothing was quarantined


@both
@pytest.mark.parametrize("missing", ["", INDEX_SUFFIX], ids=["tar", "index"])
def test_a_missing_shard_is_replaced_if_the_limit_allows_as_many(
    kind: type[WatchedStorage], missing: str
) -> None:
    home, manifest = data(kind)
    del home.objects[shard_name("easy", 1) + missing]
    run = loader(CurriculumDataset(manifest, max_bad_fraction=0.25))
    samples = received(run)
    gone = {("easy", index) for index in range(10, 20)}
    assert not gone & set(samples)
    assert [
        one for one in zip(samples, drawn(run), strict=True) if one[0] != one[1] and one[1] not in gone
    ] == []
    assert told(run) == sorted(gone)
    assert all("does not exist" in bad["reason"] for bad in run.stats()["bad_samples"])
    with pytest.raises(ShardError, match="allows 9"):
        received(loader(CurriculumDataset(manifest, max_bad_fraction=0.22)))


@both
@pytest.mark.parametrize(("cut", "num_bytes"), [("", 1024), ("", 15_000), (INDEX_SUFFIX, 24)])
def test_a_shard_that_was_cut_is_replaced_like_a_missing_one(
    kind: type[WatchedStorage], cut: str, num_bytes: int
) -> None:
    home, manifest = data(kind)
    name = shard_name("easy", 1) + cut
    home.objects[name] = home.objects[name][:-num_bytes]
    run = loader(CurriculumDataset(manifest, max_bad_fraction=0.25))
    assert not {("easy", index) for index in range(10, 20)} & set(received(run))
    assert told(run) == [("easy", index) for index in range(10, 20)]


def undecodable(samples: int) -> Iterator[dict[str, Any]]:
    for sample in labelled(samples):
        yield sample | {"cls": b"three"} if sample["cls"] == 3 else sample


def test_what_cannot_be_decoded_is_replaced_too_and_its_neighbours_are_not() -> None:
    manifest = write_shards(FarStorage(), {"easy": undecodable(12)})
    dataset = CurriculumDataset(manifest, max_bad_fraction=0.01)
    assert [sample["__index__"] for sample in dataset.sequential()] == [0, 1, 2, 4, *range(4, 12)]
    (bad,) = dataset.bad_samples.listed()
    assert (bad.bucket, bad.index) == ("easy", 3)
    assert "sample '00003' (easy:3): Member 'cls'" in bad.reason


@both
def test_evaluation_in_order_replaces_within_the_limit(kind: type[WatchedStorage]) -> None:
    _, manifest = data(kind, ("easy", 3), ("easy", 12))
    dataset = CurriculumDataset(manifest, max_bad_fraction=0.05)
    found = [(sample["__bucket__"], sample["__index__"]) for sample in dataset.sequential()]
    expected = [(bucket, index) for bucket in ("easy", "hard") for index in range(SIZE)]
    expected[3], expected[12] = ("easy", 4), ("easy", 13)
    assert found == expected
    with pytest.raises(ShardError, match="Bucket 'easy' has 2 bad samples"):
        list(CurriculumDataset(manifest).sequential())


def test_where_nothing_is_left_to_stand_in_it_is_an_error() -> None:
    home, manifest = data(FarStorage)
    for number in range(4):
        del home.objects[shard_name("easy", number)]
    dataset = CurriculumDataset(manifest, max_bad_fraction=1.0)
    with pytest.raises(ShardError, match=r"Nothing can stand in for bad sample easy:5: .*does not exist"):
        dataset[Draw("easy", 5)]
    assert dataset[Draw("hard", 5)]["cls"] == 5


def test_two_loaders_over_one_data_set_have_a_list_each() -> None:
    _, manifest = data(FarStorage, ("easy", 3))
    dataset = CurriculumDataset(manifest)
    first, second = loader(dataset), loader(dataset, seed=3)
    assert received(first)
    assert (told(first), told(second), dataset.bad_samples.listed()) == ([("easy", 3)], [], [])
    assert received(second)
    assert told(second) == [("easy", 3)]
