"""Laws of the difficulty signals: they find, in the annotations alone, what the generator knows it did."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from common.body_labels import PARSE_COLOURS, Parse, numbers_of
from common.convex_hull import fill_hull
from common.difficulty import WEIGHTS, signals
from common.dilation import grow, shrink
from common.drawn_masks import draw_agnostic_mask, draw_cloth_mask
from common.factors import CATEGORIES, LEVELS, Factors, draw_factors
from common.figure import JOINTS
from common.synthetic import render_sample
from common.viton_hd import VitonHD
from common.viton_hd_layout import write_person
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .tree_fixtures import decoded

SIZE = (256, 192)
FACTOR_SIGNAL = {
    "pose": "pose_turn",
    "occlusion": "arm_over_torso",
    "texture": "texture",
    "clutter": "clutter",
}


def written(folder: Path, factors: list[Factors]) -> list[dict[str, Any]]:
    """People with these factors, through a tree of files and back: what a scorer is given."""
    for number, each in enumerate(factors):
        write_person(folder / "train", f"{number:05d}_00", render_sample(each, number, 5, *SIZE))
    tree = VitonHD(folder, ("train",))
    return [decoded(tree.read(entry)) for entry in tree.entries()]


@pytest.fixture(scope="module")
def any_factors() -> list[Factors]:
    rng = np.random.default_rng(11)
    names = ("pose", "occlusion", "texture", "clutter", "lighting", "looseness")
    return [Factors(**dict(zip(names, rng.uniform(0, 1, 6).tolist(), strict=True))) for _ in range(120)]


@pytest.fixture(scope="module")
def found(any_factors: list[Factors], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    return [signals(sample) for sample in written(tmp_path_factory.mktemp("any"), any_factors)]


Levels = tuple[list[str], list[dict[str, float]]]


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Levels:
    rng = np.random.default_rng(3)
    names = [level for level in LEVELS for _ in range(40)]
    factors = [draw_factors(level, rng, category="upper_body") for level in names]
    return names, [signals(sample) for sample in written(tmp_path_factory.mktemp("levels"), factors)]


@pytest.mark.parametrize("factor", FACTOR_SIGNAL)
def test_each_factor_is_found_by_its_signal_whatever_the_others_are(
    factor: str, any_factors: list[Factors], found: list[dict[str, float]]
) -> None:
    true = [getattr(each, factor) for each in any_factors]
    measured = [each[FACTOR_SIGNAL[factor]] for each in found]
    assert spearman(true, measured) > 0.8


@pytest.mark.parametrize("weights", [WEIGHTS, dict.fromkeys(WEIGHTS, 1.0)], ids=["ours", "all alike"])
def test_quantile_buckets_recover_the_levels(weights: dict[str, float], levels: Levels) -> None:
    ranked = np.argsort(np.argsort(score(levels[1], weights)))
    recovered = [tuple(LEVELS)[int(rank * 3 / len(ranked))] for rank in ranked]
    right = np.mean([one == other for one, other in zip(recovered, levels[0], strict=True)])
    assert right > 0.85


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    calm = Factors(pose=0.2, occlusion=0.1, texture=0.6, clutter=0.4, lighting=0.2)
    (sample,) = written(tmp_path_factory.mktemp("one"), [calm])
    return sample


def test_every_signal_has_a_weight_and_every_value_is_a_plain_number(one: dict[str, Any]) -> None:
    found = signals(one)
    assert found.keys() == WEIGHTS.keys()
    assert all(type(value) is float and np.isfinite(value) for value in found.values())


def test_the_size_at_which_pictures_are_stored_says_little(one: dict[str, Any]) -> None:
    larger = {
        name: value.repeat(3, axis=0).repeat(3, axis=1) if isinstance(value, np.ndarray) else value
        for name, value in one.items()
    }
    scale = np.array([3.0, 3.0, 1.0])
    larger["json"] = one["json"] | {"keypoints": (np.array(one["json"]["keypoints"]) * scale).tolist()}
    small, large = signals(one), signals(larger)
    for name, value in small.items():
        assert large[name] == pytest.approx(value, rel=0.02, abs=0.005), name


@settings(max_examples=30)
@given(st.sets(st.sampled_from(JOINTS), min_size=1), st.sampled_from(CATEGORIES))
def test_joints_that_are_not_found_never_make_a_person_easier(
    one: dict[str, Any], gone: set[str], category: str
) -> None:
    points = np.array(one["json"]["keypoints"])
    points[[JOINTS.index(name) for name in gone]] = 0
    before = signals(one | {"json": one["json"] | {"category": category}})
    after = signals(one | {"json": {"category": category, "keypoints": points.tolist()}})
    assert all(np.isfinite(value) for value in after.values())
    assert after["pose_missing"] >= before["pose_missing"]
    for name in ("pose_turn", "pose_lean"):
        assert after[name] >= before[name]


def test_a_person_of_whom_nothing_was_found_is_the_hardest_there_is(
    one: dict[str, Any], found: list[dict[str, float]]
) -> None:
    nothing = one | {"json": {"category": "upper_body", "keypoints": np.zeros((25, 3)).tolist()}}
    nothing["parse.png"] = np.zeros_like(one["parse.png"])
    nothing["agnostic_mask.png"] = np.zeros_like(one["agnostic_mask.png"])
    hardest = signals(nothing)
    for name in (
        "pose_folded",
        "pose_turn",
        "pose_lean",
        "pose_missing",
        "arm_over_torso",
        "mask_ragged",
        "shape_gap",
    ):
        assert hardest[name] >= max(each[name] for each in found), name


def test_a_sleeve_in_front_of_the_garment_counts_as_the_arm_that_it_is(one: dict[str, Any]) -> None:
    points = np.array(one["json"]["keypoints"])
    hips = points[JOINTS.index("mid_hip"), :2], points[JOINTS.index("neck"), :2]
    points[JOINTS.index("left_wrist"), :2] = 0.6 * hips[0] + 0.4 * hips[1]
    crossed = one | {"json": one["json"] | {"keypoints": points.tolist()}}
    assert signals(crossed)["arm_over_torso"] > signals(one)["arm_over_torso"] + 0.03


def test_signals_of_absent_annotations_are_left_out(one: dict[str, Any]) -> None:
    blind = {name: value for name, value in one.items() if name != "parse.png"}
    assert WEIGHTS.keys() - signals(blind).keys() == {"arm_over_torso", "shape_gap", "clutter"}
    poseless = one | {"json": {"category": "upper_body"}}
    gone = WEIGHTS.keys() - signals(poseless).keys()
    assert gone == {"pose_folded", "pose_turn", "pose_lean", "pose_missing"}


def test_parse_maps_of_ids_and_of_colours_say_the_same(one: dict[str, Any]) -> None:
    ids = numbers_of(one["parse.png"], PARSE_COLOURS)[..., None]
    assert signals(one | {"parse.png": ids}) == signals(one)


def test_samples_that_cannot_be_measured_are_refused(one: dict[str, Any]) -> None:
    without = {name: value for name, value in one.items() if name != "cloth.jpg"}
    with pytest.raises(ValueError, match="'train-00000_00' lacks cloth: it has"):
        signals(without)
    with pytest.raises(ValueError, match=r"keypoints of shape \(1, 3\), but they are 25 rows"):
        signals(one | {"json": {"keypoints": [[1, 2, 3]]}})
    with pytest.raises(ValueError, match=r"got the colour \[1, 2, 3\], which is none of the 20 known"):
        signals(one | {"parse.png": np.full_like(one["parse.png"], [1, 2, 3])})


masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12))


@given(masks, st.integers(0, 6))
def test_growing_is_the_largest_value_of_a_window_and_shrinking_its_opposite(mask: Any, radius: int) -> None:
    picture = Image.fromarray(np.uint8(255) * mask)
    assert (grow(mask, radius) == (np.array(picture.filter(ImageFilter.MaxFilter(2 * radius + 1))) > 0)).all()
    assert (
        shrink(mask, radius) == (np.array(picture.filter(ImageFilter.MinFilter(2 * radius + 1))) > 0)
    ).all()


@given(masks)
def test_a_hull_holds_its_mask_and_is_its_own_hull(mask: Any) -> None:
    hull = fill_hull(mask)
    assert (hull | mask == hull).all()
    assert hull.any() == mask.any()
    for rows in (hull, hull.T):
        for row in rows:
            places = np.flatnonzero(row)
            assert len(places) == 0 or np.ptp(places) + 1 == len(places), (
                "a hull has no gap in a row or column"
            )


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_drawn_agnostic_mask_hides_the_garment_and_leaves_the_head(category: str) -> None:
    for level in LEVELS:
        for index in range(4):
            factors = draw_factors(level, np.random.default_rng(index), category=category)
            sample = render_sample(factors, index, 2, 128, 96)
            labels = np.array(sample.parse)
            mask = np.array(draw_agnostic_mask(labels, sample.keypoints, category)) > 0
            assert mask[sample.pieces > 0].mean() > 0.97
            assert not mask[np.isin(labels, (Parse.FACE, Parse.HAIR))].any()
            assert mask.mean() < 0.7


def test_a_drawn_cloth_mask_has_white_inside_and_no_gap_between_legs() -> None:
    picture = np.full((20, 20, 3), 255, np.uint8)
    picture[2:18, 3:7] = picture[2:18, 12:16] = picture[2:5, 3:16] = 90
    picture[6:8, 4:6] = 255
    mask = np.array(draw_cloth_mask(Image.fromarray(picture))) > 0
    assert mask[2:18, 3:7].all(), "white inside a leg is garment"
    assert not mask[5:, 7:12].any(), "what is between the legs is not"
    assert not mask[:2].any()


@pytest.mark.parametrize("name", ["body_labels", "convex_hull", "dilation", "tree_options", "tryon_members"])
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"common.{name}"))
    assert failed == 0
    assert tried > 0


def score(found: list[dict[str, float]], weights: Mapping[str, float]) -> NDArray[np.float64]:
    """The weighted mean of ranks."""
    ranked = [weight * ranks([each[name] for each in found]) for name, weight in weights.items()]
    return np.sum(ranked, axis=0) / sum(weights.values())


def ranks(values: Any) -> NDArray[np.float64]:
    """Ranks in which equal values share theirs."""
    known = np.sort(np.asarray(values))
    return (np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")) / 2


def spearman(first: Any, second: Any) -> float:
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])
