"""The environment variables by which processes find each other; no torch here, so the front door can use it."""

import os
import random
import socket
from contextlib import suppress

from tokenizer.errors import UserError

STARTERS = {
    "OMPI_COMM_WORLD_RANK": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "MV2_COMM_WORLD_RANK": ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),
    "SLURM_STEP_ID": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
}
"""By a variable that shows the starter (Open MPI, MVAPICH, srun): those of rank, world size and local rank."""


def fill_environment() -> None:
    """Set the five rendezvous variables where the starter did not: from its own, or for a single process.

    Without them DeepSpeed asks for mpi4py (docs/decisions.md).

    Raises:
        UserError: several Slurm nodes, and nothing says where the first one is.
    """
    if int(os.environ.get("SLURM_NNODES", "1")) > 1 and "SLURM_STEP_ID" in os.environ and "MASTER_ADDR" not in os.environ:
        raise UserError(
            "MASTER_ADDR: is not set, and this job has several nodes. In the batch script, before srun: "
            'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
        )
    for name, value in (own_ranks() | {"MASTER_ADDR": "127.0.0.1"}).items():
        os.environ.setdefault(name, value)
    if "MASTER_PORT" not in os.environ:
        os.environ["MASTER_PORT"] = str(free_port()) if os.environ["WORLD_SIZE"] == "1" else "29500"


def own_ranks() -> dict[str, str]:
    """RANK, WORLD_SIZE and LOCAL_RANK as the starter's variables give them, or those of a single process."""
    names = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    for sign, variables in STARTERS.items():
        if sign in os.environ:
            return {name: os.environ.get(of, names[name]) for name, of in zip(names, variables, strict=True)}
    return names


def own_rank() -> int:
    """This process's rank, also before the process group exists."""
    return int(os.environ.get("RANK", own_ranks()["RANK"]))


def local_rank() -> int:
    """Number of this process on its node."""
    return int(os.environ.get("LOCAL_RANK", own_ranks()["LOCAL_RANK"]))


def free_port() -> int:
    """A TCP port of this machine that is free now, below those that the system hands out (from 32768 on Linux): between this
    answer and its use, a connection of another program cannot get it."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise UserError("no TCP port from 20000 to 32000 is free on this machine. End what holds them.")
