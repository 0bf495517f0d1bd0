"""The processes of one training: who this one is, and what it shares with the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as distributed

from curriculum_sampler.errors import ArgumentError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's place among the data-parallel ones.

    Attributes:
        rank: From 0; rank 0 writes files and logs.
        world_size: Number of processes.
        device: Where this one computes.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_writer(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over ranks, the same on each."""
        if self.world_size == 1:
            return values
        total = values.to(self.device, torch.float64 if self.device.type == "cpu" else torch.float32)
        distributed.all_reduce(total)
        return total.cpu()

    def any(self, value: bool) -> bool:
        """Whether it is true on some rank; all ranks must ask together."""
        return value if self.world_size == 1 else bool(self.sum(torch.tensor([float(value)])).item() > 0)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in rank order."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def refuse_to_differ(self, what: str, value: Any) -> None:
        """Stop all ranks where they do not hold the same value; all must ask together.

        Raises:
            ArgumentError: Two ranks differ. Going on, each would wait for something else, forever.
        """
        values = self.gather(value)
        if any(other != values[0] for other in values):
            raise ArgumentError(
                f"{what} differs between ranks: {values}. Give every rank the same flags, and an --output_dir that all"
                " machines see."
            )

    def from_writer(self, make: Callable[[], T]) -> T:
        """What ``make`` returns on rank 0, on every rank; the others do not call it."""
        values: list[Any] = [make() if self.is_writer else None]
        if self.world_size > 1:
            distributed.broadcast_object_list(values)
        value: T = values[0]
        return value


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started: NCCL on GPUs, gloo on CPUs; alone without it."""
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world_size == 1:
        yield Ranks(0, 1, device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(rank, world_size, device)
        # A thread of gloo may still be letting go of the last collective's tensors, for which it needs the interpreter:
        # one that is ending would abort the process. Nothing tells when it is done (a device mesh keeps the group and
        # its threads to the end), and a barrier is waited for by another of its threads: so it gets a moment.
        distributed.barrier()
        time.sleep(0.1)
    finally:
        distributed.destroy_process_group()
