"""Laws of the CatVTON network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from catvton.model import TINY_UNET, SkippedCrossAttention, build_catvton, skip_cross_attention, widen_conv_in
from common.tiny_vae import new_tiny_vae
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock

import curriculum_sampler as cs


def transformer_block() -> BasicTransformerBlock:
    torch.manual_seed(0)
    return BasicTransformerBlock(16, 2, 8, cross_attention_dim=8).eval()


def test_skipping_cross_attention_computes_h_plus_layer_norm_of_h() -> None:
    block = transformer_block()
    hidden = torch.randn(2, 5, 16)
    after_attention = hidden + block.attn1(block.norm1(hidden))
    skipped = after_attention + block.norm2(after_attention)
    expected = skipped + block.ff(block.norm3(skipped))
    skip_cross_attention(block)
    assert torch.allclose(block(hidden), expected, atol=1e-6)


def test_without_compatibility_the_block_has_no_second_branch() -> None:
    block = transformer_block()
    hidden = torch.randn(2, 5, 16)
    after_attention = hidden + block.attn1(block.norm1(hidden))
    expected = after_attention + block.ff(block.norm3(after_attention))
    skip_cross_attention(block, compatible=False)
    assert torch.allclose(block(hidden), expected, atol=1e-6)


def test_no_cross_attention_weight_remains() -> None:
    unet = build_catvton("tiny").unet
    assert not [name for name, _ in unet.named_parameters() if "attn2" in name]
    assert any(isinstance(module, SkippedCrossAttention) for module in unet.modules())


def test_a_widened_network_starts_as_the_one_it_was() -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**(TINY_UNET | {"in_channels": 4})).eval()
    skip_cross_attention(unet)
    latent, more = torch.randn(1, 4, 8, 6), torch.randn(1, 5, 8, 6)
    before = unet(latent, 3, encoder_hidden_states=None).sample
    widen_conv_in(unet)
    assert unet.config.in_channels == 9
    after = unet(torch.cat([latent, more], dim=1), 3, encoder_hidden_states=None).sample
    assert torch.allclose(before, after, atol=1e-6)


def test_a_network_of_other_width_is_refused() -> None:
    unet = UNet2DConditionModel(**(TINY_UNET | {"in_channels": 8}))
    with pytest.raises(cs.ArgumentError, match=r"takes 8 input channels.*Choose another"):
        widen_conv_in(unet)


@pytest.mark.parametrize("channels", [4, 9])
def test_full_loads_a_pipeline_in_the_stable_diffusion_layout(tmp_path: Path, channels: int) -> None:
    base = UNet2DConditionModel(**(TINY_UNET | {"in_channels": channels}))
    base.save_pretrained(tmp_path / "unet")
    new_tiny_vae((16, 32)).save_pretrained(tmp_path / "vae")
    DDPMScheduler(beta_schedule="scaled_linear").save_pretrained(tmp_path / "scheduler")
    model = build_catvton("full", base=str(tmp_path))
    assert model.vae_factor == 2
    assert model.noise_scheduler.config.prediction_type == "epsilon"
    trained = dict(model.trainable())
    assert trained
    assert all(".attn1." in name for name in trained)
    for name, weight in trained.items():
        assert torch.equal(weight, base.state_dict()[name])


def test_full_without_a_base_says_what_is_missing() -> None:
    with pytest.raises(cs.ArgumentError, match="--pretrained_model_name_or_path"):
        build_catvton("full")


def test_a_vae_saved_by_the_small_trainer_is_the_one_loaded(tmp_path: Path) -> None:
    torch.manual_seed(5)
    vae = new_tiny_vae()
    vae.save_pretrained(tmp_path)
    loaded = build_catvton("tiny", vae=str(tmp_path)).vae
    assert isinstance(loaded, AutoencoderKL)
    assert all(
        torch.equal(a, b)
        for a, b in zip(vae.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_frozen_weights_are_recognised_in_any_precision_and_told_apart() -> None:
    one, same, other = (build_catvton("tiny", seed=seed) for seed in (1, 1, 2))
    same.move(torch.device("cpu"), torch.bfloat16)
    assert one.frozen_digest() == same.frozen_digest() != other.frozen_digest()


def test_building_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    build_catvton("tiny")
    assert torch.equal(before, torch.get_rng_state())
