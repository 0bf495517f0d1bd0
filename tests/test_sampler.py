"""The sampler's state: what it binds, what it lets go, and changes at run time."""

from __future__ import annotations

import json
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import curriculum_sampler as cs
from curriculum_sampler.testing import check_exact

from .strategies import Case, all_draws, cases, mixtures, seeds

SCHEDULE = cs.StageSchedule(
    [
        cs.Stage("easy", {"easy": 1}, steps=10, lr=1.0),
        cs.Stage("medium", {"easy": 3, "medium": 7}, steps=10, lr=0.5),
        cs.Stage("hard", {"easy": 1, "medium": 1, "hard": 2}, steps=10, lr=0.2),
    ]
)
SIZES = {"easy": 50, "medium": 40, "hard": 30}


def at_step(
    step: int, schedule: cs.StageSchedule = SCHEDULE, sizes: dict[str, int] = SIZES, **options
) -> dict:
    plan = schedule.plan(sizes, options.pop("batch_size", 8), **options)
    return cs.MixtureSampler(plan, 17).state_dict(step=step)


def load(
    state: dict,
    schedule: cs.StageSchedule = SCHEDULE,
    sizes: dict[str, int] = SIZES,
    seed: int = 17,
    **options,
):
    sampler = cs.MixtureSampler(schedule.plan(sizes, options.pop("batch_size", 8), **options), seed)
    sampler.load_state_dict(state)
    return sampler


def replace(position: int, **changes) -> cs.StageSchedule:
    stages = [stage.to_dict() for stage in SCHEDULE.stages]
    stages[position] |= changes
    return cs.StageSchedule.from_dict({"stages": stages})


class Life(RuleBasedStateMachine):
    """A run that steps, saves, is killed, changes its number of ranks and its plan, and never leaves its stream."""

    @initialize(case=cases())
    def begin(self, case: Case) -> None:
        self.case, self.plan, self.step, self.log = case, case.plan, 0, ()
        self.handed_out: list[list[cs.Draw]] = []
        self._restart(case.world_size, case.grad_accumulation, None)
        self.saved = (self.ranks[0].state_dict(), 0)

    def _restart(self, world_size: int, accumulation: int, state: dict | None) -> None:
        self.accumulation = accumulation
        self.ranks = [
            cs.MixtureSampler(self.case.plan, self.case.seed, r, world_size, accumulation)
            for r in range(world_size)
        ]
        for rank in self.ranks:
            if state is not None:
                rank.load_state_dict(state)
        self.iterators = [iter(rank) for rank in self.ranks]

    @precondition(lambda self: self.step < self.ranks[0].plan.total_steps)
    @rule()
    def train_a_step(self) -> None:
        parts = [next(it) for _ in range(self.accumulation) for it in self.iterators]
        self.handed_out[self.step :] = [[draw for part in parts for draw in part]]
        self.step += 1

    @rule()
    def save(self) -> None:
        states = [json.loads(json.dumps(rank.state_dict())) for rank in self.ranks]
        assert all(state == states[0] for state in states), "ranks agree on the state"
        self.saved = (states[0], self.step)

    @rule(data=st.data())
    def be_killed_and_restart_on_other_ranks(self, data: st.DataObject) -> None:
        size = self.case.plan.batch_size
        world_size = data.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        rest = size // world_size
        accumulation = data.draw(st.sampled_from([n for n in range(1, rest + 1) if rest % n == 0]))
        state, self.step = self.saved
        self._restart(world_size, accumulation, state)
        del self.handed_out[self.step :]

    @precondition(lambda self: self.step > 0)
    @rule()
    def advance(self) -> None:
        effective = {rank.advance("plateau") for rank in self.ranks}
        assert len(effective) == 1
        assert effective.pop() >= self.step
        self.save()

    @precondition(lambda self: self.step > 0)
    @rule(weights=mixtures())
    def change_the_mixture(self, weights: dict[str, float]) -> None:
        assert len({rank.change_mixture(weights, "metric") for rank in self.ranks}) == 1
        self.save()

    @rule(by=st.integers(0, 20), bucket=st.sampled_from("abc"))
    def let_data_grow(self, by: int, bucket: str) -> None:
        now = self.ranks[0].plan.eras(bucket)[-1].size
        for rank in self.ranks:
            rank.grow({bucket: now + by}, "appended")
        self.save()

    @invariant()
    def what_was_handed_out_is_what_the_log_replays(self) -> None:
        if not hasattr(self, "case"):
            return
        replay = cs.MixtureSampler(self.case.plan, self.case.seed)
        replay.load_state_dict(
            self.ranks[0].state_dict(step=0) if not self.ranks[0].log else self.ranks[0].state_dict()
        )
        for step in range(max(0, self.step - 3), self.step):
            assert list(replay.draws(step=step)) == self.handed_out[step]

    def teardown(self) -> None:
        if not hasattr(self, "case"):
            return
        sampler = self.ranks[0]
        drawn = all_draws(sampler)
        check_exact((sampler.draws(step=step) for step in range(sampler.plan.total_steps)), sampler.plan)
        streams: dict[str, list[int]] = {}
        for draw in drawn:
            streams.setdefault(draw.bucket, []).append(draw.index)
        for bucket, stream in streams.items():
            eras = sampler.plan.eras(bucket)
            for era, end in zip(eras, [*(e.first_ordinal for e in eras[1:]), len(stream)], strict=True):
                for start in range(era.first_ordinal, min(end, len(stream)), era.size):
                    one_pass = stream[start : min(start + era.size, end)]
                    assert len(set(one_pass)) == len(one_pass)
                    assert all(index < era.size for index in one_pass)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=15)


@given(cases(), st.integers(0, 40))
def test_a_state_is_small_plain_json_and_fresh_each_time(case, step):
    sampler = case.sampler()
    state = sampler.state_dict(step=min(step, case.plan.total_steps))
    assert json.loads(json.dumps(state)) == state
    state["plan"]["bucket_sizes"]["a"] = 99
    assert sampler.state_dict()["plan"]["bucket_sizes"]["a"] == case.plan.bucket_sizes["a"]


def test_the_callers_state_is_left_alone():
    state = at_step(15)
    copy = json.loads(json.dumps(state))
    load(state)
    assert state == copy


def test_a_state_inside_an_accumulation_names_that_steps_start():
    sampler = cs.MixtureSampler(SCHEDULE.plan(SIZES, 8), 17, grad_accumulation=4)
    iterator = iter(sampler)
    for _ in range(6):
        next(iterator)
    assert sampler.state_dict()["draws"] == 8
    assert sampler.step == 1
    assert len(sampler) == 30 * 4 - 6


def test_loading_late_moves_the_iterator_already_made():
    sampler = cs.MixtureSampler(SCHEDULE.plan(SIZES, 8), 17)
    iterator = iter(sampler)
    next(iterator)
    sampler.load_state_dict(at_step(20))
    assert next(iterator) == sampler.draws(step=20)


@pytest.mark.parametrize("step", [9, 10, 11, 25, 30])
def test_later_stages_and_the_end_of_the_current_one_may_be_edited(step):
    stage = min(step, 29) // 10 if step % 10 else step // 10 - 1
    state = at_step(step)
    for later in range(stage + 1, 3):
        assert load(state, replace(later, mixture={"hard": 1}, steps=7)).step == step
    assert load(state, replace(stage, steps=25)).step == step
    appended = cs.StageSchedule([*SCHEDULE.stages, cs.Stage("more", {"hard": 1}, steps=5)])
    assert len(load(state, appended)) == 35 - step
    assert load(state, cs.StageSchedule(SCHEDULE.stages[: stage + 1])).step == step


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 18}, "made with seed 17, this sampler has seed 18. Use seed=17"),
        (
            {"batch_size": 16},
            r"made with batch_size 8, this plan has 16.*explicit window and stages in samples",
        ),
        ({"window": 4}, "made with window 8, this plan has 4"),
        ({"run_sizes": 5}, r"made with run sizes.*plan with run_sizes=manifest.run_sizes"),
        ({"block_runs": 5}, "made with block_runs 32, this plan has 5"),
        (
            {"sizes": SIZES | {"easy": 51}},
            r"made with bucket sizes \{'easy': 50, 'medium': 40\}, this plan has",
        ),
        (
            {"schedule": replace(0, mixture={"medium": 1})},
            r"so far the curriculum was \(easy 1\) from draw 0; .* and here it is \(medium 1\)",
        ),
        (
            {"schedule": replace(0, steps=9)},
            r"\(easy 3/10, medium 7/10\) from draw 80, and here .* from draw 72",
        ),
        ({"schedule": replace(1, mixture={"easy": 1, "medium": 1})}, "What was drawn is fixed"),
        ({"schedule": replace(1, ramp=3)}, "What was drawn is fixed"),
        (
            {"schedule": cs.StageSchedule(SCHEDULE.stages[:1])},
            "is at step 15, beyond this plan's end at 10",
        ),
        (
            {"schedule": cs.StageSchedule([SCHEDULE.stages[0], replace(1, steps=3).stages[1]])},
            "beyond this plan's end at 13",
        ),
    ],
)
def test_a_state_that_cannot_be_honoured_is_refused_and_nothing_changes(changes, message):
    sampler_options = {"schedule": SCHEDULE, "sizes": SIZES, "seed": 17, "batch_size": 8} | changes
    schedule, sizes, seed = (sampler_options.pop(key) for key in ("schedule", "sizes", "seed"))
    sampler = cs.MixtureSampler(
        schedule.plan(sizes, sampler_options.pop("batch_size"), **sampler_options), seed
    )
    with pytest.raises(cs.StateMismatchError, match=message):
        sampler.load_state_dict(at_step(15))
    assert sampler.step == 0


def test_a_state_inside_a_partial_window_binds_the_end_of_its_stage():
    """Nine steps fill three windows of 24; the tenth keeps the raw order, which a later end would shuffle."""
    assert load(at_step(9, window=24), replace(0, steps=12), window=24).step == 9
    with pytest.raises(
        cs.StateMismatchError, match=r"from draw 0 to draw 80, and here it is \(easy 1\) from draw 0"
    ):
        load(at_step(10, window=24), replace(0, steps=12), window=24)
    first = SCHEDULE.plan(SIZES, 8).segments[0]
    assert (first.raw_from(24), first.raw_from(8)) == (72, 80)
    ramp = replace(1, ramp=5).plan(SIZES, 8).segments[1]
    assert ramp.raw_from(24) == ramp.stop == 120, "in a ramp windows begin anew with every step"


def test_sizes_of_buckets_not_yet_entered_are_free():
    assert load(at_step(15), sizes=SIZES | {"hard": 7}).step == 15


def test_the_batch_size_may_change_where_no_draw_depends_on_it():
    schedule = cs.StageSchedule(
        [cs.Stage("a", {"easy": 1}, samples=160), cs.Stage("b", {"easy": 1, "hard": 1}, samples=320)]
    )
    state = at_step(24, schedule, batch_size=8, window=8)
    sampler = load(state, schedule, batch_size=16, window=8)
    small = cs.MixtureSampler(schedule.plan(SIZES, 8, window=8), 17)
    assert list(next(iter(sampler))) == [*small.draws(step=24), *small.draws(step=25)]
    with pytest.raises(cs.StateMismatchError, match="draw 200, which is no multiple of batch_size=16"):
        load(at_step(25, schedule, batch_size=8, window=8), schedule, batch_size=16, window=8)


def test_a_damaged_or_foreign_state_is_refused():
    good = at_step(15)
    for state, message in (
        ({}, "Not a sampler state"),
        (good | {"format": 2}, "format 2, this version reads format 1"),
        ({key: value for key, value in good.items() if key != "log"}, "lacks log"),
        (good | {"order_version": 0}, "order version 0"),
        (good | {"draws": good["draws"] + 8}, "altered after it was made"),
    ):
        with pytest.raises(cs.StateMismatchError, match=message):
            load(state)


def test_other_content_of_an_entered_bucket_is_refused():
    def sampler(**data: str) -> cs.MixtureSampler:
        return cs.MixtureSampler(SCHEDULE.plan(SIZES, 8), 17, data_fingerprints=data)

    state = sampler(easy="1", medium="2", hard="3").state_dict(step=15)
    sampler(easy="1", medium="2", hard="other").load_state_dict(state)
    with pytest.raises(
        cs.StateMismatchError, match="bucket 'medium' holds other samples: its content was 2 and is x here"
    ):
        sampler(easy="1", medium="x", hard="3").load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "world_size": 2}, "rank: got 2 with world_size=2"),
        ({"rank": -1}, "rank: got -1"),
        ({"world_size": 0}, "world_size: got 0"),
        (
            {"grad_accumulation": 3},
            "world_size=1 x grad_accumulation=3 = 3 micro-batches. Choose a multiple of 3, for example 9",
        ),
        ({"seed": "17"}, "seed: got '17'"),
        ({"seed": 1.0}, "seed: got 1.0"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(cs.ArgumentError, match=message):
        cs.MixtureSampler(SCHEDULE.plan(SIZES, 8), **({"seed": 17} | options))


def test_advancing_ends_the_stage_at_the_next_window_edge_and_is_replayed():
    sampler = cs.MixtureSampler(SCHEDULE.plan(SIZES, 8, window=24), 17)
    with pytest.raises(cs.ArgumentError, match="Nothing was drawn yet"):
        sampler.advance("plateau")
    iterator = iter(sampler)
    for _ in range(4):
        next(iterator)
    assert sampler.advance("plateau") == 6
    assert sampler.plan.boundaries == (0, 6, 16, 26)
    assert sampler.log == ((48, {"advance": "easy"}, "plateau"),)
    replay = load(sampler.state_dict(), window=24)
    assert [list(a) for a in replay] == [list(b) for b in iterator]


def test_advancing_where_the_stage_ends_anyway_logs_nothing():
    sampler = cs.MixtureSampler(SCHEDULE.plan(SIZES, 8), 17)
    sampler.seek(10)
    assert sampler.advance("plateau") == 10
    assert sampler.log == ()
    wide = cs.MixtureSampler(SCHEDULE.plan(SIZES, 8, window=24), 17)
    wide.seek(10)
    assert wide.advance("plateau") == 10, "not the edge beyond the stage's end"
    assert wide.log == ()
    sampler.seek(5)
    with pytest.raises(cs.ArgumentError, match="Give a reason"):
        sampler.advance("")


def test_advancing_a_named_stage_twice_ends_it_once():
    sampler = cs.MixtureSampler(SCHEDULE.plan(SIZES, 8), 17)
    sampler.seek(5)
    assert sampler.advance("plateau", stage="easy") == 5
    sampler.seek(7)
    assert sampler.advance("plateau", stage="easy") == 5
    assert sampler.plan.boundaries == (0, 5, 15, 25)
    with pytest.raises(cs.ArgumentError, match="stage: got 'hard', but the stages begun are easy, medium"):
        sampler.advance("plateau", stage="hard")


def test_a_logged_end_of_a_stage_that_has_not_begun_by_then_is_void():
    sampler = cs.MixtureSampler(SCHEDULE.plan(SIZES, 8, window=40), 17)
    sampler.seek(11)
    assert sampler.advance("plateau") == 15
    sooner = sampler.state_dict(step=3)
    assert load(sooner, replace(0, steps=20), window=40).plan.boundaries == (0, 20, 30, 40)


def test_positions_beyond_the_plan_are_refused():
    sampler = cs.MixtureSampler(SCHEDULE.plan(SIZES, 8), 17)
    for call in (lambda: sampler.state_dict(step=31), lambda: sampler.seek(31), lambda: sampler.seek(-1)):
        with pytest.raises(cs.ArgumentError, match="from 0 to 30"):
            call()


@pytest.mark.parametrize("step", [np.int64(29), np.uint8(29), 29])
def test_steps_may_be_numpy_integers(step):
    sampler = cs.MixtureSampler(SCHEDULE.plan(SIZES, np.int32(8)), np.int64(17))
    assert sampler.draws(step=step) == cs.MixtureSampler(SCHEDULE.plan(SIZES, 8), 17).draws(step=29)
    assert json.dumps(sampler.state_dict(step=step))
    assert type(sampler.plan.at(step).stage_step) is int


@pytest.mark.parametrize("step", ["3", None, 1.0, True])
def test_other_steps_are_refused(step):
    sampler = cs.MixtureSampler(SCHEDULE.plan(SIZES, 8), 17)
    for call in (sampler.draws, sampler.plan.at):
        with pytest.raises(cs.ArgumentError, match="step: got"):
            call(step=step)


def test_a_change_of_mixture_names_known_buckets():
    sampler = cs.MixtureSampler(SCHEDULE.plan(SIZES, 8), 17)
    sampler.seek(5)
    assert sampler.change_mixture({"hard": 1}, "metric") == 5
    assert sampler.plan.at(step=5).mixture == {"hard": 1.0}
    assert sampler.plan.at(step=4).mixture == {"easy": 1.0}
    with pytest.raises(cs.ArgumentError, match="bucket 'hrd' is absent or empty"):
        sampler.change_mixture({"hrd": 1}, "metric")
    with pytest.raises(cs.ArgumentError, match="may only grow"):
        sampler.grow({"hard": 3}, "appended")
    with pytest.raises(cs.ArgumentError, match="size of bucket 'hard'"):
        sampler.grow({"hard": 10**30}, "appended")
    before = sampler.log
    sampler.grow({"hard": 30}, "nothing new")
    assert sampler.log == before


def test_grown_data_joins_at_the_next_pass_and_the_old_state_loads_into_the_larger_data():
    sampler = cs.MixtureSampler(SCHEDULE.plan(SIZES, 8), 17)
    sampler.seek(3)
    untouched = [draw for step in range(7) for draw in sampler.draws(step=step)][:50]
    sampler.grow({"easy": 60}, "appended a shard")
    stream = [draw.index for step in range(10) for draw in sampler.draws(step=step)]
    assert stream[:50] == [draw.index for draw in untouched]
    assert len(set(stream[50:])) == 30
    later = load(sampler.state_dict(), sizes=SIZES | {"easy": 60})
    assert [later.draws(step=9)] == [sampler.draws(step=9)]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), seeds)
def test_labels_name_the_bucket_of_each_dataset_index(labels, seed):
    schedule = cs.StageSchedule([cs.Stage("only", dict.fromkeys(labels, 1), epochs=2)])
    sampler = cs.MixtureSampler.from_labels(schedule, labels, batch_size=4, seed=seed)
    assert sampler.labels.tolist() == labels
    for step, batch in enumerate(sampler):
        assert all(type(index) is int for index in batch)
        assert [draw.index for draw in sampler.draws(step=step)] == batch
        assert [draw.bucket for draw in sampler.draws(step=step)] == [labels[index] for index in batch]


@given(st.lists(st.floats(-1e6, 1e6), min_size=10, max_size=200), st.permutations(["x", "y", "z"]))
def test_scores_are_cut_by_rank_with_the_easiest_bucket_first(scores, names):
    shares = dict(zip(names, (0.4, 0.35, 0.25), strict=True))
    schedule = cs.StageSchedule([cs.Stage(name, {name: 1}, epochs=1) for name in names])
    sampler = cs.MixtureSampler.from_scores(schedule, scores, shares, batch_size=1, seed=17)
    assert sum(sampler.plan.bucket_sizes.values()) == len(scores)
    for name, share in shares.items():
        assert abs(sampler.plan.bucket_sizes[name] - share * len(scores)) <= 1
    cut = [
        [scores[batch[0]] for _, batch in zip(range(sampler.plan.bucket_sizes[n]), sampler, strict=False)]
        for n in names
    ]
    assert max(cut[0]) <= min(cut[1])
    assert max(cut[1]) <= min(cut[2])
    assert Counter(sampler.labels.tolist()) == sampler.plan.bucket_sizes
    for score, label in zip(scores, sampler.labels, strict=True):
        assert min(cut[names.index(label)]) <= score <= max(cut[names.index(label)])


def test_bad_labels_and_scores_are_refused():
    schedule = cs.StageSchedule([cs.Stage("only", {"a": 1}, steps=1)])
    options = {"batch_size": 1, "seed": 17}
    with pytest.raises(cs.ArgumentError, match=r"labels\[1\]: got 3"):
        cs.MixtureSampler.from_labels(schedule, ["a", 3], **options)
    with pytest.raises(cs.ArgumentError, match=r"scores\[2\]: got nan, and 1 of 3"):
        cs.MixtureSampler.from_scores(schedule, [1, 2, np.nan], {"a": 1}, **options)
    with pytest.raises(cs.ArgumentError, match="got shape"):
        cs.MixtureSampler.from_scores(schedule, [[1, 2]], {"a": 1}, **options)
    with pytest.raises(cs.ArgumentError, match="not a column of numbers"):
        cs.MixtureSampler.from_scores(schedule, ["easy"], {"a": 1}, **options)
    with pytest.raises(cs.ArgumentError, match="positive shares"):
        cs.MixtureSampler.from_scores(schedule, [1, 2], {"a": 0}, **options)
    with pytest.raises(cs.ArgumentError, match=r"'b' with share 0\.001 would be empty"):
        cs.MixtureSampler.from_scores(schedule, [1, 2], {"a": 1, "b": 0.001}, **options)


def test_a_dataset_of_fixed_samples_does_not_grow():
    sampler = cs.MixtureSampler.from_labels(SCHEDULE, ["easy", "medium", "hard"], batch_size=4, seed=1)
    with pytest.raises(cs.ArgumentError, match="made from labels or scores"):
        sampler.grow({"easy": 9}, "more")


def test_the_largest_windows_do_not_overflow():
    schedule = cs.StageSchedule([cs.Stage("a", {"x": 1 - 1e-12, "y": 1e-12}, steps=10**9)])
    plan = schedule.plan({"x": 10**12, "y": 10**12}, 2**20, window=2**20 - 5)
    assert len(cs.MixtureSampler(plan, 17).draws(step=10**8 + 3)) == 2**20
    with pytest.raises(cs.ArgumentError, match="batch_size: got"):
        schedule.plan({"x": 9, "y": 9}, 2**20 + 1)
    with pytest.raises(cs.ArgumentError, match=r"draws, but 2\*\*62 are the most"):
        schedule.scaled(10**9).plan({"x": 9, "y": 9}, 2**20)


def test_a_batch_of_draws_is_a_read_only_sequence_that_travels_light():
    batch = cs.MixtureSampler(SCHEDULE.plan(SIZES, 64), 17).draws(step=20)
    assert len(pickle.dumps(batch)) < 500
    assert pickle.loads(pickle.dumps(batch)) == batch == list(batch)
    assert batch[3] == list(batch)[3] == batch[3:5][0]
    assert isinstance(batch[0], cs.Draw)
    assert batch.buckets.tolist() == [draw.bucket for draw in batch]
    labelled = cs.MixtureSampler.from_labels(
        SCHEDULE, ["easy", "medium", "hard"], batch_size=4, seed=1
    ).draws(step=0)
    for array in (
        batch.indices,
        batch.buckets,
        batch.passes,
        labelled.indices,
        pickle.loads(pickle.dumps(batch)).indices,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]
