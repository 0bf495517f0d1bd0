"""What a build writes down: whole lines, whatever kills the writer; and who does its tasks."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler import engine
from curriculum_sampler.engine import LocalEngine
from curriculum_sampler.errors import ArgumentError, CurriculumError, StorageError
from curriculum_sampler.journal import Journal
from curriculum_sampler.listing import Listing
from curriculum_sampler.work_folder import work_folder

from .build_fixtures import Generated

lines = st.lists(st.text(max_size=30) | st.lists(st.integers(), max_size=3), max_size=8)


@given(first=lines, more=lines, cut=st.integers(0, 400))
def test_a_journal_cut_anywhere_keeps_its_whole_lines_and_goes_on(
    first: list[Any], more: list[Any], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "lines.jsonl"
    with Journal(path) as journal:
        ends = [0]
        for line in first:
            journal.append(line)
            ends.append(path.stat().st_size)
    os.truncate(path, min(cut, path.stat().st_size))
    whole = sum(end <= cut for end in ends) - 1
    with Journal(path) as journal:
        places = [journal.append(line) for line in more]
        assert [line for _, line in journal.lines()] == first[:whole] + more
        assert [journal.read(place) for place in places] == more


def test_a_long_line_is_read_from_its_place(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.append("short")
        place = journal.append("x" * 100_000)
        assert journal.read(place) == "x" * 100_000
        with pytest.raises(StorageError, match="has no 1 lines from byte"):
            journal.read(place + 200_000)


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "j").write_bytes(b"[1]\nnonsense\n[2]\n")
    with Journal(tmp_path / "j") as journal, pytest.raises(StorageError, match="j is damaged at byte 4"):
        list(journal.lines())


class Fixed(Generated):
    is_fixed = True

    def entries(self) -> Any:
        entered.append(self)
        return super().entries()


entered: list[Any] = []


def test_a_source_that_is_fixed_is_listed_once_and_another_each_time(tmp_path: Path) -> None:
    entered.clear()
    for _ in range(2):
        with Journal(tmp_path / "fixed") as journal:
            listing = Listing(journal, Fixed(2500))
            assert [listing.entry(number).key for number in (0, 2499)] == ["000000", "002499"]
            assert listing.num_bytes.sum() == 2500 * 40
    assert len(entered) == 1
    os.truncate(tmp_path / "fixed", (tmp_path / "fixed").stat().st_size - 5)
    with Journal(tmp_path / "fixed") as journal:
        Listing(journal, Fixed(2500))
    assert len(entered) == 2, "half a listing was taken for a whole one"


def test_a_folder_is_held_by_one_build_and_free_again_after_it(tmp_path: Path) -> None:
    with work_folder(tmp_path, "here") as first:
        with work_folder(tmp_path, "there") as other:
            assert other != first
        with (
            pytest.raises(ArgumentError, match="Another process is building to here"),
            work_folder(tmp_path, "here"),
        ):
            pass
    with work_folder(tmp_path, "here") as again:
        assert again == first


# --- engines


def double(shared: int, task: int) -> int:
    if task == shared:
        raise ArgumentError(f"task {task} is refused. Do without.")
    return 2 * task


def die(shared: Any, task: int) -> int:
    if task == 3:
        os._exit(1)
    return task


@pytest.mark.parametrize("processes", [1, 2])
def test_every_task_is_done_once_and_few_are_taken_ahead(processes: int) -> None:
    taken = []

    def tasks() -> Any:
        for number in range(50):
            taken.append(number)
            yield number

    found = []
    for task, result in LocalEngine(processes).run(double, -1, tasks()):
        assert result == 2 * task
        found.append(task)
        assert len(taken) <= len(found) + 2 * processes + 1
    assert sorted(found) == list(range(50))


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_is_raised_as_the_task_raised_it(processes: int) -> None:
    with pytest.raises(ArgumentError, match=r"^task 7 is refused. Do without\.$"):
        list(LocalEngine(processes).run(double, 7, iter(range(1000))))


def begins_and_ends(folder: Path, task: int) -> int:
    """The first ends when the second has begun, and the others when nobody wants them any more."""
    (folder / f"{task}-begun").touch()
    if task:
        engine._is_over.wait(50)
    while not task and not (folder / "1-begun").exists():
        pass
    (folder / f"{task}-ended").touch()
    return task


def test_who_leaves_waits_for_the_tasks_at_work_and_for_no_other(tmp_path: Path) -> None:
    running = LocalEngine(2).run(begins_and_ends, tmp_path, iter(range(100)))
    assert next(running) == (0, 0)
    running.close()
    begun, ended = ({path.name[0] for path in tmp_path.glob(f"*-{what}")} for what in ("begun", "ended"))
    assert begun == ended
    assert {"0", "1"} <= begun <= {"0", "1", "2"}


def ignores_interrupts(shared: Any, task: int) -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_an_interrupt_is_for_the_process_that_builds_and_not_for_those_that_work_for_it() -> None:
    assert list(LocalEngine(2).run(ignores_interrupts, None, [1])) == [(1, True)]
    assert list(LocalEngine(1).run(ignores_interrupts, None, [1])) == [(1, False)]


def test_a_dead_process_is_an_error_and_not_a_wait() -> None:
    with pytest.raises(CurriculumError, match="ended all of a sudden"):
        list(LocalEngine(2).run(die, None, range(10)))
