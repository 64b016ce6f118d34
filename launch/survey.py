"""Every host asked by one command, for `albert doctor`: this machine directly, others through pdsh, under Slurm through srun.

All of them run `launch.host_facts`; what they say comes back on its standard output. Nothing is left when this ends.
"""

import json
import os
import queue
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from launch.host_facts import HERE_FILE, Plan
from launch.hosts import CARRIED, Place, carried_environment, on_all
from launch.messages import MARK, Reader
from launch.slurm import in_job
from launch.verdicts import Host
from launch.workers import descendants, end_group
from tokenizer.files import nearest_folder
from tokenizer.printable import printable
from tokenizer.signals import handled

NOT_FOR_THIS = ("HF_", "WANDB_", "DS_")
"""Of what `albert launch` carries to other hosts, what no check here needs, beside what DeepSpeed's environment file adds: the rest
stands on a command line, which others may see."""
SBATCH_ALONE = ("requeue", "no-requeue", "signal", "export", "job-name", "get-user-env", "uid", "gid")
"""Of the options of a launch, those that srun does not know, or that are set here."""
GRACE_SECONDS = 5.0
"""For pdsh or srun to end, and for a file that a host has written to be seen here."""


@dataclass
class Survey:
    """What came back."""

    hosts: dict[int, Host] = field(default_factory=dict)
    """Those that answered, by number."""
    words: list[str] = field(default_factory=list)
    """Lines that are none of ours: what pdsh, srun, ssh, login scripts and libraries say."""
    sent_at: float = 0.0
    """When they were asked, by our clock."""
    folder_faults: dict[str, str] = field(default_factory=dict)
    """By host, what is wrong with the shared folder."""


def ssh_command(place: Place, plan: Plan) -> list[str]:
    """pdsh for all hosts, which replaces %n by the number of the host and %h by its name."""
    wanted = tuple(beginning for beginning in CARRIED if beginning not in NOT_FOR_THIS)
    carried = [f"{name}={value}" for name, value in carried_environment().items() if name.startswith(wanted)]
    return on_all(place, shlex.join(["env", *carried, *program(plan)]), " %n %h")


def srun_command(num_nodes: int, sbatch: Sequence[str], plan: Plan) -> list[str]:
    """A step of one task a node: in the job that this is in, or in an allocation of its own."""
    command = ["srun", f"--nodes={num_nodes}", f"--ntasks={num_nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=0"]
    command += ["--export=ALL", "--overlap"] if in_job() else ["--job-name=albert-doctor"]
    left_out = (*SBATCH_ALONE, "exclusive") if in_job() else SBATCH_ALONE
    options = [f"--{option}" for option in sbatch if option.partition("=")[0] not in left_out]
    return [*command, *options, *program(plan)]


def local_command(plan: Plan) -> list[str]:
    return [*program(plan), "0", plan.first]


def program(plan: Plan) -> list[str]:
    return [sys.executable, "-P", "-u", "-m", "launch.host_facts", json.dumps(plan._asdict())]


@contextmanager
def shared_folder(run_folder: Path, token: str) -> Iterator[Path]:
    """A folder with the token in the run folder, or where that would be made; gone afterwards, also if a signal comes meanwhile.

    Raises:
        OSError: it cannot be made.
    """
    folder = nearest_folder(Path(os.path.realpath(run_folder))) / f".albert-doctor-{secrets.token_hex(4)}"
    try:
        folder.mkdir(mode=0o700)
        (folder / HERE_FILE).write_text(token)
        yield folder
    finally:
        with handled((signal.SIGINT, signal.SIGTERM), signal.SIG_IGN):  # nothing interrupts putting things back in order
            for _ in range(10):  # a host may be writing into it
                shutil.rmtree(folder, ignore_errors=True)
                if not folder.exists():
                    break
                time.sleep(0.2)


def ask(command: list[str], plan: Plan, *, waits_for_allocation: bool) -> Survey:
    """Run the command and gather what the hosts say, for as long as they may take."""
    survey = Survey(sent_at=time.time())
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    lines: queue.Queue[tuple[str, float] | None] = queue.Queue()
    for stream in (process.stdout, process.stderr):
        threading.Thread(target=forward, args=(stream, lines), daemon=True).start()
    try:
        listen(lines, survey, plan, waits_for_allocation)
    finally:
        with handled((signal.SIGINT, signal.SIGTERM), signal.SIG_IGN):
            end(process)
    if waits_for_allocation and survey.hosts:  # its tasks start together, who knows when
        survey.sent_at = min(host.clock[0][1] for host in survey.hosts.values())
    if plan.folder is not None:
        survey.folder_faults = read_back(Path(plan.folder), plan.token, survey.hosts.values())
    return survey


def forward(stream: IO[str], lines: "queue.Queue[tuple[str, float] | None]") -> None:
    """Each line with the time at which it came, None at the end."""
    for line in stream:
        lines.put((line, time.time()))
    lines.put(None)


def listen(lines: "queue.Queue[tuple[str, float] | None]", survey: Survey, plan: Plan, waits_for_allocation: bool) -> None:
    """Take in lines until there are no more, or no more can be hoped for."""
    reader, num_open = Reader(), 2
    begun_at = heard_at = time.monotonic()
    while num_open:
        if survey.hosts or not waits_for_allocation:
            late = time.monotonic() - begun_at > plan.seconds or len(survey.hosts) == plan.count
            done = all(host.is_done for host in survey.hosts.values())
            # longer than any host may wait for others (launch.host_pairs)
            if (late and done) or time.monotonic() - heard_at > 8 * plan.seconds + 200:
                return
        try:
            item = lines.get(timeout=0.5)
        except queue.Empty:
            continue
        if item is None:
            num_open -= 1
        elif (message := reader.read(item[0])) is None:
            if words := "" if MARK in item[0] else item[0].strip():
                survey.words.append(words)
                if waits_for_allocation and not survey.hosts:  # srun says what it waits for
                    print(printable(words), file=sys.stderr, flush=True)
        else:
            if not survey.hosts:
                begun_at = time.monotonic() if waits_for_allocation else begun_at
            heard_at = time.monotonic()
            host = survey.hosts.setdefault(message.number, Host(message.number, f"host {message.number}"))
            host.clock.append((message.said_at, item[1]))
            if message.kind == "hello":
                host.name = message.content["name"]
            elif isinstance(message.content, dict) and message.content.keys() == {"value", "fault"}:
                host.facts[message.kind] = message.content
            else:
                host.told.setdefault(message.kind, []).append(message.content)


def end(process: subprocess.Popen[str]) -> None:
    """End pdsh or srun and what it has started; srun gives its allocation back. The hosts' programs end once they are alone."""
    if process.poll() is None:
        left = descendants(process)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
        for each in left:  # pdsh gives each ssh a group of its own
            with suppress(Exception):
                each.kill()
    end_group(process)
    process.wait()


def read_back(folder: Path, token: str, hosts: Sequence[Host]) -> dict[str, str]:
    """What is wrong with the folder: what a host says, or that what it wrote is not read here."""
    faults = {host.name: host.fault("folder") for host in hosts if host.fault("folder")}
    deadline = time.monotonic() + GRACE_SECONDS
    for host in hosts:
        path = folder / f"host-{host.number}"
        while host.name not in faults and not (path.is_file() and path.read_text() == token):
            if time.monotonic() > deadline:
                faults[host.name] = f"what it wrote to {path.parent.parent} is not seen here"
            time.sleep(0.1)
    return faults
