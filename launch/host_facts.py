"""One host, for `albert doctor`: `python -P -m launch.host_facts PLAN [NUMBER NAME]` says what it is and has, then tries all pairs.

PLAN is a `Plan` as JSON; NUMBER and NAME are this host's, from pdsh; Slurm tells them by its variables. Nothing is raised: what
goes wrong with one fact is said in its place. It ends when whoever started it has gone.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from launch.host_pairs import GRACE_SECONDS, Meeting, brief, try_pairs
from launch.hosts import slurm_hosts
from launch.messages import say
from tokenizer.files import nearest_folder
from tokenizer.provenance import code_revision

HERE_FILE = "here"
"""In the shared folder: the token, written by the machine that asks. Each host writes `host-NUMBER`."""


class Plan(NamedTuple):
    """What to look at."""

    count: int
    """Hosts."""
    first: str
    """Address of the first; "" under Slurm, which tells."""
    second: str
    """Name of the second, which the first finds its network card by."""
    port: int
    """Of the first host's store."""
    token: str
    folder: str | None
    """Shared folder that holds the token."""
    output: str | None
    """Run folder, which need not be there."""
    data: str | None
    """Data folder."""
    device: str
    """`precision.device` of the run."""
    seconds: float
    """Longest wait of the hosts for each other."""


def main(arguments: list[str]) -> None:
    plan = Plan(**json.loads(arguments[0]))
    if arguments[1:]:
        number, name = int(arguments[1]), arguments[2]
    else:
        number, name = int(os.environ["SLURM_PROCID"]), os.environ["SLURMD_NODENAME"]
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # or sockets that find nobody fill the screen
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()

    def tell(kind: str, content: Any) -> None:
        say(number, kind, content)

    signal.alarm(round(4 * (plan.seconds + GRACE_SECONDS)))  # a disk may not answer
    tell("hello", {"name": name})
    if not plan.first:
        try:
            # of this step, in the order of its tasks
            nodes = slurm_hosts(os.environ.get("SLURM_STEP_NODELIST") or os.environ["SLURM_JOB_NODELIST"])
        except (OSError, subprocess.SubprocessError) as error:
            tell("joined", {"address": "scontrol show hostnames", "fault": brief(error)})
            nodes = [name]
        plan = plan._replace(count=len(nodes), first=nodes[0], second=nodes[min(1, len(nodes) - 1)])
    facts: dict[str, Callable[[], Any]] = own_facts() | {
        "disk": lambda: free_disk(Path(plan.output or ".")),
        "folder": lambda: meet_in_folder(plan, number),
        "data": lambda: data_hash(plan.data),
        "network": lambda: network(plan.second if number == 0 else plan.first),
        "gpus": gpus,
        "compiler": lambda: compiler(plan.device),
    }
    known = {}
    for kind, find in facts.items():
        known[kind] = fact(find)
        tell(kind, known[kind])
    if plan.count > 1:
        has_gpu = plan.device != "cpu" and bool((known["gpus"]["value"] or {}).get("usable"))
        try:
            try_pairs(tell, Meeting(number, plan.count, name, plan.first, plan.port, plan.seconds), has_gpu)
        except (OSError, RuntimeError) as error:
            tell("broken", brief(error))
    tell("done", None)


def end_with(parent: int) -> None:
    """End this process once its parent has: ssh and pdsh do not end what they have started."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def fact(find: Callable[[], Any]) -> dict[str, Any]:
    """`value`, or what went wrong as `fault`."""
    try:
        return {"value": find(), "fault": None}
    except Exception as error:  # of this one fact; the others are still told
        return {"value": None, "fault": brief(error)}


def own_facts() -> dict[str, Callable[[], Any]]:
    """What must be the same on all hosts, and on the machine that asks."""
    return {
        "python": lambda: sys.version.split()[0],
        "packages": package_versions,
        "code": lambda: code_revision()["sources_sha256"],
    }


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that this one requires; None where it is not there."""
    required = [line for line in metadata.requires("albert-pretraining") or [] if "extra ==" not in line]
    return {name: package_version(name) for name in sorted(re.match(r"[\w.-]+", line)[0] for line in required)}


def package_version(name: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def free_disk(path: Path) -> dict[str, Any]:
    """Bytes that are free where `path` is or would be made."""
    there = nearest_folder(path)
    return {"folder": str(there), "free": shutil.disk_usage(there).free}


def meet_in_folder(plan: Plan, number: int) -> None:
    """Read the token in the shared folder, and write it there as this host's.

    Raises:
        OSError: it is not there, or nothing can be written.
    """
    if plan.folder is None:
        return
    if (Path(plan.folder) / HERE_FILE).read_text() != plan.token:
        raise OSError(f"{plan.folder}: holds something else here")
    path = Path(plan.folder) / f"host-{number}"
    path.write_text(plan.token)
    if Path(plan.output).is_dir() and not os.access(plan.output, os.W_OK | os.X_OK):
        raise OSError(f"{plan.output}: cannot be written")


def data_hash(data: str | None) -> str | None:
    """SHA-256 of the manifest, whose shards are there."""
    if data is None:
        return None
    from data_prep.schema import manifest_sha256, read_manifest  # takes pyarrow

    read_manifest(Path(data))
    return manifest_sha256(Path(data))


def network(toward: str) -> dict[str, Any]:
    """Network cards, what the variables say of them, the card that leads to another host, and where gloo would listen."""
    cards = {name: [each.address.partition("%")[0] for each in addresses] for name, addresses in psutil.net_if_addrs().items()}
    found = {
        "cards": sorted(cards),
        "wanted": {name: os.environ.get(name) for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")},
        "own_name": socket.gethostname(),
        "own_address": None,
        "toward": toward,
        "route": None,
    }
    with suppress(OSError):
        found["own_address"] = socket.getaddrinfo(found["own_name"], None)[0][4][0]
    family, _, _, _, address = socket.getaddrinfo(toward, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)  # sends nothing
        own = probe.getsockname()[0].partition("%")[0]
    found["route"] = next((name for name, addresses in cards.items() if own in addresses), None)
    return found


def gpus() -> dict[str, Any]:
    """What the driver and torch see."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    return {
        "usable": usable,
        "names": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if usable else [],
        "driver": driver(),
        "torch_cuda": torch.version.cuda,
        "said": [str(each.message).splitlines()[0][:300] for each in said],
    }


def driver() -> dict[str, Any] | None:
    """The GPUs, the driver's version and the newest CUDA it runs, as nvidia-smi tells, or why it fails; None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        versions = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout.split()
        banner = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return {"fault": brief(error)}
    newest = re.search(r"CUDA (?:UMD )?Version:\s*([\d.]+)", banner)
    return {"count": len(versions), "version": versions[0] if versions else None, "cuda": newest[1] if newest else None}


def compiler(device: str) -> None:
    """Raise a UserError if torch.compile would find no compiler here."""
    import torch

    from pretrain.compilation import check_compiler

    check_compiler(torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    main(sys.argv[1:])
