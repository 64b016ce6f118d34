"""Runs over several machines: where the workers are, the hostfile, and what travels to the other nodes.

The nodes share the run folder, the data and the virtual environment (the same paths on each). RUN/nodes.json carries what a node
needs; the command line (`launch.commands`) holds nothing but paths.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenizer.errors import UserError
from tokenizer.printable import SECRET_NAME

HOST_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
"""A name or an IPv4 address; no brackets, commas and the like, which pdsh would expand."""
CARRIED = (
    "NCCL_",
    "GLOO_",
    "UCX_",
    "CUDA_",
    "OMP_",
    "MKL_",
    "TORCH",
    "PYTHON",
    "DS_",
    "HF_",
    "WANDB_",
    "LD_LIBRARY_PATH",
)
"""Beginnings of the variables that travel, beside those of DeepSpeed's environment file."""
LIBRARIES_OF_IMAGE = ("LD_LIBRARY_PATH", "PYTHON")
"""Which a container has its own of."""
LEFT_OUT = ("CUDA_VISIBLE_DEVICES", "PYTHONHOME")
END_FILE = ".end-"
"""Beginning of the name of the file in the run folder that ends the nodes of a start; its id follows."""
NUM_AT_ONCE = 1024
"""Nodes that pdsh reaches at a time."""


Launcher = Literal["pdsh", "openmpi", "mpich", "impi", "mvapich", "slurm"]
"""DeepSpeed's names."""
Starter = Literal["here", "srun"] | Launcher


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the workers of a run are, and what starts them there."""

    devices: dict[str, list[int]]
    """Device numbers by host; "localhost" alone for this machine."""
    starter: Starter = "here"
    """`here`: this machine alone; `srun`: the nodes of this Slurm job; else a launcher of DeepSpeed's."""
    master_addr: str = "127.0.0.1"
    container: str | None = None
    """With srun: apptainer:IMAGE or pyxis:IMAGE."""
    mounts: tuple[Path, ...] = ()
    """Folders that the container sees under their own names."""
    cpus_per_node: str | None = None
    """With srun: of the job, where it asked for a number."""
    launcher_args: str | None = None
    """More options for what DeepSpeed's launcher starts."""

    @property
    def num_procs(self) -> int:
        return sum(map(len, self.devices.values()))

    @property
    def has_agents(self) -> bool:
        """Whether each node runs `launch.node`."""
        return self.starter in ("pdsh", "srun")


def device_numbers(num_procs: int, device: str, visible: str | None) -> tuple[list[int], list[str]]:
    """One device a process, and faults; `visible` is CUDA_VISIBLE_DEVICES, which DeepSpeed's launcher would write over."""
    if device == "cpu" or not visible:
        return list(range(num_procs)), []
    numbers = [number.strip() for number in visible.split(",")]
    if len(numbers) < num_procs or not all(number.isdigit() for number in numbers):
        return [], [
            f"CUDA_VISIBLE_DEVICES: is {visible}; for --num_procs {num_procs} it must list as many GPUs, by number (DeepSpeed "
            "takes no UUIDs). Change it, or unset it."
        ]
    return [int(number) for number in numbers[:num_procs]], []


def slurm_hosts(nodes: str) -> list[str]:
    """Names from Slurm's short form, such as n[1-4], in order.

    Raises:
        OSError, subprocess.CalledProcessError: scontrol is not here, or does not know them.
    """
    return subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True).stdout.split()


def read_hostfile(path: Path) -> dict[str, list[int]]:
    """DeepSpeed's format: `HOST slots=N` a line, `#` begins a comment. Device numbers by host, in order.

    Raises:
        UserError: it cannot be read, or a line is no such line; all are listed.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise UserError(f"--hostfile {path}: cannot be read ({reason}). Give lines such as `node1 slots=8`.") from error
    devices: dict[str, list[int]] = {}
    faults = []
    for number, line in enumerate(lines, 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        found = re.fullmatch(rf"(?P<host>{HOST_NAME})\s+slots\s*=\s*(?P<slots>[1-9]\d*)", content)
        if found is None:
            faults.append(f"line {number}: expected `HOST slots=N`, found {content!r}")
        elif found["host"] in devices:
            faults.append(f"line {number}: {found['host']} is there already")
        else:
            devices[found["host"]] = list(range(int(found["slots"])))
    if not devices and not faults:
        faults.append("it names no host")
    if len(devices) > 1 and (local := [host for host in devices if host == "localhost" or host.startswith("127.")]):
        faults.append(f"{local[0]}: means another machine on each; give the name that all of them know it by")
    if faults:
        raise UserError(f"--hostfile {path}:\n" + "\n".join(f"  - {fault}" for fault in faults))
    return devices


def carried_environment(left_out: tuple[str, ...] = ()) -> dict[str, str]:
    """Variables that the other nodes get: what steers libraries here, and DeepSpeed's environment file; no secrets.

    left_out: beginnings of names that stay here.
    """
    own = {name: value for name, value in os.environ.items() if name.startswith(CARRIED) and name not in LEFT_OUT}
    from_file = environment_file()
    if secret := sorted(filter(SECRET_NAME.search, from_file)):
        print(f"not carried to the other nodes, for they look like secrets: {', '.join(secret)}", file=sys.stderr)
    both = own | from_file
    return {name: both[name] for name in both if not SECRET_NAME.search(name) and not name.startswith(left_out)}


def environment_file() -> dict[str, str]:
    """Variables of DeepSpeed's environment file: $DS_ENV_FILE or .deepspeed_env, in the working folder or the home folder.

    Raises:
        UserError: a line is not NAME=VALUE.
    """
    name = os.environ.get("DS_ENV_FILE", ".deepspeed_env")
    variables = {}
    for path in (Path.home() / name, Path(name)):
        if not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            key, equals, value = line.strip().partition("=")
            if not equals and key:
                raise UserError(f"{path}: line {number}: expected NAME=VALUE.")
            if key:
                variables[key] = value
    return variables


def node_plan(place: Place, start: str, master_port: int | str, more_environment: dict[str, str]) -> dict[str, Any]:
    """What `launch.node` needs. start: which one it is of."""
    return {
        "start": start,
        "devices": place.devices,
        "master_addr": place.master_addr,
        "master_port": master_port,
        "working_folder": os.getcwd(),
        "environment": carried_environment(LIBRARIES_OF_IMAGE if place.container else ()) | more_environment,
    }


def write_for_owner(path: Path, text: str) -> None:
    """A file that its owner alone can read, from its first byte on."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def on_all(place: Place, command: str, more: str = "") -> list[str]:
    """pdsh's command line for a shell command, and for more that pdsh may expand."""
    options = ["-R", "ssh", "-S", "-f", str(NUM_AT_ONCE), "-w", ",".join(place.devices)]
    return ["pdsh", *options, command.replace("%", "%%") + more]


def pdsh_faults() -> list[str]:
    """A line if pdsh is not here."""
    if shutil.which("pdsh") is not None:
        return []
    return ["--hostfile: pdsh is not to be found. Install the package pdsh, or start workers by torchrun or srun."]


def check_hosts(place: Place, run_folder: Path) -> None:
    """Each host is reached, sees the run folder, and has this program.

    Raises:
        UserError: pdsh is not here, or one of them does not.
    """
    if faults := pdsh_faults():
        raise UserError("\n".join(faults))
    has_program = shlex.join([sys.executable, "-P", "-c", "import launch.node"])
    command = f"test -r {shlex.quote(str(run_folder / 'config.yaml'))} && {has_program}"
    tried = subprocess.run(on_all(place, command), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if tried.returncode:
        said = "\n".join(f"  {line}" for line in (tried.stdout + tried.stderr).strip().splitlines()[-20:])
        raise UserError(
            f"--hostfile: not every host can be reached by ssh without a password, sees {run_folder}, and has {sys.executable} "
            f"with this program. pdsh says:\n{said}"
        )
