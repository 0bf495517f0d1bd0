"""What is coming is told in order of need, early enough, within the budget, and once."""

from __future__ import annotations

import itertools
import pickle
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import curriculum_sampler as cs
from curriculum_sampler import foresight as foresight_module
from curriculum_sampler.ahead import ForeseeingBatches, Progress, check_cache_bytes
from curriculum_sampler.build import write_shards
from curriculum_sampler.errors import ArgumentError
from curriculum_sampler.foreseen import Run
from curriculum_sampler.foresight import Foresight
from curriculum_sampler.manifest import Manifest
from curriculum_sampler.memory_storage import MemoryStorage
from curriculum_sampler.order import Order
from curriculum_sampler.pieces import Piece, pieces_of_run

from .data_fixtures import labelled
from .strategies import BUCKETS, Case, cases

PLENTY = 1 << 40


def runs_drawn(order: Order, start: int, stop: int) -> list[Run]:
    """The runs of some draws, each once, in order of first need."""
    sizes = order.plan.run_sizes
    return list(
        dict.fromkeys((draw.bucket, draw.index // sizes[draw.bucket]) for draw in order.draws(start, stop))
    )


def num_bytes(runs: Iterable[Run], run_bytes: Mapping[str, float]) -> float:
    return sum(run_bytes[bucket] for bucket, _ in runs)


run_bytes = st.fixed_dictionaries({name: st.integers(1, 50) for name in BUCKETS})


@given(cases(), run_bytes, st.data())
def test_from_any_position_the_coming_runs_are_told_in_order_of_need_as_far_as_the_budget_reaches(
    case: Case, run_bytes: dict[str, float], data: st.DataObject
) -> None:
    order = Order(case.plan, case.seed)
    position = data.draw(st.integers(0, case.plan.total_draws))
    budget = data.draw(st.integers(0, 500))
    expected = list[Run]()
    for run in runs_drawn(order, position, case.plan.total_draws):
        if num_bytes([*expected, run], run_bytes) > budget:
            break
        expected.append(run)
    foresight = Foresight(order, position, run_bytes, budget)
    assert foresight.advance(position) == expected
    assert foresight.needed == set(expected)


@given(cases(), run_bytes, st.integers(0, 500), st.integers(0, 3), st.booleans())
def test_whatever_the_budget_no_draw_is_handed_out_before_its_run_was_told(
    case: Case, run_bytes: dict[str, float], more: int, prefetched: int, is_tight: bool
) -> None:
    """Batches are handed out some ahead of what is done with. All that is needed stays."""
    order, B = Order(case.plan, case.seed), case.plan.batch_size
    a_block_each = case.plan.block_runs * sum(run_bytes.values())
    budget = more if is_tight else more + a_block_each
    foresight = Foresight(order, 0, run_bytes, budget)
    for step in range(case.plan.total_steps):
        done, handed_out = max(0, step - prefetched) * B, (step + 1) * B
        coming = foresight.advance(done, handed_out)
        assert len(set(coming)) == len(coming)
        wanted = runs_drawn(order, done, handed_out)
        assert set(wanted) <= foresight.needed
        # The budget gives way to what is handed out, and (if it cannot hold a block of each bucket) to blocks begun.
        room = max(budget, a_block_each) + num_bytes(wanted, run_bytes)
        assert num_bytes(foresight.needed, run_bytes) <= room


@given(cases(), run_bytes, st.integers(0, 500))
def test_what_was_told_stays_needed_until_it_is_drawn(
    case: Case, run_bytes: dict[str, float], budget: int
) -> None:
    order, B = Order(case.plan, case.seed), case.plan.batch_size
    foresight = Foresight(order, 0, run_bytes, budget)
    untouched = set[Run]()
    for step in range(case.plan.total_steps):
        untouched |= set(foresight.advance(step * B, (step + 1) * B))
        assert untouched <= foresight.needed
        untouched -= set(runs_drawn(order, step * B, (step + 1) * B))


class CountingOrder(Order):
    """Knows how many draws were looked at."""

    looked_at = 0

    def draws(self, start: int, stop: int) -> cs.Draws:
        self.looked_at += stop - start
        return super().draws(start, stop)


@given(cases(), run_bytes, st.integers(0, 500), st.integers(1, 40))
def test_each_draw_is_looked_at_once_however_slowly_the_horizon_moves(
    case: Case, run_bytes: dict[str, float], budget: int, look: int
) -> None:
    order, B = CountingOrder(case.plan, case.seed), case.plan.batch_size
    with mock.patch.object(foresight_module, "_STEP_DRAWS", look):
        foresight = Foresight(order, 0, run_bytes, budget)
        for step in range(case.plan.total_steps):
            foresight.advance(step * B, (step + 1) * B)
    assert order.looked_at == case.plan.total_draws


@settings(max_examples=500)  # what goes wrong here does so seldom
@given(cases(), st.just(1.0) | st.floats(1.0, 3.0), st.integers(1, 40))
def test_with_room_for_a_block_of_each_bucket_every_run_is_told_once_a_pass(
    case: Case, blocks: float, look: int
) -> None:
    # It can only be known to be needed again if that is in view.
    with mock.patch.object(foresight_module, "_STEP_DRAWS", longest_gap(Order(case.plan, case.seed)) + look):
        check_told_once_a_pass(case, blocks)


def longest_gap(order: Order) -> int:
    """Most draws between two that need the same run in the same pass."""
    draws, latest, longest = order.draws(0, order.plan.total_draws), dict[tuple[str, int, int], int](), 0
    for number, (draw, in_pass) in enumerate(zip(draws, draws.passes.tolist(), strict=True)):
        run = draw.bucket, draw.index // order.plan.run_sizes[draw.bucket], in_pass
        longest = max(longest, number - latest.get(run, number))
        latest[run] = number
    return longest


def check_told_once_a_pass(case: Case, blocks: float) -> None:
    plan, order = case.plan, Order(case.plan, case.seed)
    sizes = {name: float(size) for name, size in plan.run_sizes.items()}
    budget = int(blocks * sum(plan.block_runs * size for size in sizes.values())) + 1
    foresight = Foresight(order, 0, sizes, budget)
    told = Counter[Run]()
    for step in range(plan.total_steps):
        told.update(foresight.advance(step * plan.batch_size, (step + 1) * plan.batch_size))
    draws = order.draws(0, plan.total_draws)
    drawn = {
        (draw.bucket, draw.index // plan.run_sizes[draw.bucket], bucket_pass)
        for draw, bucket_pass in zip(draws, draws.passes.tolist(), strict=True)
    }
    in_passes = Counter((bucket, run) for bucket, run, _ in drawn)
    assert set(told) == set(in_passes)
    assert not [run for run, count in told.items() if count > in_passes[run]]


def test_a_bucket_smaller_than_the_view_ahead_keeps_to_the_budget_too() -> None:
    """It comes again and again within the draws looked at; only what fits may be needed."""
    plan = cs.StageSchedule([cs.Stage("a", {"x": 1}, steps=200)]).plan(
        {"x": 200}, batch_size=4, run_sizes=2, block_runs=1
    )
    foresight = Foresight(Order(plan, seed=17), 0, {"x": 2}, num_bytes=12)
    for step in range(plan.total_steps):
        foresight.advance(step * 4, step * 4 + 4)
        assert 2 * len(foresight.needed) <= 12 + 4


def test_a_batch_however_large_is_told_before_it_is_handed_out() -> None:
    plan = cs.StageSchedule([cs.Stage("a", {"x": 1}, steps=8)]).plan(
        {"x": 200_000}, batch_size=20_000, run_sizes=100, block_runs=4
    )
    order = Order(plan, seed=17)
    foresight = Foresight(order, 0, {"x": 1}, PLENTY)
    for step in range(8):
        foresight.advance(step * 20_000, (step + 1) * 20_000)
        assert set(runs_drawn(order, step * 20_000, (step + 1) * 20_000)) <= foresight.needed


class Shelf:
    """A reader that remembers what it was told to keep."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.needed = set[Run]()

    def trim_cache(self, needed: Iterable[Run], run_sizes: Mapping[str, int]) -> None:
        self.needed = set(needed)


def shelf(easy: int = 200, hard: int = 200) -> Shelf:
    return Shelf(
        write_shards(MemoryStorage(), {"easy": labelled(easy), "hard": labelled(hard)}, samples_per_shard=30)
    )


EASY_THEN_HARD = cs.StageSchedule(
    [cs.Stage("easy", {"easy": 1}, steps=40), cs.Stage("hard", {"easy": 1, "hard": 3}, steps=40)]
)


def sampler_of(
    shelf: Shelf, rank: int = 0, world_size: int = 1, grad_accumulation: int = 1
) -> cs.MixtureSampler:
    plan = EASY_THEN_HARD.plan(shelf.manifest.bucket_sizes, batch_size=8, run_sizes=10, block_runs=2)
    return cs.MixtureSampler(plan, 17, rank, world_size, grad_accumulation)


@pytest.mark.parametrize(("world_size", "grad_accumulation"), [(1, 1), (2, 1), (1, 4), (2, 2)])
def test_batches_stay_as_they_are_and_tell_eight_runs_at_most(
    world_size: int, grad_accumulation: int
) -> None:
    reader = shelf()
    split = (0, world_size, grad_accumulation)
    progress = Progress()
    plain = sampler_of(reader, *split)
    for batch in ForeseeingBatches(sampler_of(reader, *split), reader, None, progress):
        expected = next(iter(plain))
        assert batch == expected
        assert batch.passes.tolist() == expected.passes.tolist()
        assert batch.seed == expected.seed == 17
        assert len(batch.coming) <= 8
        progress.delivered += 1
    assert len(plain) == 0


def test_the_new_buckets_first_runs_are_told_before_a_planned_switch() -> None:
    reader, progress = shelf(), Progress()
    told = list[Run]()
    for step, batch in enumerate(ForeseeingBatches(sampler_of(reader), reader, None, progress)):
        if step == 40:
            break
        told += batch.coming
        progress.delivered += 1
    order = Order(sampler_of(reader).plan, 17)
    first_needed = [run for run in runs_drawn(order, 40 * 8, 44 * 8) if run[0] == "hard"]
    assert first_needed
    assert set(first_needed) <= set(told)


@pytest.mark.parametrize("prefetched", [0, 3])
def test_a_change_at_run_time_is_foreseen_from_the_next_batch_on(prefetched: int) -> None:
    reader, progress = shelf(), Progress()
    sampler = sampler_of(reader)
    batches = iter(ForeseeingBatches(sampler, reader, None, progress))
    for _ in range(10):
        next(batches)
    progress.delivered = 10 - prefetched
    begins = sampler.advance("plateau")
    assert begins == 10
    told = set[Run]()
    for step, batch in enumerate(batches, start=10):
        told |= set(batch.coming)
        assert {bucket for bucket, _ in batch} <= set(batch.run_sizes)
        if step == 10:
            assert [run for run in batch.coming if run[0] == "hard"]
        if step == 30:
            sampler.change_mixture({"hard": 1}, "easy is easy")
        if step == 40:
            # Of the bucket that is drawn no more only what batches in flight may want is kept.
            assert not [run for run in reader.needed if run[0] == "easy"]
        progress.delivered += 1
    assert {bucket for bucket, _ in told} == {"easy", "hard"}


def test_a_batch_of_64_travels_in_a_few_hundred_bytes() -> None:
    reader = shelf()
    plan = EASY_THEN_HARD.plan(reader.manifest.bucket_sizes, batch_size=64, run_sizes=10, block_runs=4)
    for batch in ForeseeingBatches(cs.MixtureSampler(plan, 17), reader, None, Progress()):
        travelled = pickle.dumps(batch)
        assert len(travelled) < 900
        copy = pickle.loads(travelled)
        assert copy == batch
        assert copy.coming == batch.coming
        assert all(copy.run_sizes[bucket] == 10 for bucket in {*copy.counts(), *dict(copy.coming)})


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 100_000),
)
def test_a_cache_that_is_too_small_is_refused_with_block_runs_that_fit(
    easy: int, hard: int, run_size: int, block_runs: int, cache_bytes: int
) -> None:
    manifest = shelf(easy, hard).manifest

    def planned(**options: int) -> cs.Plan:
        return EASY_THEN_HARD.plan(manifest.bucket_sizes, batch_size=8, run_sizes=run_size, **options)

    default = check_cache_bytes(planned(block_runs=block_runs), manifest, None)
    assert check_cache_bytes(planned(block_runs=block_runs), manifest, default) == default
    try:
        assert check_cache_bytes(planned(block_runs=block_runs), manifest, cache_bytes) == cache_bytes
    except ArgumentError as refusal:
        error = refusal
    else:
        return
    needed, fitting = (
        re.search(r"together (\d+) bytes", str(error)),
        re.search(r"'block_runs': (\d+)", str(error)),
    )
    assert needed
    assert cache_bytes < int(needed[1])
    check_cache_bytes(planned(block_runs=block_runs), manifest, int(needed[1]))
    if fitting:
        check_cache_bytes(planned(block_runs=int(fitting[1])), manifest, cache_bytes)
    else:
        assert "smaller runs" in str(error)
        with pytest.raises(ArgumentError):
            check_cache_bytes(planned(block_runs=1), manifest, cache_bytes)


@given(st.integers(1, 70), st.integers(1, 30), st.integers(1, 80))
def test_the_pieces_of_all_runs_cover_each_sample_once_and_lie_in_one_shard_each(
    size: int, samples_per_shard: int, run_size: int
) -> None:
    manifest = write_shards(MemoryStorage(), {"easy": labelled(size)}, samples_per_shard=samples_per_shard)
    covered, keys = list[int](), list[str]()
    for run in range(-(-size // run_size)):
        pieces = pieces_of_run(manifest, "easy", run, run_size)
        of_run = [sample for piece in pieces for sample in samples_of(manifest, piece)]
        assert of_run == list(range(run * run_size, min(size, (run + 1) * run_size)))
        assert len({piece.number for piece in pieces}) == len(pieces)
        covered += of_run
        keys += [piece.key for piece in pieces]
    assert covered == list(range(size))
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch("[0-9a-f]{40}", key) for key in keys)


def samples_of(manifest: Manifest, piece: Piece) -> range:
    start = manifest.shard_start(piece.bucket, piece.number)
    assert 0 <= piece.first < piece.stop <= manifest.buckets[piece.bucket][piece.number].shard.samples
    return range(start + piece.first, start + piece.stop)


def keys_of(name: str, *, first: int = 0, run_size: int = 10) -> set[str]:
    manifest = write_shards(MemoryStorage(name), {"easy": labelled(20, first)}, samples_per_shard=20)
    return {
        piece.key for run in range(20 // run_size) for piece in pieces_of_run(manifest, "easy", run, run_size)
    }


def test_a_key_stands_for_one_place_one_content_and_one_range() -> None:
    here, again = keys_of("here"), keys_of("here")
    assert here == again
    assert len(here) == 2
    for other in (
        keys_of("elsewhere"),
        keys_of("here", first=1),
        keys_of("here", run_size=5),
        keys_of("here", run_size=20),
        keys_of("../../etc/passwd"),
    ):
        assert not here & other
    for key in itertools.chain(here, keys_of("../../etc/passwd")):
        assert re.fullmatch("[0-9a-f]{40}", key)
