"""A VITON-HD tree as the source of a build: ``common.viton_hd:source:/data/zalando-hd-resized,split=train``.

``image/X.jpg`` is paired with ``cloth/X.jpg``. The pair files of the data set name another garment beside each person:
they say which people there are, and their second column is never followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common.data_licences import VITON_HD
from common.keypoints import Keypoints, read_openpose
from common.partner_files import Kinds, PartnerFolder, find_folders, measure
from common.tree_options import with_options
from common.tree_sample import TreeSample
from PIL import Image

import curriculum_sampler as cs
from curriculum_sampler.source import Entry

CONVERSION = 1
"""Rises when the same tree would give other samples."""

_PICTURES = ("{}.jpg", "{}.jpeg", "{}.png")
_PARSE_IDS = np.arange(20, dtype=np.uint8)

# The folder names of the original and of its common copies.
_KINDS: Kinds = {
    "image": (("image", "images"), _PICTURES),
    "cloth": (("cloth", "clothes"), _PICTURES),
    "cloth_mask": (("cloth-mask", "cloth_mask"), _PICTURES),
    "agnostic_mask": (("agnostic-mask", "agnostic_mask"), ("{}_mask.png", "{}.png", "{}.jpg")),
    "parse": (("image-parse-v3", "image-parse", "image_parse", "parse"), ("{}.png",)),
    "pose": (("image-densepose", "image_densepose", "densepose"), _PICTURES),
    "keypoints": (
        ("openpose_json", "openpose-json", "pose"),
        ("{}_keypoints.json", "{}.json"),
    ),
    "skeleton": (("openpose_img", "openpose-img"), ("{}_rendered.png", "{}.png", "{}.jpg")),
}
_REQUIRED = {"image": "the people", "cloth": "the garments"}
_SPLITS = ("train", "test")


@dataclass(frozen=True, slots=True)
class VitonHD:
    """The people of a VITON-HD tree, each with the garment that they wear. Made by ``source``.

    Attributes:
        root: The folder with ``train`` and ``test``.
        splits: Which of them.
    """

    root: Path
    splits: tuple[str, ...]

    @property
    def identity(self) -> str:
        """Names the tree, its splits and the way it is converted."""
        return f"viton-hd-{CONVERSION}:{self.root}:{'+'.join(self.splits)}"

    def entries(self) -> Iterator[Entry]:
        """Yield every person of the splits, in order of name.

        Raises:
            ArgumentError: A person lacks a file that others have.
        """
        for split in self.splits:
            folders = _folders(self.root / split)
            num_bytes = measure(folders)
            for name in _people(self.root, split, folders["image"]):
                yield Entry(f"{split}-{name}", (split, name), num_bytes(name))

    def read(self, entry: Entry) -> dict[str, Any]:
        """Return the members of a sample, see ``TreeSample.members``.

        Raises:
            ArgumentError: A file is missing or cannot be read.
        """
        split, name = str(entry.place[0]), str(entry.place[1])
        files = {kind: folder.path(name) for kind, folder in _folders(self.root / split).items()}
        keypoints = None
        if "keypoints" in files:
            keypoints = partial(_keypoints, files["keypoints"], files.get("skeleton"))
        return TreeSample(
            files=files,
            parse_ids=_PARSE_IDS,
            keypoints=keypoints,
            facts={
                "category": "upper_body",
                "garment": name.rpartition("_")[0] or name,
                "split": split,
                "data_set": VITON_HD.data_set,
                "license": VITON_HD.terms,
            },
        ).members(entry.key)


def source(root: str | Path, split: str = "train") -> VitonHD:
    """Return a VITON-HD tree as a source for ``build_dataset``; the licence notice is printed.

    Each sample has the members that ``get_vton_dataset`` reads, and in ``json``: ``category``, ``garment`` (for
    ``group=``: pictures of one garment stay in one split), ``split``, ``keypoints``, ``data_set``, ``license``.

    Args:
        root: The folder with ``train`` and ``test``. As a text it may end in ``,split=test``.
        split: ``"train"``, ``"test"`` or ``"all"``; with ``"all"`` build with ``splits="json:split"``.

    Raises:
        ArgumentError: There is no such split or no such tree.
    """
    place, options = with_options(root, {"split": split})
    splits = _SPLITS if options["split"] == "all" else (str(options["split"]),)
    if not set(splits) <= set(_SPLITS):
        raise cs.ArgumentError(f"viton_hd.source: got split={splits[0]!r}; give 'train', 'test' or 'all'.")
    for name in splits:
        _folders(place / name)
    VITON_HD.tell()
    return VitonHD(place.resolve(), splits)


def _folders(root: Path) -> dict[str, PartnerFolder]:
    """Return the folders of a split that there are, by what they hold."""
    return find_folders(root, _KINDS, _REQUIRED)


def _people(root: Path, split: str, images: PartnerFolder) -> list[str]:
    """Names of the people: of the pair file, where there is one, else of the pictures."""
    for file in (root / f"{split}_pairs.txt", root / split / f"{split}_pairs.txt"):
        if file.is_file():
            lines = file.read_text().splitlines()
            return sorted({Path(line.split()[0]).stem for line in lines if line.strip()})
    return images.names()


def _keypoints(path: Path, skeleton: Path | None, size: tuple[int, int]) -> Keypoints:
    """Joints are told in pixels of the picture that OpenPose saw, which its rendering has the size of."""
    drawn_on = size
    if skeleton is not None:
        with Image.open(skeleton) as picture:
            drawn_on = picture.size
    return read_openpose(path, drawn_on, size)
