"""Laws of the procedural try-on pictures."""

from __future__ import annotations

import doctest
import hashlib
import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

from common.body_labels import SURFACE_COLOURS, Parse, Surface, mirrored_surface  # noqa: E402
from common.factors import CATEGORIES, LEVELS, Factors, draw_factors  # noqa: E402
from common.synthetic import TryOnSample, render_sample  # noqa: E402
from common.viton_hd_layout import write_viton_hd  # noqa: E402

GARMENT_LABEL = {
    "upper_body": (Parse.UPPER,),
    "lower_body": (Parse.PANTS, Parse.SKIRT),
    "dresses": (Parse.DRESS,),
}


def digest(sample: TryOnSample) -> str:
    pictures = (
        sample.image,
        sample.cloth,
        sample.cloth_mask,
        sample.agnostic_mask,
        sample.pose,
        sample.parse,
    )
    content = b"".join(picture.tobytes() for picture in pictures)
    return hashlib.sha256(content + sample.keypoints.tobytes() + sample.pieces.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[TryOnSample]]:
    return {level: [render_sample(level, index, 17, 64, 48) for index in range(24)] for level in LEVELS}


def samples() -> st.SearchStrategy[TryOnSample]:
    fraction = st.floats(0, 1)
    factors = st.builds(
        Factors,
        pose=fraction,
        occlusion=fraction,
        texture=fraction,
        clutter=fraction,
        lighting=fraction,
        looseness=fraction,
        category=st.sampled_from(CATEGORIES),
    )
    sizes = st.sampled_from([(24, 16), (32, 24), (64, 48), (48, 64), (65, 49)])
    return st.builds(
        lambda known, index, size: render_sample(known, index, 5, *size),
        factors,
        st.integers(0, 10**6),
        sizes,
    )


def test_the_same_seed_and_index_give_the_same_bytes_in_any_order_and_process() -> None:
    forwards = [digest(render_sample("hard", index, 3, 32, 24)) for index in range(4)]
    backwards = [digest(render_sample("hard", index, 3, 32, 24)) for index in reversed(range(4))]
    assert forwards == backwards[::-1]
    code = (
        f"import sys; sys.path[:0] = [{str(EXAMPLES)!r}, {str(Path(__file__).parent)!r}]\n"
        "from test_synthetic import digest, render_sample\n"
        "print(digest(render_sample('hard', 2, 3, 32, 24)))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == forwards[2]


def test_seeds_and_indices_give_different_pictures() -> None:
    seen = {digest(render_sample("easy", index, seed, 32, 24)) for index in range(5) for seed in range(5)}
    assert len(seen) == 25


def test_no_global_randomness_is_used_or_moved() -> None:
    before = np.random.get_state()[1].copy()
    render_sample("medium", 0, 0, 32, 24)
    assert (np.random.get_state()[1] == before).all()


@settings(max_examples=40, deadline=None)
@given(samples())
def test_pictures_masks_and_labels_agree(sample: TryOnSample) -> None:
    size = sample.image.size
    for picture in (sample.cloth, sample.cloth_mask, sample.agnostic_mask, sample.pose, sample.parse):
        assert picture.size == size
    labels, agnostic = np.array(sample.parse), np.array(sample.agnostic_mask)
    assert set(np.unique(agnostic)) <= {0, 255}
    assert set(np.unique(np.array(sample.cloth_mask))) <= {0, 255}
    assert set(np.unique(labels)) <= set(Parse)
    assert (agnostic[sample.pieces > 0] == 255).all(), (
        "a try-on must repaint every visible bit of the garment"
    )
    assert np.isin(labels[sample.pieces > 0], GARMENT_LABEL[sample.factors.category]).all()
    assert (agnostic[np.isin(labels, (Parse.FACE, Parse.HAIR))] == 0).all(), "who it is must stay visible"
    assert 0 <= sample.occluded <= 1
    assert (np.array(sample.cloth)[0] == 255).all(), "a flat garment lies on white"
    hidden = np.array(sample.agnostic)[agnostic == 255]
    assert (hidden == 128).all()


@settings(max_examples=40, deadline=None)
@given(samples())
def test_the_flow_points_into_the_flat_garment(sample: TryOnSample) -> None:
    flow, seen = sample.flow(), sample.pieces > 0
    assert np.isnan(flow[~seen]).all()
    inside = flow[seen]
    assert np.isfinite(inside).all()
    columns, rows = sample.cloth.size
    assert (inside > -1).all()
    assert (inside < np.array([columns, rows]) + 1).all()


def test_following_the_flow_brings_back_the_worn_garment() -> None:
    calm = Factors(pose=0.3, occlusion=0.0, texture=0.6, clutter=0.0, lighting=0.0, looseness=0.0)
    for index in range(4):
        sample = render_sample(calm, index, 1, 256, 192)
        seen, cloth = sample.pieces > 0, np.array(sample.cloth, float)
        columns, rows = np.floor(sample.flow()[seen]).astype(int).T
        fetched, shown = cloth[rows.clip(0, 255), columns.clip(0, 191)], np.array(sample.image, float)[seen]
        other = np.random.default_rng(0).permutation(fetched)
        error, by_chance = np.abs(fetched - shown).mean(), np.abs(other - shown).mean()
        assert error < 0.5 * by_chance, (index, error, by_chance)


def test_joints_outside_the_picture_are_missing() -> None:
    sample = render_sample("easy", 0, 1, 64, 48)
    assert sample.keypoints.shape == (25, 3)
    assert (sample.keypoints[[11, 14]] == 0).all(), "ankles are below the picture"
    present = sample.keypoints[sample.keypoints[:, 2] > 0]
    assert len(present) >= 12
    assert (present[:, :2] < [48, 64]).all()


def test_levels_come_in_order_by_what_can_be_measured(rendered: dict[str, list[TryOnSample]]) -> None:
    def ordered(signal: str, values: dict[str, list[float]]) -> None:
        easy, medium, hard = (float(np.mean(values[level])) for level in LEVELS)
        assert easy < medium < hard, f"{signal}: {easy:.3f}, {medium:.3f}, {hard:.3f}"

    ordered("occluded", {level: [one.occluded for one in many] for level, many in rendered.items()})
    ordered("texture", {level: [roughness(one) for one in many] for level, many in rendered.items()})
    ordered("folded arms", {level: [-spread(one) for one in many] for level, many in rendered.items()})
    ordered(
        "difficulty", {level: [one.factors.difficulty for one in many] for level, many in rendered.items()}
    )
    share = [
        np.mean([np.array(one.agnostic_mask).mean() / 255 for one in many]) for many in rendered.values()
    ]
    assert max(share) < 1.5 * min(share), "the size of the mask must not give the level away"


@pytest.mark.parametrize("factor", ["texture", "occlusion", "pose", "clutter"])
def test_each_factor_is_seen_in_its_signal(factor: str) -> None:
    signals = {"texture": roughness, "occlusion": lambda one: one.occluded, "pose": lean, "clutter": busyness}
    calm = Factors(pose=0.2, occlusion=0.2, texture=0.2, clutter=0.2, lighting=0.2)
    values = np.linspace(0, 1, 24)
    found = [
        signals[factor](render_sample(replace(calm, **{factor: value}), 7 * n, 2))
        for n, value in enumerate(values)
    ]
    assert spearman(values, np.array(found)) > 0.8


def test_mirroring_a_pose_exchanges_left_and_right_and_undoes_itself() -> None:
    pixels = np.array(render_sample("hard", 2, 0, 64, 48).pose)
    mirrored = mirrored_surface(pixels)
    assert (mirrored_surface(mirrored) == pixels).all()
    left = (pixels == SURFACE_COLOURS[Surface.LEFT_UPPER_ARM]).all(-1)
    right = (mirrored == SURFACE_COLOURS[Surface.RIGHT_UPPER_ARM]).all(-1)
    assert left.any()
    assert (left == right).all()
    torso = (pixels == SURFACE_COLOURS[Surface.TORSO]).all(-1)
    assert (mirrored[torso] == pixels[torso]).all()


def test_surface_colours_are_all_different() -> None:
    assert len({tuple(colour) for colour in SURFACE_COLOURS.tolist()}) == len(SURFACE_COLOURS)


def test_unknown_levels_factors_and_tiny_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="the levels are easy, medium, hard"):
        render_sample("extreme", 0, 0)
    with pytest.raises(ValueError, match="got 8x6"):
        render_sample("easy", 0, 0, 8, 6)
    with pytest.raises(ValueError, match=r"got pose=1\.5"):
        Factors(pose=1.5, occlusion=0, texture=0, clutter=0, lighting=0)
    with pytest.raises(ValueError, match="category='hats'"):
        replace(draw_factors("easy", np.random.default_rng(0)), category="hats")


@pytest.mark.parametrize(
    "name",
    [
        "body_labels",
        "braces",
        "bucketed_shards",
        "fabric",
        "factors",
        "geometry",
        "metrics_rows",
        "synthetic",
        "vton_data",
    ],
)
def test_the_examples_in_docstrings_are_true(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"common.{name}"))
    assert failed == 0
    assert tried > 0


def test_the_viton_hd_layout_has_its_names_and_its_mismatched_pairs(tmp_path: Path) -> None:
    write_viton_hd(tmp_path, {"train": 5, "test": 3}, seed=4, height=32, width=24)
    for split, count in (("train", 5), ("test", 3)):
        for folder, ending in {
            "image": ".jpg",
            "cloth": ".jpg",
            "cloth-mask": ".jpg",
            "agnostic-mask": "_mask.png",
            "agnostic-v3.2": ".jpg",
            "image-parse-v3": ".png",
            "image-parse-agnostic-v3.2": ".png",
            "image-densepose": ".jpg",
            "openpose_img": "_rendered.png",
            "openpose_json": "_keypoints.json",
        }.items():
            expected = {f"{number:05d}_00{ending}" for number in range(count)}
            assert {path.name for path in (tmp_path / split / folder).iterdir()} == expected
        pairs = [line.split() for line in (tmp_path / f"{split}_pairs.txt").read_text().splitlines()]
        persons, garments = zip(*pairs, strict=True)
        assert (
            sorted(persons)
            == sorted(garments)
            == sorted(path.name for path in (tmp_path / split / "image").iterdir())
        )
        assert all(person != garment for person, garment in pairs), "the original's pairs are mismatched"
        factors = [
            json.loads(line) for line in (tmp_path / f"{split}_factors.jsonl").read_text().splitlines()
        ]
        assert [row["image"] for row in factors] == sorted(persons)
    with Image.open(tmp_path / "train/image-parse-v3/00000_00.png") as parse:
        assert parse.mode == "P"
        assert set(np.unique(np.array(parse))) <= set(Parse)
    points = json.loads((tmp_path / "train/openpose_json/00000_00_keypoints.json").read_text())
    assert len(points["people"][0]["pose_keypoints_2d"]) == 75


def test_train_and_test_of_the_layout_share_no_picture(tmp_path: Path) -> None:
    write_viton_hd(tmp_path, {"train": 3, "test": 3}, height=32, width=24)
    contents = [path.read_bytes() for path in sorted(tmp_path.glob("*/image/*.jpg"))]
    assert len(set(contents)) == 6


@pytest.mark.parametrize(
    ("counts", "message"), [({"val": 4}, "'train' and 'test'"), ({"train": 1}, "at least 2")]
)
def test_a_layout_that_cannot_be_is_refused(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_viton_hd(tmp_path, counts)


def roughness(sample: TryOnSample) -> float:
    """Mean change between neighbours inside the flat garment."""
    cloth, inside = np.array(sample.cloth, float), np.array(sample.cloth_mask) > 0
    both = inside[:, 1:] & inside[:, :-1]
    return float(
        np.abs(np.diff(cloth, axis=1)).mean(-1)[both].mean()
        + np.abs(np.diff(cloth, axis=0)).mean(-1)[inside[1:] & inside[:-1]].mean()
    )


def spread(sample: TryOnSample) -> float:
    """Mean L1 distance of neck, shoulders, elbows and wrists from their centre."""
    points = sample.keypoints[1:8, :2][sample.keypoints[1:8, 2] > 0]
    return float(np.abs(points - points.mean(axis=0)).sum(axis=1).mean())


def lean(sample: TryOnSample) -> float:
    """Narrowness of the shoulders against the length of the trunk."""
    shoulders = np.hypot(*(sample.keypoints[5, :2] - sample.keypoints[2, :2]))
    return float(-shoulders / np.hypot(*(sample.keypoints[8, :2] - sample.keypoints[1, :2])))


def busyness(sample: TryOnSample) -> float:
    """Mean change between neighbours outside the person."""
    image, outside = np.array(sample.image, float), np.array(sample.parse) == Parse.BACKGROUND
    return float(np.abs(np.diff(image, axis=1)).mean(-1)[outside[:, 1:] & outside[:, :-1]].mean())


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])
