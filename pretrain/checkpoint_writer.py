"""Checkpoints written beside training: it waits for a copy of the state, never for the disk."""

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pretrain.checkpoint import delete_old_checkpoints, snapshot, write_checkpoint


class CheckpointWriter:
    """Rank 0's hand at the disk. One save at a time: the next waits for the one before, and an error of either is raised by
    whichever call comes next."""

    def __init__(self, checkpoints: Path, keep_last: int):
        self.checkpoints, self.keep_last = checkpoints, keep_last
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self.pending: Future[float] | None = None
        self.write_seconds: float | None = None
        """What the last complete write took."""

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: dict[str, Any],
        *,
        before_write: Callable[[], None] = lambda: None,
        delete_old: bool = True,
    ) -> float | None:
        """Begin to write step-N of `state["step"]`, then delete old ones if asked to; the seconds that training was held up.

        before_write: called in the background, before the files.

        None if that checkpoint is there already: one that is whole is never written again.

        Raises:
            UserError: a save before this one failed.
        """
        began = time.perf_counter()
        self.wait()
        if (self.checkpoints / f"step-{state['step']}").exists():
            return None
        tensors = snapshot(model, optimizer)
        self.pending = self.thread.submit(self.write, tensors, state, before_write, delete_old)
        return time.perf_counter() - began

    def write(
        self,
        tensors: dict[str, dict[str, torch.Tensor]],
        state: dict[str, Any],
        before_write: Callable[[], None],
        delete_old: bool,
    ) -> float:
        began = time.perf_counter()
        before_write()
        write_checkpoint(self.checkpoints / f"step-{state['step']}", tensors, state)
        if delete_old:
            delete_old_checkpoints(self.checkpoints, keep_last=self.keep_last, best_step=state["best"].get("step"))
        return time.perf_counter() - began

    def close(self) -> None:
        """Let a write come to its end, when the run ends otherwise; its error is only said, for another is on its way."""
        try:
            self.wait()
        except Exception as error:
            print(error, file=sys.stderr, flush=True)

    def check(self) -> None:
        """Raise what a finished save ran into."""
        if self.pending is not None and self.pending.done():
            self.wait()

    def wait(self) -> None:
        """Until nothing is being written any more.

        Raises:
            UserError: the save failed; the checkpoints before it are whole.
        """
        pending, self.pending = self.pending, None
        if pending is not None:
            self.write_seconds = pending.result()
