"""`cpu`, `cuda` or `auto` in, the device to compute on out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tokenizer.errors import UserError

if TYPE_CHECKING:
    import torch


def choose_device(name: str, process: int | None = None) -> torch.device:
    """process: number of a training process on its machine, each of which has a GPU of its own; None of a verb of one process.

    Raises:
        UserError: GPUs are asked for and there are none, or fewer than processes on this machine.
    """
    import torch  # the ground floor does without

    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    num_gpus = torch.cuda.device_count()
    if process is None:
        if num_gpus:
            return torch.device("cuda", 0)
        raise UserError("--device cuda: PyTorch sees no GPU here. Give cpu or auto, or see the README's notes on drivers.")
    if num_gpus == 1 and "SLURM_LOCALID" in os.environ:  # --gpus-per-task=1: each task sees its own GPU as number 0
        return torch.device("cuda", 0)
    if process >= num_gpus:
        raise UserError(
            f"precision.device: this is process {process} of its machine, but PyTorch sees {num_gpus} GPU(s) there. Start "
            "fewer processes, set precision.device to cpu, or see the README's notes on drivers."
        )
    return torch.device("cuda", process)
