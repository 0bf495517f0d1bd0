"""Many processes, one folder: each piece fetched once, whole or not at all, whoever dies when."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curriculum_sampler.cache import Allocate, Fetch
from curriculum_sampler.cache_folder import FolderCache
from curriculum_sampler.errors import ArgumentError
from curriculum_sampler.local_storage import UNFINISHED

from .data_fixtures import Clock, unprivileged  # noqa: F401 -- a fixture
from .test_cache import bringing, content, never

_FORK = multiprocessing.get_context("fork")
KEY = "0" * 40
OTHER = "1" * 40
GUARD_SECONDS = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def names(folder: Path) -> list[str]:
    """Everything in a folder but its lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@contextmanager
def process(work: Callable[..., None], *args: Any) -> Iterator[Any]:
    """Run something in a process of its own, which is killed at the end."""
    child = _FORK.Process(target=work, args=args)
    child.start()
    try:
        yield child
    finally:
        child.kill()
        child.join(GUARD_SECONDS)


class Slow:
    """A fetch that tells that it has begun, and ends when told to."""

    def __init__(self, data: bytes = b"slow") -> None:
        self.begun, self.may_end, self.count = _FORK.Event(), _FORK.Event(), _FORK.Value("i", 0)
        self.data = data

    def __call__(self, allocate: Allocate) -> memoryview:
        with self.count.get_lock():
            self.count.value += 1
        self.begun.set()
        assert self.may_end.wait(GUARD_SECONDS)
        return bringing(self.data)(allocate)

    def wait_until_begun(self) -> None:
        assert self.begun.wait(GUARD_SECONDS)


def obtain(folder: Path, fetch: Fetch, told: Any = None) -> None:
    piece = FolderCache(folder, 1000).obtain(KEY, fetch)
    if told is not None:
        told.put(content(piece, 4))


def test_processes_that_want_the_same_piece_fetch_it_once(folder: Path) -> None:
    slow, told = Slow(), _FORK.Queue()
    with process(obtain, folder, slow, told):
        slow.wait_until_begun()
        with process(obtain, folder, slow, told), process(obtain, folder, slow, told):
            slow.may_end.set()
            assert [told.get(timeout=GUARD_SECONDS) for _ in range(3)] == [b"slow"] * 3
    assert slow.count.value == 1
    assert names(folder) == [f"{KEY}.piece"]


def test_who_waits_for_another_process_finds_what_it_has_fetched(folder: Path) -> None:
    slow = Slow()
    clock = Clock()

    def come_back(seconds: float) -> None:
        clock.sleep(seconds)
        slow.may_end.set()
        child.join(GUARD_SECONDS)

    with process(obtain, folder, slow) as child:
        slow.wait_until_begun()
        waiting = FolderCache(folder, 1000, clock=clock, sleep=come_back)
        assert content(waiting.obtain(KEY, never), 4) == b"slow"


def test_other_pieces_do_not_wait(folder: Path) -> None:
    slow = Slow()
    with process(obtain, folder, slow):
        slow.wait_until_begun()
        unkind = FolderCache(folder, 1000, sleep=lambda seconds: pytest.fail("It waits."))
        assert content(unkind.obtain(OTHER, bringing(b"other")), 5) == b"other"


def test_a_holder_that_is_killed_in_mid_fetch_lets_the_next_fetch_at_once(folder: Path) -> None:
    slow = Slow()
    with process(obtain, folder, slow) as child:
        slow.wait_until_begun()
        child.kill()
        child.join(GUARD_SECONDS)
    assert child.exitcode == -signal.SIGKILL
    impatient = FolderCache(folder, 1000, sleep=lambda seconds: pytest.fail("It waits for the dead."))
    assert content(impatient.obtain(KEY, bringing(b"next")), 4) == b"next"


def test_a_holder_that_is_stopped_delays_the_next_by_the_bound_at_most(folder: Path) -> None:
    slow, clock = Slow(), Clock()
    with process(obtain, folder, slow) as child:
        slow.wait_until_begun()
        os.kill(child.pid, signal.SIGSTOP)
        patient = FolderCache(folder, 1000, clock=clock, sleep=clock.sleep)
        assert content(patient.obtain(KEY, bringing(b"next")), 4) == b"next"
        assert 59 < clock.now < 61
        os.kill(child.pid, signal.SIGCONT)
        slow.may_end.set()
        child.join(GUARD_SECONDS)
        assert child.exitcode == 0  # the late one finds the piece, or writes it again
    assert names(folder) == [f"{KEY}.piece"]
    assert content(FolderCache(folder, 1000).obtain(KEY, never), 4) in (b"next", b"slow")


def die_in_mid_write(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    cache = FolderCache(folder, 1000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # the system kills whoever writes more
    cache.obtain(KEY, bringing(bytes(10_000)))


def die_before_the_name(folder: Path) -> None:
    os.rename = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
    FolderCache(folder, 1000).obtain(KEY, bringing(bytes(10_000)))


@pytest.mark.parametrize(
    ("death", "by", "left"),
    [(die_in_mid_write, signal.SIGXFSZ, 4096), (die_before_the_name, signal.SIGKILL, 10_000)],
)
def test_a_writer_that_is_killed_leaves_no_part_of_a_piece_and_no_rubbish(
    folder: Path, death: Callable[[Path], None], by: int, left: int
) -> None:
    survivor = FolderCache(folder, 1000)
    child = _FORK.Process(target=death, args=(folder,))
    child.start()
    child.join(GUARD_SECONDS)
    assert child.exitcode == -by
    (unfinished,) = folder.glob(f"{UNFINISHED}*")
    assert unfinished.stat().st_size == left
    assert survivor.get(KEY) is None
    assert content(survivor.obtain(KEY, bringing(b"shirt")), 5) == b"shirt"
    FolderCache(folder, 1000)  # whoever opens the folder next tidies up
    assert names(folder) == [f"{KEY}.piece"]


def test_an_unfinished_file_of_a_living_writer_stays(folder: Path) -> None:
    folder.mkdir()
    dead, alive = folder / f"{UNFINISHED}dead", folder / f"{UNFINISHED}alive"
    dead.write_bytes(b"half")
    with open(alive, "xb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        FolderCache(folder, 1000)
        assert names(folder) == [alive.name]
    FolderCache(folder, 1000)
    assert names(folder) == []


def test_a_folder_that_is_deleted_meanwhile_is_made_again(folder: Path) -> None:
    cache = FolderCache(folder, 1000)
    kept = cache.obtain(KEY, bringing(b"shirt"))
    shutil.rmtree(folder)
    assert content(kept, 5) == b"shirt"
    cache.trim({KEY})
    assert content(cache.obtain(OTHER, bringing(b"dress")), 5) == b"dress"
    assert names(folder) == [f"{OTHER}.piece"]
    assert cache.is_usable


def test_what_cannot_be_kept_is_delivered_all_the_same_and_told_once(folder: Path) -> None:
    cache = FolderCache(folder, 1000)
    shutil.rmtree(folder)
    folder.write_bytes(b"somebody's file")
    with pytest.warns(RuntimeWarning, match="The cache takes no more: .*is a file, not a folder") as told:
        pieces = [cache.obtain(key, bringing(b"shirt")) for key in (KEY, OTHER, KEY)]
    assert len(told) == 1
    assert not cache.is_usable
    assert [content(piece, 5) for piece in pieces] == [b"shirt"] * 3
    folder.unlink()
    cache.obtain(KEY, bringing(b"shirt"))
    assert cache.is_usable
    assert names(folder) == [f"{KEY}.piece"]


def fill_up(folder: Path) -> None:
    """What happens on a full disk: the system refuses a write in the middle."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    cache = FolderCache(folder, 1 << 20)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        data = bytes(range(250)) * 40
        assert [content(cache.obtain(key, bringing(data)), 10_000) for key in (KEY, OTHER)] == [data, data]
    assert [warning.category for warning in told] == [RuntimeWarning]
    assert "could not be written (File too large)" in str(told[0].message)
    assert names(folder) == []
    assert content(cache.obtain(KEY, bringing(b"this one fits")), 13) == b"this one fits"
    assert cache.is_usable


def test_a_full_disk_costs_one_warning_and_leaves_nothing_half_written(folder: Path) -> None:
    child = _FORK.Process(target=fill_up, args=(folder,))
    child.start()
    child.join(GUARD_SECONDS)
    assert child.exitcode == 0


def test_a_file_in_the_folders_place_is_refused_early(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArgumentError, match=r"cache_dir='.*file/cache' cannot be used: .*file is a file"):
        FolderCache(tmp_path / "file" / "cache", 1000)


def test_a_folder_that_may_not_be_written_to_is_refused_early(tmp_path: Path, unprivileged: None) -> None:  # noqa: F811
    if os.access(tmp_path, os.W_OK, effective_ids=True):
        tmp_path.chmod(0o500)
    with pytest.raises(ArgumentError, match=r"cache_dir=.* cannot be used: .*Check the permissions of /"):
        FolderCache(tmp_path / "cache", 1000)


def test_nobody_else_can_read_the_folder(folder: Path) -> None:
    FolderCache(folder, 1000).obtain(KEY, bringing(b"shirt"))
    assert folder.stat().st_mode & 0o077 == 0


def test_a_piece_is_seen_by_every_cache_on_the_folder_and_its_end_too(folder: Path) -> None:
    one, other = FolderCache(folder, 10), FolderCache(folder, 10)
    one.obtain(KEY, bringing(b"0123456789"))
    piece = other.get(KEY)
    assert piece is not None
    one.obtain(OTHER, bringing(b"9876543210"))
    one.trim({OTHER})
    assert names(folder) == [f"{OTHER}.piece"]
    assert content(piece, 10) == b"0123456789"  # a reader in progress goes on
    assert other.get(OTHER) is not None
    del piece
    open_files = {os.readlink(f"/proc/self/fd/{fd}") for fd in _descriptors()}
    assert not [name for name in open_files if "(deleted)" in name and str(folder) in name]


def _descriptors() -> list[str]:
    with os.scandir("/proc/self/fd") as entries:
        mine = [entry.name for entry in entries]
    return [fd for fd in mine if os.path.lexists(f"/proc/self/fd/{fd}")]


def test_pieces_that_another_job_needs_are_spared(folder: Path) -> None:
    mine, theirs = FolderCache(folder, 20), FolderCache(folder, 1000)
    for key, age in ((KEY, 300), (OTHER, 200), ("2" * 40, 100)):
        mine.obtain(key, bringing(b"0123456789"))
        past = os.stat(folder).st_mtime - age
        os.utime(folder / f"{key}.piece", (past, past))
    theirs.trim({KEY})  # the oldest, but they need it
    mine.trim(())
    assert names(folder) == [f"{KEY}.piece", f"{'2' * 40}.piece"]


@given(
    st.lists(
        st.tuples(st.sampled_from("0123"), st.integers(1, 60), st.sets(st.sampled_from("0123"))), max_size=12
    )
)
def test_after_a_trim_the_folder_keeps_its_budget_or_holds_what_is_needed_only(
    tmp_path_factory: pytest.TempPathFactory, doings: list[tuple[str, int, set[str]]]
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    cache = FolderCache(folder, 100)
    for digit, size, needed in doings:
        cache.obtain(digit * 40, bringing(digit.encode() * size))
        at_hand = {path.name for path in folder.glob("*.piece")}
        wanted = {f"{digit * 40}.piece" for digit in needed}
        cache.trim({digit * 40 for digit in needed})
        left = {path.name: path.stat().st_size for path in folder.glob("*.piece")}
        assert at_hand & wanted <= set(left)
        assert sum(left.values()) <= 100 or set(left) <= wanted
        assert set(left) == at_hand or sum(left.values()) + 60 > 100  # and drops no more than it must
    shutil.rmtree(folder)


def test_files_of_other_people_in_the_folder_are_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_bytes(b"x" * 500)
    cache = FolderCache(folder, 10)
    cache.obtain(KEY, bringing(b"0123456789" * 3))
    cache.trim(())
    assert names(folder) == ["notes.txt"]


@pytest.mark.parametrize("squatter", ["folder", "pipe", "link to nowhere"])
def test_what_is_no_file_under_a_pieces_name_is_not_read(folder: Path, squatter: str) -> None:
    cache = FolderCache(folder, 1000)
    place = folder / f"{KEY}.piece"
    if squatter == "folder":
        place.mkdir()
    elif squatter == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(folder / "nowhere")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a folder cannot be replaced by a file
        assert content(cache.obtain(KEY, bringing(b"shirt")), 5) == b"shirt"
    assert not (folder / "nowhere").exists()


OPENS_MANY = """
import os, resource, sys
from pathlib import Path
from curriculum_sampler.cache_folder import FolderCache

cache = FolderCache(Path(sys.argv[1]), 1 << 30)
resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
def fetch(allocate):
    buffer = allocate(5)
    buffer[:] = b"shirt"
    return buffer
for number in range(1000):
    piece = cache.obtain(f"{number:040x}", fetch)
    assert bytes(piece.read(0, 5)) == b"shirt"
assert cache.is_usable
"""


def test_a_thousand_pieces_need_few_open_files(folder: Path) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", OPENS_MANY, str(folder)], check=True, timeout=60)
