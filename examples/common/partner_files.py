"""Folders whose files belong together by name: ``image/0007.jpg`` and ``cloth-mask/0007.jpg`` are of one sample."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import curriculum_sampler as cs


@dataclass(frozen=True, slots=True)
class PartnerFolder:
    """One kind of file of every sample.

    Attributes:
        folder: Where the files are.
        patterns: How a file may be called, ``{}`` standing for the sample's name; the first that exists counts.
    """

    folder: Path
    patterns: tuple[str, ...]

    def path(self, name: str) -> Path:
        """Return the file of a sample.

        Raises:
            ArgumentError: There is none.
        """
        for pattern in self.patterns:
            path = self.folder / pattern.format(name)
            if path.is_file():
                return path
        raise cs.ArgumentError(self.absence(name))

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every file here, by file name, in one look at the folder."""
        with os.scandir(self.folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}

    def size_in(self, sizes: Mapping[str, int], name: str) -> int:
        """Return the bytes of a sample's file, given what ``sizes`` said.

        Raises:
            ArgumentError: The sample has no file here.
        """
        for pattern in self.patterns:
            if (size := sizes.get(pattern.format(name))) is not None:
                return size
        raise cs.ArgumentError(self.absence(name))

    def names(self) -> list[str]:
        """Return the samples that have a file here, sorted."""
        found = set()
        for file in self.sizes():
            for pattern in self.patterns:
                start, end = pattern.split("{}")
                if file.startswith(start) and file.endswith(end) and len(file) > len(start) + len(end):
                    found.add(file[len(start) : len(file) - len(end)])
                    break
        return sorted(found)

    def absence(self, name: str) -> str:
        """Say that a sample has no file here, and what to do."""
        first, *others = (self.folder / pattern.format(name) for pattern in self.patterns)
        also = f" (nor {', '.join(path.name for path in others)})" if others else ""
        return (
            f"{first} is missing{also}, but sample {name!r} needs it. Restore the file, or take the sample out of the "
            "pair file (out of the folder of people, where there is none)."
        )


Kinds = Mapping[str, tuple[Sequence[str], Sequence[str]]]
"""For each kind of file, how its folder may be called and how its files; the first that exists counts."""


def find_folders(root: Path, kinds: Kinds, required: Mapping[str, str]) -> dict[str, PartnerFolder]:
    """Return the folders below ``root`` that exist, by what they hold.

    Args:
        root: A folder of the data set.
        kinds: What to look for.
        required: The kinds that cannot be done without, each in words.

    Raises:
        ArgumentError: A required folder is missing.
    """
    folders = {}
    for kind, (names, patterns) in kinds.items():
        found = next((root / name for name in names if (root / name).is_dir()), None)
        if found is not None:
            folders[kind] = PartnerFolder(found, tuple(patterns))
        elif kind in required:
            raise cs.ArgumentError(
                f"{root}: there is no folder {' or '.join(names)}, which holds {required[kind]}. "
                "Give the place where the data set was unpacked, or restore the folder."
            )
    return folders


def measure(folders: Mapping[str, PartnerFolder]) -> Callable[[str], int]:
    """Look into each folder once, and return what gives the bytes of all files of a sample, or raises ``ArgumentError``."""
    places = {folder.folder: folder for folder in folders.values()}  # one may hold two kinds
    sizes = {place: folder.sizes() for place, folder in places.items()}
    return lambda name: sum(folder.size_in(sizes[folder.folder], name) for folder in folders.values())
