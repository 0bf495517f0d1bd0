"""Laws of VITON-HD trees as sources of a build."""

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
from common.body_labels import PARSE_COLOURS, numbers_of
from common.viton_hd import VitonHD, source
from common.viton_hd_layout import write_viton_hd
from common.vton_data import TryOnArrays
from PIL import Image

import curriculum_sampler as cs
from curriculum_sampler.source import Source

from .tree_fixtures import decoded, tree

SIZE = (64, 48)
NAMES = [f"{number:05d}_00" for number in range(6)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("viton-hd")
    write_viton_hd(folder, {"train": 6, "test": 3}, seed=4, height=SIZE[0], width=SIZE[1])
    return folder


def first(tree: VitonHD) -> dict[str, Any]:
    return tree.read(next(tree.entries()))


def test_a_person_is_paired_with_what_they_wear_and_never_with_the_pair_file(written: Path) -> None:
    pairs = dict(line.split() for line in (written / "train_pairs.txt").read_text().splitlines())
    tree = source(written)
    entries = list(tree.entries())
    assert [entry.key for entry in entries] == [f"train-{name}" for name in NAMES]
    for entry, name in zip(entries, NAMES, strict=True):
        sample = tree.read(entry)
        assert sample["image.jpg"] == (written / "train/image" / f"{name}.jpg").read_bytes()
        assert sample["cloth.jpg"] == (written / "train/cloth" / f"{name}.jpg").read_bytes()
        assert sample["cloth.jpg"] != (written / "train/cloth" / pairs[f"{name}.jpg"]).read_bytes()
        assert sample["json"]["garment"] == name.removesuffix("_00")


def test_a_tree_is_a_source_that_other_processes_can_read(written: Path) -> None:
    tree = source(written)
    assert isinstance(tree, Source)
    again = pickle.loads(pickle.dumps(tree))
    assert list(again.entries()) == list(tree.entries())
    assert first(again) == first(tree)
    assert json.loads(json.dumps(next(tree.entries()).place)) == list(next(tree.entries()).place)


def test_a_sample_has_what_the_trainers_read(written: Path) -> None:
    sample = decoded(first(source(written)))
    arrays = TryOnArrays()(sample | {"__bucket__": "easy"}, np.random.default_rng(0))
    assert arrays["image"].shape == arrays["pose"].shape == (3, *SIZE)
    assert arrays["cloth_mask"].any()
    assert arrays["agnostic_mask"].any()
    assert sample["json"]["category"] == "upper_body"
    labels = numbers_of(sample["parse.png"], PARSE_COLOURS)
    with Image.open(written / "train/image-parse-v3" / f"{NAMES[0]}.png") as parse:
        assert (labels == np.array(parse)).all()


def test_sizes_of_entries_are_those_of_the_files(written: Path) -> None:
    entry = next(source(written).entries())
    files = [path for path in (written / "train").rglob(f"{NAMES[0]}*") if "agnostic-v3.2" not in str(path)]
    files = [path for path in files if "parse-agnostic" not in str(path)]
    assert entry.num_bytes == sum(path.stat().st_size for path in files)


def test_all_splits_of_a_tree_can_be_read_at_once(written: Path) -> None:
    tree = source(f"{written},split=all")
    splits = [tree.read(entry)["json"]["split"] for entry in tree.entries()]
    assert splits == ["train"] * 6 + ["test"] * 3
    assert len({entry.key for entry in tree.entries()}) == 9
    assert len({source(f"{written},split={split}").identity for split in ("train", "test", "all")}) == 3


def test_who_is_not_in_the_pair_file_is_left_out_and_without_one_all_are_read(tree: Path) -> None:
    lines = (tree / "train_pairs.txt").read_text().splitlines()
    (tree / "train_pairs.txt").write_text("\n".join(sorted(lines)[1:3]) + "\n\n")
    assert [entry.key for entry in source(tree).entries()] == [f"train-{name}" for name in NAMES[1:3]]
    (tree / "train_pairs.txt").unlink()
    assert [entry.key for entry in source(tree).entries()] == [f"train-{name}" for name in NAMES]


@pytest.mark.parametrize(
    ("folder", "alias"),
    [
        ("cloth-mask", "cloth_mask"),
        ("image-parse-v3", "image-parse"),
        ("agnostic-mask", "agnostic_mask"),
        ("image-densepose", "densepose"),
        ("openpose_json", "openpose-json"),
        ("openpose_img", "openpose-img"),
    ],
)
def test_other_spellings_of_a_folder_are_found(tree: Path, folder: str, alias: str) -> None:
    before = first(source(tree))
    (tree / "train" / folder).rename(tree / "train" / alias)
    assert first(source(tree)) == before


@pytest.mark.parametrize(
    "missing",
    ["image", "cloth", "cloth-mask", "agnostic-mask", "image-parse-v3", "image-densepose", "openpose_json"],
)
def test_a_missing_partner_is_named_while_the_samples_are_listed(tree: Path, missing: str) -> None:
    (gone,) = (tree / "train" / missing).glob(f"{NAMES[2]}*")
    gone.unlink()
    with pytest.raises(cs.ArgumentError, match=re.escape(gone.name)) as caught:
        list(source(tree).entries())
    assert missing in str(caught.value)
    assert "take the sample out of the pair file" in str(caught.value)


def test_a_file_that_goes_between_listing_and_reading_is_named_too(tree: Path) -> None:
    made = source(tree)
    entry = next(made.entries())
    (tree / "train/cloth" / f"{NAMES[0]}.jpg").unlink()
    with pytest.raises(cs.ArgumentError, match=f"cloth/{NAMES[0]}.jpg is missing"):
        made.read(entry)


def test_absent_masks_are_drawn(tree: Path) -> None:
    before = decoded(first(source(tree)))
    shutil.rmtree(tree / "train/cloth-mask")
    shutil.rmtree(tree / "train/agnostic-mask")
    drawn = decoded(first(source(tree)))
    assert overlap(drawn["cloth_mask.png"], before["cloth_mask.jpg"]) > 0.9
    assert overlap(drawn["agnostic_mask.png"], before["agnostic_mask.png"]) > 0.5


def test_without_a_pose_there_is_no_member_and_without_joints_no_keypoints(tree: Path) -> None:
    shutil.rmtree(tree / "train/image-densepose")
    shutil.rmtree(tree / "train/openpose_json")
    sample = first(source(tree))
    assert not [name for name in sample if name.startswith("pose")]
    assert "keypoints" not in sample["json"]


def test_a_mask_that_can_neither_be_read_nor_drawn_is_refused(tree: Path) -> None:
    shutil.rmtree(tree / "train/agnostic-mask")
    shutil.rmtree(tree / "train/image-parse-v3")
    with pytest.raises(cs.ArgumentError, match="none can be drawn without a parse map"):
        first(source(tree))


def test_joints_follow_a_picture_that_was_made_smaller(tree: Path) -> None:
    before = np.array(first(source(tree))["json"]["keypoints"])
    for path in (tree / "train/image").iterdir():
        with Image.open(path) as image:
            small = image.reduce(2)
        small.save(path)
    assert np.allclose(
        np.array(first(source(tree))["json"]["keypoints"])[:, :2], before[:, :2] / 2, atol=0.01
    )
    shutil.rmtree(tree / "train/openpose_img")
    with pytest.raises(cs.ArgumentError, match=r"lies outside the picture of 24 x 32"):
        first(source(tree))


def test_a_joint_without_confidence_is_one_that_was_not_found(tree: Path) -> None:
    path = tree / "train/openpose_json" / f"{NAMES[0]}_keypoints.json"
    told = json.loads(path.read_text())
    told["people"][0]["pose_keypoints_2d"][6:9] = [12.0, 20.0, 0.0]
    path.write_text(json.dumps(told))
    assert first(source(tree))["json"]["keypoints"][2] == [0, 0, 0]


def test_a_folder_whose_name_has_commas_is_found(tree: Path, tmp_path: Path) -> None:
    place = tree.rename(tmp_path / "a,tree,split=test")
    assert [entry.key for entry in source(place).entries()] == [f"train-{name}" for name in NAMES]
    assert len(list(source(f"{place},split=test").entries())) == 3


def test_of_a_picture_without_people_all_joints_are_missing(tree: Path) -> None:
    (tree / "train/openpose_json" / f"{NAMES[0]}_keypoints.json").write_text('{"people": []}')
    assert not np.array(first(source(tree))["json"]["keypoints"]).any()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("openpose_json/{}_keypoints.json", b"{", "the joints cannot be read"),
        ("openpose_json/{}_keypoints.json", b'{"people": [{"pose_keypoints_2d": [1, 2]}]}', "got 2 numbers"),
        ("openpose_json/{}_keypoints.json", b'{"people": [{"pose_keypoints_2d": ["x"]}]}', "got 1 numbers"),
        ("image-parse-v3/{}.png", b"no picture", "the picture cannot be read"),
        ("image/{}.jpg", b"no picture", "the picture cannot be read"),
    ],
)
def test_a_damaged_file_is_named(tree: Path, file: str, content: bytes, message: str) -> None:
    path = tree / "train" / file.format(NAMES[0])
    path.write_bytes(content)
    with pytest.raises(cs.ArgumentError, match=message) as caught:
        first(source(tree))
    assert str(path) in str(caught.value)


def test_a_parse_map_cut_short_is_named(tree: Path) -> None:
    path = tree / "train/image-parse-v3" / f"{NAMES[0]}.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(cs.ArgumentError, match="the picture cannot be read"):
        first(source(tree))


def test_a_parse_map_of_colours_or_of_unknown_labels_is_refused(tree: Path) -> None:
    path = tree / "train/image-parse-v3" / f"{NAMES[0]}.png"
    Image.new("RGB", SIZE[::-1]).save(path)
    with pytest.raises(cs.ArgumentError, match="not a RGB picture"):
        first(source(tree))
    Image.new("L", SIZE[::-1], 77).save(path)
    with pytest.raises(cs.ArgumentError, match="label 77 is unknown"):
        first(source(tree))


def test_the_licence_is_printed_and_goes_with_every_sample(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = first(source(written))
    assert "CC BY-NC 4.0" in capsys.readouterr().err
    assert sample["json"]["license"] == "CC BY-NC 4.0"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("{},split=val", "got split='val'; give 'train', 'test' or 'all'"),
        ("{},spilt=test", "'spilt' is no option here. Options after the path are: split"),
        ("{}/nowhere", "there is no folder image or images, which holds the people"),
    ],
)
def test_a_place_that_cannot_be_is_refused_at_once(written: Path, place: str, message: str) -> None:
    with pytest.raises(cs.ArgumentError, match=re.escape(message)):
        source(place.format(written))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    first_mask, second = one[..., 0] >= 128, other[..., 0] >= 128
    return float((first_mask & second).sum() / (first_mask | second).sum())
