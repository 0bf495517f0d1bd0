"""What the tests of building share: folders of samples, scorers that other processes can import, storages that fail."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from curriculum_sampler.local_storage import LocalStorage
from curriculum_sampler.source import Entry


def picture(number: int, size: int = 6) -> bytes:
    """A small PNG, different for every number."""
    pixels = np.random.Generator(np.random.Philox(number)).integers(0, 256, (size, size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def told(number: int) -> dict[str, Any]:
    """What the json of a sample says: a difficulty without order, a person of four pictures, a kind of three."""
    return {
        "difficulty": (number * 7919 % 1009) / 1009,
        "area": number * 31 % 97,
        "person": f"p{number // 4:03}",
        "kind": ("upper", "lower", "dress")[number % 3],
        "level": ("easy", "hard")[number % 2],
    }


def picture_folder(folder: Path, count: int) -> Path:
    """A folder of pictures, each with its json."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:04}.png").write_bytes(picture(number))
        (folder / f"{number:04}.json").write_text(json.dumps(told(number)))
    return folder


def objects(root: Path) -> dict[str, bytes]:
    """All files of a data set."""
    home = LocalStorage(root)
    return {key: (root / key).read_bytes() for key in home.list()}


def brightness(sample: Mapping[str, Any]) -> float:
    return float(sample["png"].mean())


def both(sample: Mapping[str, Any]) -> dict[str, float]:
    return {"bright": brightness(sample), "area": sample["json"]["area"]}


def losses(samples: list[Mapping[str, Any]]) -> list[float]:
    """Of each sample, and of the batch it is in."""
    return [sample["json"]["difficulty"] + len(samples) for sample in samples]


def kill_me(sample: Mapping[str, Any]) -> float:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0.0


def ten(argument: str = "7") -> Iterator[dict[str, Any]]:
    """An iterable of samples, as ``module:function`` names it."""
    for number in range(10):
        yield {"__key__": f"{argument}-{number}", "json": told(number), "cls": number}


@dataclass(frozen=True)
class Generated:
    """A source that makes its samples up when they are read."""

    count: int
    sample_bytes: int = 40

    @property
    def identity(self) -> str:
        return f"generated {self.count} {self.sample_bytes}"

    def entries(self) -> Iterator[Entry]:
        for number in range(self.count):
            yield Entry(f"{number:06}", (number,), self.sample_bytes)

    def read(self, entry: Entry) -> dict[str, Any]:
        number = int(entry.place[0])
        return {
            "__key__": entry.key,
            "bin": np.random.Generator(np.random.Philox(number)).bytes(self.sample_bytes),
            "json": told(number),
        }


class Killed(BaseException):
    """Stands for what no code of ours can catch."""


@dataclass(frozen=True)
class MortalStorage(LocalStorage):
    """A folder whose writer dies at write number ``dies_at``, before the write or after it."""

    dies_at: int = -1
    after: bool = False
    written: list[str] = field(default_factory=list, compare=False)

    def write(self, key: str, data: bytes | bytearray) -> None:
        if not self.after and len(self.written) == self.dies_at:
            raise Killed
        super().write(key, data)
        self.written.append(key)
        if self.after and len(self.written) == self.dies_at + 1:
            raise Killed
