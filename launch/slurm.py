"""`albert launch --slurm`: outside a job a batch script that does the same, submitted; inside a job its nodes, and requeuing.

The script becomes `albert launch` (exec), so that the signal before the time limit comes to the process that can save and requeue.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from launch.hosts import Place, slurm_hosts
from launch.workers import EXIT_CRASH, EXIT_PREEMPTED, Ended, tell
from pretrain.report import Restart, newest_step
from tokenizer.errors import UserError
from tokenizer.files import write_json

SCRIPT, JOB_FILE = "launch.sbatch", "slurm.json"
OWN_OPTIONS = ("nodes", "ntasks", "ntasks-per-node", "output", "error", "open-mode", "array", "wrap", "parsable")
SIGNAL = "signal=B:USR1@120"
"""SIGUSR1 to the script, two minutes before the time limit: unless --sbatch has another `signal`."""
OVER = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "PREEMPTED", "")
"""States of a job that will not go on; one that is requeued is COMPLETING for a while."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a batch job is asked for."""

    num_nodes: int
    num_procs: int | None
    """Workers on each node; None: one for each GPU, or 1."""
    container: str | None
    sbatch: list[str]
    """More options, as name=value."""


def in_job() -> bool:
    """Whether this runs in an allocation of Slurm's."""
    return "SLURM_JOB_ID" in os.environ


def is_batch_script() -> bool:
    """Whether this process is the script of a batch job, by `exec`; not a step, nor a command in an interactive job."""
    return in_job() and "SLURM_STEP_ID" not in os.environ and os.environ.get("SLURM_TASK_PID") == str(os.getpid())


def job_faults(job: Job) -> list[str]:
    """What is wrong with the options; a line each."""
    faults = sbatch_faults(job.sbatch)
    if in_job() and (job.sbatch or job.num_nodes not in (1, int(os.environ.get("SLURM_NNODES", "1")))):
        faults.append("--slurm: this is inside a job, whose nodes are taken. To submit one, `unset SLURM_JOB_ID`")
    if job.container is not None and not re.fullmatch(r"(apptainer|pyxis):.+", job.container):
        faults.append(f"--container {job.container}: expected apptainer:IMAGE or pyxis:IMAGE")
    return faults


def sbatch_faults(options: list[str]) -> list[str]:
    """What is wrong with the values of --sbatch; a line each."""
    faults = []
    for option in options:
        name, _, value = option.partition("=")
        if name in OWN_OPTIONS:
            faults.append(f"--sbatch {name}: is set here. Give account, partition, time, gres and the like; --num_nodes for nodes")
        elif name == "signal" and not re.fullmatch(r"B:(SIG)?USR1@\d+", value):
            faults.append(f"--sbatch {option}: expected signal=B:USR1@SECONDS, upon which the run saves and is requeued")
        elif not re.fullmatch(r"[a-z][a-z0-9-]*", name) or not value.isprintable():
            faults.append(f"--sbatch {option!r}: expected name=value, e.g. partition=gpu, or a name alone, e.g. exclusive")
    return faults


def script_text(run_folder: Path, job: Job) -> str:
    """The batch script; it goes on where the run stands, so that Slurm may start it any number of times."""
    given = {option.partition("=")[0] for option in job.sbatch}
    log = str(run_folder).replace("%", "%%") + "/slurm-%j.log"
    options = [f"nodes={job.num_nodes}", "ntasks-per-node=1", "open-mode=append", f"output={log}"]
    options += [] if "requeue" in given or "no-requeue" in given else ["requeue"]
    options += [] if "signal" in given else [SIGNAL]
    options += [] if "job-name" in given else [f"job-name=albert-{run_folder.name}"]
    lines = [f"#SBATCH --{directive(option)}" for option in options + job.sbatch]
    albert = [sys.executable, str(Path(sys.executable).with_name("albert")), "launch", "--slurm", "true"]
    albert += ["--config", str(run_folder / "config.yaml"), "--output", str(run_folder)]
    albert += [] if job.num_procs is None else ["--num_procs", str(job.num_procs)]
    albert += [] if job.container is None else ["--container", job.container]
    return "\n".join(["#!/bin/bash", *lines, f"exec {shlex.join(albert)}", ""])


def directive(option: str) -> str:
    """name=value, the value quoted for sbatch, which reads quotes as a shell does, but backslashes between them, too."""
    name, equals, value = option.partition("=")
    return name + equals + (shlex.quote(value.replace("\\", "\\\\")) if value else "")


def submit(run_folder: Path, job: Job) -> None:
    """Write RUN/launch.sbatch, and submit it.

    Raises:
        UserError: the name of RUN means something else to sbatch, there is no sbatch here, or it refuses.
    """
    if "\\" in str(run_folder) or not str(run_folder).isprintable():
        raise UserError(f"--output {str(run_folder)!r}: sbatch takes no name with a backslash or a line break for its log.")
    script = run_folder / SCRIPT
    script.write_text(script_text(run_folder, job), encoding="utf-8")
    if shutil.which("sbatch") is None:
        raise UserError(f"sbatch: not found here. {script} is written; give it to sbatch where there is one.")
    finished = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True)
    if finished.returncode:
        raise UserError(f"sbatch: {finished.stderr.strip()}. {script} is what was refused.")
    number = finished.stdout.strip().partition(";")[0]
    write_json(run_folder / JOB_FILE, {"job": number})
    print(f"job {number} is submitted; its log: {run_folder}/slurm-{number}.log")


def known_job(run_folder: Path) -> dict[str, object]:
    """RUN/slurm.json: the job that was last submitted or at work, and at which step it was last requeued after a crash."""
    with suppress(OSError, ValueError):
        return json.loads((run_folder / JOB_FILE).read_text(encoding="utf-8"))
    return {}


def refuse_second_job(run_folder: Path) -> None:
    """Of one run, however the second one would be started; the script of a job makes itself known.

    Raises:
        UserError: Slurm still has the job that was last submitted.
    """
    number = known_job(run_folder).get("job")
    if is_batch_script():
        if number != os.environ["SLURM_JOB_ID"]:
            write_json(run_folder / JOB_FILE, {"job": os.environ["SLURM_JOB_ID"]})
        return
    if number is None or number == os.environ.get("SLURM_JOB_ID") or shutil.which("squeue") is None:
        return
    shown = subprocess.run(["squeue", "--noheader", f"--jobs={number}", "--format=%T"], capture_output=True, text=True)
    if shown.returncode == 0 and shown.stdout.strip() not in OVER:
        raise UserError(f"{run_folder}: job {number} is waiting or at work for this run. `scancel {number}` ends it.")


def allocation(num_procs: int | None, container: str | None, mounts: tuple[Path, ...]) -> Place:
    """The nodes of this job, `num_procs` workers on each (default: one for each GPU of the first one, or 1).

    Raises:
        UserError: scontrol does not know them.
    """
    nodes = os.environ.get("SLURM_JOB_NODELIST", "")
    hosts, said = [], ""
    try:
        hosts = slurm_hosts(nodes)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip()
    if not hosts:
        raise UserError(f"scontrol show hostnames {nodes}: {said or 'names no node'}.")
    num_procs = num_procs or int(os.environ.get("SLURM_GPUS_ON_NODE", "1"))
    return Place(
        devices={host: list(range(num_procs)) for host in hosts},
        starter="srun",
        master_addr=hosts[0],
        container=container,
        mounts=mounts,
        cpus_per_node=os.environ.get("SLURM_CPUS_PER_TASK"),
    )


def restart_of_job() -> Restart | None:
    """What the workers log when Slurm has started this job again."""
    count = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    return Restart(count, f"Slurm has started job {os.environ['SLURM_JOB_ID']} again") if count else None


def stopped_while_waiting(run_folder: Path) -> bool:
    """Whether someone made RUN/STOP since Slurm requeued this job; it is removed. One with words in it is of a start that was
    killed before it could stop."""
    stop = run_folder / "STOP"
    if not is_batch_script() or restart_of_job() is None or not stop.exists() or stop.stat().st_size:
        return False
    stop.unlink()
    return True


def requeue_if_useful(run_folder: Path, ended: Ended) -> None:
    """Have Slurm start this job again: its time was up, it had to make room, or its nodes may be at fault.

    After a crash once only, unless a checkpoint has been added since: `supervision.max_restarts` have been in vain on these nodes.
    """
    number = os.environ["SLURM_JOB_ID"]
    if ended.code == EXIT_PREEMPTED:
        if signal.SIGUSR1 not in ended.signals and not is_preempted(number):
            return  # cancelled, or asked to stop by RUN/STOP
        why = "it saved, and goes on"
    elif ended.code == EXIT_CRASH and not ended.is_hopeless and set(ended.signals) <= {signal.SIGUSR1}:
        step, known = newest_step(run_folder), known_job(run_folder)
        if known.get("requeued_at_step") == step:
            return
        write_json(run_folder / JOB_FILE, known | {"requeued_at_step": step})
        why = "the next try may be on other nodes"
    else:
        return
    tell(f"job {number} is to be requeued: {why}")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # comes at once, when all is done
    finished = subprocess.run(["scontrol", "requeue", number], capture_output=True, text=True)
    if finished.returncode:
        tell(f"job {number} is not requeued: {finished.stderr.strip()}. `sbatch {run_folder / SCRIPT}` goes on.")


def is_preempted(number: str) -> bool:
    """Whether Slurm ends this job to make room for another, rather than because someone cancelled it."""
    shown = subprocess.run(["scontrol", "--oneliner", "show", "job", number], capture_output=True, text=True).stdout
    found = re.search(r" PreemptTime=(\S+)", shown)
    return found is not None and found[1] not in ("None", "N/A")
