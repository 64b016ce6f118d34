"""The one file that imports torch.distributed: who we are, sums over all ranks, waiting for each other, a pair's bandwidth."""

import functools
import time
from datetime import timedelta

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


def open_store(address: str, port: int, *, serve: bool, seconds: float) -> dist.TCPStore:
    """The store by which processes find each other, at a port of the first host. serve: be that host. seconds: for each wait.

    Raises:
        RuntimeError: the port is taken, or cannot be reached in time.
    """
    return dist.TCPStore(address, port, is_master=serve, wait_for_workers=False, timeout=timedelta(seconds=seconds))


def pair_bandwidth(store: dist.Store, name: str, rank: int, device: torch.device, *, num_bytes: int, seconds: float) -> float:
    """Bytes a second at which this process and one other, ranks 0 and 1, add up `num_bytes` of fp32: gloo on CPUs, NCCL on GPUs.

    store: one that both reach; name: theirs alone. seconds: for each wait. Joins and leaves the process group; there must be none.

    Raises:
        RuntimeError: they do not reach each other in time, or the sum is wrong.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, store=dist.PrefixStore(name, store), rank=rank, world_size=2, timeout=timedelta(seconds=seconds)
    )
    values = torch.zeros(num_bytes // 4, device=device)
    times = []
    for _ in range(4):  # connections are made in the first
        values.fill_(rank + 1)
        begun_at = time.perf_counter()
        dist.all_reduce(values)
        found = float(values[-1])  # waits for the GPU
        times.append(time.perf_counter() - begun_at)
    if found != 3.0:
        raise RuntimeError(f"an all-reduce of 1 and 2 gave {found}")
    dist.destroy_process_group()
    return num_bytes / min(times[1:])
