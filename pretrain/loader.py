"""The micro-batches of each step, read one step ahead in a thread, so that training does not wait for its input."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch

from pretrain.config import RunConfig
from pretrain.cut import cut_batch
from pretrain.data import Split, collate
from pretrain.distributed import rank, world_size
from pretrain.dropout import sample_keys
from pretrain.model import MicroBatch
from pretrain.sample_order import sample_rows


class GlobalBatch(NamedTuple):
    """One step's samples, and this rank's part of them."""

    rows: np.ndarray
    """int64, in which row of the split each sample lies."""
    lengths: np.ndarray
    """int64, pieces of each sample."""
    micro_batches: list[MicroBatch]


class Loader:
    """Reads for one rank; on CUDA into pinned memory."""

    def __init__(self, split: Split, config: RunConfig, micro_batch_size: int, device: torch.device):
        self.split, self.config, self.micro_batch_size = split, config, micro_batch_size
        self.pins = device.type == "cuda"
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self.ahead: tuple[int, np.ndarray, Future[GlobalBatch]] | None = None
        self.waited = 0.0
        """Seconds that the last `get` has made training wait."""

    def get(self, step: int, samples: np.ndarray, next_samples: np.ndarray | None) -> GlobalBatch:
        """What these samples (int64 numbers) are at this step, dropout keys included; the reading of the next step's begins.

        next_samples: those that will follow if nothing goes wrong; if something does, they are read in vain. None at the end.

        Raises:
            UserError: a shard cannot be read.
        """
        began = time.perf_counter()
        ahead, self.ahead = self.ahead, None
        if ahead is not None and ahead[0] == step and np.array_equal(ahead[1], samples):
            batch = ahead[2].result()
        else:
            batch = self.read(step, samples)
        if next_samples is not None:
            self.ahead = step + 1, next_samples, self.thread.submit(self.read, step + 1, next_samples)
        self.waited = time.perf_counter() - began
        return batch

    def read(self, step: int, samples: np.ndarray) -> GlobalBatch:
        training, model = self.config.training, self.config.model
        rows = sample_rows(samples, self.split.shard_rows, training.seed, self.config.data.shuffle_window)
        lengths = self.split.lengths(rows)
        parts = cut_batch(len(rows), world_size(), self.micro_batch_size, lengths if training.bucket_by_length else None)
        batches = [
            collate(self.split.read(rows[places]), sample_keys(samples[places], training.seed, step) if model.drops else None)
            for places in parts[rank()]
        ]
        return GlobalBatch(rows, lengths, [batch.pinned() for batch in batches] if self.pins else batches)

    def close(self) -> None:
        self.thread.shutdown(cancel_futures=True)
