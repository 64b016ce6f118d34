"""One node of a run over several: `python -m launch.node RUN START NUMBER`, which `albert launch --hostfile` starts through pdsh.

Takes RUN/nodes.json, starts DeepSpeed's launcher for the workers of this node in a process group of its own, and ends that group
when the launcher ends, when it is asked to, when another start is at work, or when the file RUN/.end-START appears: ssh does not
end what it has started. A node whose launcher fails makes that file, so that the others do not wait for it.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from launch.hosts import END_FILE
from launch.workers import POLL_SECONDS, end_group, node_launcher, worker_environment
from pretrain.config import load_config


def main(arguments: list[str]) -> int:
    run_folder, start, number = Path(arguments[0]), arguments[1], int(arguments[2])
    plan = read_plan(run_folder)
    if plan is None or plan["start"] != start:
        print("this start has been given up", file=sys.stderr)
        return 1
    os.environ.update(plan["environment"])
    devices = list(plan["devices"].values())[number]
    config = load_config(run_folder / "config.yaml")
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, leave)
    child = subprocess.Popen(
        node_launcher(plan["devices"], run_folder, plan["master_addr"], plan["master_port"], number),
        env=worker_environment(len(devices), config),
        cwd=plan["working_folder"],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
    )
    end_file = run_folder / f"{END_FILE}{start}"
    try:
        code = watch(child, run_folder, end_file, start)
    finally:
        end_group(child)
    if code:
        with suppress(OSError):
            end_file.touch()
    return code


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
        return json.loads((run_folder / "nodes.json").read_text(encoding="utf-8"))
    return None


def leave(number: int, frame: FrameType | None) -> None:
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
