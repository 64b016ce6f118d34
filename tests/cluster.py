"""Two machines on one: namespaces for network, processes, host name and mounts, joined by a cable, with an sshd in each.

Needs root and the Debian packages of `PACKAGES`; what is made is named after this process, so several can be there at once.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

import psutil

PACKAGES = ("pdsh", "openssh-server", "openssh-client", "iproute2", "util-linux")
PROGRAMS = ("pdsh", "sshd", "ssh", "ssh-keygen", "ip", "unshare", "nsenter")
PORT = 2222
NOWHERE = "02:00:00:00:00:01"
"""A network card that nobody has."""


def missing() -> str | None:
    """Why there can be no cluster here."""
    if os.geteuid():
        return "two nodes on one machine need root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"{', '.join(absent)} not found: apt-get install {' '.join(PACKAGES)}"
    probe = ["unshare", "--net", "--uts", "--ipc", "--pid", "--mount", "--fork", "true"]
    return None if subprocess.run(probe, capture_output=True).returncode == 0 else "no right to make namespaces"


class Node:
    """One of the machines."""

    def __init__(self, name: str, address: str):
        self.name, self.address = name, address
        self.holder: subprocess.Popen | None = None

    def processes(self) -> list[psutil.Process]:
        """All that run there."""
        there = namespace(self.init())
        return [process for process in psutil.process_iter() if namespace(process) == there]

    def init(self) -> psutil.Process:
        """Process 1 of the machine: all others end with it."""
        return psutil.Process(self.holder.pid).children()[0]

    def find(self, *words: str) -> psutil.Process:
        """The process there whose command line has these words, whatever they stand between."""
        for process in self.processes():
            try:
                command = " ".join(process.cmdline())
            except psutil.NoSuchProcess:
                continue
            if all(word in command for word in words):
                return process
        raise LookupError(f"no process with {words} on {self.name}")

    def enter(self) -> list[str]:
        """What makes a command run there."""
        return ["nsenter", "-t", str(self.init().pid), "-n", "-u", "-i", "-p", "-m", "--"]


class Pair:
    """Two machines, and the network between them."""

    a: Node
    b: Node

    def cut(self) -> None:
        """No packet passes from one to the other any more, and nobody is told."""
        for node, other in ((self.a, self.b), (self.b, self.a)):
            where = ("to", other.address, "lladdr", NOWHERE, "nud", "permanent", "dev", "eth0")
            call("ip", "-n", node.name, "neigh", "replace", *where)

    def join(self) -> None:
        for node, other in ((self.a, self.b), (self.b, self.a)):
            call("ip", "-n", node.name, "neigh", "del", other.address, "dev", "eth0")


class Cluster(Pair):
    """Nodes A and B, and what to use them with."""

    def __init__(self, folder: Path):
        self.folder = folder
        net = 16 + os.getpid() % 200
        tag = f"al{os.getpid() % 100_000}"
        self.a, self.b = Node(f"{tag}a", f"10.77.{net}.1"), Node(f"{tag}b", f"10.77.{net}.2")
        self.nodes = (self.a, self.b)
        self.hostfile = folder / "hostfile"

    def __enter__(self) -> "Cluster":
        Path("/run/sshd").mkdir(exist_ok=True)
        for key in ("id", "hostkey"):
            call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / key)
        shutil.copy(self.folder / "id.pub", self.folder / "authorized_keys")
        lines = ["127.0.0.1 localhost", *(f"{node.address} {node.name}" for node in self.nodes)]
        (self.folder / "hosts").write_text("\n".join(lines) + "\n")
        self.hostfile.write_text("".join(f"{node.name} slots=1\n" for node in self.nodes))
        options = [f"Port {PORT}", f"IdentityFile {self.folder}/id", "StrictHostKeyChecking no", "UserKnownHostsFile /dev/null"]
        (self.folder / "ssh_config").write_text("\n".join(["Host *", *options, "ConnectTimeout 10", "LogLevel ERROR"]) + "\n")
        for node in self.nodes:
            call("ip", "netns", "add", node.name)
        call("ip", "link", "add", f"v{self.a.name}", "type", "veth", "peer", "name", f"v{self.b.name}")
        for node in self.nodes:
            call("ip", "link", "set", f"v{node.name}", "netns", node.name, "name", "eth0")
            call("ip", "-n", node.name, "addr", "add", f"{node.address}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                call("ip", "-n", node.name, "link", "set", device, "up")
            self.boot(node)
        return self

    def boot(self, node: Node) -> None:
        """Start a machine; its init starts sshd and buries orphans."""
        config = [f"Port {PORT}", f"ListenAddress {node.address}", f"HostKey {self.folder}/hostkey", "StrictModes no", "UsePAM no"]
        config += [f"AuthorizedKeysFile {self.folder}/authorized_keys", "PermitRootLogin prohibit-password", "PidFile none"]
        (self.folder / f"sshd_{node.name}").write_text("\n".join(config) + "\n")
        init = (
            f"hostname {node.name}; mount --bind {self.folder}/hosts /etc/hosts; /usr/sbin/sshd -f {self.folder}/sshd_{node.name}; "
        )
        init += "while :; do sleep 3600 & wait $!; done"
        unshare = ["unshare", "--uts", "--ipc", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "bash", "-c", init]
        node.holder = subprocess.Popen(
            ["ip", "netns", "exec", node.name, *unshare], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        ssh = ["ssh", "-F", str(self.folder / "ssh_config"), node.address, "true"]
        while subprocess.run(["ip", "netns", "exec", self.a.name, *ssh], capture_output=True).returncode:
            assert time.monotonic() < deadline, f"{node.name} does not come up"
            time.sleep(0.2)

    def environment(self) -> dict[str, str]:
        ssh = f"-F {self.folder}/ssh_config"
        return {"PDSH_SSH_ARGS_APPEND": ssh, "GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}

    def start(self, *command: object) -> subprocess.Popen:
        """A command on node A."""
        return subprocess.Popen(
            [*self.a.enter(), *map(str, command)],
            env=os.environ | self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def power_off(self, node: Node) -> None:
        """All its processes end, and it says good-bye to nobody."""
        self.cut()
        node.init().kill()
        node.holder.wait()

    def power_on(self, node: Node) -> None:
        self.join()
        self.boot(node)

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            if node.holder is not None:
                node.init().kill()
                node.holder.wait()
            subprocess.run(["ip", "netns", "del", node.name], capture_output=True)


def namespace(process: psutil.Process) -> str | None:
    """The namespace of its process ids; None if it is gone."""
    try:
        return os.readlink(f"/proc/{process.pid}/ns/pid")
    except OSError:
        return None


def call(*command: object) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
