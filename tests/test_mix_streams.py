"""Streams of the user's own are mixed as the plan says, by draw; where they end, fail and go on is told and exact."""

from __future__ import annotations

import itertools
import json
import logging

import pytest
import torch
import torchdata.nodes
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from torchdata.stateful_dataloader import StatefulDataLoader

import curriculum_sampler as cs

from .strategies import BUCKETS, schedules, seeds

# What torchdata 0.11 calls is deprecated in torch.
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")

SCHEDULE = cs.StageSchedule(
    [
        cs.Stage("easy", {"easy": 1, "hard": 0}, steps=3, lr=1.0),
        cs.Stage("hard", {"easy": 1, "hard": 1}, steps=5, lr=0.1),
    ]
)


def numbered(bucket: str, size: int):
    """A stream whose samples say their bucket, pass and number."""
    return lambda bucket_pass: ((bucket, bucket_pass, number) for number in range(size))


def streams_of(sizes):
    return {name: numbered(name, size) for name, size in sizes.items()}


def in_order(buckets, sizes):
    """What streams of these sizes give when asked for these buckets in turn."""
    taken = dict.fromkeys(sizes, 0)
    for bucket in buckets:
        yield (bucket, *divmod(taken[bucket], sizes[bucket]))
        taken[bucket] += 1


sizes = st.fixed_dictionaries({name: st.integers(1, 12) for name in BUCKETS})


@given(schedules(), sizes, seeds, st.integers(1, 6))
def test_the_plan_says_whose_turn_it_is_and_the_stream_with_which_sample(schedule, sizes, seed, batch_size):
    plan = schedule.plan(sizes, batch_size)
    draws = [draw for batch in cs.MixtureSampler(plan, seed) for draw in batch]
    mixed = cs.mix_streams(plan, streams_of(sizes), seed=seed)
    samples = [sample for batch in mixed for sample in batch]
    assert samples == list(in_order([draw.bucket for draw in draws], sizes))
    assert len(mixed) == 0
    assert list(mixed) == []


@given(schedules(), sizes, seeds, st.integers(1, 3), st.data())
def test_the_ranks_parts_of_equal_streams_are_the_global_batch_and_may_be_cut_anew(
    schedule, sizes, seed, world_size, data
):
    plan = schedule.plan(sizes, batch_size=6)
    alone = list(cs.mix_streams(plan, streams_of(sizes), seed=seed))

    def ranks(number):
        return [
            cs.mix_streams(plan, streams_of(sizes), seed=seed, rank=rank, world_size=number, sharded=False)
            for rank in range(number)
        ]

    stop = data.draw(st.integers(0, plan.total_steps))
    first = ranks(world_size)
    begun = [list(itertools.islice(rank, stop)) for rank in first]
    states = [json.loads(json.dumps(rank.state_dict())) for rank in first]
    assert all(state == states[0] for state in states)
    second = ranks(data.draw(st.integers(1, 3)))
    for rank in second:
        rank.load_state_dict(states[0])
    rest = [list(rank) for rank in second]
    steps = [*zip(*begun, strict=True), *zip(*rest, strict=True)]
    together = [list(itertools.chain(*parts)) for parts in steps]
    assert together == alone


def test_streams_that_are_each_ranks_own_part_are_read_by_it_alone():
    plan = SCHEDULE.plan({"easy": 8, "hard": 8}, batch_size=4)
    draws = list(cs.MixtureSampler(plan, 17))
    read = []
    for rank in range(2):
        own = {name: numbered(f"{name}{rank}", 4) for name in ("easy", "hard")}
        mixed = cs.mix_streams(plan, own, seed=17, rank=rank, world_size=2, sharded=True)
        for batch, drawn in zip(mixed, draws, strict=True):
            assert [name for name, _, _ in batch] == [
                f"{draw.bucket}{rank}" for draw in drawn[2 * rank : 2 * rank + 2]
            ]
            read += batch
    assert len(read) == len(set(read)) == plan.total_draws


@given(st.integers(0, 8))
def test_a_rank_with_its_own_part_continues_where_it_was(stop):
    plan = SCHEDULE.plan({"easy": 10, "hard": 6}, batch_size=4)

    def rank():
        return cs.mix_streams(
            plan, streams_of({"easy": 5, "hard": 3}), seed=17, rank=1, world_size=2, sharded=True
        )

    first, second = rank(), rank()
    begun = list(itertools.islice(first, stop))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert begun + list(second) == list(rank())


def test_sharded_streams_continue_on_their_own_rank_only():
    plan = SCHEDULE.plan({"easy": 8, "hard": 8}, batch_size=4)
    one, other = (
        cs.mix_streams(
            plan, streams_of({"easy": 4, "hard": 4}), seed=17, rank=rank, world_size=2, sharded=True
        )
        for rank in range(2)
    )
    with pytest.raises(cs.StateMismatchError, match=r"\[rank, world_size\] \[0, 2\], these are \[1, 2\]"):
        other.load_state_dict(one.state_dict())


@given(st.integers(0, 8), st.integers(0, 8), st.sampled_from([{}, {"easy": 5, "hard": 3}]))
def test_stopped_anywhere_twice_it_continues_with_the_same_samples(stop, more, promised):
    plan = SCHEDULE if not promised else SCHEDULE.plan(promised, 4)
    options = {"seed": 17} if promised else {"seed": 17, "batch_size": 4}
    whole = list(cs.mix_streams(plan, streams_of({"easy": 5, "hard": 3}), **options))
    found, state = [], None
    for wanted in (stop, more, None):
        mixed = cs.mix_streams(plan, streams_of({"easy": 5, "hard": 3}), **options)
        if state is not None:
            mixed.load_state_dict(json.loads(json.dumps(state)))
        found += itertools.islice(mixed, wanted)
        state = mixed.state_dict()
    assert found == whole


def test_it_tells_step_stage_and_rate_of_the_batch_returned_last():
    mixed = cs.mix_streams(SCHEDULE, streams_of({"easy": 5, "hard": 3}), seed=17, batch_size=4)
    assert (mixed.step, mixed.stage, len(mixed)) == (0, "easy", 8)
    for step, _batch in enumerate(mixed):
        position = mixed.plan.at(step)
        assert (mixed.step, mixed.stage, mixed.lr, mixed.mixture) == (
            step,
            position.stage,
            position.lr,
            position.mixture,
        )
        if step == 4:
            break
    state = mixed.state_dict()
    mixed.load_state_dict(state)
    assert (mixed.step, mixed.stage) == (5, "hard")


def test_a_stream_is_opened_when_its_turn_comes_and_never_without_weight():
    opened = []

    def watched(bucket):
        def begin(bucket_pass):
            opened.append(bucket)
            return numbered(bucket, 99)(bucket_pass)

        return begin

    never = cs.StageSchedule([*SCHEDULE.stages, cs.Stage("end", {"easy": 1, "never": 0}, steps=1)])
    streams = {name: watched(name) for name in ("easy", "hard", "never")}
    mixed = cs.mix_streams(never, streams, seed=17, batch_size=4)
    assert opened == []
    batches = iter(mixed)
    list(itertools.islice(batches, 3))
    assert opened == ["easy"]
    list(batches)
    assert opened == ["easy", "hard"]
    assert mixed.state_dict()["streams"].keys() == {"easy", "hard"}


def test_iterables_are_begun_again_and_told_their_pass_if_they_ask():
    class Told(list):
        def set_epoch(self, epoch):
            self[:] = [(epoch, number) for number in range(3)]

    only = cs.StageSchedule([cs.Stage("only", {"a": 1, "b": 1}, steps=2)])
    batches = list(cs.mix_streams(only, {"a": Told(), "b": ["x", "y"]}, seed=1, batch_size=8))
    samples = list(itertools.chain(*batches))
    assert [one for one in samples if isinstance(one, tuple)] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
        (2, 1),
    ]
    assert [one for one in samples if isinstance(one, str)] == ["x", "y"] * 4


def test_an_endless_iterator_is_fine_and_one_that_ends_is_not():
    only = cs.StageSchedule([cs.Stage("only", {"a": 1}, steps=3)])
    assert list(cs.mix_streams(only, {"a": itertools.count()}, seed=1, batch_size=2)) == [
        [0, 1],
        [2, 3],
        [4, 5],
    ]
    mixed = iter(cs.mix_streams(only, {"a": iter(range(5))}, seed=1, batch_size=2))
    assert [next(mixed), next(mixed)] == [[0, 1], [2, 3]]
    with pytest.raises(
        cs.CurriculumError, match=r"'a' is an iterator, which cannot be begun a second time"
    ) as failed:
        next(mixed)
    assert failed.value.__notes__ == ["From stream 'a', sample 0 of pass 1, for draw 5 (step 2)."]


def test_a_fresh_iterator_is_read_up_to_where_it_was_and_this_is_counted(caplog):
    only = cs.StageSchedule([cs.Stage("only", {"a": 1}, steps=3)])
    first = cs.mix_streams(only, {"a": itertools.count()}, seed=1, batch_size=2)
    list(itertools.islice(first, 2))
    second = cs.mix_streams(only, {"a": itertools.count()}, seed=1, batch_size=2)
    second.load_state_dict(first.state_dict())
    with caplog.at_level(logging.INFO, "curriculum_sampler"):
        assert list(second) == [[4, 5]]
    assert second.skipped == {"a": 4}
    assert "Stream 'a': reading past 4 samples to where it was" in caplog.text
    first.load_state_dict(first.state_dict())
    with pytest.raises(cs.CurriculumError, match="cannot be begun a second time"):
        list(first)


@pytest.mark.parametrize(
    "empty", [[], lambda bucket_pass: [], lambda bucket_pass: [[1, 2, 3], []][bucket_pass]]
)
def test_an_empty_stream_is_an_error(empty):
    only = cs.StageSchedule([cs.Stage("only", {"a": 1}, steps=3)])
    with pytest.raises(cs.CurriculumError, match=r"Stream 'a' had no samples in pass [01]"):
        list(cs.mix_streams(only, {"a": empty}, seed=1, batch_size=2))


def test_a_pass_shorter_than_the_plan_was_promised_is_an_error():
    plan = SCHEDULE.plan({"easy": 6, "hard": 3}, batch_size=4)
    mixed = cs.mix_streams(plan, streams_of({"easy": 5, "hard": 3}), seed=17)
    with pytest.raises(cs.CurriculumError, match=r"'easy' had only 5 of the 6 samples promised in pass 0"):
        list(mixed)
    longer = cs.mix_streams(plan, streams_of({"easy": 7, "hard": 3}), seed=17)
    assert len(list(longer)) == 8


def test_a_stream_that_lost_samples_since_it_was_saved_is_an_error():
    first = cs.mix_streams(SCHEDULE, streams_of({"easy": 50, "hard": 50}), seed=17, batch_size=4)
    list(itertools.islice(first, 5))
    second = cs.mix_streams(SCHEDULE, streams_of({"easy": 3, "hard": 50}), seed=17, batch_size=4)
    second.load_state_dict(first.state_dict())
    with pytest.raises(
        cs.StateMismatchError, match=r"'easy' ended after 3 samples of pass 0, of which 16 were taken"
    ):
        list(second)


class FailsOnce:
    """An iterable that breaks down at one sample, the first time."""

    def __init__(self) -> None:
        self.failed = False

    def __iter__(self):
        for number in range(50):
            if number == 6 and not self.failed:
                self.failed = True
                raise OSError("the disk went away")
            yield number


def test_what_a_stream_raises_names_bucket_and_draw_and_loses_nothing():
    streams = {"easy": FailsOnce(), "hard": range(100, 150)}
    whole = list(
        cs.mix_streams(SCHEDULE, {"easy": range(50), "hard": range(100, 150)}, seed=17, batch_size=4)
    )
    mixed = cs.mix_streams(SCHEDULE, streams, seed=17, batch_size=4)
    found = []
    with pytest.raises(OSError, match="the disk went away") as failed:
        found += mixed
    assert failed.value.__notes__ == ["From stream 'easy', sample 6 of pass 0, for draw 6 (step 1)."]
    assert mixed.state_dict()["sampler"]["draws"] == 4
    assert found + list(mixed) == whole


def test_a_batch_that_cannot_be_collated_was_not_delivered():
    calls = []

    def collate(samples):
        calls.append(samples)
        if len(calls) == 2:
            raise ValueError("not of one shape")
        return samples

    streams = {"easy": range(50), "hard": range(100, 150)}
    mixed = cs.mix_streams(SCHEDULE, streams, seed=17, batch_size=4, collate=collate)
    batches = iter(mixed)
    found = [next(batches)]
    with pytest.raises(ValueError, match="not of one shape") as failed:
        next(batches)
    assert not hasattr(failed.value, "__notes__")
    assert found + list(mixed) == list(cs.mix_streams(SCHEDULE, streams, seed=17, batch_size=4))


def test_changes_at_run_time_take_effect_at_once_and_are_repeated():
    def fresh():
        return cs.mix_streams(SCHEDULE, streams_of({"easy": 5, "hard": 3}), seed=17, batch_size=4)

    mixed, found = fresh(), []
    for batch in mixed:
        found.append(batch)
        if mixed.step == 1:
            assert mixed.sampler.advance("plateau") == 2
            state = mixed.state_dict()
    assert len(found) == 7
    assert {name for name, _, _ in found[2]} == {"easy", "hard"}
    again = fresh()
    again.load_state_dict(state)
    assert list(again) == found[2:]


def test_a_change_to_a_bucket_without_a_stream_is_an_error_and_can_be_mended():
    plan = SCHEDULE.plan({"easy": 5, "hard": 3, "new": 4}, batch_size=4)
    mixed = cs.mix_streams(plan, streams_of({"easy": 5, "hard": 3}), seed=17)
    batches = iter(mixed)
    next(batches)
    mixed.sampler.change_mixture({"easy": 1, "new": 1}, "more is there now")
    with pytest.raises(cs.CurriculumError, match="from bucket 'new', which has no stream"):
        next(batches)
    mended = cs.mix_streams(plan, streams_of({"easy": 5, "hard": 3, "new": 4}), seed=17)
    mended.load_state_dict(mixed.state_dict())
    assert sorted(next(iter(mended))) == [("easy", 0, 4), ("easy", 1, 0), ("new", 0, 0), ("new", 0, 1)]


def numbers(first: int, last: int, kind: str):
    """Partners that keep a position of their own."""
    if kind == "StatefulDataLoader":
        return StatefulDataLoader(range(first, last), batch_size=None)
    node = torchdata.nodes.IterableWrapper(range(first, last))
    return torchdata.nodes.Loader(torchdata.nodes.Prefetcher(node, 2))


@pytest.mark.usefixtures("collected_here")
@pytest.mark.parametrize("kind", ["StatefulDataLoader", "torchdata.nodes"])
@pytest.mark.parametrize("stop", [0, 2, 5, 7])
def test_streams_with_a_state_are_resumed_by_it(kind, stop):
    def fresh():
        streams = {"easy": numbers(0, 7, kind), "hard": numbers(100, 105, kind)}
        return cs.mix_streams(SCHEDULE, streams, seed=17, batch_size=4, resume="state")

    whole = list(cs.mix_streams(SCHEDULE, {"easy": range(7), "hard": range(100, 105)}, seed=17, batch_size=4))
    first, second = fresh(), fresh()
    begun = list(itertools.islice(first, stop))
    second.load_state_dict(first.state_dict())
    assert begun + list(second) == whole
    assert second.skipped == {"easy": 0, "hard": 0}


def test_streams_without_a_state_can_be_refused():
    mixed = cs.mix_streams(SCHEDULE, {"easy": [1], "hard": [2]}, seed=1, batch_size=4, resume="state")
    with pytest.raises(cs.ArgumentError, match=r"'easy' has no state_dict\(\).*resume=\"replay\""):
        next(iter(mixed))


class CountsItself:
    """An iterator with a state, and a fault."""

    def __init__(self, fails_at: int) -> None:
        self.at, self.fails_at = 0, fails_at

    def __iter__(self):
        return self

    def __next__(self):
        if self.at == self.fails_at:
            raise OSError("gone")
        self.at += 1
        return self.at

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


def test_after_a_fault_a_stream_with_a_state_is_not_trusted_until_one_is_loaded():
    only = cs.StageSchedule([cs.Stage("only", {"a": 1}, steps=3)])
    stream = CountsItself(fails_at=3)
    mixed = cs.mix_streams(only, {"a": stream}, seed=1, batch_size=2)
    batches = iter(mixed)
    next(batches)
    state = mixed.state_dict()
    with pytest.raises(OSError, match="gone"):
        next(batches)
    for use in (mixed.state_dict, lambda: list(mixed)):
        with pytest.raises(
            cs.CurriculumError, match=r"ahead of what was delivered. Load the last state saved"
        ):
            use()
    stream.fails_at = -1
    mixed.load_state_dict(state)
    assert list(mixed) == [[3, 4], [5, 6]]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves the files it opened unclosed
def test_webdataset_pipelines_are_streams(tmp_path):
    buckets = {name: [{"__key__": f"{name}{n}", "cls": n} for n in range(6)] for name in ("easy", "hard")}
    manifest = cs.write_shards(str(tmp_path), buckets)
    streams = {
        name: webdataset.DataPipeline(
            webdataset.SimpleShardList([shard.url for shard in manifest.buckets[name]]),
            webdataset.tarfile_to_samples(),
            webdataset.decode(),
            webdataset.map(lambda sample: (sample["__key__"], sample["cls"])),
        )
        for name in buckets
    }
    plan = SCHEDULE.plan(manifest.bucket_sizes, batch_size=4)
    samples = list(itertools.chain(*cs.mix_streams(plan, streams, seed=17)))
    assert [one for one in samples if one[0].startswith("hard")][:7] == [
        (f"hard{n % 6}", n % 6) for n in range(7)
    ]


def test_the_default_is_a_list_and_collate_makes_another_batch():
    only = cs.StageSchedule([cs.Stage("only", {"a": 1}, steps=1)])
    (batch,) = cs.mix_streams(only, {"a": [3]}, seed=1, batch_size=2, collate=torch.tensor)
    assert batch.tolist() == [3, 3]


class InWorkers(torch.utils.data.IterableDataset):
    def __init__(self, mixed):
        self.mixed = mixed

    def __iter__(self):
        return iter(self.mixed)


def test_copies_in_workers_are_refused():
    mixed = cs.mix_streams(SCHEDULE, {"easy": [1], "hard": [2]}, seed=1, batch_size=4)
    with pytest.raises(cs.CurriculumError, match="num_workers=2 DataLoader workers would deliver all"):
        list(torch.utils.data.DataLoader(InWorkers(mixed), batch_size=None, num_workers=2))


PLAN = SCHEDULE.plan({"easy": 5, "hard": 5, "other": 5}, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"plan": PLAN, "batch_size": 4}, "got 4 beside a plan, which has one"),
        ({"plan": SCHEDULE}, "a schedule with batch_size="),
        ({"plan": {"easy": 1}, "batch_size": 4}, "a schedule with batch_size="),
        ({"streams": {"easy": [1]}}, "draws from bucket 'hard', but the streams are easy. Add its stream"),
        ({"streams": {"easy": [1], "hard": [2], "hadr": [3]}}, "'hadr' is of no bucket of the plan"),
        ({"streams": {"easy": 5, "hard": [2]}}, "Stream 'easy': got 5, but a stream is an iterable"),
        ({"resume": "no"}, "resume='no' must be 'replay' or 'state'"),
        ({"world_size": 2}, "with world_size=2 say whether"),
        ({"world_size": 3, "sharded": True}, "divided among world_size=3"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    given = {"plan": PLAN, "streams": {"easy": [1], "hard": [2]}, "seed": 17} | arguments
    with pytest.raises(cs.ArgumentError, match=message):
        cs.mix_streams(**given)


def test_epochs_want_sizes_unless_their_size_is_given():
    stages = [cs.Stage("only", {"a": 1}, epochs=2)]
    with pytest.raises(
        cs.ArgumentError, match="Stage 'only' lasts epochs=2, but the sizes of the streams are not known"
    ):
        cs.mix_streams(cs.StageSchedule(stages), {"a": [1]}, seed=1, batch_size=4)
    told = cs.StageSchedule(stages, epoch_size=8)
    assert len(cs.mix_streams(told, {"a": [1]}, seed=1, batch_size=4)) == 4


@pytest.mark.parametrize("state", [{}, None, {"sampler": {}}])
def test_what_is_no_state_is_refused(state):
    mixed = cs.mix_streams(PLAN, {"easy": [1], "hard": [2]}, seed=17)
    with pytest.raises(cs.StateMismatchError, match="Not a state of mix_streams"):
        mixed.load_state_dict(state)
