"""Weights in parts: each rank keeps its rows of every tensor, and the whole only where and while it is needed.

The rest of the code sees a part as the ``DTensor`` that it is: shapes are those of the whole, sums are over all of it.
What tensors of one piece go through unchanged, so callers need not ask which they have. Where a tensor is in parts, all
ranks must make the same calls in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(network: nn.Module, blocks: Iterable[nn.Module], half: torch.dtype) -> None:
    """Leave each rank its part of every weight; gradients and moments made from now on are in parts too.

    Args:
        network: Alike on all ranks, on its device, in float32, which is what the parts stay in.
        blocks: Modules of it whose weights are brought together and let go one after the other.
        half: What weights travel and compute in; gradients are summed in float32. Call the network under the
            autocast of this type, as without parts.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=half,
        reduce_dtype=torch.float32,
        # Times up to 1000 have no place in bfloat16; autocast knows which inputs to cast.
        cast_forward_inputs=False,
    )
    # By default the outermost module keeps its weights whole after a forward pass. Without a backward pass behind it
    # they would still be there at the next one: a step of training would compute with the averages just looked at.
    for module in (*blocks, network):
        fully_shard(module, mp_policy=policy, reshard_after_forward=True)


@contextmanager
def no_sync(network: nn.Module) -> Iterator[None]:
    """As DDP's: gradients of backward passes inside wait, whole on each rank, for the next one outside."""
    assert isinstance(network, FSDPModule)
    network.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        network.set_requires_gradient_sync(True)


def whole(tensor: Tensor) -> Tensor:
    """The tensor in one piece, on every rank."""
    return tensor.full_tensor().detach() if isinstance(tensor, DTensor) else tensor


def gathered(tree: Any) -> Any:
    """Nested dicts and lists with whole tensors in the place of parts: on rank 0, in its main memory; None elsewhere.

    One tensor at a time is whole on the device, so the device needs no room for all.
    """
    if isinstance(tree, DTensor):
        tensor = whole(tree)
        return tensor.cpu() if distributed.get_rank() == 0 else None
    if isinstance(tree, Mapping):
        return {name: gathered(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [gathered(value) for value in tree]
    return tree


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a whole tensor that every rank holds, cut as ``like`` is; the tensor itself where that is whole."""
    if not isinstance(like, DTensor):
        return tensor
    part = distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
    return part.clone()  # some versions of torch give a view, which would hold on to the whole


def moments_in_parts(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A saved optimizer state, with moments cut as the weights of this optimizer are."""
    places = [place for group in saved["param_groups"] for place in group["params"]]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    weight_at = dict(zip(places, weights, strict=True))
    return {
        **saved,
        "state": {
            place: {name: _moment(value, weight_at[place]) for name, value in values.items()}
            for place, values in saved["state"].items()
        },
    }


def _moment(value: Any, weight: Tensor) -> Any:
    """What has another shape than the weight is no moment of it: it counts steps."""
    return part_of(value, weight) if isinstance(value, Tensor) and value.shape == weight.shape else value
