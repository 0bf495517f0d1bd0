"""What the laws are tried on: mixtures, schedules, sizes and plans."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

import curriculum_sampler as cs

BUCKETS = ("a", "b", "c", "d", "e")

weights = st.one_of(
    st.integers(1, 20),
    st.floats(0.01, 5.0, allow_nan=False).map(lambda w: round(w, 3)),
    st.floats(1e-3, 1.0, allow_nan=False),
)
seeds = st.integers(-(2**70), 2**70)
awkward_sizes = st.one_of(
    st.integers(1, 200),
    st.sampled_from([2**k + d for k in (5, 8, 12, 13, 16) for d in (-1, 0, 1)]),
)


def mixtures(min_size: int = 1, max_size: int = len(BUCKETS)) -> st.SearchStrategy[dict[str, float]]:
    """Weights of some buckets, at least one above zero; now and then a zero."""
    some = st.lists(st.sampled_from(BUCKETS), min_size=min_size, max_size=max_size, unique=True)
    return some.flatmap(
        lambda names: st.tuples(
            weights, st.lists(st.one_of(st.just(0), weights), min_size=len(names), max_size=len(names))
        ).map(lambda found: dict(zip(names, [found[0], *found[1][1:]], strict=True)))
    )


@st.composite
def schedules(
    draw: st.DrawFn, max_stages: int = 4, max_steps: int = 12, ramps: bool = True
) -> cs.StageSchedule:
    """A schedule in steps, with ramps here and there."""
    stages = []
    for number in range(draw(st.integers(1, max_stages))):
        steps = draw(st.integers(1, max_steps))
        ramp = draw(st.integers(0, steps)) if ramps and number else 0
        stages.append(
            cs.Stage(
                f"stage{number}", draw(mixtures()), steps=steps, ramp=ramp, lr=draw(st.floats(1e-6, 1.0))
            )
        )
    return cs.StageSchedule(stages)


sizes = st.fixed_dictionaries({name: st.integers(1, 40) for name in BUCKETS})


@dataclass(frozen=True)
class Case:
    """A plan with the batch split in some way."""

    plan: cs.Plan
    seed: int
    world_size: int
    grad_accumulation: int

    def sampler(self, rank: int = 0) -> cs.MixtureSampler:
        return cs.MixtureSampler(self.plan, self.seed, rank, self.world_size, self.grad_accumulation)


@st.composite
def cases(draw: st.DrawFn, *, default_window: bool = False, ramps: bool = True) -> Case:
    """A plan over small buckets, with ranks, accumulation, runs and (unless refused) any window."""
    world_size, accumulation = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    batch_size = world_size * accumulation * draw(st.integers(1, 5))
    window = None if default_window else draw(st.none() | st.integers(1, 3 * batch_size))
    run_sizes = draw(
        st.none() | st.integers(1, 12) | st.dictionaries(st.sampled_from(BUCKETS), st.integers(1, 50))
    )
    plan = draw(schedules(ramps=ramps)).plan(
        draw(sizes), batch_size, window=window, run_sizes=run_sizes, block_runs=draw(st.integers(1, 4))
    )
    return Case(plan, draw(seeds), world_size, accumulation)


def all_draws(sampler: cs.MixtureSampler) -> list[cs.Draw]:
    """Every draw of the plan, in order."""
    return [draw for step in range(sampler.plan.total_steps) for draw in sampler.draws(step=step)]
