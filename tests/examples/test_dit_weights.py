"""Laws of starting from official DiT weights: fabricated files with the official names and shapes, and DiT's own forward
pass written down again from its paper to compare with."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from dit.model import TryOnDiT
from dit.positions import sincos_positions
from dit.weights import init_from_official
from torch import Tensor

import curriculum_sampler as cs

WIDTH, DEPTH, HEADS = 16, 2, 2
SMALL = {"width": WIDTH, "depth": DEPTH, "heads": HEADS, "patch": 2}


def official(learn_sigma: bool = True) -> dict[str, Tensor]:
    """Weights of a small DiT under the names and in the shapes of ``DiT-XL-2-256x256.pt``."""
    outputs = 2 * 2 * (8 if learn_sigma else 4)
    shapes: dict[str, tuple[int, ...]] = {
        "pos_embed": (1, 256, WIDTH),
        "x_embedder.proj.weight": (WIDTH, 4, 2, 2),
        "x_embedder.proj.bias": (WIDTH,),
        "t_embedder.mlp.0.weight": (WIDTH, 256),
        "t_embedder.mlp.0.bias": (WIDTH,),
        "t_embedder.mlp.2.weight": (WIDTH, WIDTH),
        "t_embedder.mlp.2.bias": (WIDTH,),
        "y_embedder.embedding_table.weight": (1001, WIDTH),
        "final_layer.linear.weight": (outputs, WIDTH),
        "final_layer.linear.bias": (outputs,),
        "final_layer.adaLN_modulation.1.weight": (2 * WIDTH, WIDTH),
        "final_layer.adaLN_modulation.1.bias": (2 * WIDTH,),
    }
    for block in range(DEPTH):
        for name, (rows, columns) in {
            "attn.qkv": (3 * WIDTH, WIDTH),
            "attn.proj": (WIDTH, WIDTH),
            "mlp.fc1": (4 * WIDTH, WIDTH),
            "mlp.fc2": (WIDTH, 4 * WIDTH),
            "adaLN_modulation.1": (6 * WIDTH, WIDTH),
        }.items():
            shapes[f"blocks.{block}.{name}.weight"] = (rows, columns)
            shapes[f"blocks.{block}.{name}.bias"] = (rows,)
    generator = torch.Generator().manual_seed(0)
    return {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def dit_forward(weights: dict[str, Tensor], tokens: Tensor, time: Tensor, rows: int, columns: int) -> Tensor:
    """DiT's blocks and last layer over given tokens, of class "none"; the prediction, its variance left out."""

    def linear(name: str, given: Tensor) -> Tensor:
        return F.linear(given, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(given: Tensor) -> Tensor:
        return F.layer_norm(given, (WIDTH,), eps=1e-6)

    frequencies = torch.exp(-torch.log(torch.tensor(10_000.0)) * torch.arange(128) / 128)
    angles = time[:, None] * frequencies
    features = torch.cat([angles.cos(), angles.sin()], dim=1)
    condition = linear("t_embedder.mlp.2", F.silu(linear("t_embedder.mlp.0", features)))
    condition = F.silu(condition + weights["y_embedder.embedding_table.weight"][1000])
    for block in range(DEPTH):
        name = f"blocks.{block}"
        told = linear(f"{name}.adaLN_modulation.1", condition)[:, None]
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = told.chunk(6, dim=-1)
        qkv = linear(f"{name}.attn.qkv", norm(tokens) * (1 + scale) + shift)
        query, key, value = qkv.reshape(*qkv.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        attention = (query @ key.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5).softmax(-1) @ value
        tokens = tokens + gate * linear(f"{name}.attn.proj", attention.transpose(1, 2).flatten(2))
        hidden = linear(f"{name}.mlp.fc1", norm(tokens) * (1 + mlp_scale) + mlp_shift)
        tokens = tokens + mlp_gate * linear(f"{name}.mlp.fc2", F.gelu(hidden, approximate="tanh"))
    shift, scale = linear("final_layer.adaLN_modulation.1", condition)[:, None].chunk(2, dim=-1)
    pixels = linear("final_layer.linear", norm(tokens) * (1 + scale) + shift)[:, : rows * columns]
    pixels = pixels.reshape(len(pixels), rows, columns, 2, 2, -1)
    return torch.einsum("nhwpqc->nchpwq", pixels).reshape(len(pixels), -1, 2 * rows, 2 * columns)[:, :4]


@pytest.mark.parametrize("learn_sigma", [True, False])
@pytest.mark.parametrize("use_pose", [True, False])
def test_it_starts_as_dit_that_sees_the_garment_beside_the_picture(
    learn_sigma: bool, use_pose: bool, tmp_path: Path
) -> None:
    weights = official(learn_sigma)
    torch.save(weights, tmp_path / "DiT.pt")
    network = TryOnDiT(**SMALL, use_pose=use_pose)
    init_from_official(network, tmp_path / "DiT.pt")
    noisy, garment = torch.randn(2, 2, 4, 6, 4)
    time = torch.tensor([10.0, 800.0])
    person = torch.randn(2, 9 if use_pose else 5, 6, 4)
    with torch.no_grad():
        ours = network(noisy, person, garment, time, torch.tensor([0, 3]))
        tokens = [
            F.conv2d(latents, weights["x_embedder.proj.weight"], weights["x_embedder.proj.bias"], stride=2)
            .flatten(2)
            .transpose(1, 2)
            + sincos_positions(3, 2, WIDTH, first_column=first)
            for latents, first in ((noisy, 0), (garment, 2))
        ]
        theirs = dit_forward(weights, torch.cat(tokens, dim=1), time, 3, 2)
    assert theirs.std() > 0.1
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_mask_person_and_pose_begin_without_influence_and_can_learn_one(tmp_path: Path) -> None:
    torch.save(official(), tmp_path / "DiT.pt")
    network = TryOnDiT(**SMALL, use_pose=True)
    init_from_official(network, tmp_path / "DiT.pt")
    assert not network.patches.weight[:, 4:].any()
    told = [torch.randn(1, n, 4, 4) for n in (4, 9, 4)]
    network(*told, torch.tensor([5.0]), torch.tensor([1])).sum().backward()
    assert network.patches.weight.grad is not None
    assert network.patches.weight.grad[:, 4:].any()


def test_what_dit_lacks_keeps_its_first_weights(tmp_path: Path) -> None:
    torch.save(official(), tmp_path / "DiT.pt")
    network = TryOnDiT(**SMALL, qk_norm=True)
    init_from_official(network, tmp_path / "DiT.pt")
    assert not network.garment_segment.any()
    assert all((block.query_norm.weight == 1).all() for block in network.blocks)


def test_a_checkpoint_of_dit_s_own_trainer_gives_its_averaged_weights(tmp_path: Path) -> None:
    averaged = official()
    trained = {name: tensor + 1 for name, tensor in averaged.items()}
    flags = argparse.Namespace(model="DiT-XL/2", epochs=1400)
    torch.save(
        {"model": trained, "ema": averaged, "opt": {"state": {}}, "args": flags}, tmp_path / "0400000.pt"
    )
    network = TryOnDiT(**SMALL)
    init_from_official(network, tmp_path / "0400000.pt")
    assert torch.equal(network.time_mlp[0].weight, averaged["t_embedder.mlp.0.weight"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda weights: weights.pop("blocks.1.mlp.fc1.bias"), r"blocks\.1\.mlp\.0\.bias is absent there"),
        (lambda weights: weights.update({"blocks.2.attn.proj.bias": torch.ones(WIDTH)}), "absent here"),
        (lambda weights: weights.update({"t_embedder.mlp.0.bias": torch.ones(9)}), r"is \(9,\) there"),
        (
            lambda weights: weights.update({"x_embedder.proj.weight": torch.ones(WIDTH, 3, 2, 2)}),
            "patches.weight",
        ),
        (
            lambda weights: weights.update({"final_layer.linear.bias": torch.ones(24)}),
            r"last\.bias is \(24,\)",
        ),
        (lambda weights: weights.pop("x_embedder.proj.weight"), "absent there.*--model_size"),
    ],
)
def test_another_model_is_refused_and_changes_nothing(spoil: object, message: str, tmp_path: Path) -> None:
    weights = official()
    spoil(weights)  # type: ignore[operator]
    torch.save(weights, tmp_path / "other.pt")
    network = TryOnDiT(**SMALL)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(cs.ArgumentError, match=message):
        init_from_official(network, tmp_path / "other.pt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_missing_file_and_one_without_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(cs.ArgumentError, match="no such file"):
        init_from_official(TryOnDiT(**SMALL), tmp_path / "absent.pt")
    torch.save({"global_step": 3, "model": {}}, tmp_path / "other.pt")
    with pytest.raises(cs.ArgumentError, match="it holds global_step, model, not the weights"):
        init_from_official(TryOnDiT(**SMALL), tmp_path / "other.pt")
