"""Laws of the small autoencoder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from common.tiny_vae import fit_last_layer, main, new_tiny_vae, whiten_latents
from diffusers import AutoencoderKL
from torch import Tensor

from .trainer_runs import Runs


@pytest.fixture
def pictures() -> Tensor:
    """Smooth pictures of many colours."""
    colours = torch.rand(16, 3, 4, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(colours, size=(32, 24), mode="bilinear")


def error(vae: AutoencoderKL, pictures: Tensor) -> float:
    with torch.no_grad():
        return (vae.decode(vae.encode(pictures).latent_dist.mode()).sample - pictures).abs().mean().item()


def test_it_carries_colours_before_any_training(pictures: Tensor) -> None:
    torch.manual_seed(0)
    vae = new_tiny_vae()
    fit_last_layer(vae, pictures)
    grey = (pictures - pictures.mean(dim=(1, 2, 3), keepdim=True)).abs().mean().item()
    assert error(vae, pictures) < grey / 2


def test_whitening_changes_latents_and_no_picture(pictures: Tensor) -> None:
    torch.manual_seed(0)
    vae = new_tiny_vae()
    with torch.no_grad():
        vae.quant_conv.weight.add_(0.1 * torch.randn_like(vae.quant_conv.weight))
    before = vae.decode(vae.encode(pictures).latent_dist.mode()).sample
    whiten_latents(vae, pictures)
    latents = vae.encode(pictures).latent_dist.mode()
    assert torch.allclose(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-4)
    assert torch.allclose(vae.decode(latents).sample, before, atol=1e-3)


def test_training_improves_it_and_saves_what_from_pretrained_loads(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [
        "--s3_prefixes",
        str(runs.shards),
        "--output_dir",
        str(tmp_path / "vae"),
        "--height",
        "32",
        "--width",
        "24",
    ]
    main([*flags, "--steps", "50"])
    said = capsys.readouterr().out
    assert float(said.split("within ")[1].split()[0]) < 0.35
    vae = AutoencoderKL.from_pretrained(tmp_path / "vae")
    assert vae.config.scaling_factor == 1.0
    main(flags)
    assert "trained VAE already" in capsys.readouterr().out
