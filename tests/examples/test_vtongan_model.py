"""Laws of VTON-GAN as a whole: its sizes, what it may see, its rates, and that it learns."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from common.rates import set_learning_rate
from common.validation import averaged_weights
from diffusers.training_utils import EMAModel
from vtongan.flags import DRESSER_WEIGHTS, JUDGE_WEIGHTS, dresser_weights, judge_weights, parse_arguments
from vtongan.losses import discriminator_terms, dresser_terms, masked_l1, weighted
from vtongan.model import VTONGAN, build_vtongan, make_optimizer

import curriculum_sampler as cs

from .vtongan_pictures import one_of, rendered_batch

TINY = ["--data_root", "shards", "--model_preset", "tiny"]


@pytest.fixture
def model() -> VTONGAN:
    return build_vtongan("tiny", seed=3)


@pytest.fixture(scope="module")
def full() -> VTONGAN:
    return build_vtongan("full")


@pytest.fixture(scope="module")
def batch() -> dict[str, Any]:
    return rendered_batch("medium")


def count(weights: Iterable[torch.nn.Parameter]) -> int:
    return sum(weight.numel() for weight in weights)


def test_both_presets_have_the_size_they_claim(full: VTONGAN) -> None:
    assert count(full.dresser.generator.parameters()) == 66_690_180
    assert count(full.dresser.warper.parameters()) == 21_959_311
    assert count(full.discriminator.parameters()) == 5_533_826
    tiny = build_vtongan("tiny")
    assert count(weight for _, weight in tiny.weights()) == 288_114
    assert (full.size_factor, tiny.size_factor) == (64, 8)


def test_the_result_is_garment_and_render_inside_the_mask_and_the_person_outside(
    model: VTONGAN, batch: dict[str, Any]
) -> None:
    worn = model.dresser(batch)
    inside = batch["agnostic_mask"].expand_as(worn.result) > 0.5
    assert torch.equal(worn.result[~inside], batch["image"][~inside])
    mixed = worn.composite * worn.warped.garment + (1 - worn.composite) * worn.render
    assert torch.allclose(worn.result[inside], mixed[inside], atol=1e-6)
    assert (worn.composite <= worn.warped.seen).all(), "no garment where none is seen"
    assert 0 <= worn.composite.min() <= worn.composite.max() <= 1


def test_dressing_never_looks_under_the_mask(model: VTONGAN, batch: dict[str, Any]) -> None:
    without = {name: value for name, value in batch.items() if name != "image"}
    hidden = batch | {"image": torch.where(batch["agnostic_mask"] > 0.5, -batch["image"], batch["image"])}
    results = [model.dresser.eval()(given).result for given in (batch, without, hidden)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_a_dressed_person_does_not_depend_on_the_batch(model: VTONGAN, batch: dict[str, Any]) -> None:
    """So neither do results on the number of ranks, in training no more than afterwards."""
    together = build_vtongan("tiny", seed=3).dresser.train()(batch)
    alone = model.dresser.train()(one_of(batch, 2))
    assert torch.allclose(together.result[2:], alone.result, atol=1e-5)


def test_data_without_pose_is_refused_by_name(model: VTONGAN, batch: dict[str, Any]) -> None:
    with pytest.raises(
        cs.ArgumentError, match=r"bends garments to a pose.*agnostic.*Write shards with a `pose`"
    ):
        model.dresser({name: value for name, value in batch.items() if name != "pose"})


@pytest.mark.parametrize("size", [(60, 48), (48, 20), (16, 48)])
def test_sizes_that_do_not_halve_are_refused(model: VTONGAN, size: tuple[int, int]) -> None:
    with pytest.raises(
        cs.ArgumentError, match=f"--height {size[0]} --width {size[1]}: .* multiples of 8, 24 or more"
    ):
        model.check_size(*size)


def test_the_smallest_pictures_that_are_not_refused_can_be_learned(model: VTONGAN) -> None:
    model.check_size(24, 24)
    train(model, rendered_batch("hard", count=1, height=24, width=24), 2)
    assert all(value.isfinite().all() for value in model.state().values())


def test_the_full_preset_paints_at_its_smallest_size(full: VTONGAN) -> None:
    full.check_size(192, 192)
    batch = rendered_batch("hard", count=1, height=192, width=192)
    with torch.no_grad():
        worn = full.dresser(batch)
        terms = dresser_terms(full.discriminator, None, batch, worn)
    assert worn.result.shape == (1, 3, 192, 192)
    assert [flow.shape[-1] for flow in worn.warped.flows] == [3, 6, 12, 24, 48]
    assert all(term.isfinite().all() for term in terms.values())


def test_building_leaves_the_global_generator_alone_and_follows_the_seed() -> None:
    before = torch.get_rng_state()
    one, same, other = (
        build_vtongan("tiny", perceptual="random-vgg", seed=seed).state() for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_s_tensors_are_weights_and_singular_vectors_and_no_vgg() -> None:
    model = build_vtongan("tiny", perceptual="random-vgg")
    state = model.state()
    assert {name for name, _ in model.weights()} < state.keys()
    rest = {name.rpartition(".")[2] for name in state.keys() - dict(model.weights()).keys()}
    assert rest == {"left"}
    assert not any("features" in name for name in state)
    live = dict(model.dresser.named_parameters())["generator.first.weight"]
    assert state["dresser.generator.first.weight"] is live


@pytest.mark.parametrize(
    ("words", "factors"),
    [
        ([], (0.5, 0.5, 2.0)),
        (["--warper_rate_factor", "0.5"], (0.5, 0.25, 2.0)),
        (["--no_ttur"], (1.0, 1.0, 1.0)),
    ],
)
def test_the_discriminator_learns_four_times_as_fast_as_the_generator(
    model: VTONGAN, words: list[str], factors: tuple[float, float, float]
) -> None:
    optimizer = make_optimizer(parse_arguments([*TINY, *words]), model)
    for rate in (2e-4, 1e-4):  # at every stage, also after a load brought back another rate
        set_learning_rate(optimizer, rate)
        assert [group["lr"] / rate for group in optimizer.param_groups] == pytest.approx(factors)


def test_at_full_the_rates_are_those_of_hr_viton(model: VTONGAN) -> None:
    args = parse_arguments(["--data_root", "shards", "--vgg_weights", "vgg19.pth"])
    optimizer = make_optimizer(args, model)
    set_learning_rate(optimizer, 2e-4)
    assert optimizer.defaults["betas"] == (0.0, 0.9)
    assert optimizer.defaults["weight_decay"] == 0
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-4, 5e-5, 4e-4])


def test_every_weight_is_in_exactly_one_group(model: VTONGAN) -> None:
    grouped = [
        id(weight)
        for group in make_optimizer(parse_arguments(TINY), model).param_groups
        for weight in group["params"]
    ]
    assert sorted(grouped) == sorted(id(weight) for _, weight in model.weights())


def train(
    model: VTONGAN, batch: dict[str, Any], steps: int, dtype: torch.dtype = torch.float32
) -> list[float]:
    """Some steps on one batch, as a loop makes them; returns the error inside the mask before each."""
    args = parse_arguments(TINY)
    optimizer = make_optimizer(args, model)
    model.move(torch.device("cpu"))
    errors = []
    for _ in range(steps):
        set_learning_rate(optimizer, 4e-3)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            worn = model.dresser(batch)
            judged, _ = discriminator_terms(model.discriminator, batch, worn.result.detach())
            dressed = dresser_terms(model.discriminator, model.perceptual, batch, worn)
        judging = weighted(judged, judge_weights(args))
        (weighted(dressed, dresser_weights(args)) + judging).mean().backward()
        for part in (model.dresser, model.discriminator):
            torch.nn.utils.clip_grad_norm_(part.parameters(), args.max_grad_norm)
        optimizer.step()
        model.after_update()
        errors.append(masked_l1(worn.result, batch["image"], batch["agnostic_mask"]).mean().item())
    return errors


def test_the_error_falls_in_a_few_steps(model: VTONGAN) -> None:
    errors = train(model, rendered_batch("easy", count=4), 40)
    assert errors[-1] < 0.6 * errors[0], errors


def test_it_learns_in_half_precision_too(model: VTONGAN) -> None:
    errors = train(model, rendered_batch("easy", count=2), 10, torch.bfloat16)
    assert errors[-1] < 0.9 * errors[0], errors
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in model.state().values())


def test_what_was_saved_goes_on_exactly(batch: dict[str, Any]) -> None:
    """Weights alone are not enough: the singular vectors belong to the state."""
    one, other = build_vtongan("tiny", seed=1), build_vtongan("tiny", seed=2)
    train(one, batch, 2)
    with torch.no_grad():
        for name, value in other.state().items():
            value.copy_(one.state()[name])
    assert train(one, batch, 3) == train(other, batch, 3)
    assert all(torch.equal(value, other.state()[name]) for name, value in one.state().items())


def test_averaged_weights_dress_and_the_trained_ones_are_back_afterwards(
    model: VTONGAN, batch: dict[str, Any]
) -> None:
    weights = list(model.dresser.parameters())
    ema = EMAModel(weights, decay=0.9)
    train(model, batch, 2)
    ema.step(weights)
    before = {name: value.clone() for name, value in model.state().items()}
    model.dresser.eval()
    trained = model.dresser(batch).result
    with averaged_weights(ema, weights):
        averaged = model.dresser(batch).result
    assert averaged.isfinite().all()
    assert not torch.equal(trained, averaged)
    assert all(torch.equal(before[name], value) for name, value in model.state().items())


def test_terms_of_both_sides_have_different_names() -> None:
    assert not DRESSER_WEIGHTS.keys() & JUDGE_WEIGHTS.keys()


@pytest.mark.parametrize("name", ["warper", "losses"])
def test_docstrings_tell_the_truth(name: str) -> None:
    failed, tried = doctest.testmod(importlib.import_module(f"vtongan.{name}"))
    assert failed == 0
    assert tried > 0
