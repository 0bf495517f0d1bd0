"""VTON-GAN put together: a warper bends the garment, a generator paints the person, a discriminator judges.

All are trained at once, end to end, so that one curriculum drives them. The two presets differ in sizes alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from common.optimizer import make_adamw
from torch import Tensor, nn
from vtongan.discriminator import Discriminator
from vtongan.generator import Generator
from vtongan.perceptual import PerceptualKind, build_perceptual
from vtongan.spectral import SpectralConv2d
from vtongan.warper import Warped, Warper

from curriculum_sampler.errors import ArgumentError

GARMENT_CHANNELS = 4  # picture 3 + mask 1
PERSON_CHANNELS = 7  # agnostic 3 + pose 3 + mask of what to paint 1
CONDITION_CHANNELS = PERSON_CHANNELS + GARMENT_CHANNELS
JUDGED_CHANNELS = 6  # agnostic 3 + picture 3

SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "full": {
        "warper": {"widths": (64, 128, 256, 256, 256), "hidden": 320, "halvings": 2, "radius": 3},
        "generator": {"width": 64, "most_width": 512, "halvings": 6, "hidden": 128},
        "discriminator": {"width": 64, "layers": 3, "scales": 2},
    },
    "tiny": {
        "warper": {"widths": (12, 16, 24), "hidden": 16, "halvings": 1, "radius": 2},
        "generator": {"width": 8, "most_width": 32, "halvings": 3, "hidden": 12},
        "discriminator": {"width": 8, "layers": 3, "scales": 1},
    },
}


@dataclass
class TryOn:
    """A dressed person, and what it is made of. All float32.

    Attributes:
        warped: The garment, bent onto the person.
        composite: How much of the bent garment is kept at each pixel; never where it is not seen.
        render: What the generator painted by itself.
        result: The picture: bent garment and render, and outside the mask the person as given.
    """

    warped: Warped
    composite: Tensor
    render: Tensor
    result: Tensor


def person_view(batch: Mapping[str, Any]) -> Tensor:
    """Return all that may be known about the person: nothing that the mask covers.

    Raises:
        ArgumentError: If the samples have no pose.
    """
    if "pose" not in batch:
        raise ArgumentError(
            f"VTON-GAN bends garments to a pose, but the samples hold only {', '.join(sorted(batch))}."
            " Write shards with a `pose` picture (DensePose or the like) beside each image."
        )
    return torch.cat([batch["agnostic"], batch["pose"], batch["agnostic_mask"]], dim=1)


class Dresser(nn.Module):
    """Warper and generator in one, as training and inference call them."""

    def __init__(self, warper: Warper, generator: Generator) -> None:
        super().__init__()
        self.warper = warper
        self.generator = generator

    def forward(self, batch: Mapping[str, Any]) -> TryOn:
        """Dress the persons of a batch in the garments beside them.

        Args:
            batch: ``agnostic``, ``pose``, ``cloth`` in [-1, 1]; ``agnostic_mask``, ``cloth_mask`` in {0, 1}. ``image``
                is not looked at.
        """
        person, mask = person_view(batch), batch["agnostic_mask"].float()
        warped: Warped = self.warper(batch["cloth"], batch["cloth_mask"], person)
        render, share = self.generator(torch.cat([person, warped.garment, warped.seen], dim=1))
        composite = share * warped.seen
        painted = composite * warped.garment + (1 - composite) * render
        result = mask * painted + (1 - mask) * batch["agnostic"].float()
        return TryOn(warped, composite, render, result)


@dataclass
class VTONGAN:
    """Everything of one run.

    Attributes:
        dresser: Warper and generator; what is used after training.
        discriminator: Needed for training only.
        perceptual: Frozen, in no checkpoint; None where it was not wanted.
        preset: Which sizes.
    """

    dresser: Dresser
    discriminator: Discriminator
    perceptual: nn.Module | None
    preset: str

    @property
    def size_factor(self) -> int:
        """Height and width of pictures must be multiples of this."""
        sizes = SIZES[self.preset]
        coarsest = sizes["warper"]["halvings"] + len(sizes["warper"]["widths"]) - 1
        return int(2 ** max(coarsest, sizes["generator"]["halvings"]))

    def check_size(self, height: int, width: int) -> None:
        """Refuse pictures whose halves would not be whole, or end as one or two pixels that nothing can be said of.

        Raises:
            ArgumentError: If a side is no multiple of ``size_factor``, or less than three times as long.
        """
        factor = self.size_factor
        if any(side % factor or side < 3 * factor for side in (height, width)):
            raise ArgumentError(
                f"--height {height} --width {width}: preset {self.preset!r} needs multiples of {factor}, {3 * factor} or"
                " more. Round them."
            )

    def weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named trained weights of all parts, in a fixed order."""
        yield from self.dresser.named_parameters("dresser")
        yield from self.discriminator.named_parameters("discriminator")

    def state(self) -> dict[str, Tensor]:
        """Live tensors that a checkpoint must hold: trained weights, and the singular vectors of spectral layers."""
        buffers = [
            *self.dresser.named_buffers("dresser"),
            *self.discriminator.named_buffers("discriminator"),
        ]
        return {**dict(self.weights()), **dict(buffers)}

    def after_update(self) -> None:
        """Let the singular vectors follow the weights; to be called once after each update."""
        for part in (self.dresser, self.discriminator):
            for layer in part.modules():
                if isinstance(layer, SpectralConv2d):
                    layer.advance()

    def move(self, device: torch.device) -> None:
        """Move to a device and get ready to train; weights stay in float32 under any mixed precision."""
        self.dresser.to(device).train()
        self.discriminator.to(device).train()
        if self.perceptual is not None:
            self.perceptual.to(device)


def build_vtongan(
    preset: Literal["full", "tiny"],
    *,
    perceptual: PerceptualKind = "gradient",
    vgg_weights: str | None = None,
    seed: int = 0,
) -> VTONGAN:
    """Make the model with random weights.

    Args:
        preset: ``full`` for pictures of about 512 x 384, ``tiny`` for a CPU.
        perceptual: See `build_perceptual`.
        vgg_weights: Likewise.
        seed: Seeds the weights; the global generator stays as it is.

    Raises:
        ArgumentError: If ``perceptual`` needs weights and has none.
    """
    sizes = SIZES[preset]
    judge_of_likeness = build_perceptual(perceptual, vgg_weights, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        warper = Warper(GARMENT_CHANNELS, PERSON_CHANNELS, **sizes["warper"])
        dresser = Dresser(warper, Generator(CONDITION_CHANNELS, **sizes["generator"]))
        discriminator = Discriminator(JUDGED_CHANNELS, **sizes["discriminator"])
    return VTONGAN(dresser, discriminator, judge_of_likeness, preset)


def make_optimizer(args: argparse.Namespace, model: VTONGAN) -> torch.optim.Optimizer:
    """Return the optimizer of all parts; ``set_learning_rate(optimizer, base_rate)`` drives it.

    One for both sides of the game, since a step updates them together and AdamW treats each weight by itself. The factors
    of the two-rate rule (TTUR, arXiv 1706.08500) stand in the parameter groups as ``rate_factor``: the generator learns at
    ``--generator_rate_factor`` of the stage's rate, the discriminator at ``--discriminator_rate_factor``, and the warper
    at ``--warper_rate_factor`` of the *generator's* rate.
    """
    warper_factor = args.generator_rate_factor * args.warper_rate_factor
    groups: Any = [
        {"params": list(model.dresser.generator.parameters()), "rate_factor": args.generator_rate_factor},
        {"params": list(model.dresser.warper.parameters()), "rate_factor": warper_factor},
        {"params": list(model.discriminator.parameters()), "rate_factor": args.discriminator_rate_factor},
    ]
    return make_adamw(args, groups)
