"""CatVTON's published weights: self-attention alone, in a safetensors file that numbers modules instead of naming them.

The authors' loader makes a list of *every* module whose name contains ``attn1``, in walking order: each attention, the
layers in it, and the processor it computes with, which has no weights but takes a number. Tensor ``to_q.weight`` of the
second attention is therefore ``8.to_q.weight``, and ``9.weight`` as well, since its layer is in the list too. A file holds
each tensor once, under whichever of its keys; those written here hold the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from curriculum_sampler.errors import ArgumentError

FILE = "model.safetensors"


def published_keys(unet: nn.Module, *, count_processors: bool = True) -> dict[str, str]:
    """Return every key that the layout knows, with the UNet's own name of the tensor; a tensor's first key comes first.

    Args:
        unet: Its walking order is that of the layout.
        count_processors: Whether a processor takes a number, as with the authors' code. Code that leaves diffusers' own
            processors in place, which are no modules, numbers without them.
    """
    keys: dict[str, str] = {}
    number = 0
    for name, attention in unet.named_modules():
        if name.rpartition(".")[2] != "attn1":
            continue
        inside = [
            (path, module) for path, module in attention.named_modules(prefix=name) if "processor" not in path
        ]
        for path, module in inside:
            for parameter, _ in module.named_parameters():
                keys[f"{number}.{parameter}"] = f"{path}.{parameter}"
            number += 1
        number += count_processors
    return keys


def save_attention(path: Path, unet: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Write weights in the published layout.

    Args:
        path: A file; whole or absent.
        unet: Tells the numbers; its weights are not looked at, so it may be on the meta device.
        weights: Of all its self-attention and nothing else, by the UNet's own names.

    Raises:
        ArgumentError: The layout has no place for some weight, or a weight is missing.
    """
    first_keys: dict[str, str] = {}
    for key, name in published_keys(unet).items():
        first_keys.setdefault(name, key)
    other = sorted(weights.keys() ^ first_keys.keys())
    if other:
        what = "missing" if other[0] in first_keys else "no self-attention"
        raise ArgumentError(
            f"The published layout holds all self-attention and nothing else, but {len(other)} of these tensors do not fit:"
            f" {other[0]} is {what}. For a run with --train_all pass --layout plain."
        )
    save_tensors(path, {first_keys[name]: tensor for name, tensor in weights.items()})


def load_attention(unet: nn.Module, path: Path | str) -> None:
    """Copy published weights into a UNet. Any keys of a tensor will do, and so will the UNet's own names.

    Args:
        unet: With self-attention of the same sizes; left as it was if the file is refused.
        path: The file, or a folder with ``model.safetensors`` or ``attention/model.safetensors`` in it.

    Raises:
        ArgumentError: There is no such file, or it holds the attention of another network; the first misfit is named.
    """
    file = _file_in(Path(path))
    try:
        held = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ArgumentError(
            f"--attention_weights {file}: no safetensors file, or a damaged one ({error}). Load it again from where it"
            " came from."
        ) from error
    published = published_keys(unet)
    ways = (
        published,
        published_keys(unet, count_processors=False),
        {name: name for name in published.values()},
    )
    keys = max(ways, key=lambda way: len(held.keys() & way.keys()))
    ours = unet.state_dict()
    found = {keys[key]: tensor for key, tensor in held.items() if key in keys}
    misfit = _first_misfit(keys, held, ours)
    if misfit is not None:
        raise ArgumentError(
            f"--attention_weights {file}: not the self-attention of this network. {misfit} Choose the base that these"
            " weights were trained on (Stable Diffusion 1.5 inpainting for the published ones)."
        )
    with torch.no_grad():
        for name, tensor in found.items():
            ours[name].copy_(tensor)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file that is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(whole, partial, metadata={"format": "pt"})
    partial.replace(path)


def _first_misfit(
    keys: Mapping[str, str], held: Mapping[str, Tensor], ours: Mapping[str, Tensor]
) -> str | None:
    told = {keys[key] for key in held if key in keys}
    for key, name in keys.items():
        here = tuple(ours[name].shape)
        if name not in told:
            return f"{key} ({name}) is absent there and {here} here."
        if key in held and tuple(held[key].shape) != here:
            return f"{key} ({name}) is {tuple(held[key].shape)} there and {here} here."
    unknown = sorted(held.keys() - keys.keys())
    return f"{unknown[0]} is {tuple(held[unknown[0]].shape)} there and absent here." if unknown else None


def _file_in(path: Path) -> Path:
    for file in (path, path / FILE, path / "attention" / FILE):
        if file.is_file():
            return file
    raise ArgumentError(
        f"--attention_weights {path}: neither a file nor a folder with {FILE} or attention/{FILE}. Correct the path."
    )
