"""Laws of likeness beyond single pixels."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from vtongan.perceptual import GradientLoss, VggLoss, build_perceptual, filtered

import curriculum_sampler as cs


def pictures(seed: int = 0, size: tuple[int, int] = (32, 24)) -> torch.Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def whole_vgg(seed: int = 5) -> dict[str, torch.Tensor]:
    """Tensors as in torchvision's file: a trunk, and more that nobody asked for."""
    torch.manual_seed(seed)
    return {
        **VggLoss().state_dict(),
        "features.34.weight": torch.zeros(3),
        "classifier.0.weight": torch.zeros(3),
    }


def test_vgg_without_weights_names_the_flag() -> None:
    with pytest.raises(
        cs.ArgumentError, match=r"--perceptual vgg needs .* --vgg_weights .* gradient needs no weights"
    ):
        build_perceptual("vgg")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_with_torchvision_s_names_is_taken(tmp_path: Path, suffix: str) -> None:
    weights, path = whole_vgg(), tmp_path / f"vgg19.{suffix}"
    save_file(weights, path) if suffix == "safetensors" else torch.save(weights, path)
    loss = build_perceptual("vgg", str(path))
    assert isinstance(loss, VggLoss)
    assert all(torch.equal(value, weights[name]) for name, value in loss.state_dict().items())


def test_the_trunk_is_vgg_19_up_to_relu5_1_under_torchvision_s_numbers() -> None:
    trunk = VggLoss()
    assert sum(value.numel() for value in trunk.parameters()) == 12_944_960
    convolutions = [
        number for number, layer in enumerate(trunk.features) if isinstance(layer, torch.nn.Conv2d)
    ]
    assert convolutions == [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28]


def test_a_file_of_another_network_or_none_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(cs.ArgumentError, match=r"--vgg_weights .*none\.pth: there is no such file"):
        build_perceptual("vgg", str(tmp_path / "none.pth"))
    weights = whole_vgg()
    torch.save({**weights, "features.10.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    with pytest.raises(
        cs.ArgumentError, match=r"features\.10\.weight is \(2, 2\), but VGG-19 has \(256, 128, 3, 3\)"
    ):
        build_perceptual("vgg", str(tmp_path / "other.pth"))
    torch.save({"state_dict": torch.zeros(1)}, tmp_path / "shell.pth")
    with pytest.raises(cs.ArgumentError, match=r"features\.0\.weight is absent"):
        build_perceptual("vgg", str(tmp_path / "shell.pth"))


def test_torchvision_where_it_is_absent_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(cs.MissingExtraError, match=r"torchvision is not installed.*path of a file"):
        build_perceptual("vgg", "torchvision")


@pytest.mark.parametrize("kind", ["gradient", "random-vgg"])
def test_it_is_zero_for_equal_pictures_of_each_sample_alone_and_never_trained(kind: str) -> None:
    loss = build_perceptual(kind)  # type: ignore[arg-type]
    assert loss is not None
    truth = pictures()
    painted = truth.clone()
    painted[1] = pictures(1)[1]
    painted.requires_grad_()
    found = loss(painted, truth)
    assert found.shape == (2,)
    assert found[0] == 0
    assert found[1] > 0.01
    found.sum().backward()
    assert painted.grad is not None
    assert painted.grad[1].abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_none_is_none() -> None:
    assert build_perceptual("none") is None


def test_gradients_do_not_see_brightness_and_see_a_blur() -> None:
    truth = pictures()
    blurred = torch.nn.functional.avg_pool2d(truth, 3, 1, 1)
    assert GradientLoss()(truth * 0.5, truth * 0.5 + 0.3).max() < 1e-6
    assert GradientLoss()(blurred, truth).min() > 0.05


def test_a_step_of_one_per_pixel_has_a_sobel_of_one() -> None:
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    across, down, bend = filtered(ramp)[0, :, 1:-1, 1:-1]
    assert torch.allclose(across, torch.ones(6, 6))
    assert not down.any()
    assert not bend.any()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(filtered(ramp), filtered(ramp.float()))
        assert filtered(ramp).dtype == torch.float32
