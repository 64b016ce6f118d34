"""Floating-point operations that a training step needs, and how much of what the machine can do they are (MFU).

Counted are the matrix products that the loss needs: of real pieces alone; of the heads and of the last layer, keys and values
apart, at masked positions and first pieces alone; forward once, backward twice. What is computed again under activation
checkpointing is no gain and is not counted (Chowdhery et al., PaLM, arXiv 2204.02311, appendix B).
"""

import re
import time
from typing import NamedTuple

import numpy as np
import torch

from pretrain.config import ModelConfig


class Gpu(NamedTuple):
    """A GPU as NVIDIA's data sheet has it."""

    name: str
    """Part of the device's name as PyTorch gives it."""
    memory: float
    """Bytes."""
    peaks: dict[str, float]
    """FLOP/s of dense products with fp32 sums, by precision.dtype."""
    has_flash: bool = True
    """Whether flash attention runs there: Ampere and newer."""


GPUS = {
    "h200": Gpu("H200", 141e9, {"bf16": 989e12, "fp16": 989e12, "fp32": 67e12}),
    "h100_pcie": Gpu("H100 PCIe", 80e9, {"bf16": 756e12, "fp16": 756e12, "fp32": 51e12}),
    "h100": Gpu("H100", 80e9, {"bf16": 989e12, "fp16": 989e12, "fp32": 67e12}),
    "a100": Gpu("A100", 80e9, {"bf16": 312e12, "fp16": 312e12, "fp32": 19.5e12}),
    "rtx4090": Gpu("RTX 4090", 24e9, {"bf16": 165e12, "fp16": 165e12, "fp32": 82.6e12}),
    "rtx3090": Gpu("RTX 3090", 24e9, {"bf16": 71e12, "fp16": 71e12, "fp32": 35.6e12}),
    "t4": Gpu("T4", 16e9, {"fp16": 65e12, "fp32": 8.1e12}, has_flash=False),
}
"""The first whose name is in a device's is that device."""


def step_flops(config: ModelConfig, vocab_size: int, lengths: np.ndarray, num_masked: float) -> float:
    """FLOPs of a step, forward and backward, over sequences of these lengths, `num_masked` masked pieces spread evenly."""
    pieces, squares = float(lengths.sum()), float((lengths.astype(np.float64) ** 2).sum())
    size, inner, last = config.hidden_size, config.intermediate_size, config.num_hidden_layers - 1
    read, read_pairs = num_masked + len(lengths), num_masked * squares / pieces + pieces
    keys_and_values = pieces * 2 * size**2
    others, attention = 2 * size**2 + 2 * size * inner, 2 * size  # a piece; a pair of query and key
    layers = last * (keys_and_values + pieces * others + squares * attention)
    last_layer = keys_and_values + read * others + read_pairs * attention
    projection = pieces * config.embedding_size * size
    masked_head = num_masked * config.embedding_size * (size + vocab_size)
    order_head = len(lengths) * (size**2 + 2 * size)
    return 6 * (projection + layers + last_layer + masked_head + order_head)


def peak_flops(device: torch.device, dtype: str) -> float:
    """FLOP/s of one device: from the data sheet, or measured where it is not known here."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for gpu in GPUS.values():
            if re.search(rf"\b{gpu.name}\b", name) and "Laptop" not in name and dtype in gpu.peaks:
                return gpu.peaks[dtype]
    return measured_flops(device, dtype)


def measured_flops(device: torch.device, dtype: str, repeats: int = 4) -> float:
    """The best of some series of products of square matrices: a fraction of a second."""
    of = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    size, series = (8192, 10) if device.type == "cuda" else (1024, 1)  # a GPU takes no notice of less
    matrix = torch.randn(size, size, device=device).to(of)
    best = 0.0
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(series):
            product = matrix @ matrix
        product[0, 0].item()
        best = max(best, series * 2 * size**3 / (time.perf_counter() - began))
    return best
