"""Commands in processes of their own, some at once; one that fails takes no other with it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tokenizer.signals import handled

ALBERT = [sys.executable, "-m", "launch"]
"""The `albert` command, in the repository."""
POLL_SECONDS = 0.2


class Job(NamedTuple):
    name: str
    command: list[str]
    log: Path
    """File that gets what the command says, after what is there."""


class Ended(NamedTuple):
    job: Job
    code: int
    seconds: float


def run_jobs(jobs: Sequence[Job], at_once: int, tell: Callable[[Ended], None]) -> list[Ended]:
    """Run all, `at_once` at a time, in their order; each that ends is told at once.

    SIGINT and SIGTERM go on to the running ones, as SIGTERM, once; they are waited for.

    Raises:
        KeyboardInterrupt: after such a signal, when all have ended.
    """
    waiting, ended, running, asked = list(jobs), [], {}, []
    with handled((signal.SIGINT, signal.SIGTERM), lambda number, frame: asked.append(number)):
        try:
            while (waiting or running) and not asked:
                if waiting and len(running) < at_once:
                    job = waiting.pop(0)
                    running[start(job, at_once)] = job, time.perf_counter()
                    continue
                for process in [process for process in running if process.poll() is not None]:
                    job, began = running.pop(process)
                    ended.append(Ended(job, process.returncode, time.perf_counter() - began))
                    tell(ended[-1])
                time.sleep(POLL_SECONDS)
        finally:
            if running:
                print(f"waiting for {len(running)} process(es) to stop", flush=True)
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
    if asked:
        raise KeyboardInterrupt
    return ended


def start(job: Job, at_once: int) -> subprocess.Popen:
    """In a session of its own, so that Ctrl-C reaches it through us alone; with its share of the cores."""
    share = str(max(1, len(os.sched_getaffinity(0)) // at_once))
    threads = {"OMP_NUM_THREADS": share, "TORCHINDUCTOR_COMPILE_THREADS": share}
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", encoding="utf-8") as log:
        return subprocess.Popen(
            job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=threads | os.environ, start_new_session=True
        )


def fault_of(ended: Ended, num_lines: int = 3) -> str:
    """How it ended, and the last lines of its log that say anything."""
    lines = [line.strip() for line in ended.job.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"exit code {ended.code}: {' / '.join(lines[-num_lines:])} (all of it: {ended.job.log})"
