"""Laws of VTON-GAN's flags."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from common.arguments import CURRICULA
from vtongan.flags import DRESSER_WEIGHTS, PRESETS, dresser_weights, judge_weights, parse_arguments, remarks

import curriculum_sampler as cs

DATA = ["--s3_prefixes", "s3://shop/v1"]
TINY = [*DATA, "--model_preset", "tiny"]


def test_full_is_the_recipe_of_the_papers() -> None:
    args = parse_arguments([*DATA, "--vgg_weights", "torchvision"])
    assert (args.height, args.width, args.train_batch_size, args.mixed_precision) == (512, 384, 8, "bf16")
    assert (args.adam_beta1, args.adam_beta2, args.adam_weight_decay, args.ema_decay) == (
        0.0,
        0.9,
        0.0,
        0.999,
    )
    assert (args.perceptual, args.warper_rate_factor) == ("vgg", 0.5)
    weights = dresser_weights(args)
    assert (weights["hinge"], weights["feature_matching"], weights["perceptual"], weights["l1"]) == (
        1,
        10,
        10,
        5,
    )
    assert judge_weights(args) == {"judge_hinge": 1.0, "r1": 0.0}
    assert str(args.output_dir) == "checkpoints_vtongan_curriculum"
    assert args.wandb_project == "vtongan-curriculum"


def test_without_two_rates_both_sides_are_alike_and_a_flag_still_wins() -> None:
    args = parse_arguments([*TINY, "--no_ttur"])
    assert (args.generator_rate_factor, args.discriminator_rate_factor) == (1.0, 1.0)
    assert (args.adam_beta1, args.adam_beta2) == (0.5, 0.999)
    args = parse_arguments([*TINY, "--no_ttur", "--adam_beta1", "0.1", "--discriminator_rate_factor", "3"])
    assert (args.adam_beta1, args.adam_beta2, args.discriminator_rate_factor) == (0.1, 0.999, 3.0)


def test_the_weight_of_every_term_can_be_set() -> None:
    words = [word for name in DRESSER_WEIGHTS for word in (f"--{name}_weight", "0.125")]
    assert set(dresser_weights(parse_arguments([*TINY, *words])).values()) == {0.125}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (DATA, r"--perceptual vgg needs .* --vgg_weights"),
        ([*TINY, "--vgg_weights", "a.pth"], r"--vgg_weights a\.pth came with --perceptual gradient"),
        ([*TINY, "--l1_weight", "-1"], r"--l1_weight -1\.0: it is a number of 0 or more"),
        ([*TINY, "--l1_weight", "nan"], r"--l1_weight nan"),
        ([*TINY, "--warper_rate_factor", "0"], r"--warper_rate_factor 0\.0: it is a number above 0"),
        ([*TINY, "--snr_gamma", "5"], r"--snr_gamma means nothing to VTON-GAN: it has no noise levels"),
        ([*TINY, "--gradient_checkpointing"], r"--gradient_checkpointing means nothing to VTON-GAN"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(cs.ArgumentError, match=message):
        parse_arguments(words)


def test_random_weights_are_told_aloud() -> None:
    assert "for tests" in remarks(parse_arguments([*TINY, "--perceptual", "random-vgg"]))[0]
    assert remarks(parse_arguments(TINY)) == []


def test_both_presets_have_the_three_stages() -> None:
    for preset in PRESETS.values():
        schedule = cs.StageSchedule.load(preset["curriculum_config"])
        assert [stage.name for stage in schedule.stages] == ["easy", "medium", "hard"]
    mixtures = [
        [dict(stage.mixture) for stage in cs.StageSchedule.load(name).stages]
        for name in ("vtongan", CURRICULA / "vtongan_tiny.toml")
    ]
    assert mixtures[0] == mixtures[1]


def test_help_loads_no_torch() -> None:
    examples = Path(__file__).resolve().parents[2] / "examples"
    code = f"import sys; sys.path.insert(0, {str(examples)!r}); import vtongan.flags; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
