"""A global batch cut into micro-batches for each rank.

The cut decides who computes what, never what is computed: every sample is in one micro-batch of one rank, and losses are divided by
the counts of the whole batch.
"""

import numpy as np


def cut_batch(size: int, world_size: int, micro_batch_size: int, lengths: np.ndarray | None) -> list[list[np.ndarray]]:
    """For each rank its micro-batches, as places (int64) in the global batch of `size` >= `world_size` instances.

    lengths: pieces of each instance, to put like with like and to deal pieces evenly to the ranks; None keeps the order.
    """
    if lengths is None:
        parts = [rank_slice(np.arange(size), rank, world_size) for rank in range(world_size)]
        return [[part[start : start + micro_batch_size] for start in range(0, len(part), micro_batch_size)] for part in parts]
    rounds = -(-size // (world_size * micro_batch_size))
    chunks = np.array_split(np.argsort(lengths, kind="stable"), rounds * world_size)
    parts = [[] for _ in range(world_size)]
    for number, chunk in enumerate(chunks):
        turn, place = divmod(number, world_size)
        rank = place if turn % 2 == 0 else world_size - 1 - place  # to and fro, so that nobody always gets the longer one
        if len(chunk):
            parts[rank].append(chunk)
    return parts


def rank_slice(samples: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """This rank's contiguous part of a global batch; parts differ by at most one sample."""
    return samples[len(samples) * rank // world_size : len(samples) * (rank + 1) // world_size]
