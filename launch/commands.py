"""What starts the workers of a run: a command line and the files it needs, for each starter; `--dry_run` shows them.

No shell reads config values: a command line holds paths, and pdsh's, which a shell does read, quotes them.
"""

import base64
import json
import os
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

from launch.hosts import Place, carried_environment, node_plan, on_all

AGENT_PLAN = "nodes.json"
ENVIRONMENT_FILE, HOSTFILE = "environment", "hostfile"
"""In the run folder, for DeepSpeed's launchers."""


class Start(NamedTuple):
    """How the workers are started once."""

    command: list[str]
    files: dict[str, str]
    """Texts by name in the run folder, for the owner's eyes."""
    environment: dict[str, str]
    """Of the command, beside ours."""


def plan_start(run_folder: Path, place: Place, start: str, master_port: int | str, told: dict[str, str]) -> Start:
    """start: id of this start, which the agents of other nodes ask for. told: variables for the workers."""
    if place.starter == "here":
        return Start(node_launcher(place.devices, run_folder, place.master_addr, master_port, 0), {}, told)
    if place.starter == "pdsh":
        agents = on_all(place, shlex.join(agent_command(sys.executable, run_folder, start)), " %n")  # the number of the host
    elif place.starter == "srun":
        agents = step_command(run_folder, place, start)
    else:
        hosts = "".join(f"{host} slots={len(numbers)}\n" for host, numbers in place.devices.items())
        files = {HOSTFILE: hosts, ENVIRONMENT_FILE: runner_environment(place, master_port, told)}
        return Start(runner_command(run_folder, place, master_port), files, {"DS_ENV_FILE": str(run_folder / ENVIRONMENT_FILE)})
    return Start(agents, {AGENT_PLAN: json.dumps(node_plan(place, start, master_port, told), indent=2) + "\n"}, {})


def node_launcher(
    devices: dict[str, list[int]], run_folder: Path, master_addr: str, master_port: int | str, number: int
) -> list[str]:
    """DeepSpeed's launcher for the workers of node `number`."""
    world = base64.urlsafe_b64encode(json.dumps(devices).encode()).decode()
    command = [sys.executable, "-m", "deepspeed.launcher.launch", f"--world_info={world}", f"--node_rank={number}"]
    command += [f"--master_addr={master_addr}", f"--master_port={master_port}", "--no_local_rank", "--log_level=critical"]
    return [*command, "--module", "pretrain", str(run_folder / "config.yaml")]


def agent_command(python: str, run_folder: Path, start: str) -> list[str]:
    return [python, "-P", "-u", "-m", "launch.node", str(run_folder), start]


def step_command(run_folder: Path, place: Place, start: str) -> list[str]:
    """srun: one task on each node of the job, which goes on when others end; in a container if there is one."""
    num_nodes = len(place.devices)
    step = ["srun", f"--nodes={num_nodes}", f"--ntasks={num_nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=0", "--wait=0"]
    step += ["--mpi=none", "--export=ALL"]  # of the script, whatever of the submitting shell came into it
    if "SLURM_STEP_ID" in os.environ:
        step.append("--overlap")  # a shell that is itself a step would otherwise be waited for
    if place.cpus_per_node:
        step.append(f"--cpus-per-task={place.cpus_per_node}")  # since Slurm 22.05 a step does not take it from its job
    if place.container is None:
        return [*step, *agent_command(sys.executable, run_folder, start)]
    kind, image = place.container.split(":", 1)
    agent = agent_command("python3", run_folder, start)
    if kind == "pyxis":
        mounts = ",".join(f"{path}:{path}" for path in place.mounts)
        return [*step, f"--container-image={image}", f"--container-mounts={mounts}", *agent]
    binds = [f"--bind={path}" for path in place.mounts]
    return [*step, "apptainer", "exec", "--nv", *binds, image, *agent]


def runner_command(run_folder: Path, place: Place, master_port: int | str) -> list[str]:
    """DeepSpeed's runner, for its launchers other than pdsh."""
    command = [sys.executable, "-P", "-m", "deepspeed.launcher.runner", f"--hostfile={run_folder / HOSTFILE}", "--force_multi"]
    command += [f"--launcher={place.starter}", f"--master_addr={place.master_addr}", f"--master_port={master_port}"]
    if place.launcher_args:
        command.append(f"--launcher_args={place.launcher_args}")
    return [*command, "--no_ssh_check", "--module", "pretrain", str(run_folder / "config.yaml")]


def runner_environment(place: Place, master_port: int | str, told: dict[str, str]) -> str:
    """An environment file as DeepSpeed's runner reads it; one variable a line."""
    rendezvous = {"MASTER_ADDR": place.master_addr, "MASTER_PORT": str(master_port), "PYTHONSAFEPATH": "1"}
    variables = carried_environment() | told | rendezvous
    return "".join(f"{name}={value}\n" for name, value in variables.items() if "\n" not in value)
