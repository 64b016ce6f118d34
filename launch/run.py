"""`albert launch`: run config and overrides in, a run folder and workers under DeepSpeed's launcher out, and a true exit code."""

import json
import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import yaml

from data_prep.schema import read_manifest
from launch.hosts import END_FILE, Place, check_hosts, read_hostfile
from launch.workers import supervise
from pretrain.config import (
    MAY_DIFFER_ON_RESUME,
    PAPER_BATCH,
    PAPER_LR,
    RunConfig,
    data_faults,
    differences,
    load_config,
    scaled_lr,
    to_plain,
)
from pretrain.run_lock import hold_lock
from tokenizer.errors import UserError
from tokenizer.files import check_output_folder, write_text

LOCKS = {".lock", ".launch.lock"}
Gpu = Literal["h200", "h100", "h100_pcie", "a100", "rtx4090", "rtx3090", "t4"]
"""Keys of `pretrain.flops.GPUS`, which would have torch imported for a `--help`."""


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Options of `albert launch`; any field of the run config can follow as --section.field VALUE."""

    config: Path
    """YAML run config, e.g. configs/demo.yaml."""
    output: Path | None = None
    """Run folder; given again, the run goes on from its newest good checkpoint. A dry run does without."""
    data: Path | None = None
    """Folder that `albert prepare` wrote; stands for --data.path."""
    continue_from: Path | None = None
    """Run folder whose newest checkpoint this run begins with; stands for the field continue_from."""
    num_procs: int | None = None
    """Worker processes on this machine; default: one for each GPU, or 1 on CPU."""
    hostfile: Path | None = None
    """Several machines, one `HOST slots=N` a line, reached by pdsh and ssh; RUN, DATA and the environment have the same paths on
    each."""
    master_addr: str | None = None
    """Address at which the other machines of --hostfile reach the first one; default: its name there."""
    dry_run: bool = False
    """Start nothing: print parameters, FLOPs, memory, epochs, disk, hours and cost of the run."""
    gpu: Gpu | None = None
    """With --dry_run: the GPU to reckon with; default: what this machine has."""
    num_gpus: int | None = None
    """With --dry_run: how many of them; default: 1."""
    price_per_hour: float | None = None
    """With --dry_run: price of one of them for an hour, in any currency."""
    mfu: float | None = None
    """With --dry_run: share of the peak FLOP/s that training is thought to reach; default 0.4."""
    overrides: list[str] = field(default_factory=list)
    """Fields of the run config as section.field=VALUE; --section.field VALUE means the same."""


def launch(options: LaunchOptions) -> int:
    """Check everything, write RUN/config.yaml, train; return the exit code. A dry run says what that would take.

    Raises:
        UserError: any fault in config, data, or run folder, before a process is started.
    """
    config, place = read_run_config(options)
    if options.dry_run:
        from launch.dry_run import ASSUMED_MFU, report  # takes torch, which takes seconds to import

        price, mfu = options.price_per_hour, options.mfu or ASSUMED_MFU
        print(report(config, options.gpu, place, price_per_hour=price, mfu=mfu, run_folder=options.output))
        return 0
    run_folder = options.output.absolute()
    names = {path.name for path in run_folder.iterdir()} if run_folder.is_dir() else {""}
    if "config.yaml" not in names and not names <= LOCKS:  # locks alone are left by a first start that ended early
        check_output_folder(run_folder, marker="config.yaml", what="run")
    run_folder.mkdir(exist_ok=True)
    with hold_lock(run_folder / ".launch.lock"):
        hold_lock(run_folder / ".lock").close()  # the workers of a launch that was killed may still be at work
        if any((run_folder / "checkpoints").glob("step-*")):
            refuse_changed_config(run_folder, config)
        else:
            begin_anew(run_folder, config)
        done = run_folder / "DONE"
        if done.exists() and json.loads(done.read_text())["step"] >= config.training.steps:
            print(f"{run_folder}: already done at step {config.training.steps}; raise training.steps to go on.")
            return 0
        for stale in (*map(run_folder.joinpath, ("DONE", "STOP", "state.json")), *run_folder.glob(f"{END_FILE}*")):
            stale.unlink(missing_ok=True)
        write_text(run_folder / "config.yaml", yaml.safe_dump(to_plain(config), sort_keys=False))
        if place.over_ssh:
            check_hosts(place, run_folder)
        print(describe_lr(config), flush=True)
        return supervise(run_folder, place, config)


def read_run_config(options: LaunchOptions) -> tuple[RunConfig, Place]:
    """The config with overrides applied, paths absolute, and where its processes are; all faults in one error."""
    overrides = [split_override(text) for text in options.overrides]
    for name, path in (("data.path", options.data), ("continue_from", options.continue_from)):
        if path is not None:
            overrides.append((name, json.dumps(str(path))))  # as YAML, whatever the path looks like
    faults, config, manifest = option_faults(options), None, None
    try:
        config = load_config(options.config, overrides)
    except UserError as error:
        faults.append(str(error))
    try:
        if data := config.data.path if config else options.data:
            manifest = read_manifest(data)
    except UserError as error:
        faults.append(str(error))
    try:
        hosts = read_hostfile(options.hostfile) if options.hostfile else None
    except UserError as error:
        faults.append(str(error))
    if config and not faults:
        place, fault = find_place(options, config, hosts)
        faults += data_faults(config, manifest, place.num_procs) + fault
    if faults:
        raise UserError("\n".join(faults))
    absolute = {
        "data": replace(config.data, path=config.data.path.absolute()),
        "model": replace(config.model, init_from=config.model.init_from and config.model.init_from.absolute()),
        "continue_from": config.continue_from and config.continue_from.absolute(),
    }
    return replace(config, **absolute), place


def find_place(options: LaunchOptions, config: RunConfig, hosts: dict[str, list[int]] | None) -> tuple[Place, list[str]]:
    """Where the processes are, and faults."""
    if hosts is not None and not options.num_gpus:
        return Place(hosts, over_ssh=True, master_addr=options.master_addr or next(iter(hosts))), []
    num_procs = options.num_gpus or options.num_procs or (1 if options.gpu else default_num_procs(config))
    visible = None if options.dry_run else os.environ.get("CUDA_VISIBLE_DEVICES")
    devices, faults = device_numbers(num_procs, config.precision.device, visible)
    return Place({"localhost": devices}, over_ssh=False), faults


def option_faults(options: LaunchOptions) -> list[str]:
    """What is wrong with the options themselves; a line each."""
    faults = []
    if options.output is None and not options.dry_run:
        faults.append("--output: is missing; give a run folder")
    for name in ("num_procs", "num_gpus", "price_per_hour", "mfu"):
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            faults.append(f"--{name}: must be above 0, found {value}")
    if options.mfu is not None and options.mfu > 1:
        faults.append(f"--mfu: must be at most 1, found {options.mfu}")
    given = [name for name in ("gpu", "num_gpus", "price_per_hour", "mfu") if getattr(options, name) is not None]
    if given and not options.dry_run:
        faults.append(f"--{', --'.join(given)}: go with --dry_run alone")
    if options.hostfile is not None and options.num_procs is not None:
        faults.append("--num_procs: the slots of --hostfile say how many; give one of them")
    if options.master_addr is not None and options.hostfile is None:
        faults.append("--master_addr: goes with --hostfile alone")
    if options.num_gpus is not None and options.num_procs is not None:
        faults.append("--num_gpus: stands for --num_procs in a dry run; give one of them")
    return faults


def split_override(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--overrides {text}: expected section.field=VALUE, e.g. training.steps=500.")
    return name, value


def refuse_changed_config(run_folder: Path, config: RunConfig) -> None:
    """A run goes on with the config it was started with, but for the fields that may differ."""
    if not (run_folder / "config.yaml").exists():
        return
    changed = differences(load_config(run_folder / "config.yaml"), config)
    if changed:
        listed = "\n".join(f"  - {line}" for line in changed)
        raise UserError(
            f"{run_folder}: was started with another config:\n{listed}\n"
            f"Only {', '.join(name + '*' * name.endswith('.') for name in MAY_DIFFER_ON_RESUME)} and --num_procs may change; "
            "give the former values, or a new --output."
        )


def begin_anew(run_folder: Path, config: RunConfig) -> None:
    """Before the first checkpoint: what a start with another config left behind does not bind this one; a phase must fit.

    Raises:
        UserError: `continue_from` is at work, or this run cannot go on from it.
    """
    if (run_folder / "config.yaml").exists() and differences(load_config(run_folder / "config.yaml"), config):
        (run_folder / "rollbacks.json").unlink(missing_ok=True)
        (run_folder / "micro_batch_size.json").unlink(missing_ok=True)
    if config.continue_from is None:
        return
    from pretrain.phases import find_predecessor  # takes torch, which takes seconds to import

    try:
        if (lock := config.continue_from / ".lock").exists() and os.access(lock, os.W_OK):
            hold_lock(lock).close()
    except UserError as error:
        raise UserError(f"continue_from: {config.continue_from} is still training. Wait for it, or stop it.") from error
    find_predecessor(config, read_manifest(config.data.path))


def describe_lr(config: RunConfig) -> str:
    """The peak learning rate, and how it stands to the paper's."""
    lr, batch = config.optimizer.lr, config.training.global_batch_size
    rule = f"{PAPER_LR:g} at batch {PAPER_BATCH:,} x sqrt({batch:,} / {PAPER_BATCH:,}) = {scaled_lr(batch):.3g}"
    if config.optimizer.name != "lamb":
        return f"peak learning rate {lr:.3g}"
    if lr == scaled_lr(batch):
        return f"peak learning rate: the paper's {rule}"
    return f"peak learning rate {lr:.3g}, as given; the square-root rule would make it {rule}"


def default_num_procs(config: RunConfig) -> int:
    """The GPUs of this machine, or 1."""
    if config.precision.device == "cpu":
        return 1
    import torch

    return torch.cuda.device_count() or 1


def device_numbers(num_procs: int, device: str, visible: str | None) -> tuple[list[int], list[str]]:
    """One device a process, and faults; `visible` is CUDA_VISIBLE_DEVICES, which the launcher would write over."""
    if device == "cpu" or not visible:
        return list(range(num_procs)), []
    numbers = [number.strip() for number in visible.split(",")]
    if len(numbers) < num_procs or not all(number.isdigit() for number in numbers):
        return [], [
            f"CUDA_VISIBLE_DEVICES: is {visible}; for --num_procs {num_procs} it must list as many GPUs, by number (DeepSpeed "
            "takes no UUIDs). Change it, or unset it."
        ]
    return [int(number) for number in numbers[:num_procs]], []
