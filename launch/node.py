"""One node of a run over several: `python -m launch.node RUN START [NUMBER]`, which `albert launch` starts through pdsh or srun.

Takes RUN/nodes.json, starts DeepSpeed's launcher for the workers of this node in a process group of its own, and ends that group
when the launcher ends, when it is asked to, when another start is at work, or when the file RUN/.end-START appears: ssh and srun
do not end what they have started. A node whose launcher fails makes that file, so that the others do not wait for it.

Slurm sends SIGTERM to every process of a step when its job is cancelled. The workers save and end by it, as `albert launch` asks
them to; this program and DeepSpeed's launcher, which would kill them one after another, do not hear it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from launch.commands import AGENT_PLAN, node_launcher
from launch.hosts import END_FILE, device_numbers
from launch.workers import POLL_SECONDS, end_group, worker_environment
from pretrain.config_file import load_config

USER_ERROR = 2
PLAN_SECONDS = 30.0
"""That a network file system may take to show this node a file."""


def main(arguments: list[str]) -> int:
    run_folder, start, *number = arguments
    is_step = not number
    number = int(os.environ["SLURM_PROCID"]) if is_step else int(number[0])
    return run_node(Path(run_folder), start, number, is_step=is_step)


def run_node(run_folder: Path, start: str, number: int, *, is_step: bool) -> int:
    """is_step: Slurm's, which signals what runs here, and says which devices are ours."""
    plan = wait_for_plan(run_folder, start)
    if plan is None:
        print("this start has been given up", file=sys.stderr)
        return 1
    os.environ.update(plan["environment"])
    host = list(plan["devices"])[number]
    config, end_file = load_config(run_folder / "config.yaml"), run_folder / f"{END_FILE}{start}"
    num_procs = len(plan["devices"][host])
    if is_step:  # Slurm says which are ours
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        plan["devices"][host], faults = device_numbers(num_procs, config.precision.device, visible)
        if faults:
            print(f"{host}: {faults[0]}", file=sys.stderr, flush=True)
            end_file.touch()
            return USER_ERROR
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, leave)
    if is_step:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # the launcher starts so, too; a worker unblocks it
    child = subprocess.Popen(
        node_launcher(plan["devices"], run_folder, plan["master_addr"], plan["master_port"], number),
        env=worker_environment(num_procs, config),
        cwd=plan["working_folder"],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
    )
    try:
        code = watch(child, run_folder, end_file, start)
    finally:
        end_group(child)
    if code:
        with suppress(OSError):
            end_file.touch()
    return code


def wait_for_plan(run_folder: Path, start: str) -> dict[str, Any] | None:
    """The plan of this start; None if another is at work."""
    deadline = time.monotonic() + PLAN_SECONDS
    while (plan := read_plan(run_folder)) is None or plan["start"] != start:
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL_SECONDS)
    return plan


def watch(child: subprocess.Popen[bytes], run_folder: Path, end_file: Path, start: str) -> int:
    """Wait for the launcher, as long as it is wanted; its exit code as a shell gives it."""
    while not end_file.exists():
        with suppress(subprocess.TimeoutExpired):
            code = child.wait(POLL_SECONDS)
            return code if code >= 0 else 128 - code
        plan = read_plan(run_folder)
        if plan is not None and plan["start"] != start:
            return 1
    return 1


def read_plan(run_folder: Path) -> dict[str, Any] | None:
    """RUN/nodes.json; None while it is being written, or where the disk does not answer."""
    with suppress(OSError, ValueError):
        return json.loads((run_folder / AGENT_PLAN).read_text(encoding="utf-8"))
    return None


def leave(number: int, frame: FrameType | None) -> None:
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
