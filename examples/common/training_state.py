"""What a training must carry from one process to the next, apart from the data's position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from common.checkpoint import first_misfit
from common.randomness import rng_state, set_rng_state
from common.sharded import gathered, moments_in_parts, part_of
from common.tally import Tally
from diffusers.training_utils import EMAModel
from torch import nn
from torch.distributed.tensor import DTensor

from curriculum_sampler.errors import StateMismatchError


@dataclass
class TrainingState:
    """Trained weights, their averages, moments, loss scale, counts, and the global generators.

    Attributes:
        parameters: The trained weights by name, and buffers that belong to them; frozen ones are in no checkpoint.
        base: What the frozen weights come from, in words.
        frozen_digest: Identifies the frozen weights: another base would make the trained ones meaningless.
        optimizer: Its learning rate is set by the step, whatever is loaded.
        ema: Averages of ``averaged``, in its order.
        scaler: Loss scale of fp16; disabled otherwise.
        tally: Samples seen and running loss per bucket.
        averaged: The weights that are averaged; default: all ``parameters``.
    """

    parameters: Mapping[str, torch.Tensor]
    base: str
    frozen_digest: str
    optimizer: torch.optim.Optimizer
    ema: EMAModel | None
    scaler: torch.amp.GradScaler
    tally: Tally
    averaged: Sequence[nn.Parameter] = ()

    def __post_init__(self) -> None:
        if not self.averaged:
            self.averaged = [cast(nn.Parameter, parameter) for parameter in self.parameters.values()]

    @property
    def is_sharded(self) -> bool:
        """Whether each rank has its part of the weights only: what reads or writes them then needs all ranks."""
        return any(isinstance(parameter, DTensor) for parameter in self.parameters.values())

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain types; the tensors are the live ones, to be written at once.

        Sharded weights are brought together: all ranks must call it, and rank 0 alone gets the tensors.
        """
        return {
            "base_model": {"name": self.base, "frozen_digest": self.frozen_digest},
            "model": gathered({name: parameter.detach() for name, parameter in self.parameters.items()}),
            "ema": gathered(self.ema.state_dict()) if self.ema else None,
            "optimizer": gathered(self.optimizer.state_dict()),
            "scaler": self.scaler.state_dict(),
            "samples_seen": dict(self.tally.samples_seen),
            "bucket_loss": dict(self.tally.loss),
            "rng": rng_state(),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned in another process, sharded or not, whatever this one is.

        Raises:
            StateMismatchError: It continues another model or another base; nothing was changed.
        """
        self._refuse_another_model(saved)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(part_of(saved["model"][name], parameter))
        # The moments are the saved ones, the settings those asked for now: a load must not bring back old flags.
        settings = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self.optimizer.param_groups
        ]
        self.optimizer.load_state_dict(moments_in_parts(saved["optimizer"], self.optimizer))
        for group, given in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(given)
        if self.ema is not None and saved["ema"] is not None:
            decay = self.ema.decay
            self.ema.load_state_dict(saved["ema"])
            self.ema.decay = decay
            shadows = zip(self.ema.shadow_params, self.averaged, strict=True)
            self.ema.shadow_params = [part_of(shadow, parameter) for shadow, parameter in shadows]
            self.ema.to(next(iter(self.parameters.values())).device)
        if saved["scaler"]:  # empty where the saved run was not in half precision
            self.scaler.load_state_dict(saved["scaler"])
        self.tally.samples_seen |= saved["samples_seen"]
        self.tally.loss |= saved["bucket_loss"]
        set_rng_state(saved["rng"])

    def _refuse_another_model(self, saved: Mapping[str, Any]) -> None:
        misfit = first_misfit(saved["model"], self.parameters)
        if misfit is not None:
            raise StateMismatchError(
                f"The checkpoint holds another model: {len(saved['model'])} trained tensors there, {len(self.parameters)} here;"
                f" {misfit}. Use the model flags of that run, or another --output_dir."
            )
        base = saved["base_model"]
        if base["frozen_digest"] != self.frozen_digest:
            raise StateMismatchError(
                f"The checkpoint was trained on the base {base['name']!r} (frozen weights {base['frozen_digest'][:8]}),"
                f" this run has {self.base!r} ({self.frozen_digest[:8]}). Give --pretrained_model_name_or_path and"
                " --pretrained_vae_name_or_path of that run, or another --output_dir."
            )
