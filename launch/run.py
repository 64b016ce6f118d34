"""`albert launch`: run config and overrides in, a run folder and workers under DeepSpeed's launcher out, and a true exit code."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from data_prep.schema import read_manifest
from pretrain.config import RunConfig, check_against_data, differences, load_config, to_plain
from pretrain.rendezvous import free_port
from pretrain.report import read_report
from tokenizer.errors import UserError
from tokenizer.files import check_output_folder, write_text

EXIT_CRASH = 1
EXPLAINED = (2, 3, 4)
"""Exit codes that a worker gives with a message of its own: user error, preempted, stopped by diagnosis."""


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Options of `albert launch`; any field of the run config can follow as --section.field VALUE."""

    config: Path
    """YAML run config, e.g. configs/demo.yaml."""
    output: Path
    """Run folder; given again, the run goes on from its newest good checkpoint."""
    data: Path | None = None
    """Folder that `albert prepare` wrote; stands for --data.path."""
    num_procs: int | None = None
    """Worker processes on this machine; default: one for each GPU, or 1 on CPU."""
    overrides: list[str] = field(default_factory=list)
    """Fields of the run config as section.field=VALUE; --section.field VALUE means the same."""


def launch(options: LaunchOptions) -> int:
    """Check everything, write RUN/config.yaml, train; return the exit code.

    Raises:
        UserError: any fault in config, data, or run folder, before a process is started.
    """
    run_folder = options.output.absolute()
    config = read_run_config(options)
    num_procs = options.num_procs or default_num_procs(config)
    check_against_data(config, read_manifest(config.data.path), num_procs)
    check_output_folder(run_folder, marker="config.yaml", what="run")
    run_folder.mkdir(exist_ok=True)
    with lock(run_folder):
        refuse_changed_config(run_folder, config)
        done = run_folder / "DONE"
        if done.exists() and json.loads(done.read_text())["step"] >= config.training.steps:
            print(f"{run_folder}: already done at step {config.training.steps}; raise training.steps to go on.")
            return 0
        for stale in ("DONE", "STOP", "state.json"):
            (run_folder / stale).unlink(missing_ok=True)
        write_text(run_folder / "config.yaml", yaml.safe_dump(to_plain(config), sort_keys=False))
        return run_workers(run_folder, num_procs)


def read_run_config(options: LaunchOptions) -> RunConfig:
    """The config with overrides applied; faults of the config and of the data folder in one error."""
    overrides = [split_override(text) for text in options.overrides]
    if options.data is not None:
        overrides.append(("data.path", str(options.data)))
    faults, config = [], None
    if options.num_procs is not None and options.num_procs < 1:
        faults.append(f"--num_procs: must be above 0, found {options.num_procs}")
    try:
        config = load_config(options.config, overrides)
    except UserError as error:
        faults.append(str(error))
    data = config.data.path if config else options.data
    if data is not None:
        try:
            read_manifest(data)
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise UserError("\n".join(faults))
    absolute = [("data.path", json.dumps(os.path.abspath(config.data.path)))]
    if config.model.init_from is not None:
        absolute.append(("model.init_from", json.dumps(os.path.abspath(config.model.init_from))))
    return load_config(options.config, overrides + absolute)


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
            "Only training.steps, training.micro_batch_size, checkpoint.*, logging.* and --num_procs may change; "
            "give the former values, or a new --output."
        )


@contextmanager
def lock(run_folder: Path) -> Iterator[None]:
    """Hold the run folder; the operating system lets go of it when this process ends, however it ends."""
    with (run_folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{run_folder}: another `albert launch` is running here. Wait for it, or give another --output."
            ) from error
        yield


def default_num_procs(config: RunConfig) -> int:
    """The GPUs of this machine, or 1."""
    if config.precision.device == "cpu":
        return 1
    import torch

    return torch.cuda.device_count() or 1


def run_workers(run_folder: Path, num_procs: int) -> int:
    """Start DeepSpeed's launcher in a process group of its own, wait, and say how it ended."""
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", str(run_folder / "no-hostfile")]
    command += ["--num_gpus", str(num_procs), "--master_port", str(free_port()), "--no_local_rank", "--log_level", "critical"]
    command += ["--module", "pretrain", str(run_folder / "config.yaml")]
    child = subprocess.Popen(command, env=worker_environment(num_procs), start_new_session=True)
    with forwarded_signals(child, run_folder / "STOP"):
        child.wait()
    return outcome(run_folder, child.returncode)


def worker_environment(num_procs: int) -> dict[str, str]:
    """Our environment; packages are found where they are installed, never in the working folder; cores are shared out."""
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // num_procs)))
    if shutil.which("nvidia-smi") is None:
        environment.setdefault("DS_ACCELERATOR", "cpu")
    return environment


@contextmanager
def forwarded_signals(child: subprocess.Popen[bytes], stop_file: Path) -> Iterator[None]:
    """The first SIGTERM, SIGUSR1 or Ctrl-C asks the workers to save and end; a second ends them at once."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop_file.exists():
            os.killpg(child.pid, signal.SIGKILL)
        else:
            stop_file.touch()
            print("asked to stop: saving at the next step; a second signal ends at once", file=sys.stderr, flush=True)

    before: dict[int, Any] = {}
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        before[number] = signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop_file.unlink(missing_ok=True)


def outcome(run_folder: Path, return_code: int) -> int:
    """The exit code from what the workers wrote; success needs the DONE marker."""
    if return_code == 0 and (run_folder / "DONE").exists():
        return 0
    state = read_report(run_folder)
    if state["exit_code"] in EXPLAINED:
        return state["exit_code"]
    reason = state["message"] or "the workers ended without a report (killed, or out of memory?)"
    print(f"albert launch: {reason}\nThe same command goes on from the newest good checkpoint in {run_folder}.", file=sys.stderr)
    return EXIT_CRASH
