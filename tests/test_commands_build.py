"""``build`` is a face of ``build_dataset``; and all commands together, on S3, from pictures to a look at a training step."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import curriculum_sampler as cs
from curriculum_sampler.dataset_build import DEFAULT_SHARES

from .command_fixtures import Commands, cluttered, command
from .data_fixtures import s3_bucket, s3_endpoint


def save(folder: Path, samples: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    for number, sample in enumerate(samples):
        Image.fromarray(sample["png"]).save(folder / f"{sample['__key__']}.png")
        told = sample["json"] | {
            "person": number % 7,
            "level": "ab"[number % 2],
            "part": ("train", "val")[number % 5 == 0],
        }
        (folder / f"{sample['__key__']}.json").write_text(json.dumps(told))
    return folder


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of pictures with a json beside each; and the current folder, with a module of scores in it."""
    monkeypatch.chdir(tmp_path)
    # An earlier test's folder may still be importable, and its module of that name loaded.
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_scores", raising=False)
    (tmp_path / "my_scores.py").write_text(
        "def signals(sample):\n    return {'area': sample['json']['clutter'], 'sum': int(sample['png'].sum()) % 97}\n"
        "def batch(samples):\n    return [sample['json']['clutter'] for sample in samples]\n"
        "def samples():\n    return ({'__key__': f's{n}', 'json': {'clutter': n}} for n in range(20))\n"
    )
    return save(tmp_path / "pictures", cluttered("p", 40, 0.0, 0.9))


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


CLUTTER = {"score": "json:clutter"}


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (["--score", "json:clutter"], CLUTTER),
        (
            ["--score", "json:clutter", "--shares", "a=1,b=2,c=1", "--quarantine", "0.1", "--seed", "5"],
            CLUTTER | {"shares": {"a": 1, "b": 2, "c": 1}, "quarantine": 0.1, "seed": 5},
        ),
        (
            ["--score", "json:clutter", "--thresholds", "low=0,high=0.5"],
            CLUTTER | {"thresholds": {"low": 0.0, "high": 0.5}},
        ),
        (
            ["--score", "my_scores:signals", "--weight", "area=3,sum=1", "--category", "json:level"],
            {"score": "my_scores:signals", "weights": {"area": 3, "sum": 1}, "category": "json:level"},
        ),
        (
            ["--score-batch", "my_scores:batch", "--batch-size", "7"],
            {"score_batch": "my_scores:batch", "batch_size": 7},
        ),
        (["--label", "json:level"], {"label": "json:level"}),
        (
            ["--score", "json:clutter", "--group", "json:person", "--splits", "train=0.7,val=0.3"],
            CLUTTER | {"group": "json:person", "splits": {"train": 0.7, "val": 0.3}},
        ),
        (["--score", "json:clutter", "--splits", "json:part"], CLUTTER | {"splits": "json:part"}),
        (
            [
                "--score",
                "json:clutter",
                "--samples-per-shard",
                "3",
                "--max-shard-mib",
                "1",
                "--require",
                "png,json",
            ],
            CLUTTER | {"samples_per_shard": 3, "max_shard_bytes": 1 << 20, "require": ["png", "json"]},
        ),
        (["--score", "json:clutter", "--processes", "2", "--work-dir", "work"], CLUTTER),
    ],
)
def test_options_mean_what_the_arguments_of_the_function_mean(
    words: list[str], arguments: dict[str, Any], pictures: Path, tmp_path: Path, command: Commands
) -> None:
    ran = command("build", "pictures", "by-command", *words, "--json")
    assert ran.exit_code == 0, ran.err
    report = cs.build_dataset(
        pictures, tmp_path / "by-function", work_dir=tmp_path / "other-work", **arguments
    )
    assert files(tmp_path / "by-command") == files(tmp_path / "by-function")
    assert ran.told["bucket_sizes"] == report.bucket_sizes
    assert cs.verify_dataset(tmp_path / "by-command").faults == ()


def test_samples_may_come_from_a_function_in_the_current_folder(pictures: Path, command: Commands) -> None:
    ran = command("build", "my_scores:samples", "data", "--score", "json:clutter")
    assert ran.exit_code == 0, ran.err
    assert cs.Manifest.load("data").bucket_sizes == {"easy": 8, "hard": 5, "medium": 7}


def test_a_dry_run_tells_the_cut_and_writes_nothing(
    pictures: Path, tmp_path: Path, command: Commands
) -> None:
    dry = command("build", "pictures", "data", "--score", "json:clutter", "--dry-run")
    assert dry.exit_code == 0
    assert "Nothing was written" in dry.out
    assert not (tmp_path / "data").exists()
    real = command("build", "pictures", "data", "--score", "json:clutter")
    assert real.out.splitlines()[:4] == dry.out.splitlines()[:4]


def test_a_build_that_is_interrupted_goes_on(pictures: Path, tmp_path: Path, command: Commands) -> None:
    (tmp_path / "my_scores.py").write_text(
        "from pathlib import Path\ncount = [0]\n"
        "def slow(sample):\n"
        "    count[0] += 1\n"
        "    if count[0] == 30 and not Path('once').exists():\n"
        "        Path('once').touch()\n"
        "        raise KeyboardInterrupt\n"
        "    return sample['json']['clutter']\n"
    )
    words = ["build", "pictures", "data", "--score", "my_scores:slow"]
    ran = command(*words)
    assert ran.exit_code == 130
    assert "it goes on with what is left" in ran.err
    assert not (tmp_path / "data" / "manifest.json").exists()
    assert command(*words).exit_code == 0
    assert command("build", "pictures", "plain", "--score", "my_scores:slow").exit_code == 0
    assert files(tmp_path / "data") == files(tmp_path / "plain")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pictures", "data"], "Give --score, such as 'json:FIELD'"),
        (["pictures", "data", "--score", "json:colour"], "no field 'colour'"),
        (["pictures", "data", "--score", "json:clutter", "--shares", "easy"], "NAME=NUMBER"),
        (
            ["pictures", "data", "--score", "json:clutter", "--quarantine", "2"],
            "--quarantine 2.0 must be a share",
        ),
        (["pictures", "data", "--score", "json:clutter", "--processes", "0"], "--processes: got 0"),
        (["pictures", "data", "--score", "json:clutter", "--require", "png,mask.png"], "mask.png"),
        (["pictures", "data", "--score", "json:clutter", "--max-shard-mib", "0"], "1 or more"),
        (["pictures", "data", "--score", "nothing:here"], "'nothing:here'"),
        (["none", "data", "--score", "json:clutter"], "no folder 'none'"),
        (["pictures", "pictures/data", "--score", "json:clutter"], "lies in the source"),
    ],
)
def test_a_build_that_cannot_be_is_refused(
    words: list[str], message: str, pictures: Path, command: Commands
) -> None:
    ran = command("build", *words)
    assert ran.exit_code == 2
    assert message in ran.err
    assert not (pictures.parent / "data").exists()


def test_the_help_states_the_shares_that_are_the_default(command: Commands) -> None:
    told = ",".join(f"{name}={share}" for name, share in DEFAULT_SHARES.items())
    assert f"(default: {told})" in " ".join(command("build", "--help").out.split())


def test_a_split_that_exists_is_refused_in_the_words_of_the_command(
    pictures: Path, command: Commands
) -> None:
    words = ["build", "pictures", "data", "--score", "json:clutter"]
    assert command(*words).exit_code == 0
    before = files(pictures.parent / "data")
    ran = command(*words)
    assert ran.exit_code == 2
    assert "Pass --overwrite to replace it" in ran.err
    assert files(pictures.parent / "data") == before


def test_two_ways_to_cut_are_one_too_many(pictures: Path, command: Commands) -> None:
    ran = command(
        "build", "pictures", "data", "--score", "json:clutter", "--shares", "a=1", "--thresholds", "a=0"
    )
    assert ran.exit_code == 2
    assert ran.err.startswith("usage: ")


def test_from_pictures_to_a_look_at_a_step_all_on_s3(
    pictures: Path,
    tmp_path: Path,
    command: Commands,
    s3_bucket: str,
    s3_endpoint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    data = f"s3://{s3_bucket}/v1"
    save(tmp_path / "more", cluttered("m", 12, 0.1, 0.8))
    schedule = cs.StageSchedule([cs.Stage("all", {"easy": 1, "medium": 1, "hard": 2}, steps=4)])
    schedule.save(tmp_path / "curriculum.toml")

    def good(*words: object) -> Any:
        ran = command(*words, "--json")
        assert ran.exit_code == 0, ran.err
        return ran.told

    good("build", "pictures", data, "--score", "json:clutter", "--samples-per-shard", 4)
    assert good("verify", data)["samples"] == 40
    good("build", "more", "addition", "--score", "json:clutter", "--rule", data)
    grown = good("append", data, "addition")["buckets"]
    assert sum(bucket["after"] for bucket in grown.values()) == 52
    shown = good("inspect", data, "--preview", "sheet.png", "--height", 48)
    assert sum(map(sum, shown["histogram"]["counts"].values())) == 52
    cut = good("rebucket", data, "--into", "two", "--shares", "low=1,high=1")
    assert sum(cut["bucket_sizes"].values()) == 52
    assert good("verify", data)["faults"] == []
    scores = cs.recorded_scores(cs.Manifest.load(data)) or {}
    lines = [json.dumps({"key": key, "loss": score}) for key, score in scores.items()]
    (tmp_path / "losses.jsonl").write_text("\n".join(lines))
    assert good("check-difficulty", data, "--losses", "losses.jsonl")["meaning"] == "all"
    step = good("cat", data, "--step", 2, "--schedule", "curriculum.toml", "--batch-size", 8, "--seed", 17)
    assert [sample["bucket"] for sample in step["samples"]].count("hard") == 4
