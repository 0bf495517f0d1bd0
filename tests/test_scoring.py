"""Scores: from functions, columns and models; and what is no score."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curriculum_sampler.column import column, is_column
from curriculum_sampler.errors import ArgumentError, BadSampleError, StorageError
from curriculum_sampler.scoring import DecodedSample, Scoring

from .build_fixtures import picture


def scored(samples: Mapping[str, Mapping[str, Any]], *scores: Any, **options: Any) -> list[dict[str, Any]]:
    scoring = Scoring.of(scores, options.pop("score_batch", None), options.pop("batch_size", 4), options)
    return scoring.of_samples(list(samples.items()))


def test_a_scorer_sees_a_sample_as_training_will() -> None:
    grey = np.zeros((3, 2), np.uint8)
    seen = {}

    def look(sample: Mapping[str, Any]) -> float:
        seen.update(sample)
        return 0

    scored({"a": {"png": grey, "color.png": picture(3), "json": {"x": 1}, "__url__": "no"}}, look)
    assert sorted(seen) == ["__key__", "color.png", "json", "png"]
    assert (seen["__key__"], seen["json"]) == ("a", {"x": 1})
    assert seen["png"].shape == (3, 2, 1)
    assert seen["color.png"].shape == (6, 6, 3)
    assert seen["color.png"].dtype == np.uint8


def test_only_what_is_asked_for_is_decoded() -> None:
    sample = DecodedSample("a", {"png": b"no picture", "json": b"{}", "pkl": b""})
    assert sample["json"] == {}
    assert "png" in sample
    assert len(sample) == 4
    with pytest.raises(KeyError):
        sample["other"]
    with pytest.raises(
        BadSampleError, match=r"Sample 'a': Member 'png' of 10 bytes cannot be decoded.*leave the sample out"
    ):
        scored({"a": {"png": b"no picture"}}, lambda found: found["png"].mean())


def test_batches_are_full_but_the_last_and_their_scores_go_to_their_samples() -> None:
    sizes = []

    def model(samples: list[Any]) -> Any:
        sizes.append(len(samples))
        return np.array([float(sample["cls"]) for sample in samples], np.float32)

    samples = {f"{n}": {"cls": n} for n in range(10)}
    found = scored(samples, lambda sample: 1, score_batch=model)
    assert sizes == [4, 4, 2]
    assert [told["signals"]["model"] for told in found] == list(range(10))
    assert {told["signals"]["<lambda>"] for told in found} == {1.0}


def test_named_signals_and_fields_are_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("key,kind,loss\nb,upper,2\na,lower,1.5\n")
    found = scored(
        {"a": {"json": {"x": {"y": 3}, "n": 7}}, "b": {"json": {"x": {"y": 4}, "n": 8}}},
        lambda sample: {"p": 1, "q": np.float32(0.25)},
        "json:x.y",
        f"{tmp_path}/t.csv:loss",
        category=f"{tmp_path}/t.csv:kind",
        group="json:n",
    )
    assert found[0] == {
        "signals": {"p": 1.0, "q": 0.25, "x.y": 3.0, "loss": 1.5},
        "category": "lower",
        "group": "7",
    }
    assert found[1]["signals"]["loss"] == 2.0


def test_samples_are_read_only_where_a_score_looks_at_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("key,loss\na,1\n")
    table = f"{tmp_path}/t.csv"
    assert not Scoring.of([table], None, 1, {"group": None}).reads_samples
    assert Scoring.of([table], None, 1, {"group": "json:x"}).reads_samples
    assert Scoring.of([table, "json:x"], None, 1, {}).reads_samples
    assert Scoring.of([table], len, 1, {}).reads_samples
    assert Scoring.of([len], None, 1, {}).reads_samples


def test_another_table_function_or_batch_is_another_identity(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    found = set()
    for loss in (1, 2):
        path.write_text(f"key,loss\na,{loss}\n")
        found.add(Scoring.of([str(path)], None, 1, {}).identity)
        found.add(Scoring.of([], None, 1, {"group": f"{path}"}).identity)
    for score in (
        "json:a",
        "json:b",
        len,
        picture,
        DecodedSample("a", {"x": 1}),
        DecodedSample("a", {"x": 2}),
    ):
        found.add(
            Scoring.of(
                [score] if not isinstance(score, DecodedSample) else [Calls(score)], None, 1, {}
            ).identity
        )
    found |= {Scoring.of([], len, size, {}).identity for size in (1, 2)}
    assert len(found) == 12
    assert Scoring.of([picture], None, 1, {}).identity in found


def with_setting(setting: Any) -> Any:
    return lambda sample: setting


def test_a_function_is_known_by_its_settings_and_one_that_cannot_be_compared_is_never_the_same() -> None:
    def identity(score: Any) -> str:
        return Scoring.of([score], None, 1, {}).identity

    for make in (with_setting, lambda n: functools.partial(pow, n), Calls, lambda n: Calls(n).__call__):
        assert identity(make(1)) == identity(make(1)) != identity(make(2))
    lock = threading.Lock()
    assert identity(with_setting(lock)) != identity(with_setting(lock))


class Calls:
    """A scorer that is an object with settings."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def __call__(self, sample: Any) -> float:
        return 0.0


# --- columns


def test_what_names_a_column() -> None:
    for text in ("json:a", "json:a.b", "t.csv", "a/t.csv:x", "t.parquet:x", "/a.csv/t.csv:x y"):
        assert is_column(text), text
    for text in ("a:b", "t.csvx:a", "csv", "easy"):
        assert not is_column(text), text


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_gives_each_key_its_value(tmp_path: Path, kind: str) -> None:
    keys = [f"{number:05}" for number in np.random.Generator(np.random.Philox(1)).permutation(5000)]
    losses, names = [int(key) / 7 for key in keys], [f"n{int(key) % 3}" for key in keys]
    path = tmp_path / f"t.{kind}"
    if kind == "csv":
        lines = [f'{key},{loss!r},"{name}"' for key, loss, name in zip(keys, losses, names, strict=True)]
        path.write_text("\n".join(["key,loss,name", *lines]), encoding="utf-8-sig")
    else:
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({"name": names, "loss": losses, "key": keys})
        pyarrow.parquet.write_table(table, path, row_group_size=700)
    loss, name = column(f"{path}:loss", "number"), column(f"{path}:name", "text")
    for key in keys[::97]:
        assert loss.value(key, {}) == int(key) / 7
        assert name.value(key, {}) == f"n{int(key) % 3}"
    with pytest.raises(ArgumentError, match="has no row for sample 'other'"):
        loss.value("other", {})


@pytest.mark.parametrize(
    ("text", "table", "message"),
    [
        ("", "id,x\na,1\n", "has no column 'key', which names the samples. It has: id, x"),
        (":y", "key,x\na,1\n", "has no column 'y'. Name one of: x"),
        ("", "key,x,y\na,1,2\n", "has several columns. Name one of: x, y, such as '.*t.csv:x'"),
        ("", "key,x\na,1\nb,2\na,3\n", "rows 1 and 3 have the same key"),
        ("", "key,x\na,1\nb,high\n", r"row 2 \(key 'b'\): 'x' is 'high', not a number"),
        ("", "key,x\na\n", r"row 1 \(key 'a'\): 'x' is None, not a number"),
        ("", "key,x\n", "has no rows"),
        ("", "", "has no column 'key', which names the samples. It has: none"),
    ],
)
def test_a_table_that_will_not_do_is_refused(tmp_path: Path, text: str, table: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(table)
    with pytest.raises(ArgumentError, match=message):
        column(f"{tmp_path}/t.csv{text}", "number")


def test_a_table_that_is_not_there_or_is_another_thing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"t\.csv does not exist"):
        column(f"{tmp_path}/t.csv", "number")
    with pytest.raises(StorageError, match=r"t\.parquet does not exist"):
        column(f"{tmp_path}/t.parquet", "number")
    (tmp_path / "t.csv").write_bytes(b"key,x\n\xff,1\n")
    with pytest.raises(ArgumentError, match="is no CSV file in UTF-8"):
        column(f"{tmp_path}/t.csv", "number")
    (tmp_path / "t.parquet").write_bytes(b"key,x\n")
    with pytest.raises(ArgumentError, match="is no Parquet file"):
        column(f"{tmp_path}/t.parquet", "number")


def test_a_field_is_a_name() -> None:
    for value, told in ((True, "True"), ("", "''"), (None, "None"), ([1], r"\[1\]")):
        with pytest.raises(ArgumentError, match=f"Sample 'a': its group .'x'. is {told}, but it is a name"):
            scored({"a": {"json": json.dumps({"x": value}).encode()}}, group="json:x")


def test_a_score_that_is_only_a_name_is_offered_what_it_may_be() -> None:
    with pytest.raises(ArgumentError, match=r"got 'difficulty'.*'json:difficulty'.*'scores.csv:difficulty'"):
        Scoring.of(["difficulty"], None, 1, {})
