"""Laws of Dress Code trees as sources of a build."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common.body_labels import PARSE_COLOURS, Parse, numbers_of
from common.dress_code import LABELS, source
from common.dress_code_layout import write_dress_code
from common.factors import CATEGORIES, Factors
from common.figure import JOINTS
from common.synthetic import render_sample
from common.vton_data import TryOnArrays
from PIL import Image

import curriculum_sampler as cs
from curriculum_sampler.source import Source

from .tree_fixtures import decoded, tree

SIZE = (64, 48)
FIRST = {"upper_body": "000000", "lower_body": "010000", "dresses": "020000"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dress-code")
    write_dress_code(folder, {"train": 3, "test": 2}, seed=4, height=SIZE[0], width=SIZE[1])
    return folder


def samples(place: Path | str, **options: Any) -> list[dict[str, Any]]:
    tree = source(place, accept_license=True, **options)
    return [tree.read(entry) for entry in tree.entries()]


def test_nothing_is_read_before_the_licence_is_accepted(written: Path) -> None:
    with pytest.raises(cs.ArgumentError, match="its terms were not accepted, so nothing was read") as caught:
        source(written)
    assert "accept-license" in str(caught.value)
    with pytest.raises(cs.ArgumentError, match="were not accepted"):
        source(written / "nowhere")
    with pytest.raises(cs.ArgumentError, match="were not accepted"):
        source(f"{written},accept-license=no")
    assert list(source(f"{written},accept-license").entries())


def test_the_licence_is_printed_and_goes_with_every_sample(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert all("academic use only" in sample["json"]["license"] for sample in samples(written))
    assert "do not publish or pass them on" in capsys.readouterr().err


def test_people_of_all_categories_come_with_the_garment_of_their_number(written: Path) -> None:
    found = samples(written)
    keys = [
        f"{category}-{int(first) + number:06d}" for category, first in FIRST.items() for number in range(3)
    ]
    assert [sample["__key__"] for sample in found] == keys
    for sample in found:
        category, number = sample["__key__"].split("-")
        for member, ending in (("image.jpg", "_0.jpg"), ("cloth.jpg", "_1.jpg")):
            assert sample[member] == (written / category / "images" / (number + ending)).read_bytes()
        assert (sample["json"]["category"], sample["json"]["garment"]) == (category, number)


def test_a_tree_is_a_source_that_other_processes_can_read(written: Path) -> None:
    tree = source(written, split="all", accept_license=True)
    assert isinstance(tree, Source)
    again = pickle.loads(pickle.dumps(tree))
    entries = list(tree.entries())
    assert list(again.entries()) == entries
    assert again.read(entries[4]) == tree.read(entries[4])
    assert len({entry.key for entry in entries}) == 15
    assert [tree.read(entry)["json"]["split"] for entry in entries] == (["train"] * 3 + ["test"] * 2) * 3


def test_a_sample_has_what_the_trainers_read(written: Path) -> None:
    for category, sample in zip(CATEGORIES, samples(written)[::3], strict=True):
        arrays = TryOnArrays()(decoded(sample) | {"__bucket__": "easy"}, np.random.default_rng(0))
        assert arrays["category"] == CATEGORIES.index(category)
        assert arrays["image"].shape == arrays["pose"].shape == (3, *SIZE)
        assert 0 < arrays["agnostic_mask"].mean() < 0.8
        assert 0 < arrays["cloth_mask"].mean() < 0.8


def test_labels_surfaces_and_joints_come_back_as_they_were_drawn(written: Path) -> None:
    rows = [json.loads(line) for line in (written / "factors.jsonl").read_text().splitlines()]
    told = {row.pop("key"): row for row in rows}
    for sample in samples(written):
        row = dict(told[sample["__key__"]])
        row.pop("level")
        true = render_sample(Factors(**row), int(sample["json"]["garment"]), 4, *SIZE)
        members = decoded(sample)
        labels = np.array(true.parse)
        labels[labels == Parse.NECK] = Parse.FACE
        assert (numbers_of(members["parse.png"], PARSE_COLOURS) == labels).all()
        assert (members["pose.png"] == np.array(true.pose)).all()
        joints, drawn = np.array(sample["json"]["keypoints"]), true.keypoints.copy()
        drawn[19:] = 0  # 18 joints know no feet
        middle = JOINTS.index("mid_hip")
        assert np.allclose(joints[:middle], drawn[:middle], atol=0.02)
        assert np.allclose(joints[middle + 1 :], drawn[middle + 1 :], atol=0.02)
        assert np.allclose(joints[middle], drawn[middle], atol=0.02 * SIZE[0])


def test_every_label_of_the_data_set_means_something() -> None:
    assert len(LABELS) == 18
    assert LABELS[4:8] == (Parse.UPPER, Parse.SKIRT, Parse.PANTS, Parse.DRESS)
    assert LABELS[14:16] == (Parse.LEFT_ARM, Parse.RIGHT_ARM)
    # The others in words of the data set: hat, hair, sunglasses; belt, shoes, head, legs; bag, scarf.
    assert LABELS[:4] == (Parse.BACKGROUND, Parse.HAT, Parse.HAIR, Parse.SUNGLASSES)
    assert LABELS[8:11] == (Parse.PANTS, Parse.LEFT_SHOE, Parse.RIGHT_SHOE)
    assert LABELS[11:14] == (Parse.FACE, Parse.LEFT_LEG, Parse.RIGHT_LEG)
    assert LABELS[16:] == (Parse.GLOVE, Parse.SCARF)


def test_a_joint_at_the_rim_is_one_that_was_not_found(tree: Path) -> None:
    path = tree / "upper_body/keypoints/000000_2.json"
    told = json.loads(path.read_text())
    told["keypoints"][0], told["keypoints"][2] = [100.0, 1.0, 1.0, 0.0], [1.0, 100.0, 1.0, 2.0]
    path.write_text(json.dumps(told))
    joints = samples(tree)[0]["json"]["keypoints"]
    assert joints[JOINTS.index("nose")] == joints[JOINTS.index("right_shoulder")] == [0, 0, 0]
    assert joints[JOINTS.index("left_shoulder")] != [0, 0, 0]


def test_what_is_taken_of_a_tree_is_part_of_its_identity(written: Path) -> None:
    taken = ("", ",split=test", ",split=all", ",category=dresses", ",category=dresses,split=test")
    assert len({source(f"{written},accept-license{options}").identity for options in taken}) == len(taken)


def test_masks_that_are_there_are_taken(tree: Path) -> None:
    for category, first in FIRST.items():
        for folder, ending in (("masks", "_1.png"), ("agnostic_masks", "_0.png")):
            (tree / category / folder).mkdir()
            for number in range(3):
                Image.new("L", SIZE[::-1], 255).save(
                    tree / category / folder / f"{int(first) + number:06d}{ending}"
                )
    for sample in map(decoded, samples(tree)):
        assert (sample["cloth_mask.png"] == 255).all()
        assert (sample["agnostic_mask.png"] == 255).all()


@pytest.mark.parametrize(
    ("folder", "ending"),
    [
        ("images", "_0.jpg"),
        ("images", "_1.jpg"),
        ("label_maps", "_4.png"),
        ("dense", "_5.png"),
        ("keypoints", "_2.json"),
    ],
)
def test_a_missing_partner_is_named_while_the_samples_are_listed(
    tree: Path, folder: str, ending: str
) -> None:
    (tree / "dresses" / folder / f"020001{ending}").unlink()
    with pytest.raises(cs.ArgumentError, match=re.escape(f"dresses/{folder}/020001{ending} is missing")):
        list(source(tree, accept_license=True).entries())


def test_one_category_can_be_read_alone_and_a_missing_one_is_missed(tree: Path) -> None:
    shutil.rmtree(tree / "dresses")
    with pytest.raises(cs.ArgumentError, match="dresses: there is no folder images"):
        source(tree, accept_license=True)
    alone = source(f"{tree},category=lower_body,accept-license")
    assert [entry.key for entry in alone.entries()] == [f"lower_body-01000{number}" for number in range(3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("split=val", "got split='val'; give train, test or all"),
        ("category=hats", "got category='hats'; give upper_body, lower_body, dresses or all"),
        ("accept-license=perhaps", "accept_license is yes or no, not 'perhaps'"),
    ],
)
def test_options_that_cannot_be_are_refused(written: Path, options: str, message: str) -> None:
    with pytest.raises(cs.ArgumentError, match=re.escape(message)):
        source(f"{written},accept-license,{options}")


def test_pair_files_that_are_missing_or_foreign_are_named(tree: Path) -> None:
    pairs = tree / "lower_body" / "train_pairs.txt"
    pairs.write_text("010000.jpg 010000.jpg\n")
    with pytest.raises(cs.ArgumentError, match="a person is called like"):
        samples(tree)
    pairs.unlink()
    with pytest.raises(cs.ArgumentError, match=r"lower_body/train_pairs\.txt is missing"):
        samples(tree)


def test_surfaces_with_an_unknown_number_are_refused(tree: Path) -> None:
    Image.new("L", SIZE[::-1], 200).save(tree / "upper_body/dense/000000_5.png")
    with pytest.raises(cs.ArgumentError, match="surface 200 is unknown"):
        samples(tree)


@pytest.mark.parametrize(
    ("counts", "message"), [({"val": 2}, "'train' and 'test'"), ({"train": 0}, "give 1 to")]
)
def test_a_layout_that_cannot_be_is_refused(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_dress_code(tmp_path, counts)
