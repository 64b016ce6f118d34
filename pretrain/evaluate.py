"""Losses and accuracies: sums of a batch made into means over all ranks, and the held-out split."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pretrain.cut import rank_slice
from pretrain.data import Split, evenly_spaced, micro_batches
from pretrain.distributed import rank, sum_over_ranks, world_size
from pretrain.engine import Engine
from pretrain.model import IGNORED_LABEL, LossSums, MicroBatch


def batch_counts(batches: list[MicroBatch]) -> Tensor:
    """Masked pieces and labelled pairs of some micro-batches: float64 (2,) on the CPU."""
    counts = torch.zeros(2, dtype=torch.float64)
    for batch in batches:
        labelled = (batch.sop_labels_B != IGNORED_LABEL).sum()
        counts += torch.tensor([len(batch.mlm_labels_M), labelled], dtype=torch.float64)
    return counts


def mean_metrics(sums: Tensor, masked: float, labelled: float) -> dict[str, float | None]:
    """Means over the global batch from `LossSums` (4,) summed over ranks; sentence-order figures are None without labels."""
    mlm_loss, mlm_correct, sop_loss, sop_correct = sums.tolist()
    mlm_mean, sop_mean = mlm_loss / masked, sop_loss / labelled if labelled else None
    return {
        "loss": mlm_mean + (sop_mean or 0.0),
        "mlm_loss": mlm_mean,
        "sop_loss": sop_mean,
        "mlm_accuracy": mlm_correct / masked,
        "sop_accuracy": sop_correct / labelled if labelled else None,
    }


def sum_losses(sums: list[LossSums]) -> Tensor:
    """Sum of several micro-batches' `LossSums`: fp64 (4,) on the device."""
    return torch.stack([torch.stack(list(each)).double() for each in sums]).sum(0)


@torch.no_grad()
def validate(
    engine: Engine,
    split: Split,
    *,
    micro_batch_size: int,
    max_instances: int,
    device: torch.device,
    each_batch: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Means over at most `max_instances` evenly spaced held-out instances, cut over the ranks, dropout off.

    each_batch: called before each micro-batch.
    """
    chosen = evenly_spaced(len(split), max_instances)
    mine = rank_slice(chosen, rank(), world_size())
    totals = torch.zeros(6, dtype=torch.float64)
    engine.model.eval()
    for batch in micro_batches(split, mine, micro_batch_size):
        each_batch()
        totals += torch.cat([sum_losses([engine.forward(batch.to(device))]).cpu(), batch_counts([batch])])
    engine.model.train()
    sum_over_ranks(totals)
    masked, labelled = totals[4:].tolist()
    return mean_metrics(totals[:4], masked, labelled) | {"instances": len(chosen)}
