"""``cat`` shows the samples that training sees."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

import curriculum_sampler as cs
from curriculum_sampler.errors import ArgumentError
from curriculum_sampler.storage import Storage

from .command_fixtures import Commands, command, data, write_cluttered
from .data_fixtures import FarStorage, labelled, s3_bucket, s3_endpoint, storage, tar_bytes

SCHEDULE = cs.StageSchedule(
    [cs.Stage("first", {"easy": 1}, steps=3), cs.Stage("then", {"easy": 1, "hard": 2}, steps=5)]
)


def shown(told: dict[str, list[dict[str, object]]]) -> list[tuple[object, object]]:
    return [(sample["bucket"], sample["index"]) for sample in told["samples"]]


def test_a_sample_is_found_by_key_and_by_place(data: Path, command: Commands) -> None:
    by_place = command("cat", data, "hard:7", "--json")
    assert by_place.told["samples"][0]["key"] == "hard-007"
    assert command("cat", data, "--key", "hard-007", "--json").told == by_place.told
    several = command("cat", data, "hard:7", "easy:0", "--json").told
    assert shown(several) == [("hard", 7), ("easy", 0)]


def test_every_key_is_found_where_it_lies(storage: Storage) -> None:
    for store in (storage, FarStorage()):
        manifest = cs.write_shards(store, {"a": labelled(5), "b": labelled(4, first=5)}, samples_per_shard=2)
        keys = {bucket: list(cs.sample_keys(manifest, bucket)) for bucket in manifest.buckets}
        assert keys == {"a": [f"{n:05}" for n in range(5)], "b": [f"{n:05}" for n in range(5, 9)]}
        assert cs.find_sample(manifest, "00007") == ("b", 2)
        with pytest.raises(
            ArgumentError, match=r"No sample of split 'train' has the key '9' \(9 were looked at\)"
        ):
            cs.find_sample(manifest, "9")


def test_keys_with_folders_and_long_names_are_read_from_foreign_tars(tmp_path: Path) -> None:
    long = "folder/" * 30 + "n" * 120
    (tmp_path / "x.tar").write_bytes(
        tar_bytes({"README": b"-", "a/b.txt": b"1", "a/b.seg.PNG": b"2", f"{long}.txt": b"3"})
    )
    manifest = cs.index_shards(tmp_path, {"easy": ["x.tar"]})
    assert list(cs.sample_keys(manifest, "easy")) == ["a/b", long]


def test_a_step_is_what_the_loader_draws_at_that_step(data: Path, command: Commands, tmp_path: Path) -> None:
    SCHEDULE.save(tmp_path / "curriculum.toml")
    dataset = cs.CurriculumDataset(cs.Manifest.load(data))
    loader = cs.CurriculumLoader(
        dataset,
        SCHEDULE,
        batch_size=4,
        seed=17,
        collate=lambda found: [(s["__bucket__"], s["__index__"]) for s in found],
    )
    words = ["--schedule", tmp_path / "curriculum.toml", "--batch-size", 4, "--seed", 17, "--json"]
    for batch in loader:
        assert shown(command("cat", data, "--step", loader.step, *words).told) == batch


def test_a_saved_state_knows_the_changes_made_on_the_way(
    data: Path, command: Commands, tmp_path: Path
) -> None:
    dataset = cs.CurriculumDataset(cs.Manifest.load(data))
    loader = cs.CurriculumLoader(dataset, SCHEDULE, batch_size=4, seed=17)
    next(iter(loader))
    loader.advance("it was easy")
    state = tmp_path / "state.json"
    state.write_text(json.dumps(loader.state_dict()))
    told = command("cat", data, "--step", 2, "--state", state, "--json").told
    assert shown(told) == list(loader.sampler.draws(2))
    assert {bucket for bucket, _ in shown(told)} == {"easy", "hard"}, "the second stage has begun"
    write_cluttered(data, count=13, overwrite=True)
    refused = command("cat", data, "--step", 2, "--state", state)
    assert refused.exit_code == 2
    assert "holds other samples" in refused.err


def test_members_are_written_as_they_are(data: Path, command: Commands, tmp_path: Path) -> None:
    raw = cs.CurriculumDataset(cs.Manifest.load(data), decode=None)["easy", 3]
    assert command("cat", data, "easy:3", "--output", tmp_path / "look").exit_code == 0
    files = {path.name: path.read_bytes() for path in (tmp_path / "look").iterdir()}
    assert files == {"easy-000003-easy-003.png": raw["png"], "easy-000003-easy-003.json": raw["json"]}


def test_one_member_goes_to_standard_output_byte_for_byte(
    data: Path, command: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = cs.CurriculumDataset(cs.Manifest.load(data), decode=None)["easy", 3]
    stream = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", stream)
    assert command("cat", data, "easy:3", "--member", "png").exit_code == 0
    assert stream.buffer.getvalue() == raw["png"]  # type: ignore[attr-defined]


def test_files_stay_in_their_folder_and_text_cannot_drive_the_terminal(
    tmp_path: Path, command: Commands
) -> None:
    evil = {"../../up.txt": b"\x1b[2Jgone", "../../up.x\\y.bin": b"1"}
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "x.tar").write_bytes(tar_bytes(evil))
    cs.index_shards(tmp_path / "tars", {"easy": ["x.tar"]})
    ran = command("cat", tmp_path / "tars", "easy:0", "--output", tmp_path / "a" / "b" / "look")
    assert ran.exit_code == 0
    assert "\x1b" not in ran.out
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "tars" not in path.parts]
    assert len(written) == 2
    assert all(path.parent == tmp_path / "a" / "b" / "look" for path in written)


def test_a_damaged_sample_is_an_error_that_names_it(data: Path, command: Commands) -> None:
    tar = data / "train/easy/easy-000000.tar"
    content = bytearray(tar.read_bytes())
    content[600] ^= 1
    tar.write_bytes(content)
    ran = command("cat", data, "easy:0")
    assert ran.exit_code == 2
    assert "'easy-000'" in ran.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Say which samples"),
        (["easy:0", "--key", "a"], "Say which samples"),
        (["easy"], "such as easy:7"),
        (["easy:-1"], "such as easy:7"),
        (["easy:99"], "outside [0, 12)"),
        (["esay:0"], "No bucket 'esay'"),
        (["--key", "nobody"], "No sample of split 'train' has the key 'nobody'"),
        (["easy:0", "easy:1", "--member", "png"], "Ask for one"),
        (["easy:0", "--member", "jpg"], "It has: json, png"),
        (["--step", "0"], "--step needs --schedule"),
        (
            ["--step", "0", "--schedule", "none.toml", "--batch-size", "4", "--seed", "1"],
            "none.toml: No such file",
        ),
        (["--step", "0", "--state", "none.json"], "none.json: No such file"),
    ],
)
def test_a_sample_that_is_not_there_is_told_with_the_next_move(
    words: list[str], message: str, data: Path, command: Commands
) -> None:
    ran = command("cat", data, *words)
    assert ran.exit_code == 2
    assert message in ran.err
    assert ran.out == ""
