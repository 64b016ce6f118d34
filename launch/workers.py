"""The workers of a run: started under DeepSpeed's launcher, stopped, and started again after a crash."""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import psutil

from launch.commands import plan_start
from launch.hosts import END_FILE, Place, check_hosts, write_for_owner
from pretrain.config import RunConfig
from pretrain.rendezvous import free_port
from pretrain.report import START_VARIABLE, Restart, newest_step, read_report, write_report
from pretrain.run_lock import hold_lock
from pretrain.watchdog import EXIT_HUNG
from tokenizer.errors import UserError
from tokenizer.signals import handled

EXIT_CRASH, EXIT_PREEMPTED = 1, 3
EXPLAINED = (2, EXIT_PREEMPTED, 4)
"""Exit codes that a worker gives with a message of its own: user error, preempted, stopped by diagnosis."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
"""Seconds before a restart; doubled each time that no checkpoint was added."""
POLL_SECONDS, LONGEST_DEATH = 0.5, 60.0
STARTS, STARTS_AT_LEAST = 3, 30.0
"""Times `supervision.watchdog_seconds`, and seconds, that rank 0 has to appear (before it imports torch): srun can hang."""
GRACE_AFTER_HANG, GRACE_SECONDS = 5.0, 60.0
"""Seconds for DeepSpeed's launcher to end after a worker has reported; it gives the other workers 30 by itself."""


class Ended(NamedTuple):
    """How a run ended, as far as `albert launch` goes."""

    code: int
    signals: list[int]
    """That had asked for it, in order."""
    is_hopeless: bool = False
    """Another start would meet the same error."""


def supervise(run_folder: Path, place: Place, config: RunConfig, restart: Restart | None = None) -> Ended:
    """Run the workers to an end that is none of a crash; after a crash start them again, from the newest good checkpoint.

    No more is tried once `supervision.max_restarts` in a row have added no checkpoint, an error has come back with the same words,
    or a signal has asked for an end. restart: what the first workers log as one.
    """
    failures, error_before = 0, None
    with forwarded_signals(run_folder / "STOP") as control:
        while True:
            step_before = newest_step(run_folder)
            code, reason = run_once(run_folder, place, config, restart, control)
            if code != EXIT_CRASH:
                return Ended(code, control.signals)
            failures = 1 if newest_step(run_folder) > step_before else failures + 1
            error = reason if read_report(run_folder).get("status") == "crashed" else None
            came_back = failures > 1 and error is not None and error == error_before
            if control.signals or came_back or failures > config.supervision.max_restarts:
                tell(f"{reason}\nThe same command goes on from the newest good checkpoint in {run_folder}.")
                return Ended(EXIT_CRASH, control.signals, is_hopeless=came_back)
            error_before = error
            restart = Restart(restart.number + 1 if restart else 1, reason)
            pause = min(FIRST_PAUSE * 2 ** (failures - 1), LONGEST_PAUSE)
            tell(f"{reason}\nrestart {restart.number} in {pause:.0f} s, from the newest good checkpoint")
            if control.stopped_within(pause):
                write_report(run_folder, "preempted", EXIT_PREEMPTED, "asked to stop before a restart", "")
                return Ended(EXIT_PREEMPTED, control.signals)
            wait_for_lock(run_folder / ".lock")


def run_once(run_folder: Path, place: Place, config: RunConfig, restart: Restart | None, control: "Control") -> tuple[int, str]:
    """One start of the workers: the exit code, and why, after a crash."""
    if restart and place.starter == "pdsh":
        try:
            check_hosts(place, run_folder)  # or those that are there would wait for those that are not
        except UserError as error:
            return EXIT_CRASH, str(error)
    return outcome(run_folder, run_workers(run_folder, place, config, restart, control))


def tell(message: str) -> None:
    with suppress(OSError):  # after SIGHUP there may be no terminal
        print(f"albert launch: {message}", file=sys.stderr, flush=True)


def wait_for_lock(path: Path) -> None:
    """Until the rank that held it is gone for good: a process that was killed can take seconds to give back a GPU."""
    for _ in range(round(LONGEST_DEATH / POLL_SECONDS)):
        with suppress(UserError):
            hold_lock(path).close()
            return
        time.sleep(POLL_SECONDS)


def run_workers(run_folder: Path, place: Place, config: RunConfig, restart: Restart | None, control: "Control") -> int:
    """Start the workers in process groups of their own, wait, end what is left of them; the exit code of what started them."""
    start = uuid.uuid4().hex
    told = {START_VARIABLE: start} | (restart.to_environment() if restart else {})
    command, files, more_environment = plan_start(run_folder, place, start, free_port(), told)
    for name, text in files.items():
        write_for_owner(run_folder / name, text)
    write_report(run_folder, "starting", None, "", start)
    environment = worker_environment(place.num_procs, config) if place.starter == "here" else dict(os.environ)
    process = subprocess.Popen(command, env=environment | more_environment, start_new_session=True, stdin=subprocess.DEVNULL)
    control.child = Child(process, run_folder / f"{END_FILE}{start}" if place.has_agents else None)
    try:
        wait_for(process, run_folder, start, max(STARTS_AT_LEAST, STARTS * config.supervision.watchdog_seconds))
    finally:
        control.child.end()  # if a launcher was killed, or a worker hangs, others are still at work
        control.child = None
        process.wait()
    return process.returncode


def wait_for(process: subprocess.Popen[bytes], run_folder: Path, start: str, start_seconds: float) -> None:
    """Until it ends; or has had `start_seconds` in which rank 0 did not say that it runs; or has had time to since a worker said
    how the run ended: a process that hangs, also in its last moments, is asked in vain."""
    patience, deadline = None, time.monotonic() + start_seconds
    while patience is None or patience > 0:
        with suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
            return
        report = read_report(run_folder)
        if patience is not None:
            patience -= POLL_SECONDS
        elif report["exit_code"] is not None:
            patience = GRACE_AFTER_HANG if report.get("status") == "hung" else GRACE_SECONDS
        elif report.get("status") == "starting" and time.monotonic() > deadline:
            write_report(run_folder, "hung", EXIT_HUNG, f"rank 0 did not start within {start_seconds:.0f} s", start)
            return


class Child(NamedTuple):
    """What was started for the workers."""

    process: subprocess.Popen[bytes]
    end_file: Path | None
    """Where workers are on other machines: the file that ends them, wherever they are; the next launch deletes it."""

    def end(self) -> None:
        """All of it, at once: here by process group, which we made for it, and by the ids of its descendants."""
        left = descendants(self.process)
        if self.end_file is not None:
            with suppress(OSError):
                self.end_file.touch()
        end_group(self.process)
        for process in left:  # pdsh gives each ssh a group of its own
            with suppress(psutil.Error):
                process.kill()


def descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def end_group(child: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process group that `child` leads, which we made for it."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def worker_environment(num_procs: int, config: RunConfig) -> dict[str, str]:
    """Our environment; packages are found where they are installed, never in the working folder; cores are shared out."""
    environment = os.environ | {"PYTHONSAFEPATH": "1", "LOCAL_WORLD_SIZE": str(num_procs)}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // num_procs)))
    if config.precision.device == "cpu" or shutil.which("nvidia-smi") is None:
        environment.setdefault("DS_ACCELERATOR", "cpu")
    return environment


class Control:
    """What signals have asked for, and whom they go to."""

    def __init__(self, stop_file: Path):
        self.stop_file = stop_file
        self.child: Child | None = None
        self.signals: list[int] = []
        """So far: the first asks the workers to save and end, a second ends them at once."""

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)
        if len(self.signals) > 1:
            if self.child is not None:
                self.child.end()  # waits for nothing
            return
        try:
            self.stop_file.write_text("asked to by a signal\n", encoding="utf-8")
        except OSError:  # a disk that takes no file: the node launcher passes SIGTERM on, one worker after another
            if self.child is not None:
                self.child.process.terminate()
        with suppress(OSError):  # after SIGHUP there may be no terminal to tell
            os.write(2, b"asked to stop: saving at the next step; a second signal ends at once\n")

    def stopped_within(self, seconds: float) -> bool:
        """Wait; whether a signal asked to stop meanwhile."""
        until = time.monotonic() + seconds
        while not self.signals and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, POLL_SECONDS))
        return bool(self.signals)


@contextmanager
def forwarded_signals(stop_file: Path) -> Iterator[Control]:
    """SIGTERM, SIGUSR1, SIGHUP and Ctrl-C go to the control, and by way of it to the workers."""
    control = Control(stop_file)
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
    wanted = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]  # `nohup` ignores SIGHUP
    try:
        with handled(wanted, control.on_signal):
            yield control
    finally:
        with suppress(OSError):
            stop_file.unlink(missing_ok=True)


def outcome(run_folder: Path, return_code: int) -> tuple[int, str]:
    """The exit code from what the workers wrote, and why, after a crash; success needs the DONE marker."""
    state = read_report(run_folder)
    # a worker can still fall over in gloo's destructors, when all is done and said
    if (run_folder / "DONE").exists() and 0 in (return_code, state["exit_code"]):
        return 0, ""
    if state["exit_code"] in EXPLAINED:
        return state["exit_code"], ""
    if state["exit_code"] is None and return_code in EXPLAINED:  # a full disk took the report, but the worker has said it
        return return_code, ""
    return EXIT_CRASH, state["message"] or "the workers ended without a report (killed, or out of memory?)"
