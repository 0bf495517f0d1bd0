"""What the tests of the commands share: running one, and a small data set whose difficulty can be seen."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import curriculum_sampler as cs
from curriculum_sampler.command_line import main
from curriculum_sampler.errors import StorageError
from curriculum_sampler.memory_storage import MemoryStorage


class Ran(NamedTuple):
    """How a command ended."""

    exit_code: int
    out: str
    err: str

    @property
    def told(self) -> Any:
        """What ``--json`` printed."""
        return json.loads(self.out)


class Commands:
    """Runs commands in this process, as the terminal would."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object) -> Ran:
        self._capsys.readouterr()
        exit_code = main([str(word) for word in words])
        return Ran(exit_code, *self._capsys.readouterr())


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Runs commands; what they remember is forgotten with the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Commands(capsys)


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def cluttered(bucket: str, count: int, lowest: float, highest: float) -> list[dict[str, Any]]:
    """Pictures with a share of noise that their json states as ``clutter``, from the lowest to the highest."""
    rng = np.random.Generator(np.random.Philox(list(bucket.encode())))
    samples = []
    for number, clutter in enumerate(np.linspace(lowest, highest, count).tolist()):
        picture = np.full((24, 18, 3), 200, np.uint8)
        noisy = rng.random((24, 18)) < clutter
        picture[noisy] = rng.integers(0, 255, (int(noisy.sum()), 3))
        samples.append({"__key__": f"{bucket}-{number:03}", "png": picture, "json": {"clutter": clutter}})
    return samples


BUCKETS = {"easy": (0.0, 0.3), "medium": (0.31, 0.6), "hard": (0.61, 0.9)}


def write_cluttered(place: Any, count: int = 12, **options: Any) -> cs.Manifest:
    """Write a data set of three buckets that state their difficulties."""
    buckets = {name: cluttered(name, count, *between) for name, between in BUCKETS.items()}
    return cs.write_shards(place, buckets, samples_per_shard=5, difficulties=BUCKETS, **options)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Such a data set in a folder."""
    write_cluttered(tmp_path / "data")
    return tmp_path / "data"


class FillingStorage(MemoryStorage):
    """A disk that is full after ``writes_left`` more writes."""

    writes_left = 1 << 30

    def write(self, key: str, data: bytes | bytearray) -> None:
        if not self.writes_left:
            raise StorageError("the disk is full. Free some space.")
        self.writes_left -= 1
        super().write(key, data)


def ends_anywhere(
    prepare: Callable[[FillingStorage], object], change: Callable[[FillingStorage], object]
) -> None:
    """Let a change of a data set fail at each of its writes: nothing that was there changes, and the same call goes on."""

    def fresh() -> FillingStorage:
        home = FillingStorage()
        prepare(home)
        return home

    whole = fresh()
    change(whole)
    for writes in range(len(whole.objects) - len(fresh().objects) + 1):
        home = fresh()
        before, sizes = dict(home.objects), cs.Manifest.load(home).bucket_sizes
        home.writes_left = writes
        with pytest.raises(StorageError, match="disk is full"):
            change(home)
        assert before.items() <= home.objects.items(), "nothing that was there changed"
        assert cs.Manifest.load(home).bucket_sizes == sizes
        home.writes_left = 1 << 30
        change(home)
        assert home.objects == whole.objects
