"""The one file that imports torch.distributed: who we are, sums over all ranks, and waiting for each other."""

import functools

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """Sum of `values` (on the CPU) over all ranks, in place; it goes through gloo and never waits for a GPU."""
    if world_size() > 1:
        dist.all_reduce(values, group=host_group())
    return values


@functools.cache
def host_group() -> dist.ProcessGroup | None:
    """The group for CPU tensors: the default one under gloo, else one of its own. The first call is collective."""
    return None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")


def agreed(value: int) -> int:
    """The `value` of rank 0, on all ranks."""
    return int(sum_over_ranks(torch.tensor([value if rank() == 0 else 0])).item())


def barrier() -> None:
    """Wait for each other, through gloo: NCCL would end a wait of some minutes, as for a slow disk, with an error."""
    if world_size() > 1:
        dist.barrier(group=host_group())


def shut_down() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
