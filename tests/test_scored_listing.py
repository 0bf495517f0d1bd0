"""Scores in the making: little is lost with a killed build, and nothing depends on how its tasks were cut."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.listing import Listing
from curriculum_sampler.score_tasks import ScoreWork
from curriculum_sampler.scored_listing import ScoredListing
from curriculum_sampler.scoring import Scoring

from .build_fixtures import Generated, Killed


class Ahead:
    """An engine that takes some tasks ahead, and ends them in any order."""

    is_elsewhere = False

    def __init__(self, ahead: int = 1, seed: int = 0) -> None:
        self._ahead, self._chance = ahead, random.Random(seed)

    def run(self, work: Any, shared: Any, tasks: Any) -> Any:
        coming, running = iter(tasks), []
        while True:
            running += itertools.islice(coming, self._ahead - len(running))
            if not running:
                return
            task = running.pop(self._chance.randrange(len(running)))
            yield task, work(shared, task)


class Clock:
    """Time that passes only while samples are scored."""

    def __init__(self, seconds: Sequence[float], dies_at: int | None = None) -> None:
        self._seconds, self._dies_at = itertools.cycle(seconds), dies_at
        self.now = 0.0
        self.scored = 0

    def __call__(self) -> float:
        return self.now

    def score(self, sample: Any) -> float:
        if self.scored == self._dies_at:
            raise Killed
        self.scored += 1
        self.now += next(self._seconds)
        return float(sample["json"]["difficulty"])


def scored(folder: Path, clock: Clock, count: int, batch_size: int = 0, engine: Any = None) -> ScoredListing:
    """Score ``count`` samples; with a batch size each score is of the batch it is in, too."""

    def batches(samples: Any) -> list[float]:
        return [clock.score(sample) + sum(int(other["__key__"]) for other in samples) for sample in samples]

    class Known(Scoring):
        identity = "known"

    scoring = Known((), batches, batch_size, {}) if batch_size else Known((clock.score,), None, 1, {})
    source = Generated(count)
    work = ScoreWork(source, scoring, (), clock)
    listing = Listing(folder / "listing", source)
    return ScoredListing(folder / "scores", listing, work, engine or Ahead(), lambda done, num_bytes: None)


def killed(folder: Path, clock: Clock, *arguments: Any) -> None:
    with pytest.raises(Killed):
        scored(folder, clock, *arguments)


@pytest.mark.parametrize("dies_at", [1, 2, 7, 50, 333])
@pytest.mark.parametrize("seconds", [0.2, 3.0])
def test_with_a_killed_build_about_a_second_of_a_slow_score_is_lost(
    tmp_path: Path, dies_at: int, seconds: float
) -> None:
    killed(tmp_path, Clock([seconds], dies_at), 400)
    lost = scored(tmp_path, Clock([seconds]), 400).scored - (400 - dies_at)
    assert 0 <= lost * seconds <= 1


def test_a_score_that_turns_slow_has_small_tasks_again(tmp_path: Path) -> None:
    killed(tmp_path, Clock([0.001] * 300 + [0.5] * 100, 390), 400)
    assert scored(tmp_path, Clock([0]), 400).scored <= 10 + 2


def test_of_a_quick_score_tasks_grow_to_64_samples(tmp_path: Path) -> None:
    scored(tmp_path, Clock([0.001]), 1000)
    lines = (tmp_path / "scores").read_text().splitlines()
    assert len(lines) == 7 + -(-(1000 - 127) // 64)


@given(
    counts=st.lists(st.integers(1, 90), min_size=1, max_size=3),
    seconds=st.lists(st.sampled_from([0.0, 0.01, 0.2, 1.0, 9.0]), min_size=1, max_size=7),
    dies_at=st.integers(0, 90),
    batch_size=st.sampled_from([0, 1, 3, 8, 70]),
    ahead=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_scores_do_not_depend_on_how_tasks_were_cut_nor_on_what_was_kept_of_earlier_ones(
    counts: list[int],
    seconds: list[float],
    dies_at: int,
    batch_size: int,
    ahead: int,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("scores")
    for count in counts:  # the source grows or shrinks from run to run
        with contextlib.suppress(Killed):
            scored(folder, Clock(seconds, dies_at), count, batch_size, Ahead(ahead, seed))
    found = scored(folder, Clock(seconds), counts[-1], batch_size, Ahead(ahead, seed))
    plain = scored(tmp_path_factory.mktemp("plain"), Clock([0]), counts[-1], batch_size)
    assert plain.scored == counts[-1]
    assert found.identity == plain.identity
    assert list(found.told()) == list(plain.told())
