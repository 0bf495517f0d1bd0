"""``inspect`` tells what is in a data set, and its contact sheet shows it."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import curriculum_sampler as cs
from curriculum_sampler.difficulty_file import write_difficulties
from curriculum_sampler.errors import ArgumentError
from curriculum_sampler.storage import Storage

from .command_fixtures import BUCKETS, Commands, cluttered, command, data, write_cluttered
from .data_fixtures import labelled, s3_bucket, s3_endpoint, storage


def pictures(sheet: Image.Image, rows: int, columns: int, height: int, width: int) -> np.ndarray:
    """Return how far the pixels of each picture of a contact sheet are from the plain grey of ``cluttered``."""
    pixels = np.asarray(sheet).astype(int)
    top, left, below, beside = 40 + 16, 16 + 190, height + 20 + 8, width + 8
    return np.array(
        [
            [
                np.abs(pixels[top + row * below :, left + column * beside :][:height, :width] - 200).mean()
                for column in range(columns)
            ]
            for row in range(rows)
        ]
    )


def test_counts_and_bytes_are_those_of_the_shards(storage: Storage) -> None:
    manifest = write_cluttered(storage)
    found = cs.survey_buckets(manifest)
    assert [bucket.name for bucket in found] == ["easy", "medium", "hard"], "easiest first, not by name"
    for bucket in found:
        tars = [name for name in storage.list(f"train/{bucket.name}/") if name.endswith(".tar")]
        assert bucket.shards == len(tars) == 3
        assert bucket.num_bytes == sum(storage.stat(name).num_bytes for name in tars)
        assert bucket.difficulty == BUCKETS[bucket.name]
        assert {name: seen.samples for name, seen in bucket.members.items()} == {"json": 12, "png": 12}


def test_a_member_that_some_samples_lack_is_seen_in_those_that_have_it() -> None:
    samples = labelled(8)
    for sample in samples[::2]:
        sample["txt"] = "striped"
    (found,) = cs.survey_buckets(cs.write_shards("memory://inspect-lack", {"easy": samples}, overwrite=True))
    assert (found.members["txt"].samples, found.members["cls"].samples) == (4, 8)
    assert found.members["txt"].mean_bytes == 7


def test_json_and_text_tell_the_same(data: Path, command: Commands) -> None:
    told = command("inspect", data, "--scores", "json:clutter", "--json").told
    text = command("inspect", data, "--scores", "json:clutter").out
    assert told["samples"] == 36
    assert told["fingerprint"] in text
    for bucket in told["buckets"]:
        low, high = bucket["difficulty"]
        assert f"{low:.4g} to {high:.4g}" in text
        assert sum(told["histogram"]["counts"][bucket["name"]]) == bucket["samples"]
    first = {name: np.flatnonzero(counts)[0] for name, counts in told["histogram"]["counts"].items()}
    assert first["easy"] < first["medium"] < first["hard"]


@pytest.mark.parametrize("scores", ["json:clutter", "uneven.csv"])
def test_the_histogram_shows_each_bucket_where_its_scores_are(
    scores: str, data: Path, command: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Twelve in one bin, and one beside it.
    known = cs.sample_numbers(cs.Manifest.load(data), "json:clutter")
    rows = [f"{key},{0 if key.startswith('easy') else score}\n" for key, score in known.items()]
    (tmp_path / "uneven.csv").write_text("key,score\n" + "".join(rows))
    ran = command("inspect", data, "--scores", scores, "--look-at", 0)
    bars = dict(re.findall(r"^  (\w+) +\|(.{40})\|$", ran.out, re.MULTILINE))
    counts = command("inspect", data, "--scores", scores, "--json").told["histogram"]["counts"]
    assert list(bars) == list(BUCKETS)
    for name, drawn in bars.items():
        assert [char != " " for char in drawn] == [count > 0 for count in counts[name]]


def test_without_scores_there_is_no_histogram_and_with_recorded_ones_there_is(
    data: Path, command: Commands
) -> None:
    assert "histogram" not in command("inspect", data, "--json").told
    manifest = cs.Manifest.load(data)
    lines = [
        {"key": key, "bucket": bucket, "index": index, "score": index / 12}
        for bucket in manifest.buckets
        for index, key in enumerate(cs.sample_keys(manifest, bucket))
    ]
    write_difficulties(cs.open_storage(data), "train", lines[:-1])
    assert "histogram" not in command("inspect", data, "--json").told, "one sample has none"
    write_difficulties(cs.open_storage(data), "train", lines)
    assert "histogram" in command("inspect", data, "--json").told


def test_the_contact_sheet_goes_from_easy_to_hard(data: Path, command: Commands, tmp_path: Path) -> None:
    # Written hardest first, so that the order is not that of the tars.
    buckets = {name: cluttered(name, 12, *between)[::-1] for name, between in BUCKETS.items()}
    cs.write_shards(tmp_path / "data", buckets, difficulties=BUCKETS, overwrite=True)
    file = tmp_path / "sheet.png"
    words = ["inspect", data, "--preview", file, "--samples", 4, "--height", 48]
    ran = command(*words, "--scores", "json:clutter")
    assert ran.exit_code == 0, ran.err
    noise = pictures(Image.open(file), rows=3, columns=4, height=48, width=36)
    assert (np.diff(noise, axis=1) > 0).all(), "a row gets harder to the right"
    assert (np.diff(noise, axis=0) > 0).all(), "and each bucket is harder than the one above"
    assert command(*words).exit_code == 0
    unsorted = pictures(Image.open(file), rows=3, columns=4, height=48, width=36)
    assert (np.diff(unsorted, axis=1) < 0).all(), "without scores samples are shown as they lie"


def test_the_order_that_is_given_is_the_order_of_the_rows(data: Path) -> None:
    sheet = cs.contact_sheet(
        cs.Manifest.load(data), order=["hard", "easy", "medium"], samples_per_bucket=2, height=48
    )
    noise = pictures(sheet, rows=3, columns=2, height=48, width=36).mean(axis=1)
    assert noise[0] > noise[2] > noise[1]


def test_a_bucket_is_as_hard_as_the_middle_of_its_range() -> None:
    ranges = {"wide": (0.0, 1.0), "narrow": (0.1, 0.3)}
    buckets = {name: labelled(2) for name in ranges}
    manifest = cs.write_shards("memory://inspect-middle", buckets, difficulties=ranges, overwrite=True)
    assert [bucket.name for bucket in cs.survey_buckets(manifest)] == ["narrow", "wide"]


def test_a_small_picture_keeps_its_pixels_and_one_without_a_dot_is_shown(tmp_path: Path) -> None:
    (sample,) = cluttered("x", 1, 0.5, 0.5)
    sample["mask.png"] = np.zeros((24, 18, 3), np.uint8)
    sheet = cs.contact_sheet(cs.write_shards(tmp_path, {"x": [sample]}), height=48)
    shown = np.asarray(sheet)[56:104, 206:][:, :36]
    assert (shown == sample["png"].repeat(2, axis=0).repeat(2, axis=1)).all()


@pytest.mark.parametrize("value", ["two", True, None, [1]])
def test_a_difficulty_that_is_no_number_is_refused_by_key(value: object) -> None:
    samples = [{"__key__": "a", "json": {"clutter": 0.5}}, {"__key__": "b", "json": {"clutter": value}}]
    manifest = cs.write_shards("memory://inspect-number", {"easy": samples}, overwrite=True)
    with pytest.raises(
        ArgumentError, match=r"Sample 'b': its field 'clutter' is .* a finite number is wanted"
    ):
        cs.sample_numbers(manifest, "json:clutter")


def test_a_picture_that_cannot_be_decoded_is_an_empty_place_and_no_end(tmp_path: Path) -> None:
    samples = [*cluttered("easy", 3, 0.0, 0.1), {"__key__": "broken", "png": b"no picture"}]
    manifest = cs.write_shards(tmp_path, {"easy": samples})
    sheet = cs.contact_sheet(manifest, samples_per_bucket=4, height=48)
    empty = np.asarray(sheet)[56:104, 206 + 3 * 44 :][:, :40]
    assert (empty == 0xE8).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preview", "sheet.png", "--member", "mask.png"], "has no member 'mask.png'. It has: json, png"),
        (["--preview", "sheet.none"], "unknown file extension"),
        (["--preview", "no/such/folder/sheet.png"], "No such file"),
        (["--preview", "sheet.png", "--samples", "0"], "must be at least 1"),
        (["--order", "easy,hard"], "must name every bucket once"),
        (["--look-at", "-1"], "0 or more"),
        (["--scores", "json:colour"], "no field 'colour'"),
        (["--scores", "scores.txt"], "is no table"),
        (["--split", "test"], "has no split 'test'"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_the_next_move(
    words: list[str],
    message: str,
    data: Path,
    command: Commands,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = command("inspect", data, *words)
    assert ran.exit_code == 2
    assert message in ran.err
    assert ran.out == ""


def test_the_sheet_shows_the_image_and_not_a_mask_beside_it() -> None:
    looks = {"image.png": 90, "agnostic_mask.png": 255, "cloth.png": 10}
    samples = [
        {"__key__": f"{n}", **{name: np.full((8, 8, 3), look, np.uint8) for name, look in looks.items()}}
        for n in range(3)
    ]
    manifest = cs.write_shards("memory://inspect-masks", {"easy": samples}, overwrite=True)
    shown = cs.contact_sheet(manifest, height=48)
    assert shown == cs.contact_sheet(manifest, height=48, member="image.png")
    assert shown != cs.contact_sheet(manifest, height=48, member="cloth.png")
    for sample in samples:
        sample["png"] = sample.pop("cloth.png")
    manifest = cs.write_shards("memory://inspect-masks", {"easy": samples}, overwrite=True)
    assert cs.contact_sheet(manifest, height=48) == cs.contact_sheet(manifest, height=48, member="png")


def test_data_without_images_have_no_contact_sheet() -> None:
    manifest = cs.write_shards("memory://inspect-none", {"easy": labelled(3)}, overwrite=True)
    with pytest.raises(ArgumentError, match="has no image, only cls, npy"):
        cs.contact_sheet(manifest)
