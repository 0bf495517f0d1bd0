"""Laws of dressing a person with a DiT, and of looking at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from common.randomness import sample_generators
from dit.flags import parse_arguments
from dit.generate import generate
from dit.look import look
from dit.model import DiT
from dit.objectives import OBJECTIVES, FlowMatching
from PIL import Image
from torch import Tensor

from .test_dit_objectives import BOTH, KEYS, Spy, batch, generators, model, part

__all__ = ["batch", "model"]  # fixtures


@BOTH
def test_a_dressed_person_depends_on_its_own_generator_only(
    name: str, model: DiT, batch: dict[str, Any]
) -> None:
    objective = OBJECTIVES[name]()
    together = generate(model, objective, batch, generators(), steps=2)
    alone = generate(model, objective, part(batch, 1), generators(keys=["b"]), steps=2)
    assert together.shape == (3, 3, 32, 24)
    assert together.abs().max() <= 1
    assert torch.allclose(together[1:2], alone, atol=1e-3)
    assert not torch.allclose(together, generate(model, objective, batch, generators(1), steps=2), atol=1e-3)


def test_dressing_never_looks_under_the_mask(model: DiT, batch: dict[str, Any]) -> None:
    hidden = batch | {"image": torch.where(batch["agnostic_mask"] > 0.5, 0.3, batch["image"])}
    one, two = (generate(model, FlowMatching(), given, generators(), steps=2) for given in (batch, hidden))
    assert torch.equal(one, two)


@pytest.mark.parametrize(("guidance", "branches"), [(1.0, 1), (2.0, 2)])
def test_guidance_hides_the_garment_in_a_second_branch_and_nothing_else(
    guidance: float, branches: int, model: DiT, batch: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy()
    monkeypatch.setattr(model, "network", spy)
    generate(model, FlowMatching(), batch, generators(), steps=3, guidance=guidance)
    assert len(spy.told) == 3
    told = spy.told[0]
    assert len(told["noisy"]) == 3 * branches
    assert told["garment"][:3].any(dim=(1, 2, 3)).all()
    assert not told["garment"][3:].any()
    for name in ("noisy", "person", "time", "category"):
        assert all(torch.equal(told[name][:3], rest) for rest in told[name].split(3)), name


def test_guidance_goes_beyond_the_prediction_without_garment(
    model: DiT, batch: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that says 1 with a garment and 0 without: at guidance 3 it is as if it said 3."""

    class OneWithGarment(Spy):
        def forward(self, noisy: Tensor, person: Tensor, garment: Tensor, *more: Tensor) -> Tensor:
            return garment.flatten(1).any(1).float().view(-1, 1, 1, 1).expand_as(noisy)

    monkeypatch.setattr(model, "network", OneWithGarment())
    guided = generate(model, FlowMatching(), batch, generators(), steps=2, guidance=3.0)
    monkeypatch.setattr(model, "network", Spy(3.0))
    assert torch.allclose(guided, generate(model, FlowMatching(), batch, generators(), steps=2, guidance=1.0))


def test_looking_gives_a_number_per_bucket_and_a_sheet_and_repeats_itself(
    model: DiT, batch: dict[str, Any], tmp_path: Path
) -> None:
    flags = "--data_root x --model_preset tiny --use_pose --num_validation_inference_steps 2"
    args = parse_arguments([*flags.split(), "--num_validation_samples", "2"])
    samples = {"easy": batch | {"bucket": ["easy"] * 3}, "hard": part(batch, 2) | {"bucket": ["hard"]}}
    before = torch.get_rng_state()
    found = [look(model, samples, args, "step 0", tmp_path / f"{n}.png") for n in range(2)]
    assert torch.equal(before, torch.get_rng_state())
    assert found[0] == found[1]
    assert set(found[0]["loss_by_bucket"]) == {"easy", "hard"}
    assert {"ssim", "psnr", "masked_l1"} <= found[0].keys()
    with Image.open(tmp_path / "0.png") as sheet:
        cell = 5 * 24 + 4
        assert sheet.width >= 5 * cell, "garment, masked, pose, result, truth"


def test_held_out_loss_is_that_of_the_objective_asked_for(
    model: DiT, batch: dict[str, Any], tmp_path: Path
) -> None:
    losses = []
    for objective in OBJECTIVES:
        flags = f"--data_root x --model_preset tiny --use_pose --objective {objective}"
        args = parse_arguments([*flags.split(), "--num_validation_inference_steps", "1"])
        samples = {"easy": batch | {"bucket": ["easy"] * 3}}
        losses.append(look(model, samples, args, "", tmp_path / "x.png")["loss_by_bucket"]["easy"])
    assert losses[0] != losses[1]


def test_keys_of_the_panel_decide_its_noise(model: DiT, batch: dict[str, Any]) -> None:
    one, same, other = (
        generate(model, FlowMatching(), batch, sample_generators(seed, "panel", 0, KEYS), steps=1)
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
