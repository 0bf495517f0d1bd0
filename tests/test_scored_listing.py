"""Scores in the making: little is lost with a killed build, and nothing depends on how its tasks were cut."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curriculum_sampler.column import JsonField
from curriculum_sampler.journal import Journal
from curriculum_sampler.listing import Listing
from curriculum_sampler.score_tasks import ScoreWork
from curriculum_sampler.scored_listing import ScoredListing
from curriculum_sampler.scoring import Scoring
from curriculum_sampler.source import Entry

from .build_fixtures import Generated, Killed, told


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


class Result(NamedTuple):
    """What scoring brought: how many samples it scored, and what is known of all."""

    scored: int
    identity: str
    told: list[Any]
    labels: list[str]
    group: str


@dataclass(frozen=True)
class Edited(Generated):
    """A source of which one sample may be another than it was."""

    edited: int | None = None

    def entries(self) -> Iterator[Entry]:
        for number, entry in enumerate(super().entries()):
            yield entry._replace(place=(number, int(number == self.edited)))

    def read(self, entry: Entry) -> dict[str, Any]:
        sample = super().read(entry)
        sample["json"]["difficulty"] += entry.place[1]
        return sample


def scored(
    folder: Path,
    clock: Clock,
    count: int,
    edited: int | None = None,
    batch_size: int = 0,
    engine: Any = None,
) -> Result:
    """Score ``count`` samples; with a batch size each score is of the batch it is in, too."""

    def batches(samples: Any) -> list[float]:
        return [clock.score(sample) + sum(int(other["__key__"]) for other in samples) for sample in samples]

    class Known(Scoring):
        identity = "known"

    fields = {"label": JsonField("kind"), "group": JsonField("person")}
    alone: tuple[Any, ...] = () if batch_size else (clock.score,)
    scoring = Known(alone, batches if batch_size else None, batch_size or 1, fields)
    source = Edited(count, edited=edited)
    work = ScoreWork(source, scoring, (), clock)
    with Journal(folder / "listing") as listed, Journal(folder / "scores") as scores:
        listing = Listing(listed, source)
        found = ScoredListing(scores, listing, work, engine or Ahead(), lambda done, num_bytes: None)
        labels = found.names["label"]
        return Result(
            found.scored,
            found.identity,
            list(found.told()),
            [*labels.names, *(labels.names[code] for code in labels.codes)],
            found.group(count - 1),
        )


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
    runs=st.lists(
        st.tuples(st.integers(1, 90) | st.just(90), st.none() | st.integers(0, 20)), min_size=1, max_size=3
    ),
    seconds=st.lists(st.sampled_from([0.0, 0.01, 0.2, 1.0, 9.0]), min_size=1, max_size=7),
    dies_at=st.none() | st.integers(0, 90),
    batch_size=st.sampled_from([0, 1, 3, 8, 70]),
    ahead=st.integers(1, 5),
    seed=st.integers(0, 9),
)
# Of a sample that is edited and back again, tasks of both runs are kept, and those of one run overlap with the other's.
@example(runs=[(90, None), (90, 4)], seconds=[0.0], dies_at=None, batch_size=0, ahead=1, seed=0)
def test_scores_do_not_depend_on_how_tasks_were_cut_nor_on_what_was_kept_of_earlier_ones(
    runs: list[tuple[int, int | None]],
    seconds: list[float],
    dies_at: int | None,
    batch_size: int,
    ahead: int,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("scores")
    for run in runs:  # the source grows, shrinks and is edited from run to run
        with contextlib.suppress(Killed):
            scored(folder, Clock(seconds, dies_at), *run, batch_size, Ahead(ahead, seed))
    found = scored(folder, Clock(seconds), *runs[0], batch_size, Ahead(ahead, seed))
    plain = scored(tmp_path_factory.mktemp("plain"), Clock([0]), *runs[0], batch_size)
    assert plain.scored == runs[0][0]
    assert found[1:] == plain[1:]
    expected = [told(number) for number in range(runs[0][0])]
    assert plain.labels == sorted({sample["kind"] for sample in expected}) + [
        sample["kind"] for sample in expected
    ]
    assert plain.group == expected[-1]["person"]
