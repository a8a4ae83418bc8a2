"""One process or several: who am I, how gradients meet, and what has to be whole.

Launched by plain `torchrun`. Gradients are summed, never averaged: the denominator
is the global number of counted tokens, so an average over processes would divide
once too often.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from potstill.models.scored import ScoredModel
from potstill.models.student import BLOCK_LISTS

Found = TypeVar("Found")


@dataclass(frozen=True)
class World:
    """This process's place among all."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks to the user."""
        return self.rank == 0


def start_world(device: Literal["auto", "cpu", "cuda"]) -> World:
    """Join the processes that torchrun started, or be alone."""
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("the setting device is cuda and no GPU is visible; set it to auto or cpu")
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World(0, 1, torch.device("cuda" if use_cuda else "cpu"))
    here = torch.device("cpu")
    if use_cuda:
        here = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(here)
    if not dist.is_initialized():
        # The lead may sample for hours while the others wait.
        dist.init_process_group("nccl" if use_cuda else "gloo", timeout=timedelta(days=2))
    return World(dist.get_rank(), dist.get_world_size(), here)


def wrap(scored: ScoredModel, world: World, parallel: Literal["ddp", "fsdp"]) -> nn.Module:
    """The root module, wrapped for the world it lives in."""
    scored.to(world.device)
    if world.size == 1:
        return scored
    if parallel == "ddp":
        wrapped = DistributedDataParallel(scored)
        wrapped.register_comm_hook(None, _sum_gradients)
        return wrapped
    for block in blocks(scored):
        fully_shard(block)
    fully_shard(scored)
    for module in scored.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum
    return scored


def sync_only_last(wrapped: nn.Module, is_last: bool) -> None:
    """Let gradients meet once an optimiser step, at its last micro-batch."""
    if isinstance(wrapped, DistributedDataParallel):
        wrapped.require_backward_grad_sync = is_last
    elif isinstance(wrapped, FSDPModule):
        wrapped.set_requires_gradient_sync(is_last)


def total(value: Tensor, world: World) -> Tensor:
    """Sum over all processes."""
    if world.size > 1:
        dist.all_reduce(value)
    return value


def gather(value: Any, world: World) -> list[Any]:
    """Everybody's value, in order of rank, to everybody."""
    if world.size == 1:
        return [value]
    found: list[Any] = [None] * world.size
    dist.all_gather_object(found, value)
    return found


def in_turns(world: World, count: int, work: Callable[[int], Found]) -> list[Found]:
    """`work(0)` to `work(count - 1)`, shared between processes; everybody gets all results, in order.

    Everybody takes part in every turn: a sharded model computes together or not at all.
    """
    mine: dict[int, Found] = {}
    for turn in range(-(-count // world.size)):
        i = min(turn * world.size + world.rank, count - 1)
        mine[i] = work(i)
    everybody = {i: found for part in gather(mine, world) for i, found in part.items()}
    return [everybody[i] for i in range(count)]


def from_lead(value: Any, world: World) -> Any:
    """The lead's value, to everybody."""
    if world.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def barrier(world: World) -> None:
    if world.size > 1:
        dist.barrier()


def in_shards(wrapped: nn.Module) -> None:
    """Back to shards: after an evaluation the root's weights are still whole, and what is whole cannot be saved."""
    for module in wrapped.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together (every process must call it), any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


# DDP compares annotations with classes, and ours would be strings: so there are none.
def _sum_gradients(_, bucket):  # type: ignore[no-untyped-def]
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return future.then(lambda done: done.value()[0])


def blocks(scored: ScoredModel) -> list[nn.Module]:
    """The transformer blocks of decoder and encoder, in order."""
    stacks = [scored.model.get_decoder()]
    if scored.is_encoder_decoder:
        stacks.append(scored.model.get_encoder())
    lists = [getattr(stack, name, None) for stack in stacks for name in BLOCK_LISTS]
    return [block for found in lists if isinstance(found, nn.ModuleList) for block in found]
