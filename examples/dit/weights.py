"""Start from official DiT weights: the same blocks under other names."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from dit.model import TryOnDiT
from torch import Tensor

from curriculum_sampler.errors import ArgumentError

_NAMES = {
    r"x_embedder\.proj": "patches",
    r"t_embedder\.mlp\.(\d)": r"time_mlp.\1",
    r"blocks\.(\d+)\.attn\.qkv": r"blocks.\1.qkv",
    r"blocks\.(\d+)\.attn\.proj": r"blocks.\1.out",
    r"blocks\.(\d+)\.mlp\.fc1": r"blocks.\1.mlp.0",
    r"blocks\.(\d+)\.mlp\.fc2": r"blocks.\1.mlp.2",
    r"blocks\.(\d+)\.adaLN_modulation\.1": r"blocks.\1.modulation",
    r"final_layer\.adaLN_modulation\.1": "last_modulation",
    r"final_layer\.linear": "last",
}
_LEFT_OUT = ("pos_embed", "y_embedder.embedding_table.weight")


def init_from_official(network: TryOnDiT, path: Path | str) -> None:
    """Copy the weights of ``DiT-XL-2-256x256.pt`` and its like, or of a checkpoint that DiT's own trainer wrote.

    Input channels that DiT lacks begin at zero, so at first mask, masked person and pose change nothing. The table of
    1,000 ImageNet classes goes: every category begins as its last row, which DiT trained for "no class". Of the outputs
    the learned variances go. Positions are computed here. What DiT has no counterpart for keeps its first weights.

    Raises:
        ArgumentError: The file is missing or no DiT, or one of another size; the network is as it was.
    """
    told = _read(Path(path))
    ours = network.state_dict()
    theirs = {_our_name(name): tensor for name, tensor in told.items() if name not in _LEFT_OUT}
    _fit_ends(network, theirs)
    missing, unknown = _needed(ours) - theirs.keys(), theirs.keys() - ours.keys()
    other = [name for name, tensor in theirs.items() if name in ours and tensor.shape != ours[name].shape]
    if missing or unknown or other:
        first = sorted([*missing, *unknown, *other])[0]
        here, there = (tuple(found[first].shape) if first in found else "absent" for found in (ours, theirs))
        raise ArgumentError(
            f"--init_from {path}: not a DiT of width {network.width} with {len(network.blocks)} blocks; {first} is"
            f" {there} there and {here} here. Choose the --model_size of that checkpoint (DiT-XL-2 is xl_2)."
        )
    classes = told.get("y_embedder.embedding_table.weight")
    if classes is not None:
        theirs["category.weight"] = classes[-1:].expand_as(ours["category.weight"])
    network.load_state_dict(ours | theirs)


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise ArgumentError(f"--init_from {path}: there is no such file. Correct the path.")
    # DiT's trainer put its parsed flags beside the weights: a plain record that cannot run anything.
    with torch.serialization.safe_globals([argparse.Namespace]):
        held = torch.load(path, map_location="cpu", weights_only=True)
    weights = held.get("ema", held)
    if not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise ArgumentError(
            f"--init_from {path}: it holds {', '.join(list(weights)[:5])}, not the weights of a DiT. Give a released"
            " DiT-*.pt, or one that DiT's trainer saved."
        )
    return dict(weights)


def _our_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    for theirs, ours in _NAMES.items():
        found = re.fullmatch(theirs, stem)
        if found:
            return f"{found.expand(ours)}.{kind}"
    return name


def _needed(ours: Mapping[str, Tensor]) -> set[str]:
    """Our names of what every DiT has."""
    own = re.compile(r"garment_segment|category\.weight|.*_norm\.(weight|bias)")
    return {name for name in ours if not own.fullmatch(name)}


def _fit_ends(network: TryOnDiT, theirs: dict[str, Tensor]) -> None:
    """Widen the first layer with zeros; take the learned variances out of the last."""
    first = theirs.get("patches.weight")
    if first is not None and first.shape[0] == network.width and first.shape[1] == network.latent_channels:
        wide = torch.zeros_like(network.patches.weight)
        wide[:, : network.latent_channels] = first
        theirs["patches.weight"] = wide
    for kind in ("weight", "bias"):
        last, outputs = theirs.get(f"last.{kind}"), len(network.last.bias)
        if last is not None and len(last) == 2 * outputs:
            # Pixel by pixel: first the prediction in all channels, then its variance.
            theirs[f"last.{kind}"] = last.unflatten(0, (-1, 2, network.latent_channels))[:, 0].flatten(0, 1)
