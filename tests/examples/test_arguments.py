"""Laws of the flags that all trainers share."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from catvton.flags import PRESETS, parse_arguments
from common.arguments import as_text

import curriculum_sampler as cs

DATA = ["--s3_prefixes", "s3://shop/v1"]


def test_dashes_and_underscores_mean_the_same() -> None:
    one = parse_arguments([*DATA, "--lr-warmup-steps", "7", "--wandb-run-name=a-b_c"])
    two = parse_arguments([*DATA, "--lr_warmup_steps", "7", "--wandb_run_name=a-b_c"])
    assert one == two
    assert one.wandb_run_name == "a-b_c", "a value keeps its dashes"


def test_prefixes_may_be_repeated_and_listed() -> None:
    args = parse_arguments(["--s3_prefixes", "s3://a", "s3://b", "--s3_prefixes", "s3://c"])
    assert args.s3_prefixes == ["s3://a", "s3://b", "s3://c"]
    assert parse_arguments(["--s3_prefixes", "s3://a"]).s3_prefixes == ["s3://a"], (
        "one call leaves no trace in the next"
    )


@pytest.mark.parametrize("preset", ["full", "tiny"])
def test_a_preset_sets_defaults_and_a_flag_wins(preset: str) -> None:
    args = parse_arguments([*DATA, "--model_preset", preset, "--height", "96"])
    assert args.height == 96
    assert args.width == PRESETS[preset]["width"]


def test_full_is_the_recipe_of_the_paper() -> None:
    args = parse_arguments(DATA)
    assert (args.height, args.width, args.train_batch_size, args.gradient_accumulation_steps) == (
        512,
        384,
        16,
        8,
    )
    assert (args.adam_weight_decay, args.max_grad_norm, args.ema_decay, args.cond_dropout_prob) == (
        1e-2,
        1.0,
        0.9995,
        0.1,
    )
    assert args.use_ema and not args.train_all  # noqa: PT018
    assert str(args.output_dir) == "checkpoints_catvton_curriculum"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*DATA, "--learning_rate", "1e-5"], "without --difficulty.*rates belong to stages"),
        ([], "neither --s3_prefixes nor --data_root"),
        ([*DATA, "--max_train_steps", "0"], "--max_train_steps 0: it is a number of 1 or more"),
        ([*DATA, "--train_batch_size", "-4"], "--train_batch_size -4"),
    ],
)
def test_contradictions_are_named(words: list[str], message: str) -> None:
    with pytest.raises(cs.ArgumentError, match=message):
        parse_arguments(words)


def test_an_abbreviated_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments([*DATA, "--max_train", "5"])
    assert "unrecognized arguments" in capsys.readouterr().err


def test_the_configuration_is_text() -> None:
    def values(args: argparse.Namespace) -> dict[str, Any]:
        return vars(args)

    args = parse_arguments(DATA)
    assert all(f'"{name}"' in as_text(args) for name in values(args))
