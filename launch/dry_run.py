"""`albert launch --dry_run`: what a run would need and cost, before anyone pays for it. Nothing is started or written."""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data_prep.schema import Manifest, read_manifest
from launch.hosts import Place
from pretrain.checkpoint import list_checkpoints, newest_good_checkpoint, read_state, step_of
from pretrain.config import RunConfig
from pretrain.data import open_split
from pretrain.flops import GPUS, Gpu, peak_flops, step_flops
from pretrain.init_from import check_init_from
from pretrain.memory import FP32, MemoryEstimate, count_parameters, estimate_memory
from pretrain.micro_batch import CPU_SHARE, GPU_SHARE
from pretrain.phases import find_predecessor
from pretrain.progress import progress_from
from tokenizer.errors import UserError
from tokenizer.files import nearest_folder
from tokenizer.memory import free_memory

ASSUMED_MFU = 0.4
SAMPLED_ROWS = 10_000
"""Rows that lengths are taken from; the order of rows is random."""
MANY_EPOCHS = 40
"""Beyond it, more passes over the same text gain next to nothing (Muennighoff et al., arXiv 2305.16264, for causal models)."""
TENSORS_SAVED = 3
"""Weights and the two moments."""


@dataclass(frozen=True)
class Machine:
    """Where a run is thought to be."""

    name: str
    memory: float
    """Bytes that a process may take."""
    peak: float
    """FLOP/s of a process."""
    is_gpu: bool
    has_flash: bool = False


@dataclass(frozen=True)
class Forecast:
    """What a run comes to."""

    num_procs: int
    first_step: int
    """Steps that another run, or this one, has already made."""
    last_step: int
    """`training.steps`, or where `training.max_hours` ends the run."""
    pieces: float
    """Of a step."""
    flops: float
    """Of a step."""
    epochs: float
    """Times that the unique text is seen from `first_step` on."""
    micro_batch_size: int
    memory: MemoryEstimate
    hours: float


def report(
    config: RunConfig, gpu: str | None, place: Place, *, price_per_hour: float | None, mfu: float, run_folder: Path | None
) -> str:
    """A line a figure, warnings at the end.

    gpu: a key of `GPUS`, or None for what is here. price_per_hour: of the device of one process. mfu: share of the peak FLOP/s that
    is thought to be reached. run_folder: where checkpoints would go, and may be already.

    Raises:
        UserError: the data cannot be read, `continue_from` or `init_from` does not fit, or the GPU lacks the precision.
    """
    manifest = read_manifest(config.data.path)
    num_procs = place.num_procs
    machine = find_machine(config, gpu, max(map(len, place.devices.values())))
    newest = newest_good_checkpoint(run_folder / "checkpoints")[0] if run_folder else None
    first_step, hours_left = 0, config.training.max_hours
    if newest is not None:
        first_step = min(step_of(newest), config.training.steps)
        if hours_left is not None:
            hours_left = max(0.0, hours_left - progress_from(read_state(newest)).training_seconds / 3600)
    elif config.continue_from is not None:
        first_step = step_of(find_predecessor(config, manifest))
    elif config.model.init_from is not None:
        check_init_from(config.model)
    cast = forecast(config, manifest, machine, num_procs=num_procs, first_step=first_step, hours_left=hours_left, mfu=mfu)
    counts = manifest.splits["train"]
    training = config.training
    steps = cast.last_step - first_step
    saved = checkpoint_bytes(config, manifest.vocab_size)
    kept = config.checkpoint.keep_last + 1
    disk = disk_needed(config, manifest.vocab_size, run_folder)
    is_cut = cast.last_step < training.steps
    limit = f", where training.max_hours {training.max_hours:g} is over, of {training.steps - first_step:,}" if is_cut else ""
    rows = [
        ("parameters", f"{count_parameters(config.model, manifest.vocab_size):,}"),
        ("data", f"{counts.instances:,} instances, {amount(counts.pieces)} pieces; {amount(counts.text_pieces)} of unique text"),
        ("steps", f"{steps:,}" + (f" (from step {first_step:,})" if first_step else "") + limit),
        ("a step", f"{training.global_batch_size:,} instances, {amount(cast.pieces)} pieces, {amount(cast.flops)}FLOP"),
        ("in all", f"{amount(steps * cast.pieces)} pieces, {amount(steps * cast.flops)}FLOP"),
        ("epochs", f"{cast.epochs:,.1f} over the unique text" + (" from here on" if first_step else "")),
        ("memory", f"{cast.memory} in micro-batches of {cast.micro_batch_size}; {machine.memory / 1e9:.1f} GB to use"),
        ("checkpoints", f"{saved / 1e9:.2f} GB each, {kept * saved / 1e9:.2f} GB for {kept}, and room for one more"),
        (
            "time",
            f"{describe_hours(cast.hours)} on {num_procs} x {machine.name} at an MFU of {mfu:.0%}: compare with a run's `mfu`",
        ),
    ]
    found = warnings(cast, machine, disk, run_folder)
    if is_cut and cast.last_step < config.schedule.start_step + config.schedule.warmup_steps:
        found.append("training.max_hours ends the run in its warm-up, at that speed. Raise it, or lower schedule.warmup_steps.")
    if price_per_hour is not None:
        rows.append(("cost", f"{cast.hours * num_procs * price_per_hour:,.2f} at {price_per_hour:g} an hour each"))
    lines = [f"{name:12} {text}" for name, text in rows]
    return "\n".join(lines + [f"warning: {text}" for text in found])


def checkpoint_bytes(config: RunConfig, vocab_size: int) -> int:
    """Of one checkpoint on the disk."""
    return FP32 * TENSORS_SAVED * count_parameters(config.model, vocab_size)


def disk_needed(config: RunConfig, vocab_size: int, run_folder: Path | None) -> int:
    """Bytes that checkpoints will take beyond those that are there: `keep_last`, the best, and one in the making."""
    there = len(list_checkpoints(run_folder / "checkpoints")) if run_folder else 0
    return max(1, config.checkpoint.keep_last + 2 - there) * checkpoint_bytes(config, vocab_size)


def forecast(
    config: RunConfig,
    manifest: Manifest,
    machine: Machine,
    *,
    num_procs: int,
    first_step: int,
    hours_left: float | None,
    mfu: float,
) -> Forecast:
    """first_step: at which the run stands. hours_left: of `training.max_hours`."""
    counts, batch = manifest.splits["train"], config.training.global_batch_size
    lengths = sampled_lengths(config, manifest)
    scale = batch / len(lengths)
    masked = counts.masked_pieces / max(counts.instances, 1) * len(lengths)
    flops = scale * step_flops(config.model, manifest.vocab_size, lengths, masked)
    pieces = scale * float(lengths.sum())
    micro_batch_size = config.training.micro_batch_size
    if micro_batch_size == "auto":
        micro_batch_size = largest_that_fits(config, manifest, machine, num_procs)
    last_step = config.training.steps
    hours = (last_step - first_step) * flops / (num_procs * machine.peak * mfu) / 3600
    if hours_left is not None and hours_left < hours:
        last_step, hours = first_step + int((last_step - first_step) * hours_left / hours), hours_left
    return Forecast(
        num_procs=num_procs,
        first_step=first_step,
        last_step=last_step,
        pieces=pieces,
        flops=flops,
        epochs=(last_step - first_step) * pieces / max(counts.text_pieces, 1),
        micro_batch_size=micro_batch_size,
        memory=memory_on(machine, config, manifest, micro_batch_size, num_procs),
        hours=hours,
    )


def sampled_lengths(config: RunConfig, manifest: Manifest) -> np.ndarray:
    split = open_split(config.data.path, manifest, "train")
    if not len(split):
        raise UserError(f"{config.data.path}: its train split is empty. Prepare more text.")
    return split.lengths(np.linspace(0, len(split) - 1, min(len(split), SAMPLED_ROWS)).astype(np.int64))


def memory_on(machine: Machine, config: RunConfig, manifest: Manifest, micro_batch_size: int, num_procs: int) -> MemoryEstimate:
    return estimate_memory(config, manifest, micro_batch_size, num_procs, on_gpu=machine.is_gpu, has_flash=machine.has_flash)


def largest_that_fits(config: RunConfig, manifest: Manifest, machine: Machine, num_procs: int) -> int:
    """What `micro_batch_size: auto` is likely to find: a power of two, or all that falls to a process; 1 if nothing fits."""
    share = -(-config.training.global_batch_size // num_procs)
    sizes = [1 << power for power in range((share - 1).bit_length())] + [share]
    needs = {size: memory_on(machine, config, manifest, size, num_procs).total for size in sizes}
    return max((size for size, need in needs.items() if need <= machine.memory), default=1)


def find_machine(config: RunConfig, gpu: str | None, num_procs: int) -> Machine:
    """The GPU of that name, or what one of `num_procs` processes would have on this machine.

    Raises:
        UserError: the GPU does not have the precision that the config wants.
    """
    dtype = config.precision.dtype
    if gpu is not None:
        return known_gpu(gpu, GPUS[gpu], dtype)
    if config.precision.device != "cpu" and torch.cuda.is_available():
        device = torch.device("cuda", 0)
        memory = torch.cuda.get_device_properties(device).total_memory
        return Machine(
            torch.cuda.get_device_name(device),
            GPU_SHARE * memory,
            peak_flops(device, dtype),
            True,
            torch.cuda.get_device_capability(device) >= (8, 0),
        )
    peak = peak_flops(torch.device("cpu"), dtype) / num_procs
    memory = CPU_SHARE * (free_memory() or math.inf) / num_procs
    return Machine(
        f"{'this CPU' if num_procs == 1 else 'a share of this CPU'} ({amount(peak)}FLOP/s measured)", memory, peak, False
    )


def known_gpu(option: str, gpu: Gpu, dtype: str) -> Machine:
    if dtype not in gpu.peaks:
        raise UserError(f"--gpu {option}: has no {dtype}. Set precision.dtype to one of {', '.join(gpu.peaks)}.")
    return Machine(gpu.name, GPU_SHARE * gpu.memory, gpu.peaks[dtype], True, gpu.has_flash)


def warnings(cast: Forecast, machine: Machine, disk: float, run_folder: Path | None) -> list[str]:
    found = []
    if cast.epochs > MANY_EPOCHS:
        found.append(
            f"the unique text would be seen {cast.epochs:,.0f} times, and more than {MANY_EPOCHS} gain next to nothing. The "
            "paper's 125,000 steps are for 16 GB of text: get more, or lower training.steps and schedule.total_steps."
        )
    if cast.memory.total > machine.memory:
        found.append(
            "that is more memory than there is. Lower training.micro_batch_size, set training.activation_checkpointing to true, or "
            "take a smaller model."
        )
    if run_folder is not None:
        there = nearest_folder(run_folder)
        free = shutil.disk_usage(there).free
        if free < disk:
            found.append(
                f"{there} has {free / 1e9:.2f} GB free, and the checkpoints take {disk / 1e9:.2f} GB. Lower checkpoint.keep_last."
            )
    return found


def amount(number: float) -> str:
    """Three digits and a prefix: 1.78 M."""
    power = max(0, min(7, int(math.log10(number) // 3))) if number > 0 else 0
    return f"{number / 1000**power:.3g} {['', 'k', 'M', 'G', 'T', 'P', 'E', 'Z'][power]}"


def describe_hours(hours: float) -> str:
    """In minutes, hours or days, such as 1.0 hours for what is rounded to 60.0 minutes."""
    if round(hours * 60, 1) < 60:
        return f"{hours * 60:,.1f} minutes"
    return f"{hours:,.1f} hours" if round(hours, 1) < 72 else f"{hours / 24:,.1f} days"
