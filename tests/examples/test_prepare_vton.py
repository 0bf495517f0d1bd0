"""Laws of the way from a try-on tree to shards that the trainers read."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import prepare_vton
import pytest
from common.data_licences import DRESS_CODE, NOTICE_FILE, VITON_HD
from common.dress_code_layout import write_dress_code
from common.factors import LEVELS
from common.viton_hd_layout import write_viton_hd
from common.vton_data import get_vton_dataset
from PIL import Image

import curriculum_sampler as cs
from curriculum_sampler.command_line import main as curriculum_sampler
from curriculum_sampler.difficulty_file import read_difficulties

from ..build_fixtures import objects
from ..data_fixtures import read_by_webdataset
from .garment_store import s3

SIZE = {"height": 96, "width": 72}
SCRIPT = Path(prepare_vton.__file__)
GUIDE = Path(__file__).parents[2] / "docs" / "prepare_vton_data.md"
SHARE = ("--validation_share", "0.2")


@pytest.fixture(scope="module", autouse=True)
def _memory_of_builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def viton_hd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("viton-hd")
    write_viton_hd(folder, {"train": 45, "test": 9}, seed=4, **SIZE)
    return folder


@pytest.fixture(scope="module")
def dress_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dress-code")
    write_dress_code(folder, {"train": 18, "test": 6}, seed=4, **SIZE)
    return folder


@pytest.fixture(scope="module")
def shards(viton_hd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    assert prepare_vton.main(["viton-hd", str(viton_hd), str(folder), *SHARE]) == 0
    return folder


@pytest.fixture(scope="module")
def dress_code_shards(dress_code: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dress-code-shards")
    words = ["dress-code", str(dress_code), str(folder), "--accept-license", *SHARE]
    assert prepare_vton.main(words) == 0
    return folder


def told(shards: Path, split: str) -> list[dict[str, Any]]:
    return list(read_difficulties(cs.LocalStorage(shards), split))


def levels_of(tree: Path) -> dict[str, str]:
    """Level of each sample by its key, as the generator knows it."""
    if (tree / "factors.jsonl").exists():
        rows = [json.loads(line) for line in (tree / "factors.jsonl").read_text().splitlines()]
        return {row["key"]: row["level"] for row in rows}
    return {
        f"{split}-{row['image'].removesuffix('.jpg')}": row["level"]
        for split in ("train", "test")
        for row in map(json.loads, (tree / f"{split}_factors.jsonl").read_text().splitlines())
    }


@pytest.mark.parametrize(("tree", "made"), [("viton_hd", "shards"), ("dress_code", "dress_code_shards")])
def test_the_trainers_read_what_comes_of_a_tree(tree: str, made: str, request: pytest.FixtureRequest) -> None:
    shards, levels = request.getfixturevalue(made), levels_of(request.getfixturevalue(tree))
    found = []
    for split in ("train", "val", "test"):
        dataset = get_vton_dataset(data_root=shards, split=split, height=48, width=36)
        for bucket, size in dataset.manifest.bucket_sizes.items():
            for index in range(size):
                sample = dataset[cs.Draw(bucket, index)]
                assert sample["image"].shape == sample["cloth"].shape == sample["pose"].shape == (3, 48, 36)
                assert sample["agnostic_mask"].any()
                found.append(sample["sample_id"])
    assert sorted(found) == sorted(levels)


@pytest.mark.parametrize(("tree", "made"), [("viton_hd", "shards"), ("dress_code", "dress_code_shards")])
def test_buckets_go_from_easy_to_hard(tree: str, made: str, request: pytest.FixtureRequest) -> None:
    shards, levels = request.getfixturevalue(made), levels_of(request.getfixturevalue(tree))
    for split in ("train", "test"):
        lines = told(shards, split)
        means = [
            np.mean([tuple(LEVELS).index(levels[line["key"]]) for line in lines if line["bucket"] == bucket])
            for bucket in LEVELS
        ]
        # The easy bucket holds 40 % where a third is of the easy level, and the few of the test split are cut by
        # the rule of the training samples.
        assert means[0] < means[1] < means[2]
        if split == "train":
            assert means[0] < 0.35
            assert means[2] > 1.8


def test_webdataset_reads_the_same_members(shards: Path) -> None:
    tars = [str(path) for path in sorted(shards.glob("train/*/*.tar"))]
    samples = read_by_webdataset(tars)
    assert sorted(sample["__key__"] for sample in samples) == sorted(
        line["key"] for line in told(shards, "train")
    )
    for sample in samples:
        assert {"image.jpg", "cloth.jpg", "cloth_mask.jpg", "agnostic_mask.png", "pose.jpg", "parse.png"} <= (
            sample.keys()
        )
        assert json.loads(sample["json"])["category"] == "upper_body"


@pytest.mark.parametrize("made", ["shards", "dress_code_shards"])
def test_what_comes_of_a_tree_is_whole(made: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    check = cs.verify_dataset(str(request.getfixturevalue(made)))
    assert check.faults == ()
    assert check.samples == {"shards": 54, "dress_code_shards": 72}[made]


def test_no_garment_lies_in_two_splits(viton_hd: Path, tmp_path: Path) -> None:
    tree = shutil.copytree(viton_hd, tmp_path / "tree")
    (tree / "train_pairs.txt").unlink()
    for path in sorted((tree / "train").rglob("*_00*")):  # every garment in a second photograph
        shutil.copy(path, path.with_name(path.name.replace("_00", "_01")))
    words = ["viton-hd", str(tree), str(tmp_path / "made"), *SHARE, "--splits", "train"]
    assert prepare_vton.main(words) == 0
    train, val = (
        {line["key"].rpartition("_")[0] for line in told(tmp_path / "made", split)}
        for split in ("train", "val")
    )
    assert len(train) + len(val) == 45
    assert val


def test_the_notice_lies_beside_the_shards_and_is_there_once(shards: Path, dress_code_shards: Path) -> None:
    assert (shards / NOTICE_FILE).read_text() == VITON_HD.notice
    assert (dress_code_shards / NOTICE_FILE).read_text() == DRESS_CODE.notice


def test_notices_of_several_data_sets_stand_below_each_other() -> None:
    home = cs.MemoryStorage()
    for licence in (VITON_HD, DRESS_CODE, VITON_HD):
        prepare_vton.leave_notice(home, licence)
    assert bytes(home.objects[NOTICE_FILE]).decode() == f"{VITON_HD.notice}\n{DRESS_CODE.notice}"


def test_dress_code_is_refused_without_its_licence_and_nothing_is_written(
    dress_code: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare_vton.main(["dress-code", str(dress_code), str(tmp_path / "shards")]) == 2
    assert "its terms were not accepted" in capsys.readouterr().err
    assert not (tmp_path / "shards").exists()


def test_a_call_goes_on_behind_the_splits_that_an_earlier_one_finished(
    viton_hd: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["viton-hd", str(viton_hd), str(tmp_path / "made"), *SHARE]
    assert prepare_vton.main([*words, "--splits", "train"]) == 0
    before = (tmp_path / "made/train/difficulty-000000.jsonl").stat().st_mtime_ns
    assert prepare_vton.main(words) == 0
    assert (tmp_path / "made/train/difficulty-000000.jsonl").stat().st_mtime_ns == before
    assert objects(tmp_path / "made") == objects(shards)
    capsys.readouterr()
    assert prepare_vton.main(words) == 2
    assert "'train'" in capsys.readouterr().err
    assert objects(tmp_path / "made") == objects(shards)


def test_the_train_split_comes_first_in_whatever_order_splits_are_named(
    viton_hd: Path, shards: Path, tmp_path: Path
) -> None:
    words = ["viton-hd", str(viton_hd), str(tmp_path / "made"), "--validation-share=0.2"]
    assert prepare_vton.main([*words, "--splits", "test", "train", "test"]) == 0
    assert objects(tmp_path / "made") == objects(shards)


def test_a_missing_partner_ends_the_call_with_its_name_and_no_data_set(
    viton_hd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = shutil.copytree(viton_hd, tmp_path / "tree")
    (tree / "train/cloth/00003_00.jpg").unlink()
    assert prepare_vton.main(["viton-hd", str(tree), str(tmp_path / "made")]) == 2
    told = capsys.readouterr().err
    assert "train/cloth/00003_00.jpg is missing" in told
    assert "Traceback" not in told
    assert not (tmp_path / "made/manifest.json").exists()


def test_an_unreadable_picture_ends_the_call_with_its_name(
    viton_hd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = shutil.copytree(viton_hd, tmp_path / "tree")
    path = tree / "train/image/00003_00.jpg"
    path.write_bytes(path.read_bytes()[:400])
    assert prepare_vton.main(["viton-hd", str(tree), str(tmp_path / "made")]) == 2
    assert "00003_00" in capsys.readouterr().err
    assert not (tmp_path / "made/manifest.json").exists()


def test_the_script_runs_from_any_folder_with_any_number_of_processes(
    viton_hd: Path, shards: Path, tmp_path: Path
) -> None:
    words = ["viton-hd", str(viton_hd), str(tmp_path / "made"), *SHARE, "--processes", "2"]
    subprocess.run([sys.executable, SCRIPT, *words], cwd=tmp_path, check=True, capture_output=True)
    assert objects(tmp_path / "made") == objects(shards)


def test_an_s3_prefix_gets_the_same_shards_as_a_folder(viton_hd: Path, shards: Path, s3: str) -> None:
    words = ["viton-hd", str(viton_hd), "s3://garments/vton/v1", *SHARE, "--endpoint_url", s3]
    assert prepare_vton.main(words) == 0
    assert stored(s3, "vton/v1/") == objects(shards)
    dataset = get_vton_dataset(s3_prefixes=["s3://garments/vton/v1"], endpoint_url=s3)
    assert re.fullmatch(r"train-\d{5}_00", dataset[cs.Draw("hard", 0)]["sample_id"])


# Ends its own process at one of its writes, as kill -9 would: the notice is the first.
MORTAL = """
import os, signal, sys
from curriculum_sampler.local_storage import LocalStorage
from curriculum_sampler.s3 import S3Storage
sys.path.insert(0, sys.argv[1])
import prepare_vton
if __name__ == "__main__":
    left = int(sys.argv[2])
    def mortal(write):
        def dying(self, key, data):
            global left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return write(self, key, data)
        return dying
    for kind in (LocalStorage, S3Storage):
        kind.write = mortal(kind.write)
    prepare_vton.main(sys.argv[3:])
"""


def kill_at_write(number: int, words: list[str], folder: Path) -> None:
    script = folder / "mortal.py"
    script.write_text(MORTAL)
    ran = subprocess.run(
        [sys.executable, script, SCRIPT.parent, str(number), *words],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr


@pytest.mark.parametrize(
    ("number", "scored_then"),
    [(0, ["45", "9"]), (6, ["0", "9"]), (20, ["0"])],
    ids=["at the notice", "in the train split", "in the test split"],
)
def test_a_call_that_was_killed_goes_on_when_it_is_made_again_and_the_bytes_are_the_same(
    number: int,
    scored_then: list[str],
    viton_hd: Path,
    shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["viton-hd", str(viton_hd), str(tmp_path / "made"), *SHARE]
    kill_at_write(number, words, tmp_path)
    assert len(objects(tmp_path / "made")) == number
    assert prepare_vton.main(words) == 0
    assert objects(tmp_path / "made") == objects(shards)
    assert re.findall(r"\((\d+) samples scored", capsys.readouterr().out) == scored_then


def test_a_dress_code_build_to_s3_goes_on_after_a_kill_and_is_whole(
    dress_code: Path, dress_code_shards: Path, tmp_path: Path, s3: str
) -> None:
    place = "s3://garments/dress-code"
    words = ["dress-code", str(dress_code), place, "--accept-license", *SHARE, "--endpoint_url", s3]
    kill_at_write(6, words, tmp_path)
    assert len(stored(s3, "dress-code/")) == 6
    with pytest.raises(cs.ArgumentError, match=r"There is no manifest\.json"):
        cs.Manifest.load(place, endpoint_url=s3)
    assert prepare_vton.main(words) == 0
    assert stored(s3, "dress-code/") == objects(dress_code_shards)
    assert cs.verify_dataset(place, endpoint_url=s3).faults == ()


def test_the_guide_runs(
    viton_hd: Path, dress_code: Path, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command but the training, which other tests run: here the trainers' data set opens what they would read."""
    boto3.client("s3", endpoint_url=s3).create_bucket(Bucket="my-bucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    text = GUIDE.read_text()
    for name, tree in (("/data/zalando-hd-resized", viton_hd), ("/data/DressCode", dress_code)):
        text = text.replace(name, str(tree))
    shell = "".join(re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    ran = []
    for words in map(shlex.split, shell.splitlines()):
        ran.append(" ".join(words[:2]))
        match words:
            case ["python", "examples/prepare_vton.py", *more]:
                more[more.index("--processes") + 1] = "1"
                assert prepare_vton.main(more) == 0
            case ["curriculum-sampler", *more]:
                assert curriculum_sampler(more) == 0
            case ["export", told]:
                prefixes = told.removeprefix("S3_PREFIXES=").split()
                sizes = get_vton_dataset(s3_prefixes=prefixes).manifest.bucket_sizes
                assert sum(sizes.values()) > 80
            case _:
                assert words == ["bash", "examples/train_all.sh"]
    assert len(ran) == 7
    for name in ("people.png", "garments.png"):
        with Image.open(tmp_path / name) as sheet:
            assert sheet.height > 400


def stored(endpoint: str, prefix: str) -> dict[str, bytes]:
    found = boto3.resource("s3", endpoint_url=endpoint).Bucket("garments").objects.filter(Prefix=prefix)
    return {item.key.removeprefix(prefix): item.get()["Body"].read() for item in found}
