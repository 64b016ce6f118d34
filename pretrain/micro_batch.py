"""`micro_batch_size: auto`: the largest micro-batch that fits, found by trying, the same on all ranks, kept in the run folder.

What is tried is the worst there can be: rows of max_seq_length, all with the most masked pieces, forward and backward. On a GPU the
peak must leave room for the optimizer's state and temporaries and a margin. On a CPU half of what is free is taken at most,
and no size is tried that the one before it, doubled, would not fit: the kernel kills a process that takes too much.
"""

import json
import math
import os
import resource
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from data_prep.schema import Manifest
from pretrain.config import TrainingConfig
from pretrain.data import Instance, collate
from pretrain.distributed import agreed, rank, sum_over_ranks, world_size
from pretrain.engine import Engine
from pretrain.memory import peak, reset_peak, status_bytes
from pretrain.model import MicroBatch
from tokenizer.errors import UserError
from tokenizer.files import write_json
from tokenizer.memory import free_memory
from tokenizer.special_tokens import FIRST_ORDINARY_ID

GPU_SHARE, CPU_SHARE = 0.9, 0.5
"""Of the memory that is there or free: caches fragment on a GPU, other programs live beside a CPU run."""
OPTIMIZER_COPIES = 5
"""Of the weights, in fp32, that a step holds at its peak beside weights and gradients: two moments, two temporaries of AdamW
(LAMB takes fewer), and the flattened gradients that DeepSpeed sends."""
NO_MEMORY = ("allocate memory", "ALLOC_FAILED")
"""What PyTorch says on a CPU, and cuBLAS and cuDNN on a GPU."""


def settle_micro_batch_size(
    run_folder: Path, engine: Engine, manifest: Manifest, device: torch.device, share: int, training: TrainingConfig
) -> int:
    """The micro-batch size of RUN/micro_batch_size.json, or found anew where what it depends on has changed.

    share: instances of a global batch that fall to one process; more are never needed. Collective.

    Raises:
        UserError: not even one instance fits.
    """
    path = run_folder / "micro_batch_size.json"
    here = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "num_procs": world_size(),
        "max_seq_length": manifest.max_seq_length,
        "compile": training.compile,
        "activation_checkpointing": training.activation_checkpointing,
    }
    kept = read_kept(path) if rank() == 0 else {}
    is_same = {key: kept.get(key) for key in here} == here
    if size := agreed(kept["micro_batch_size"] if is_same else 0):
        return size
    size = find_largest(engine, manifest, device, share)
    if rank() == 0:
        changed = f" (was {kept['micro_batch_size']} on {kept['device']} with {kept['num_procs']} process(es))" if kept else ""
        print(f"micro_batch_size: auto found {size} on {here['device']} with {here['num_procs']} process(es){changed}", flush=True)
        write_json(path, {"micro_batch_size": size} | here)
    return size


def read_kept(path: Path) -> dict[str, object]:
    with suppress(OSError, ValueError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(kept, dict) and isinstance(kept.get("micro_batch_size"), int):
            return kept
    return {}


def find_largest(engine: Engine, manifest: Manifest, device: torch.device, share: int) -> int:
    """Powers of two up to `share`, and `share` itself, until one does not fit on some rank."""
    sizes = sorted({1 << power for power in range((share - 1).bit_length())} | {share})
    fitting, budget = 0, memory_budget(engine, device)
    before, taken = reset_peak(device), 0.0
    for size in sizes:
        fits = not fitting or device.type == "cuda" or taken * size / fitting <= budget
        if fits:
            taken = try_size(engine, manifest, device, size, before)
            fits = taken <= budget
        if sum_over_ranks(torch.tensor([float(not fits)])).item():
            break
        fitting = size
    if not fitting:
        raise UserError(
            f"training.micro_batch_size: not even one instance of {manifest.max_seq_length} pieces fits into the memory of "
            f"{device} ({budget / 1e9:.1f} GB to use). Prepare with a smaller --max_seq_length, or take a smaller model."
        )
    return fitting


def memory_budget(engine: Engine, device: torch.device) -> float:
    """Bytes that forward and backward of one process may add."""
    if device.type == "cuda":
        there = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        weights = sum(parameter.numel() * 4 for parameter in engine.model.parameters())
        return GPU_SHARE * there - OPTIMIZER_COPIES * weights - torch.cuda.memory_allocated(device)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
    free = free_memory()
    shared = math.inf if free is None else free / processes
    return CPU_SHARE * min(shared, free_under_limit())


def free_under_limit() -> float:
    """Bytes that the limit of this process (`ulimit -d`) leaves; infinite without one."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return math.inf if limit == resource.RLIM_INFINITY else max(0, limit - status_bytes("VmData"))


def try_size(engine: Engine, manifest: Manifest, device: torch.device, size: int, before: float) -> float:
    """Peak bytes that a forward and backward of `size` full instances add to `before`; infinite if memory ran out.

    before: from before the first try, for what one try frees stays with the process on a CPU.
    """
    reset_peak(device)
    try:
        loss = sum(engine.forward(fullest_batch(manifest, size).to(device))[::2])
        engine.backward(loss)
        return peak(device) - before
    except (torch.OutOfMemoryError, MemoryError):
        return math.inf
    except RuntimeError as error:
        if not any(words in str(error) for words in NO_MEMORY):
            raise
        return math.inf
    finally:
        engine.discard_gradients()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def fullest_batch(manifest: Manifest, size: int) -> MicroBatch:
    """`size` instances of the greatest length with the most masked pieces."""
    length = manifest.max_seq_length
    return full_batch(size, length, min(length, int(manifest.options.get("max_predictions") or math.ceil(0.15 * length))))


def full_batch(size: int, length: int, num_masked: int) -> MicroBatch:
    """`size` instances of `length` pieces, `num_masked` of each masked."""
    instance = Instance(
        input_ids=np.full(length, FIRST_ORDINARY_ID),
        segment_b_start=length // 2,
        sentence_order_label=0,
        mlm_positions=np.arange(num_masked),
        mlm_labels=np.full(num_masked, FIRST_ORDINARY_ID),
    )
    return collate([instance] * size, torch.arange(size, dtype=torch.int32))
