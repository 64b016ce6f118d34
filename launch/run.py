"""`albert launch`: run config and overrides in, a run folder and workers under DeepSpeed's launcher out, and a true exit code."""

import json
import os
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import yaml

from data_prep.schema import read_manifest
from launch.commands import plan_start
from launch.hosts import END_FILE, Place, check_hosts, device_numbers, read_hostfile
from launch.options import LaunchOptions, job_of, option_faults
from launch.slurm import (
    SCRIPT,
    Job,
    allocation,
    in_job,
    is_batch_script,
    refuse_second_job,
    requeue_if_useful,
    restart_of_job,
    script_text,
    stopped_while_waiting,
    submit,
)
from launch.workers import EXIT_PREEMPTED, supervise, wait_for_lock
from pretrain.config import PAPER_BATCH, PAPER_LR, RunConfig, scaled_lr
from pretrain.config_file import MAY_DIFFER_ON_RESUME, differences, load_config, to_plain
from pretrain.data_faults import data_faults
from pretrain.report import START_VARIABLE
from pretrain.run_lock import hold_lock
from pretrain.sessions import run_session
from tokenizer.errors import UserError
from tokenizer.files import check_output_folder, write_text

LAUNCH_LOCK = ".launch.lock"
BEGUN = r"\.lock|\.launch\.lock|\.config\.yaml\.tmp-.*"
"""What a first start that ended early may leave, and nothing else."""


def launch(options: LaunchOptions) -> int:
    """Check everything, write RUN/config.yaml, train or submit; return the exit code. A dry run says what that would take.

    Raises:
        UserError: any fault in config, data, or run folder, before a process is started.
    """
    config, place = read_run_config(options)
    submits = options.slurm and not in_job()
    if options.dry_run:
        show_dry_run(options, config, place, job_of(options) if submits else None)
        return 0
    run_folder = options.output.absolute()
    make_run_folder(run_folder, options.permissions)
    with alone_in(run_folder):
        refuse_second_job(run_folder)
        if any((run_folder / "checkpoints").glob("step-*")):
            refuse_changed_config(run_folder, config)
        else:
            begin_anew(run_folder, config)
        if done := describe_done(run_folder, config):
            print(done)
            return 0
        if stopped_while_waiting(run_folder):
            print(f"{run_folder}: asked to stop by RUN/STOP while the job waited", flush=True)
            return EXIT_PREEMPTED
        write_text(run_folder / "config.yaml", config_text(config))
        print(describe_lr(config), flush=True)
        if submits:
            with run_session(run_folder, config, None) as outcome:
                submit(run_folder, job_of(options))
                outcome["exit_code"] = 0
            return 0
        for stale in (*map(run_folder.joinpath, ("DONE", "STOP", "state.json")), *run_folder.glob(f"{END_FILE}*")):
            stale.unlink(missing_ok=True)
        if place.starter == "pdsh":
            check_hosts(place, run_folder)
        restart = restart_of_job() if is_batch_script() else None
        with run_session(run_folder, config, list(place.devices)) as outcome:
            ended = supervise(run_folder, place, config, restart)
            outcome["exit_code"] = ended.code
    if is_batch_script():
        requeue_if_useful(run_folder, ended)
    return ended.code


def make_run_folder(run_folder: Path, permissions: str) -> None:
    """A new one gets the permissions, whatever the umask is; one that is there keeps its own.

    Raises:
        UserError: something else is there.
    """
    try:
        refuse_something_else(run_folder)
    except UserError:
        if not (run_folder / LAUNCH_LOCK).exists():  # of another start at this moment, maybe: alone_in tells
            raise
    with suppress(FileExistsError):
        run_folder.mkdir(mode=0o700)
        run_folder.chmod(run_folder.stat().st_mode & stat.S_ISGID | int(permissions, 8))  # a folder of a group stays its own


def refuse_something_else(run_folder: Path) -> None:
    names = {path.name for path in run_folder.iterdir()} if run_folder.is_dir() else set()
    if "config.yaml" in names or names and all(re.fullmatch(BEGUN, name) for name in names):
        return
    check_output_folder(run_folder, marker="config.yaml", what="run", in_place=True)


@contextmanager
def alone_in(run_folder: Path) -> Iterator[None]:
    """Hold the lock of launches; a batch script waits for the locks of its start before, which the disk may not have given up yet.

    Raises:
        UserError: another launch is at work, or the workers of one that was killed; or this is no run folder.
    """
    if is_batch_script():
        wait_for_lock(run_folder / LAUNCH_LOCK)
    with hold_lock(run_folder / LAUNCH_LOCK):
        refuse_something_else(run_folder)
        if is_batch_script():
            wait_for_lock(run_folder / ".lock")
        hold_lock(run_folder / ".lock").close()
        yield


def show_dry_run(options: LaunchOptions, config: RunConfig, place: Place, job: Job | None) -> None:
    """What the run would need; with an output, how it would be started, too."""
    from launch.dry_run import ASSUMED_MFU, report  # takes torch, which takes seconds to import

    price, mfu = options.price_per_hour, options.mfu or ASSUMED_MFU
    print(report(config, options.gpu, place, price_per_hour=price, mfu=mfu, run_folder=options.output))
    if options.output is not None:
        print(describe_start(options.output.absolute(), config, place, job))


def describe_start(run_folder: Path, config: RunConfig, place: Place, job: Job | None) -> str:
    """The exact command, and the files it is given; what is new with each start is START and PORT."""
    files = {"config.yaml": config_text(config)}
    if job is not None:
        command, files = ["sbatch", "--parsable", str(run_folder / SCRIPT)], files | {SCRIPT: script_text(run_folder, job)}
    else:
        start = plan_start(run_folder, place, "START", "PORT", {START_VARIABLE: "START"})
        command, files = start.command, files | start.files
    lines = ["", "command", shlex.join(command)]
    for name, text in files.items():
        lines += ["", str(run_folder / name), text.rstrip("\n")]
    return "\n".join(lines)


def config_text(config: RunConfig) -> str:
    return yaml.safe_dump(to_plain(config), sort_keys=False)


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
        master_addr = options.master_addr or next(iter(hosts))
        place = Place(devices=hosts, starter=options.launcher, master_addr=master_addr, launcher_args=options.launcher_args)
        return place, []
    if options.slurm and in_job() and not options.num_gpus:
        paths = {config.data.path, options.output, Path.cwd(), config.continue_from, config.model.init_from} - {None}
        mounts = tuple(sorted(path.absolute() for path in paths))
        return allocation(options.num_procs, options.container, mounts), []
    if options.slurm and not options.num_gpus:  # their names are not known yet
        devices = list(range(options.num_procs or 1))
        return Place(devices={f"NODE{number}": devices for number in range(options.num_nodes)}, starter="srun"), []
    num_procs = options.num_gpus or options.num_procs or (1 if options.gpu else default_num_procs(config))
    visible = None if options.dry_run else os.environ.get("CUDA_VISIBLE_DEVICES")
    devices, faults = device_numbers(num_procs, config.precision.device, visible)
    return Place(devices={"localhost": devices}), faults


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
    """Before the first checkpoint: what a start with another config left behind does not bind it; what it begins with must fit.

    Raises:
        UserError: `continue_from` is at work, or this run cannot go on from it, or from `model.init_from`.
    """
    if (run_folder / "config.yaml").exists() and differences(load_config(run_folder / "config.yaml"), config):
        (run_folder / "rollbacks.json").unlink(missing_ok=True)
        (run_folder / "micro_batch_size.json").unlink(missing_ok=True)
        (run_folder / "wandb_id").unlink(missing_ok=True)
    if config.model.init_from is not None:
        from pretrain.init_from import check_init_from  # takes torch, which takes seconds to import

        check_init_from(config.model)
    if config.continue_from is None:
        return
    from pretrain.phases import find_predecessor

    try:
        if (lock := config.continue_from / ".lock").exists() and os.access(lock, os.W_OK):
            hold_lock(lock).close()
    except UserError as error:
        raise UserError(f"continue_from: {config.continue_from} is still training. Wait for it, or stop it.") from error
    find_predecessor(config, read_manifest(config.data.path))


def describe_done(run_folder: Path, config: RunConfig) -> str | None:
    """What to say of a run that has nothing left to do; None otherwise."""
    if not (path := run_folder / "DONE").exists():
        return None
    done, training = json.loads(path.read_text(encoding="utf-8")), config.training
    if training.max_hours is not None and done.get("training_hours", 0.0) >= training.max_hours:
        return f"{run_folder}: already done after its {training.max_hours:g} hours, at step {done['step']}."
    if done["step"] >= training.steps:
        return f"{run_folder}: already done at step {training.steps}; raise training.steps to go on."
    return None


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
