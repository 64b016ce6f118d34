"""Options of `albert launch`, and what is wrong with them by themselves."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from launch.hosts import Launcher
from launch.slurm import Job, job_faults

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
    launcher: Launcher = "pdsh"
    """With --hostfile: what starts the workers, by DeepSpeed's names. All but pdsh go through DeepSpeed's own runner, untested."""
    launcher_args: str | None = None
    """With a --launcher other than pdsh: more options for it, in one string."""
    slurm: bool = False
    """Submit a batch job that trains on --num_nodes; inside a job, train on its nodes."""
    num_nodes: int = 1
    """With --slurm: nodes of the job; --num_procs is then the number of workers on each, by default its GPUs."""
    sbatch: list[str] = field(default_factory=list)
    """With --slurm: options of sbatch, e.g. partition=gpu gres=gpu:8 time=24:00:00 account=x."""
    container: str | None = None
    """With --slurm: apptainer:IMAGE or pyxis:IMAGE, an image with this program in which the workers run."""
    permissions: str = "700"
    """Of a new run folder, in octal: 700 is for its owner alone, 750 for the group's eyes, too."""
    dry_run: bool = False
    """Start nothing: print parameters, FLOPs, memory, epochs, disk, hours and cost of the run, and with --output the commands and
    files that would start it."""
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


def option_faults(options: LaunchOptions) -> list[str]:
    """What is wrong with the options themselves; a line each."""
    faults = shared_faults(options, ("num_procs", "num_gpus", "num_nodes", "price_per_hour", "mfu"))
    if options.output is None and not options.dry_run:
        faults.append("--output: is missing; give a run folder")
    if options.mfu is not None and options.mfu > 1:
        faults.append(f"--mfu: must be at most 1, found {options.mfu}")
    given = [name for name in ("gpu", "num_gpus", "price_per_hour", "mfu") if getattr(options, name) is not None]
    if given and not options.dry_run:
        faults.append(f"--{', --'.join(given)}: go with --dry_run alone")
    if options.hostfile is not None and options.slurm:
        faults.append("--slurm: gives the nodes itself; leave --hostfile out")
    if options.launcher_args is not None and options.launcher == "pdsh":
        faults.append("--launcher_args: goes with a --launcher other than pdsh; for ssh, PDSH_SSH_ARGS_APPEND")
    if options.launcher != "pdsh" and options.hostfile is None:
        faults.append("--launcher: goes with --hostfile alone")
    slurm_alone = {"num_nodes": options.num_nodes != 1, "sbatch": options.sbatch, "container": options.container}
    if not options.slurm:
        faults += [f"--{name}: goes with --slurm alone" for name, given in slurm_alone.items() if given]
    if not re.fullmatch("0?7[0-7]{2}", options.permissions):
        faults.append(
            f"--permissions: expected three octal digits that let the owner do all, e.g. 750, found {options.permissions}"
        )
    faults += job_faults(job_of(options))
    if options.num_gpus is not None and options.num_procs is not None:
        faults.append("--num_gpus: stands for --num_procs in a dry run; give one of them")
    return faults


def shared_faults(options: Any, numbers: Iterable[str]) -> list[str]:
    """Of those that `albert doctor` has, too. numbers: names of options that must be above 0."""
    faults = []
    for name in numbers:
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            faults.append(f"--{name}: must be above 0, found {value}")
    if options.hostfile is not None and options.num_procs is not None:
        faults.append("--num_procs: the slots of --hostfile say how many; give one of them")
    if options.master_addr is not None and options.hostfile is None:
        faults.append("--master_addr: goes with --hostfile alone")
    return faults


def job_of(options: LaunchOptions) -> Job:
    return Job(num_nodes=options.num_nodes, num_procs=options.num_procs, container=options.container, sbatch=options.sbatch)
