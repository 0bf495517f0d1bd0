"""Load what a trainer has saved as one function that dresses people, whichever trainer it was."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from common.checkpoint import LATEST, first_misfit, read_any_checkpoint
from common.validation import on_device
from torch import Tensor

from curriculum_sampler.errors import ArgumentError, CurriculumError, StateMismatchError

Weights = Literal["ema", "trained"]
Dress = Callable[[Mapping[str, Any], Sequence[torch.Generator]], Tensor]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What shall be otherwise than in the training; None is as it was.

    Attributes:
        base: Where the pretrained pipeline is now.
        vae: Where the autoencoder is now.
        steps: Denoising steps.
        guidance_scale: How far to go beyond the prediction without garment.
        height: Rows of a picture.
        width: Columns.
        mixed_precision: ``"no"``, ``"fp16"`` or ``"bf16"``.

    >>> Changes(steps=30, vae="sd-vae-ft-mse").as_flags()
    {'pretrained_vae_name_or_path': 'sd-vae-ft-mse', 'num_validation_inference_steps': 30}
    """

    base: str | None = None
    vae: str | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    height: int | None = None
    width: int | None = None
    mixed_precision: str | None = None

    def as_flags(self) -> dict[str, Any]:
        """What is to be changed, by the names of the trainers' flags."""
        named = {
            "pretrained_model_name_or_path": self.base,
            "pretrained_vae_name_or_path": self.vae,
            "num_validation_inference_steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "height": self.height,
            "width": self.width,
            "mixed_precision": self.mixed_precision,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class Trained:
    """A model to use.

    Attributes:
        dress: Takes a batch as ``get_vton_dataset`` collates it and one generator per sample; returns pictures
            ``float32[batch, 3, height, width]`` in [-1, 1]. Of ``image`` it uses what the mask leaves visible.
        trainer: Which trainer's.
        step: Optimiser steps that it was trained for; None for published weights.
        height: Rows of the pictures that it takes and paints.
        width: Columns.
        needs: What it looks at besides ``image``, ``cloth``, ``agnostic_mask`` and perhaps ``category``.
        sampling: How it paints: steps and guidance, of those that have them; and its precision.
        device: Where it is.
    """

    dress: Dress
    trainer: str
    step: int | None
    height: int
    width: int
    needs: tuple[str, ...]
    sampling: Mapping[str, Any]
    device: torch.device


@dataclass(frozen=True)
class _Made:
    """What a trainer's builder returns: a network with its own first weights.

    Attributes:
        model: The trainer's own.
        network: The part of it that is trained.
        tensors: What a checkpoint has in ``model``: the live tensors, by name.
        averaged: Those of them that ``ema`` averages, in its order.
        frozen_digest: Of weights that are in no checkpoint.
        base: Their name.
        dress: Under no autocast yet.
        needs: See `Trained`.
        multiple: Height and width must be multiples of it.
    """

    model: Any
    network: torch.nn.Module
    tensors: Mapping[str, Tensor]
    averaged: Sequence[Tensor]
    frozen_digest: str
    base: str
    dress: Dress
    needs: tuple[str, ...] = ()
    multiple: int = 1


def saved_at(path: Path) -> dict[str, Any]:
    """Read a checkpoint, of whichever trainer. Tensors stay in the file until they are used.

    Args:
        path: The file, or a run's output folder.

    Raises:
        ArgumentError: There is no such file.
        StorageError: It is no checkpoint.
        StateMismatchError: It has a newer format, or is of a trainer unknown here.
    """
    file = path / LATEST if path.is_dir() else path
    if not file.is_file():
        raise ArgumentError(
            f"{file}: there is no such checkpoint. Give a .pt file of a run's --output_dir, or that folder."
        )
    saved = read_any_checkpoint(file, mmap=True)
    if saved["trainer"] not in _BUILDERS:
        raise StateMismatchError(
            f"{file} is of trainer {saved['trainer']!r}; this code reads {', '.join(_BUILDERS)}. Update the code."
        )
    return saved


def model_of(args: argparse.Namespace) -> Trained:
    """Load the model that the flags of ``trained_flags.py`` name."""
    changes = Changes(
        base=args.pretrained_model_name_or_path,
        vae=args.pretrained_vae_name_or_path,
        steps=args.steps,
        guidance_scale=args.guidance_scale,
        height=args.height,
        width=args.width,
        mixed_precision=args.mixed_precision,
    )
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(
            f"--device {device}: it cannot be used here ({error}). Leave the flag out, or say cpu."
        ) from error
    if args.attention_weights is not None:
        return load_published(args.attention_weights, device=device, changes=changes)
    return load_trained(args.checkpoint, weights=args.weights, device=device, changes=changes)


def repainted(result: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """The result with the original pixels outside the mask."""
    return torch.where(batch["agnostic_mask"] > 0.5, result, batch["image"])


def load_trained(
    path: Path,
    *,
    weights: Weights = "ema",
    device: torch.device | str = "cpu",
    changes: Changes | None = None,
) -> Trained:
    """Make the model of a checkpoint ready to use.

    Args:
        path: The checkpoint, or the folder of a run.
        weights: Averaged ones, or those trained last.
        device: Where it shall work.
        changes: What shall not be as in the training.

    Raises:
        ArgumentError: The base cannot be found, there are no averages, or a change means nothing to this model.
        StateMismatchError: The base is another one than that of the training.
        StorageError: The file cannot be read.
    """
    saved = saved_at(path)
    told = (changes or Changes()).as_flags()
    if saved["trainer"] == "vtongan":
        _refuse_meaningless(told)
    args = argparse.Namespace(**{**saved["args"], **told})
    with _base_is_there(args):
        made = _BUILDERS[saved["trainer"]](args)
    _fill(made, saved, weights, path)
    return _ready(made, args, saved["trainer"], saved["global_step"], torch.device(device))


def load_published(
    path: Path, *, device: torch.device | str = "cpu", changes: Changes | None = None
) -> Trained:
    """Make CatVTON ready with weights in the published layout; what ``changes`` leaves open is as preset ``full`` has it.

    Args:
        path: See `catvton.attention_weights.load_attention`.
        device: Where it shall work.
        changes: With a ``base``. Published results are those of the autoencoder ``sd-vae-ft-mse``, and of 1024 x 768 or
            512 x 384 pixels, as the weights' name says.

    Raises:
        ArgumentError: No base, no such file, or the weights are another network's.
    """
    told = (changes or Changes()).as_flags()
    if "pretrained_model_name_or_path" not in told:
        raise ArgumentError(
            f"--attention_weights {path} is self-attention only and needs the rest of the network."
            " Pass --pretrained_model_name_or_path (a Stable Diffusion 1.5 inpainting pipeline)."
        )
    words = [f"--{name}={value}" for name, value in told.items()]
    args = import_module("catvton.flags").parse_arguments(["--data_root=none", *words])
    with _base_is_there(args):
        made = _catvton(args)
    import_module("catvton.attention_weights").load_attention(made.network, path)
    return _ready(made, args, "catvton", None, torch.device(device))


def _catvton(args: argparse.Namespace) -> _Made:
    generate = import_module("catvton.generate").generate
    model = import_module("catvton.model").build_by_flags(args)
    tensors = dict(model.trainable())

    def dress(batch: Mapping[str, Any], generators: Sequence[torch.Generator]) -> Tensor:
        pictures: Tensor = generate(
            model,
            batch,
            generators,
            steps=args.num_validation_inference_steps,
            guidance=args.guidance_scale,
            eta=args.eta,
        )
        return pictures

    digest = model.frozen_digest()
    return _Made(
        model, model.unet, tensors, list(tensors.values()), digest, model.base, dress, (), model.vae_factor
    )


def _dit(args: argparse.Namespace) -> _Made:
    generate = import_module("dit.generate").generate
    model = import_module("dit.model").build_by_flags(args)
    objective = import_module("dit.objectives").OBJECTIVES[args.objective]()
    tensors = dict(model.trainable())

    def dress(batch: Mapping[str, Any], generators: Sequence[torch.Generator]) -> Tensor:
        steps, guidance = args.num_validation_inference_steps, args.guidance_scale
        pictures: Tensor = generate(model, objective, batch, generators, steps=steps, guidance=guidance)
        return pictures

    needs = ("pose",) if args.use_pose else ()
    digest = model.frozen_digest()
    return _Made(
        model,
        model.network,
        tensors,
        list(tensors.values()),
        digest,
        model.base,
        dress,
        needs,
        model.pixel_multiple,
    )


def _vtongan(args: argparse.Namespace) -> _Made:
    model = import_module("vtongan.model").build_vtongan(args.model_preset, perceptual="none", seed=args.seed)
    model.check_size(args.height, args.width)

    def dress(batch: Mapping[str, Any], generators: Sequence[torch.Generator]) -> Tensor:
        painted: Tensor = model.dresser(batch).result
        return painted.clamp(-1, 1)

    averaged = list(model.dresser.parameters())
    return _Made(model, model.dresser, model.state(), averaged, "", "", dress, ("cloth_mask", "pose"))


_BUILDERS: dict[str, Callable[[argparse.Namespace], _Made]] = {
    "catvton": _catvton,
    "dit": _dit,
    "vtongan": _vtongan,
}


def _fill(made: _Made, saved: Mapping[str, Any], weights: Weights, path: Path) -> None:
    """Copy the saved weights over the first ones, or refuse and say why."""
    base = saved["base_model"]
    if base["frozen_digest"] != made.frozen_digest:
        raise StateMismatchError(
            f"{path} was trained on the base {base['name']!r} (frozen weights {base['frozen_digest'][:8]}); loaded was"
            f" {made.base!r} ({made.frozen_digest[:8]}). Pass --pretrained_model_name_or_path and"
            " --pretrained_vae_name_or_path of that run."
        )
    misfit = first_misfit(saved["model"], made.tensors)
    if misfit is not None:
        raise StateMismatchError(
            f"{path} holds another network than this code makes: {misfit}. Use the code it was trained with."
        )
    if weights == "ema" and saved["ema"] is None:
        raise ArgumentError(
            f"{path} has no averaged weights: it was trained with --no_ema. Pass --weights trained."
        )
    with torch.no_grad():
        for name, tensor in made.tensors.items():
            tensor.copy_(saved["model"][name])
        if weights == "ema":
            for tensor, average in zip(made.averaged, saved["ema"]["shadow_params"], strict=True):
                tensor.copy_(average)


def _ready(
    made: _Made, args: argparse.Namespace, trainer: str, step: int | None, device: torch.device
) -> Trained:
    if args.height % made.multiple or args.width % made.multiple:
        raise ArgumentError(
            f"--height {args.height} --width {args.width}: this network needs multiples of {made.multiple}. Round them."
        )
    half = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[args.mixed_precision]
    if trainer == "vtongan":  # its weights are in float32 under any precision
        made.model.move(device)
    else:
        made.model.move(device, half)
    made.network.eval()

    @torch.no_grad()
    def dress(batch: Mapping[str, Any], generators: Sequence[torch.Generator]) -> Tensor:
        absent = [name for name in made.needs if name not in batch]
        if absent:
            raise ArgumentError(
                f"This {trainer} model looks at {' and '.join(made.needs)}, and there is no {absent[0]}. Give one, or"
                " shards that have it."
            )
        with torch.autocast(device.type, half, enabled=half != torch.float32):
            return made.dress(on_device(batch, device), generators).float()

    names = ("num_validation_inference_steps", "guidance_scale", "eta", "mixed_precision")
    sampling = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    return Trained(dress, trainer, step, args.height, args.width, made.needs, sampling, device)


def _refuse_meaningless(told: Mapping[str, Any]) -> None:
    flags = {
        "pretrained_model_name_or_path": "--pretrained_model_name_or_path",
        "pretrained_vae_name_or_path": "--pretrained_vae_name_or_path",
        "num_validation_inference_steps": "--steps",
        "guidance_scale": "--guidance_scale",
    }
    for name, flag in flags.items():
        if name in told:
            raise ArgumentError(
                f"{flag} {told[name]} means nothing to a VTON-GAN, which paints pixels in one step, from no base."
                " Leave it out."
            )


@contextmanager
def _base_is_there(args: argparse.Namespace) -> Iterator[None]:
    """Say where the base was looked for, and how to name another place."""
    named = {
        "--pretrained_model_name_or_path": args.pretrained_model_name_or_path,
        "--pretrained_vae_name_or_path": args.pretrained_vae_name_or_path,
    }
    told = {flag: str(place) for flag, place in named.items() if place}
    try:
        for place in told.values():
            # A name on the Hub is OWNER/NAME; nothing else need be asked for there.
            if (Path(place).is_absolute() or place.count("/") > 1) and not Path(place).exists():
                raise FileNotFoundError(f"there is no {place}")
        yield
    except CurriculumError:
        raise
    except (OSError, ValueError) as error:
        places = " and ".join(f"{flag} {place}" for flag, place in told.items())
        why = str(error).splitlines()[0]
        raise ArgumentError(
            f"The frozen weights are not where the training had them, {places}: {why}. If they have moved, pass that flag"
            " with their place now."
        ) from error
