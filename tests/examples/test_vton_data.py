"""Laws of the try-on data set that the trainers share."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import curriculum_sampler as cs

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

from common.body_labels import mirrored_surface
from common.braces import expand_braces
from common.bucketed_shards import sample_index, write_bucketed_shards
from common.factors import LEVELS
from common.synthetic import render_sample
from common.vton_data import TryOnArrays, get_vton_dataset

from .garment_store import s3

COUNTS = {"train": {"easy": 6, "medium": 5, "hard": 4}, "val": {"easy": 2, "medium": 2, "hard": 2}}
SIZE = {"height": 32, "width": 24}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_bucketed_shards(str(folder), COUNTS, seed=3, samples_per_shard=4, **SIZE)
    return folder


@pytest.fixture(scope="module")
def s3_shards(shards: Path, s3: str) -> tuple[str, str]:
    """The same shards on an S3 server: (prefix, endpoint)."""
    client = boto3.client("s3", endpoint_url=s3)
    for path in sorted(shards.rglob("*")):
        if path.is_file():
            client.upload_file(str(path), "garments", f"v1/{path.relative_to(shards).as_posix()}")
    return "s3://garments/v1", s3


def test_a_sample_has_the_arrays_that_it_promises(shards: Path) -> None:
    sample = get_vton_dataset(data_root=shards)[cs.Draw("medium", 2)]
    for name, channels in {
        "image": 3,
        "cloth": 3,
        "agnostic": 3,
        "pose": 3,
        "cloth_mask": 1,
        "agnostic_mask": 1,
    }.items():
        array = sample[name]
        assert array.dtype == np.float32
        assert array.shape == (channels, 32, 24)
        assert array.flags.c_contiguous
        if channels == 1:
            assert set(np.unique(array)) == {0.0, 1.0}
        else:
            assert -1 <= array.min() < array.max() <= 1
    assert (sample["agnostic"][:, sample["agnostic_mask"][0] == 1] == 0).all()
    outside = sample["agnostic_mask"][0] == 0
    assert (sample["agnostic"][:, outside] == sample["image"][:, outside]).all()
    assert sample["bucket"] == "medium"
    assert sample["sample_id"] == "train-medium-000002"
    assert 0.3 <= sample["difficulty"] <= 0.6
    assert sample["category"] in (0, 1)


def test_what_is_read_is_what_was_rendered(shards: Path) -> None:
    rendered = render_sample("hard", sample_index("train", "hard", 3), 3, 32, 24)
    image = get_vton_dataset(data_root=shards)[cs.Draw("hard", 3)]["image"]
    assert np.array_equal(
        np.round((image + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0), np.array(rendered.image)
    )


def test_reading_from_s3_equals_reading_from_a_folder(shards: Path, s3_shards: tuple[str, str]) -> None:
    prefix, endpoint = s3_shards
    local = get_vton_dataset(data_root=shards)
    remote = get_vton_dataset(s3_prefixes=[prefix], endpoint_url=endpoint)
    assert remote.manifest.bucket_fingerprints == local.manifest.bucket_fingerprints
    draws = [cs.Draw(bucket, index) for bucket in COUNTS["train"] for index in range(4)]
    for here, there in zip(local.__getitems__(draws), remote.__getitems__(draws), strict=True):
        assert same(here, there)


def test_the_endpoint_may_come_from_the_environment(
    s3_shards: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, endpoint = s3_shards
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert get_vton_dataset(s3_prefixes=[prefix]).manifest.bucket_sizes == COUNTS["train"]


def test_a_difficulty_is_a_stage_and_none_is_the_whole_curriculum(shards: Path) -> None:
    whole = get_vton_dataset(data_root=shards).schedule
    assert [stage.name for stage in whole.stages] == ["easy", "medium", "hard"]
    (medium,) = get_vton_dataset("medium", data_root=shards).schedule.stages
    assert medium == whole.stages[1]
    drawn = cs.MixtureSampler(
        get_vton_dataset("medium", data_root=shards).schedule.plan(COUNTS["train"], 10), seed=0
    )
    assert drawn.draws(step=0).counts() == {"easy": 3, "medium": 7}


def test_an_unknown_difficulty_lists_the_stages_there_are(shards: Path) -> None:
    with pytest.raises(ValueError, match=r"'very_easy' is no stage .* easy, medium, hard\."):
        get_vton_dataset("very_easy", data_root=shards)


def test_a_new_stage_in_the_curriculum_file_is_a_new_difficulty(shards: Path, tmp_path: Path) -> None:
    text = cs.StageSchedule.load("catvton").to_toml()
    text += '\n[[stages]]\nname = "very_hard"\nmixture = { hard = 1 }\nsteps = 7\nramp = 3\nlr = 1e-6\n'
    (tmp_path / "longer.toml").write_text(text)
    schedule = get_vton_dataset("very_hard", data_root=shards, curriculum=tmp_path / "longer.toml").schedule
    assert [(stage.name, stage.steps, stage.ramp) for stage in schedule.stages] == [("very_hard", 7, 0)]


def test_places_join_in_the_order_given(shards: Path, tmp_path: Path) -> None:
    write_bucketed_shards(str(tmp_path / "p-1"), {"train": {"easy": 2}}, seed=9, **SIZE)
    write_bucketed_shards(str(tmp_path / "p-2"), {"train": {"hard": 3}}, seed=9, **SIZE)
    joined = get_vton_dataset(s3_prefixes=[f"{tmp_path}/p-{{1..2}}"], data_root=shards)
    assert joined.manifest.bucket_sizes == {"easy": 8, "hard": 7, "medium": 5}
    alone = get_vton_dataset(data_root=shards)
    assert same(joined[cs.Draw("easy", 2)], alone[cs.Draw("easy", 0)])


def test_splits_share_no_picture(shards: Path) -> None:
    seen = [get_vton_dataset(data_root=shards, split=split).sequential() for split in COUNTS]
    images = [sample["image"].tobytes() for split in seen for sample in split]
    assert len(set(images)) == len(images) == 21


def test_pictures_come_in_the_size_asked_for(shards: Path) -> None:
    sample = get_vton_dataset(data_root=shards, height=16, width=12)[cs.Draw("easy", 0)]
    assert sample["image"].shape == (3, 16, 12)
    assert set(np.unique(sample["cloth_mask"])) == {0.0, 1.0}


def test_mirroring_turns_every_picture_of_a_sample_and_nothing_else(shards: Path) -> None:
    plain = get_vton_dataset(data_root=shards)[cs.Draw("hard", 1)]
    mirrored = get_vton_dataset(data_root=shards, flip_probability=1.0)[cs.Draw("hard", 1)]
    for name in ("image", "cloth", "cloth_mask", "agnostic_mask", "agnostic"):
        assert np.array_equal(mirrored[name], plain[name][..., ::-1]), name
    pose = np.round((plain["pose"] + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
    swapped = np.round((mirrored["pose"] + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
    assert np.array_equal(swapped, mirrored_surface(pose)[:, ::-1])
    assert {name: plain[name] for name in ("category", "bucket", "difficulty", "sample_id")} == {
        name: mirrored[name] for name in ("category", "bucket", "difficulty", "sample_id")
    }


def test_what_is_mirrored_depends_on_the_draw_alone(shards: Path) -> None:
    draws = cs.Draws.of([cs.Draw("easy", index) for index in range(6)] * 2, passes=[0] * 6 + [1] * 6, seed=5)
    plain = get_vton_dataset(data_root=shards)
    dataset = get_vton_dataset(data_root=shards, flip_probability=0.5)
    together = dataset.__getitems__(draws)
    apart = [dataset.__getitems__(draws[place : place + 1])[0] for place in reversed(range(12))][::-1]
    turned = [
        not np.array_equal(one["image"], plain[draws[place]]["image"]) for place, one in enumerate(together)
    ]
    assert all(same(one, other) for one, other in zip(together, apart, strict=True))
    assert 0 < sum(turned) < 12


def test_a_loader_stacks_them_into_tensors(shards: Path) -> None:
    dataset = get_vton_dataset("hard", data_root=shards)
    loader = cs.CurriculumLoader(dataset, batch_size=4, seed=1)
    batch = next(iter(loader))
    assert tuple(batch["image"].shape) == (4, 3, 32, 24)
    assert sorted(batch["bucket"]) == ["easy", "hard", "hard", "medium"]
    assert batch["category"].dtype.is_floating_point is False
    assert loader.stage == "hard"


@pytest.mark.parametrize(
    ("name", "boundaries", "rates"),
    [
        ("catvton", [0, 10_000, 25_000, 40_000], [1e-5, 5e-6, 2e-6]),
        ("vtongan", [0, 8_000, 20_000, 35_000], [2e-4, 1e-4, 5e-5]),
        ("dit", [0, 100, 250, 400], [1e-4, 5e-5, 2e-5]),
    ],
)
def test_the_curricula_are_the_specification_s(name: str, boundaries: list[int], rates: list[float]) -> None:
    sizes = {"easy": 40, "medium": 35, "hard": 25}
    # With a batch of the whole training set an epoch is one step, so DiT's epochs show as steps.
    plan = cs.StageSchedule.load(name).plan(sizes, batch_size=100)
    assert list(plan.boundaries) == boundaries
    stages = [plan.at(step=step) for step in boundaries[:-1]]
    assert [stage.stage for stage in stages] == ["easy", "medium", "hard"]
    assert [stage.lr for stage in stages] == rates
    assert [present(stage.mixture) for stage in stages] == [
        {"easy": 1.0},
        {"easy": 0.3, "medium": 0.7},
        {"easy": 0.25, "medium": 0.25, "hard": 0.5},
    ]


def test_a_place_must_be_given() -> None:
    with pytest.raises(ValueError, match="neither s3_prefixes nor data_root"):
        get_vton_dataset("easy")


def test_samples_without_a_needed_member_are_refused_by_name(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    cs.write_shards(str(tmp_path), {"easy": [{"__key__": "a", "image.png": pixels, "cloth.png": pixels}]})
    with pytest.raises(ValueError, match="Sample 'a' lacks agnostic_mask, cloth_mask"):
        get_vton_dataset(data_root=tmp_path)[cs.Draw("easy", 0)]


def test_sizes_and_probabilities_are_checked() -> None:
    with pytest.raises(ValueError, match="give both or neither"):
        TryOnArrays(height=4)
    with pytest.raises(ValueError, match=r"flip_probability=1\.5"):
        TryOnArrays(flip_probability=1.5)


def test_no_two_pictures_share_an_index() -> None:
    indices = {
        sample_index(split, level, n)
        for split in ("train", "val", "test")
        for level in LEVELS
        for n in range(3)
    }
    assert len(indices) == 27
    with pytest.raises(ValueError, match="number=1000000"):
        sample_index("train", "easy", 1_000_000)


@given(
    st.lists(st.text("abc/:-", max_size=4), min_size=1, max_size=4), st.integers(0, 30), st.integers(0, 12)
)
def test_braces_name_every_choice_once_and_in_order(words: list[str], first: int, more: int) -> None:
    numbers = [str(number) for number in range(first, first + more + 1)]
    expanded = expand_braces(f"x{{{','.join(words)}}}y{{{first}..{first + more}}}")
    assert expanded == list(dict.fromkeys(f"x{word}y{number}" for word in words for number in numbers))


@pytest.mark.parametrize("pattern", ["s3://a/{1..3", "a}b", "{9..2}"])
def test_broken_braces_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="Brace pattern"):
        expand_braces(pattern)


def present(mixture: Any) -> dict[str, float]:
    return {name: share for name, share in mixture.items() if share > 0}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
