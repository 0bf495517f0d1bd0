"""torchdata's StatefulDataLoader and nodes over our sampler: the same batches, resumed exactly at every one."""

from __future__ import annotations

import itertools

import pytest
import torchdata.nodes as nodes
from torch.utils.data import default_collate
from torchdata.stateful_dataloader import StatefulDataLoader

import curriculum_sampler as cs
from curriculum_sampler.integrations.torchdata import CurriculumNode, StatefulLoader

# What torchdata 0.11 calls is deprecated in torch.
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")

SCHEDULE = cs.StageSchedule(
    [cs.Stage("easy", {"easy": 1}, steps=4), cs.Stage("hard", {"easy": 1, "hard": 2}, steps=6)]
)
STEPS = 10


class Named:
    """A map-style dataset that says what it was asked for."""

    def __getitem__(self, draw):
        return f"{draw.bucket}:{draw.index}"


class Stateful(Named):
    def state_dict(self):
        return {"some": 1}

    def load_state_dict(self, state):
        pass


def sampler_of(**options):
    return cs.MixtureSampler(SCHEDULE.plan({"easy": 9, "hard": 7}, batch_size=6), 17, **options)


def fresh(kind, num_workers=0, dataset=None, sampler=None, **options):
    return kind(
        dataset or Named(),
        batch_sampler=sampler or sampler_of(),
        num_workers=num_workers,
        collate_fn=list,
        **options,
    )


def expected(sampler=None):
    sampler = sampler or sampler_of()
    return [[f"{draw.bucket}:{draw.index}" for draw in batch] for batch in sampler]


kinds = pytest.mark.parametrize("kind", [StatefulDataLoader, StatefulLoader])


@kinds
@pytest.mark.parametrize("stop", range(STEPS + 1))
def test_it_resumes_after_every_batch(kind, stop):
    first = fresh(kind)
    found = list(itertools.islice(first, stop))
    second = fresh(kind)
    second.load_state_dict(first.state_dict())
    assert found + list(second) == expected()


@kinds
@pytest.mark.parametrize("stops", [(0, 0), (1, 2), (3, 1), (4, 6), (8, 1)])
def test_it_resumes_twice_with_workers_whose_batches_were_made_ahead(kind, stops):
    """At the first and the last batch, at the boundary and over it."""
    found, state = [], None
    for stop in (*stops, None):
        loader = fresh(kind, num_workers=2)
        if state is not None:
            loader.load_state_dict(state)
        batches = iter(loader)
        found += itertools.islice(batches, stop)
        state = loader.state_dict()
    assert found == expected()
    again = fresh(kind, num_workers=2)
    again.load_state_dict(state)
    assert list(again) == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_change_at_run_time_is_in_the_next_state(num_workers):
    first = fresh(StatefulLoader, num_workers)
    batches = iter(first)
    found = [next(batches), next(batches)]
    first.batch_sampler.advance("plateau", stage="easy")
    state = first.state_dict()
    rest = list(batches)
    second = fresh(StatefulLoader, num_workers)
    second.load_state_dict(state)
    assert list(second) == rest
    changed = sampler_of()
    changed.load_state_dict(first.batch_sampler.state_dict())
    changed.seek(0)
    assert found + rest == expected(changed)
    assert (len(rest) < STEPS - 2) == (num_workers == 0), "the workers were asked for the rest of the stage"


def test_a_later_change_is_known_although_the_batches_on_their_way_are_older():
    """A long first stage, so that the change falls into it with workers, too."""
    long = cs.StageSchedule([cs.Stage("easy", {"easy": 1}, steps=20), cs.Stage("hard", {"hard": 1}, steps=2)])
    plan = long.plan({"easy": 9, "hard": 7}, batch_size=6)

    def loader(kind):
        return fresh(kind, 2, sampler=cs.MixtureSampler(plan, 17))

    for kind, knows in ((StatefulLoader, True), (StatefulDataLoader, False)):
        first = loader(kind)
        batches = iter(first)
        next(batches)
        assert first.batch_sampler.advance("plateau") == 5
        state = first.state_dict()
        rest = list(batches)
        assert len(rest) == 6
        second = loader(kind)
        second.load_state_dict(state)
        assert (list(second) == rest) is knows


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (2, 1)])
@pytest.mark.parametrize("every", [1, 3])
def test_another_number_of_workers_continues_too(before, after, every):
    first = fresh(StatefulLoader, before, snapshot_every_n_steps=every)
    found = list(itertools.islice(first, 5))
    second = fresh(StatefulLoader, after)
    second.load_state_dict(first.state_dict())
    assert found + list(second) == expected()


def test_the_plain_loader_says_nothing_about_another_number_of_workers():
    """What our page says of torchdata: when this fails, the page can say less."""
    first = fresh(StatefulDataLoader, 2)
    next(iter(first))
    second = fresh(StatefulDataLoader, 1)
    second.load_state_dict(first.state_dict())
    message = None
    try:
        iter(second)
    except (
        AssertionError
    ) as error:  # not kept, as pytest.raises would: its frames hold workers that are waited for
        message = str(error)
    assert message == ""


def test_another_number_of_workers_is_refused_to_a_dataset_with_a_state():
    first = fresh(StatefulLoader, 2, Stateful())
    list(first)
    second = fresh(StatefulLoader, 0, Stateful())
    with pytest.raises(cs.StateMismatchError, match="num_workers=2, this loader has 0, and the dataset"):
        second.load_state_dict(first.state_dict())


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_iterating_again_continues_after_what_was_returned(num_workers, persistent):
    loader = fresh(StatefulLoader, num_workers, persistent_workers=persistent and num_workers > 0)
    assert [next(iter(loader)) for _ in range(3)] + list(loader) == expected()
    assert list(loader) == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_state_that_is_loaded_into_a_loop_ends_it(num_workers):
    """The plain loader's loop goes on as if nothing had been loaded."""
    loader = fresh(StatefulLoader, num_workers)
    batches = iter(loader)
    found = [next(batches), next(batches)]
    loader.load_state_dict(loader.state_dict())
    with pytest.raises(cs.CurriculumError, match="This iteration is over"):
        next(batches)
    second = iter(loader)
    found.append(next(second))
    third = iter(loader)
    with pytest.raises(cs.CurriculumError, match="This iteration is over"):
        next(second)
    assert found + list(third) == expected()


def test_within_an_accumulation_a_state_names_the_steps_start():
    def loader():
        return fresh(StatefulLoader, 2, sampler=sampler_of(grad_accumulation=2))

    first = loader()
    found = list(itertools.islice(first, 5))
    second = loader()
    second.load_state_dict(first.state_dict())
    assert found[:4] + list(second) == expected(sampler_of(grad_accumulation=2))


def test_the_samplers_own_state_is_enough_for_the_order():
    """With any loader, workers and ranks."""
    first = fresh(StatefulDataLoader, 2)
    found = list(itertools.islice(first, 3))
    sampler = sampler_of()
    sampler.load_state_dict(first.batch_sampler.state_dict(step=3))
    assert found + list(fresh(StatefulDataLoader, 1, sampler=sampler)) == expected()


def test_what_a_stateful_loader_cannot_do_is_refused():
    with pytest.raises(cs.ArgumentError, match=r"is for a MixtureSampler. Use StatefulDataLoader"):
        StatefulLoader(Named(), batch_sampler=[[1]])
    with pytest.raises(cs.ArgumentError, match="snapshot_every_n_steps=4 with grad_accumulation=2"):
        fresh(StatefulLoader, 2, sampler=sampler_of(grad_accumulation=2), snapshot_every_n_steps=4)


def pipeline(sampler, num_workers, **options):
    """Draws to samples in parallel, then to batches, made ahead of the loop."""
    node = CurriculumNode(sampler)
    dataset = Named()
    node = nodes.ParallelMapper(
        node, lambda draws: [dataset[draw] for draw in draws], num_workers=num_workers, **options
    )
    return nodes.Loader(nodes.Prefetcher(nodes.Mapper(node, default_collate), prefetch_factor=3))


@pytest.mark.usefixtures("collected_here")
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 4, 5, STEPS])
def test_a_pipeline_of_nodes_resumes_exactly_twice(num_workers, stop):
    found, state = [], None
    for wanted in (stop, 1, None):
        loader = pipeline(sampler_of(), num_workers)
        if state is not None:
            loader.load_state_dict(state)
        found += itertools.islice(iter(loader), wanted)
        state = loader.state_dict()
    assert found == expected()
    finished = pipeline(sampler_of(), num_workers)
    finished.load_state_dict(state)
    assert list(finished) == [], "a run that ended must not begin again when its job is restarted"


@pytest.mark.usefixtures("collected_here")
def test_snapshots_now_and_then_are_as_exact():
    first = pipeline(sampler_of(), 2, snapshot_frequency=4)
    found = list(itertools.islice(iter(first), 6))
    second = pipeline(sampler_of(), 1, snapshot_frequency=4)
    second.load_state_dict(first.state_dict())
    assert found + list(second) == expected()


@pytest.mark.usefixtures("collected_here")
def test_a_pipeline_left_in_the_middle_continues_by_its_state_and_never_silently_elsewhere():
    loader = pipeline(sampler_of(), 2)
    found = list(itertools.islice(iter(loader), 2))
    loader.load_state_dict(loader.state_dict())
    found += itertools.islice(iter(loader), 2)
    with pytest.raises(
        cs.CurriculumError, match=r"iterated before.*load_state_dict\(loader.state_dict\(\)\) before"
    ):
        iter(loader)
    assert found == expected()[:4]


def test_a_node_takes_changes_under_its_lock_and_continues_from_the_samplers_position():
    sampler = sampler_of()
    sampler.seek(1)
    node = CurriculumNode(sampler)
    assert list(next(node)) == list(sampler.draws(1))
    with node.lock:
        assert sampler.advance("plateau", stage="easy") == 2
    assert [set(batch.counts()) for batch in node] == [{"easy", "hard"}] * 6
    other = CurriculumNode(sampler_of())
    other.reset(node.state_dict())
    assert list(other) == []


def test_a_sampler_over_labels_gives_indices_of_a_dataset():
    sampler = cs.MixtureSampler.from_labels(
        cs.StageSchedule([cs.Stage("only", {"b": 1}, steps=2)]), ["a", "b"], batch_size=2, seed=1
    )
    assert list(CurriculumNode(sampler)) == [[1, 1], [1, 1]]
