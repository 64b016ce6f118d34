"""What a process of training holds in memory at its peak: an estimate before anything is started, and what came of it.

The tensors that autograd keeps are counted one by one below; tests compare them with what it does keep, and the whole with the peak
of real runs. Shape suffixes as in pretrain/model.py; sizes in bytes.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from data_prep.schema import Manifest
from pretrain.attention import fits_packed_kernel
from pretrain.config import ModelConfig, RunConfig
from pretrain.head import CHUNK_ELEMENTS
from pretrain.model import Albert
from pretrain.products import PAYS_FROM_CALLS

FP32 = 4
MASKED_SHARE = 0.15


class MemoryWatch:
    """The estimate for a run, and the peak measured from here on."""

    def __init__(self, estimate: "MemoryEstimate", model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device):
        self.estimate, self.device = estimate, device
        moments = (tensor for state in optimizer.state.values() for tensor in state.values())  # a resumed run has them already
        self.before = reset_peak(device) - sum(tensor.nbytes for tensor in (*model.parameters(), *moments))

    def read(self) -> dict[str, float]:
        """Bytes of this process above what it held before the weights."""
        return {"peak_memory": peak(self.device) - self.before, "estimated_memory": self.estimate.total}


class MemoryEstimate(NamedTuple):
    """Bytes of one process."""

    state: int
    """Weights, gradients and the optimizer's two moments, fp32; between several processes, the flat gradients that are sent."""
    activations: int
    """What the forward pass of one micro-batch keeps for the backward pass."""
    working: int
    """What either pass needs beside: cast weights and their gradients, gradients of activations, a chunk of logits."""

    @property
    def total(self) -> int:
        return sum(self)

    def __str__(self) -> str:
        state, activations, working = (part / 1e9 for part in self)
        parts = f"state {state:.2f}, activations {activations:.2f}, working {working:.2f}"
        return f"about {self.total / 1e9:.2f} GB a process ({parts})"


def estimate_memory(
    config: RunConfig, manifest: Manifest, micro_batch_size: int, num_procs: int, *, on_gpu: bool, has_flash: bool = False
) -> MemoryEstimate:
    """At the longest sequences of the data. has_flash: whether a GPU has flash attention."""
    model, vocab_size, longest = config.model, manifest.vocab_size, manifest.max_seq_length
    pieces = micro_batch_size * longest
    num_parameters = count_parameters(model, vocab_size)
    half = FP32 if config.precision.dtype == "fp32" else 2
    stream = FP32 if on_gpu else half  # autocast on CUDA has LayerNorm give fp32
    read = MASKED_SHARE + 1 / longest
    layer, last_layer = (
        kept_by_layer(model, half=half, stream=stream, longest=longest, has_flash=has_flash, read=share) for share in (1.0, read)
    )
    if config.training.activation_checkpointing:
        kept_in_all = model.num_hidden_layers * model.hidden_size * stream + layer
    else:
        kept_in_all = (model.num_hidden_layers - 1) * layer + last_layer
    embedded = (2 * FP32 + half) * model.embedding_size
    masked = MASKED_SHARE * (model.hidden_size + 3 * model.embedding_size) * half
    cast_weights = half * blocks(model)
    packed_weights = (
        0 if on_gpu or half != FP32 else 2 * FP32 * blocks(model, PAYS_FROM_CALLS)
    )  # if it pays; small ones do not count
    decoder = vocab_size * model.embedding_size
    head = CHUNK_ELEMENTS * (2 * FP32 + half) + decoder * (FP32 + half)
    backward = pieces * (2 * model.intermediate_size * half + 3 * model.hidden_size * stream) + 2 * cast_weights
    return MemoryEstimate(
        state=FP32 * num_parameters * (5 if num_procs > 1 else 4),
        activations=round(pieces * (kept_in_all + embedded + masked + read * model.hidden_size * stream)),
        working=round(cast_weights + packed_weights + decoder * FP32 + max(head, backward)),
    )


def kept_by_layer(model: ModelConfig, *, half: int, stream: int, longest: int, has_flash: bool, read: float = 1.0) -> float:
    """Bytes a piece that one layer keeps.

    half: bytes of a number in matrix products; stream: between the blocks, where LayerNorm works; read: share of the pieces that
    the layer has an output for.
    """
    size, inner, heads = model.hidden_size, model.intermediate_size, model.num_attention_heads
    keys = 3 * size * half  # the input, keys and values
    queries = size * half if read == 1 else 2 * size * half  # and, gathered, their input
    feed_forward = (size + 2 * inner) * half  # input, before and after GELU
    norms = 2 * size * stream + 4 * FP32  # inputs of both, means and deviations
    dropped = 2 * size if model.hidden_dropout else 0  # masks
    if model.attention_dropout:
        attention = size * half + heads * longest * (2 * half + 1)  # weights before and after dropout, mask
    elif has_flash and fits_packed_kernel(size // heads, half):
        attention = size * half + heads * FP32  # context, log-sum-exp
    else:
        attention = 2 * size * half + heads * FP32  # context by sequence or padded, and joined
    return keys + read * (queries + feed_forward + norms + dropped + attention)


def blocks(model: ModelConfig, from_calls: int = 1) -> int:
    """Numbers in the matrices of the attention and feed-forward blocks. from_calls: of those that at least so many layers share."""
    groups, layers = model.num_hidden_groups, model.num_hidden_layers
    attentions = groups if model.share in ("all", "attention") else layers
    ffns = groups if model.share in ("all", "ffn") else layers
    sizes = (attentions, 4 * model.hidden_size**2), (ffns, 2 * model.hidden_size * model.intermediate_size)
    return sum(number * size for number, size in sizes if layers / number >= from_calls)


def count_parameters(model: ModelConfig, vocab_size: int) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Albert(model, vocab_size).parameters())


def reset_peak(device: torch.device) -> float:
    """Begin to measure; bytes in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak(device)


def peak(device: torch.device) -> float:
    """Most bytes in use since `reset_peak`; 0 where the system does not tell (macOS)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return status_bytes("VmHWM")


def status_bytes(name: str) -> int:
    """A figure of /proc/self/status; 0 where the system has none (macOS)."""
    with suppress(OSError):
        found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) * 1024 if found else 0
    return 0
