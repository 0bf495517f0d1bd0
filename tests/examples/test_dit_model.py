"""Laws of the DiT network, its positions, and its first weights."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest
import torch
from common.tiny_vae import new_tiny_vae
from dit import positions
from dit.model import NO_CATEGORY, SIZES, TryOnDiT, build_dit
from dit.positions import sincos_positions
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import curriculum_sampler as cs

SMALL = {"width": 16, "depth": 2, "heads": 2, "patch": 2}


def awake(seed: int = 0, **flags: Any) -> TryOnDiT:
    """A small network with random weights everywhere: no gate is shut, as after some training."""
    network = TryOnDiT(**(SMALL | flags))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network


def inputs(batch: int = 2, rows: int = 6, columns: int = 4, use_pose: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    known = 9 if use_pose else 5
    return {
        "noisy": torch.randn(batch, 4, rows, columns, generator=generator),
        "person": torch.randn(batch, known, rows, columns, generator=generator),
        "garment": torch.randn(batch, 4, rows, columns, generator=generator),
        "time": torch.linspace(100, 900, batch),
        "category": torch.arange(batch) % (NO_CATEGORY + 1),
    }


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (16, 12), (8, 2), (2, 10)])
def test_any_rectangle_comes_out_as_it_went_in(rows: int, columns: int) -> None:
    assert awake()(**inputs(rows=rows, columns=columns)).shape == (2, 4, rows, columns)


def test_what_patches_do_not_fill_is_refused() -> None:
    with pytest.raises(cs.ArgumentError, match=r"5 x 4 cannot be cut into patches of 2.*--height"):
        awake()(**inputs(rows=5))


@pytest.mark.parametrize("flags", [{}, {"use_pose": True, "qk_norm": True}])
def test_a_new_network_predicts_zero(flags: dict[str, bool]) -> None:
    network = TryOnDiT(**SMALL, **flags)
    assert not network(**inputs(use_pose=flags.get("use_pose", False))).any()


def test_a_new_block_does_nothing_yet() -> None:
    network = TryOnDiT(**SMALL)
    tokens, condition = torch.randn(2, 5, 16), torch.randn(2, 16)
    for block in network.blocks:
        assert torch.equal(block(tokens, condition), tokens)


@pytest.mark.parametrize("told", ["noisy", "person", "garment", "time", "category"])
def test_everything_told_has_an_influence(told: str) -> None:
    network, given_inputs = awake(), inputs()
    changed = given_inputs[told] + 1
    before, after = network(**given_inputs), network(**(given_inputs | {told: changed}))
    assert not torch.allclose(before, after, atol=1e-3)


def test_each_pixel_comes_out_where_it_went_in() -> None:
    """With attention shut, a patch of the output depends on that patch of the input alone."""
    network = awake()
    with torch.no_grad():
        for block in network.blocks:
            block.out.weight.zero_()
    given_inputs = inputs()
    changed = given_inputs["noisy"].clone()
    changed[:, :, 2:4, 0:2] += 1
    moved = network(**given_inputs) != network(**(given_inputs | {"noisy": changed}))
    assert moved[:, :, 2:4, 0:2].any(dim=1).all()
    moved[:, :, 2:4, 0:2] = False
    assert not moved.any()


def test_samples_of_a_batch_do_not_see_each_other() -> None:
    network, given_inputs = awake(), inputs(batch=3)
    together = network(**given_inputs)
    alone = network(**{name: value[1:2] for name, value in given_inputs.items()})
    assert torch.allclose(together[1:2], alone, atol=1e-5)


def test_the_garment_stands_beside_the_person_and_not_on_top() -> None:
    network, entering = awake(), list[Tensor]()
    network.blocks[0].register_forward_pre_hook(lambda _, given_inputs: entering.append(given_inputs[0]))
    with torch.no_grad():
        network.patches.weight.zero_()
        network.patches.bias.zero_()
        network(**inputs())
    person, garment = entering[0][0].split(6)
    assert torch.equal(person, sincos_positions(3, 2, 16))
    assert torch.equal(garment, sincos_positions(3, 2, 16, first_column=2) + network.garment_segment)


def test_attention_knows_where_on_the_garment_it_looks() -> None:
    network, given_inputs = awake(), inputs()
    garment = given_inputs["garment"]
    swapped = garment.clone()
    swapped[:, :, 0:2], swapped[:, :, 2:4] = garment[:, :, 2:4], garment[:, :, 0:2]
    assert not torch.allclose(
        network(**given_inputs), network(**(given_inputs | {"garment": swapped})), atol=1e-4
    )


@given(rows=st.integers(1, 40), columns=st.integers(1, 40))
def test_no_two_tokens_share_a_position_and_the_garment_s_are_to_the_right(rows: int, columns: int) -> None:
    person = sincos_positions(rows, columns, 32)
    garment = sincos_positions(rows, columns, 32, first_column=columns)
    both = torch.cat([person, garment])
    nearest = torch.cdist(both, both).fill_diagonal_(9).min()
    assert nearest > 0.1
    wide = sincos_positions(rows, 2 * columns, 32).view(rows, 2 * columns, 32)
    assert torch.equal(garment.view(rows, columns, 32), wide[:, columns:])


def test_positions_are_those_of_dit() -> None:
    """The official formula, term by term: the column in the first half, sines before cosines."""
    width, quarter = 24, 6
    table = sincos_positions(3, 5, width).view(3, 5, width)
    for row in range(3):
        for column in range(5):
            for number in range(quarter):
                frequency = torch.tensor(10_000.0 ** (-number / quarter))
                expected = [f(frequency * place) for place in (column, row) for f in (torch.sin, torch.cos)]
                assert torch.allclose(table[row, column, number::quarter], torch.stack(expected), atol=1e-6)


def test_the_example_of_positions_is_true() -> None:
    assert doctest.testmod(positions) == (0, 3)


def test_normalised_queries_and_keys_keep_attention_bounded() -> None:
    """Queries and keys ten times as large change nothing once they are normalised."""
    for qk_norm in (False, True):
        network = awake(qk_norm=qk_norm)
        before = network(**inputs())
        with torch.no_grad():
            for block in network.blocks:
                block.qkv.weight[: 2 * network.width] *= 10
                block.qkv.bias[: 2 * network.width] *= 10
        assert torch.allclose(before, network(**inputs()), atol=1e-3) is qk_norm


def test_checkpointing_gives_the_same_gradients() -> None:
    gradients = []
    for checkpointed in (False, True):
        network = awake()
        if checkpointed:
            network.enable_gradient_checkpointing()
        network(**inputs()).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain is not None
        assert torch.equal(plain, recomputed)


def test_checkpointing_computes_the_blocks_again() -> None:
    network = awake()
    network.enable_gradient_checkpointing()
    calls = []
    network.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    network(**inputs()).sum().backward()
    assert len(calls) == 2


def test_it_runs_in_half_precision() -> None:
    network = awake(qk_norm=True)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(**inputs())
    assert half.dtype == torch.bfloat16
    whole = network(**inputs())
    assert (half.float() - whole).abs().mean() < 0.05 * whole.abs().mean()


@pytest.mark.parametrize(
    ("size", "millions"), [("tiny", 0.182), ("s_2", 32.6), ("b_2", 129.8), ("l_2", 457.0), ("xl_2", 673.9)]
)
def test_sizes_have_the_parameters_that_they_should(size: str, millions: float) -> None:
    with torch.device("meta"):
        network = TryOnDiT(**SIZES[size])
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted / 1e6 == pytest.approx(millions, rel=0.005)


def test_every_weight_of_a_network_in_use_gets_a_gradient() -> None:
    network = awake(use_pose=True, qk_norm=True)
    network(**inputs(use_pose=True)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_the_vae_given_is_the_one_loaded_and_is_frozen(tmp_path: Path) -> None:
    torch.manual_seed(5)
    vae = new_tiny_vae()
    vae.save_pretrained(tmp_path / "vae")
    for model in (build_dit("tiny", vae=str(tmp_path / "vae")), build_dit("tiny", base=str(tmp_path))):
        assert model.base.startswith(str(tmp_path))
        assert not any(parameter.requires_grad for parameter in model.vae.parameters())
        for ours, theirs in zip(model.vae.state_dict().values(), vae.state_dict().values(), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("channels", "multiple"), [((16, 32), 4), ((16, 32, 32), 8)])
def test_a_picture_s_size_follows_from_vae_and_patch(
    tmp_path: Path, channels: tuple[int, ...], multiple: int
) -> None:
    new_tiny_vae(channels).save_pretrained(tmp_path)
    assert build_dit("tiny", vae=str(tmp_path)).pixel_multiple == multiple


def test_scaling_and_its_inverse_meet() -> None:
    model = build_dit("tiny")
    model.vae.register_to_config(scaling_factor=0.4, shift_factor=0.1)
    latents = torch.randn(1, 4, 4, 4)
    decoded = model.vae.decode(latents).sample.clamp(-1, 1)
    assert torch.allclose(model.pictures(model.scaled(latents)), decoded, atol=1e-5)


def test_a_large_network_without_a_vae_says_what_is_missing() -> None:
    with pytest.raises(cs.ArgumentError, match="--model_size l_2 needs a trained autoencoder"):
        build_dit("l_2")


def test_only_the_vae_is_frozen_and_moving_keeps_the_network_exact() -> None:
    one, same, other = (build_dit("tiny", seed=seed) for seed in (1, 1, 1))
    same.move(torch.device("cpu"), torch.bfloat16)
    assert {parameter.dtype for _, parameter in same.trainable()} == {torch.float32}
    assert same.vae.dtype == torch.bfloat16
    assert one.frozen_digest() == same.frozen_digest()
    with torch.no_grad():
        other.vae.decoder.conv_out.weight.mul_(2)
    assert one.frozen_digest() != other.frozen_digest()


def test_building_leaves_the_global_generator_alone_and_follows_its_seed() -> None:
    before = torch.get_rng_state()
    one, same, other = (build_dit("tiny", seed=seed).network.category.weight for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
