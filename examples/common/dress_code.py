"""A Dress Code tree as the source of a build: ``common.dress_code:source:/data/DressCode,split=train,accept-license``.

A person ``ID_0.jpg`` is paired with the garment ``ID_1.jpg`` of the same number, in each of the three categories.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common.body_labels import Parse
from common.data_licences import DRESS_CODE
from common.factors import CATEGORIES
from common.keypoints import read_dress_code
from common.partner_files import Kinds, PartnerFolder, find_folders, measure
from common.tree_options import with_options
from common.tree_sample import TreeSample

import curriculum_sampler as cs
from curriculum_sampler.source import Entry

CONVERSION = 1
"""Rises when the same tree would give other samples."""

LABELS = (
    *(Parse.BACKGROUND, Parse.HAT, Parse.HAIR, Parse.SUNGLASSES, Parse.UPPER, Parse.SKIRT, Parse.PANTS),
    *(Parse.DRESS, Parse.PANTS, Parse.LEFT_SHOE, Parse.RIGHT_SHOE, Parse.FACE, Parse.LEFT_LEG),
    *(Parse.RIGHT_LEG, Parse.LEFT_ARM, Parse.RIGHT_ARM, Parse.GLOVE, Parse.SCARF),
)
"""What each of the 18 numbers of a ``label_maps`` picture means; a belt (8) counts as trousers, a bag (16) as held."""

_PARSE_IDS = np.array(LABELS, np.uint8)
_KINDS: Kinds = {
    "image": (("images",), ("{}_0.jpg", "{}_0.png")),
    "cloth": (("images",), ("{}_1.jpg", "{}_1.png")),
    "cloth_mask": (("masks", "cloth_masks", "cloth-masks"), ("{}_1.png", "{}_1.jpg")),
    "agnostic_mask": (("agnostic_masks", "agnostic-masks", "agnostic_mask"), ("{}_0.png", "{}_0.jpg")),
    "parse": (("label_maps", "label-maps"), ("{}_4.png",)),
    "pose": (("dense", "densepose"), ("{}_5.png", "{}_5.jpg")),
    "keypoints": (("keypoints",), ("{}_2.json",)),
}
_REQUIRED = {"image": "the people", "cloth": "the garments"}
_PAIR_FILES = {"train": "train_pairs.txt", "test": "test_pairs_paired.txt"}
_PERSON = "_0"


@dataclass(frozen=True, slots=True)
class DressCode:
    """The people of a Dress Code tree, each with the garment that they wear. Made by ``source``.

    Attributes:
        root: The folder with the categories.
        splits: Which of ``train`` and ``test``.
        categories: Which of ``factors.CATEGORIES``.
    """

    root: Path
    splits: tuple[str, ...]
    categories: tuple[str, ...]

    @property
    def identity(self) -> str:
        """Names the tree, what is taken of it, and the way it is converted."""
        return f"dress-code-{CONVERSION}:{self.root}:{'+'.join(self.splits)}:{'+'.join(self.categories)}"

    def entries(self) -> Iterator[Entry]:
        """Yield every person, by category, split and number.

        Raises:
            ArgumentError: A person lacks a file that others have.
        """
        for category in self.categories:
            folders = _folders(self.root / category)
            num_bytes = measure(folders)
            for split in self.splits:
                for number in _people(self.root / category / _PAIR_FILES[split]):
                    yield Entry(f"{category}-{number}", (category, split, number), num_bytes(number))

    def read(self, entry: Entry) -> dict[str, Any]:
        """Return the members of a sample, see ``TreeSample.members``.

        Raises:
            ArgumentError: A file is missing or cannot be read.
        """
        category, split, number = (str(part) for part in entry.place)
        files = {kind: folder.path(number) for kind, folder in _folders(self.root / category).items()}
        return TreeSample(
            files=files,
            parse_ids=_PARSE_IDS,
            keypoints=partial(read_dress_code, files["keypoints"]) if "keypoints" in files else None,
            facts={
                "category": category,
                "garment": number,
                "split": split,
                "data_set": DRESS_CODE.data_set,
                "license": DRESS_CODE.terms,
            },
        ).members(entry.key)


def source(
    root: str | Path, split: str = "train", category: str = "all", *, accept_license: bool = False
) -> DressCode:
    """Return a Dress Code tree as a source for ``build_dataset``.

    Each sample has the members that ``get_vton_dataset`` reads, and in ``json``: ``category``, ``garment`` (for
    ``group=``), ``split``, ``keypoints``, ``data_set``, ``license``.

    Args:
        root: The folder with the categories. As a text it may end in ``,split=test,category=dresses,accept-license``.
        split: ``"train"``, ``"test"`` or ``"all"``; with ``"all"`` build with ``splits="json:split"``.
        category: ``"upper_body"``, ``"lower_body"``, ``"dresses"`` or ``"all"``.
        accept_license: Says that you hold the data set's licence and keep to it. Nothing is read without.

    Raises:
        ArgumentError: The licence was not accepted, or there is no such split, category or tree.
    """
    known: dict[str, str | bool] = {"split": split, "category": category, "accept_license": accept_license}
    place, options = with_options(root, known)
    DRESS_CODE.check(accepted=bool(options["accept_license"]))
    splits = _chosen("split", str(options["split"]), tuple(_PAIR_FILES))
    categories = _chosen("category", str(options["category"]), CATEGORIES)
    for name in categories:
        _folders(place / name)
    DRESS_CODE.tell()
    return DressCode(place.resolve(), splits, categories)


def _chosen(option: str, value: str, known: tuple[str, ...]) -> tuple[str, ...]:
    if value == "all":
        return known
    if value not in known:
        raise cs.ArgumentError(f"dress_code.source: got {option}={value!r}; give {', '.join(known)} or all.")
    return (value,)


def _folders(root: Path) -> dict[str, PartnerFolder]:
    """Return the folders of a category that there are, by what they hold."""
    return find_folders(root, _KINDS, _REQUIRED)


def _people(pairs: Path) -> list[str]:
    """Numbers of the people that a pair file names first in its lines, sorted."""
    if not pairs.is_file():
        raise cs.ArgumentError(f"{pairs} is missing; it says who belongs to the split. Restore the file.")
    numbers = set()
    for line in pairs.read_text().splitlines():
        if not line.strip():
            continue
        stem = Path(line.split()[0]).stem
        if not stem.endswith(_PERSON):
            raise cs.ArgumentError(
                f"{pairs}: got the line {line!r}, but a person is called like '013563_0.jpg'. Restore the file."
            )
        numbers.add(stem.removesuffix(_PERSON))
    return sorted(numbers)
