"""``check-difficulty`` calls buckets meaningful when they are, and not when they are not."""

# ruff: noqa: F401, F811 -- imported fixtures are requested by name
from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import curriculum_sampler as cs
from curriculum_sampler.errors import ArgumentError
from curriculum_sampler.keyed_numbers import keyed_numbers
from curriculum_sampler.rank_statistics import chance_larger, spearman

from .command_fixtures import Commands, cluttered, command, data, write_cluttered

NAMES = ("easy", "medium", "hard")
NUMBERS = st.lists(st.integers(-5, 5), min_size=2, max_size=12)


def normal(
    seed: int, means: dict[str, float], count: int = 200
) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Return members and losses: normal with deviation 1 about the mean of each bucket."""
    rng = np.random.Generator(np.random.Philox(seed))
    members = {name: [f"{name}-{n}" for n in range(count)] for name in means}
    losses = {key: float(rng.normal(means[name])) for name, keys in members.items() for key in keys}
    return members, losses


@given(first=NUMBERS, second=NUMBERS)
def test_the_overlap_is_the_share_of_pairs(first: list[int], second: list[int]) -> None:
    pairs = [1.0 if high > low else 0.5 if high == low else 0.0 for low in first for high in second]
    assert math.isclose(chance_larger(first, second), sum(pairs) / len(pairs))
    assert math.isclose(chance_larger(first, second) + chance_larger(second, first), 1)


@given(pairs=st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=12))
def test_the_correlation_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    from scipy import stats

    a, b = (list(column) for column in zip(*pairs, strict=True))
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(spearman(a, b))
    else:
        assert math.isclose(spearman(a, b), stats.spearmanr(a, b).statistic, abs_tol=1e-12)
        assert math.isclose(spearman(a, b), spearman(np.exp(a), b), abs_tol=1e-12), "only the order matters"


@pytest.mark.parametrize(
    ("means", "meaning", "words"),
    [
        ((0, 1, 2), "all", "each is harder than the one before it"),
        ((0, 2, 2), "some", "'hard' is hardly harder than 'medium'"),
        ((0, 2, 1), "some", "'hard' is easier than 'medium'"),
        ((0, 0, 0), "none", "mean little to this model"),
        ((2, 1, 0), "reversed", "wrong way round"),
    ],
)
def test_the_verdict_is_what_the_losses_were_made_to_be(
    means: tuple[int, ...], meaning: str, words: str
) -> None:
    for seed in range(20):
        members, losses = normal(seed, dict(zip(NAMES, means, strict=True)))
        check = cs.check_difficulty(members, losses)
        assert check.meaning == meaning
        assert words in check.verdict


def test_many_small_steps_are_not_nothing() -> None:
    members, losses = normal(3, {f"b{n}": n * 0.2 for n in range(10)}, count=1000)
    check = cs.check_difficulty(members, losses)
    assert not any(pair.is_clear for pair in check.overlaps)
    assert check.meaning == "some"


def test_a_few_losses_prove_nothing() -> None:
    members, losses = normal(5, {"easy": 0.0, "hard": 0.8}, count=6)
    assert cs.check_difficulty(members, losses).meaning == "none"


def test_scores_tell_more_than_buckets() -> None:
    members, losses = normal(7, {"easy": 0.0, "hard": 3.0})
    by_bucket = cs.check_difficulty(members, losses)
    by_score = cs.check_difficulty(members, losses, scores=losses)
    assert by_score.spearman == 1.0
    assert by_score.by == "score"
    assert 0.5 < by_bucket.spearman < 1.0
    assert by_bucket.by == "bucket"
    part = dict(list(losses.items())[::2])
    assert cs.check_difficulty(members, part).without_loss == 200


def losses_file(data: Path, place: Path, sign: float = 1.0) -> Path:
    scores = cs.sample_numbers(cs.Manifest.load(data), "json:clutter")
    rows = [f"{key},{sign * score}" for key, score in scores.items()]
    place.write_text("\n".join(["key,loss", *rows]) + "\n")
    return place


def test_the_command_ends_with_1_where_the_buckets_mean_nothing(
    data: Path, command: Commands, tmp_path: Path
) -> None:
    write_cluttered(data, count=40, overwrite=True)
    good = command("check-difficulty", data, "--losses", losses_file(data, tmp_path / "l.csv"), "--json")
    assert good.exit_code == 0, good.err
    assert good.told["meaning"] == "all"
    assert [bucket["bucket"] for bucket in good.told["buckets"]] == list(NAMES)
    wrong = command(
        "check-difficulty",
        data,
        "--losses",
        losses_file(data, tmp_path / "r.csv", -1.0),
        "--scores",
        "json:clutter",
    )
    assert wrong.exit_code == 1
    assert "wrong way round" in wrong.out
    assert "Spearman correlation of score and loss: -1.00" in wrong.out


def test_csv_and_jsonl_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("key,loss,step\n0001,0.5,7\n0002,1e-3,7\n")
    (tmp_path / "a.jsonl").write_text('{"key": "0001", "loss": 0.5}\n\n{"key": "0002", "loss": 0.001}\n')
    found = keyed_numbers(f"{tmp_path}/a.csv:loss")
    assert found == keyed_numbers(f"{tmp_path}/a.jsonl") == {"0001": 0.5, "0002": 0.001}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "key,loss,step\n1,2,3\n", "which column"),
        ("a.csv", "name,loss\n1,2\n", "which column"),
        ("a.csv:lss", "key,loss\n1,2\n", "line 2: no column 'lss'"),
        ("a.csv:loss", "key,loss\n1\n", "no column 'loss'"),
        ("a.csv", "key,loss\n1,two\n", r"line 2 \(key '1'\): 'loss' is 'two', not a finite number"),
        ("a.csv", "key,loss\n1,nan\n", "not a finite number"),
        ("a.csv", "key,loss\n1,2\n1,3\n", "line 3: the key '1' comes a second time"),
        ("a.csv", "key,loss\n", "has no rows"),
        ("a.jsonl", '{"key": "1", "loss": true}\n', "not a finite number"),
        ("a.jsonl", "[1]\n", "is no object"),
        ("a.jsonl", "{\n", "line 1 is not JSON"),
        ("b.csv", "", "b.csv does not exist"),
        ("a.txt", "", "is no table"),
    ],
)
def test_a_table_that_is_none_is_refused_by_line(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    if not name.startswith("b"):
        (tmp_path / name.partition(":")[0]).write_text(content)
    with pytest.raises(cs.CurriculumError, match=message):
        keyed_numbers(f"{tmp_path}/{name}")


@pytest.mark.parametrize(
    ("members", "losses", "scores", "message"),
    [
        ({"a": ["1"]}, {"1": 1.0}, None, "takes two or more"),
        ({"a": ["1"], "b": ["1"]}, {"1": 1.0}, None, "in bucket 'a' and in 'b'"),
        ({"a": list("12345"), "b": list("67890")}, {"x.png": 1.0}, None, "such as 'x.png'"),
        ({"a": list("12345"), "b": list("67890")}, dict.fromkeys("12345", 1.0), None, "'b' has 0 losses"),
        ({"a": list("12345"), "b": list("67890")}, dict.fromkeys("1234567890", math.nan), None, "is nan"),
        (
            {"a": list("12345"), "b": list("67890")},
            dict.fromkeys("1234567890", 1.0),
            {"1": 1.0},
            "but no score",
        ),
    ],
)
def test_losses_that_cannot_be_compared_are_refused(
    members: dict[str, list[str]], losses: dict[str, float], scores: dict[str, float] | None, message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        cs.check_difficulty(members, losses, scores=scores)


def test_losses_all_alike_have_no_correlation_and_valid_json(
    data: Path, command: Commands, tmp_path: Path
) -> None:
    losses_file(data, tmp_path / "l.csv", sign=0.0)
    ran = command("check-difficulty", data, "--losses", tmp_path / "l.csv", "--json")
    assert ran.exit_code == 1
    assert json.loads(ran.out, parse_constant=pytest.fail)["spearman"] is None


def test_buckets_without_an_order_want_one(tmp_path: Path, command: Commands) -> None:
    samples = {name: [{"__key__": f"{name}{n}", "cls": n} for n in range(6)] for name in ("b", "a")}
    cs.write_shards(tmp_path / "data", samples)
    (tmp_path / "l.csv").write_text(
        "key,loss\n" + "".join(f"{name}{n},{n}\n" for name in "ab" for n in range(6))
    )
    words = ["check-difficulty", tmp_path / "data", "--losses", tmp_path / "l.csv"]
    ran = command(*words)
    assert ran.exit_code == 2
    assert "--order a,b" in ran.err
    assert command(*words, "--order", "b,a").exit_code == 1


def test_the_probe_finds_busy_pictures_hard_and_pictures_alike_alike(
    tmp_path: Path, command: Commands
) -> None:
    write_cluttered(tmp_path / "rising", count=60)
    ran = command("check-difficulty", tmp_path / "rising", "--probe", "--scores", "json:clutter", "--json")
    assert ran.exit_code == 0, ran.err
    assert ran.told["meaning"] == "all"
    assert ran.told["spearman"] > 0.9
    same = {name: cluttered(name, 60, 0.5, 0.5) for name in NAMES}
    cs.write_shards(tmp_path / "alike", same)
    ran = command("check-difficulty", tmp_path / "alike", "--probe", "--order", "easy,medium,hard", "--json")
    assert ran.exit_code == 1, ran.err
    assert ran.told["meaning"] == "none"


def test_the_probe_never_judges_a_picture_by_itself(tmp_path: Path) -> None:
    samples = cluttered("x", 40, 0.0, 0.0)
    samples[7]["png"] = np.full((24, 18, 3), 20, np.uint8)
    losses = cs.picture_losses(cs.write_shards(tmp_path, {"all": samples}))
    strange = losses.pop("x-007")
    assert strange > 0.1
    alone = {key: loss for number, (key, loss) in enumerate(losses.items()) if key > "x-007" or number % 2}
    assert max(alone.values()) < strange


def test_the_probe_wants_pictures(tmp_path: Path, command: Commands) -> None:
    cs.write_shards(
        tmp_path / "words",
        {name: [{"__key__": f"{name}{n}", "txt": "shirt"} for n in range(9)] for name in "ab"},
    )
    words = command("check-difficulty", tmp_path / "words", "--probe", "--order", "a,b")
    assert words.exit_code == 2
    assert "has no image, only txt" in words.err
    cs.write_shards(tmp_path / "few", {name: cluttered(name, 3, 0, 0.5) for name in "ab"})
    few = command("check-difficulty", tmp_path / "few", "--probe", "--order", "a,b")
    assert few.exit_code == 2
    assert "There are 6 pictures" in few.err
    other = command("check-difficulty", tmp_path / "few", "--probe", "--order", "a,b", "--member", "json")
    assert other.exit_code == 2
    assert "its 'json' is no picture" in other.err
