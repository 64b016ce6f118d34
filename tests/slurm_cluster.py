"""A real Slurm on one machine: a head with slurmctld and two nodes with slurmd, in namespaces, joined by a bridge.

Needs root and the Debian packages of `PACKAGES`. Everything is named after this process and lies in one folder.
"""

import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path

from cluster import Node, Pair, call

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge", "iproute2", "util-linux")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "munged", "ip", "unshare", "nsenter")
SECONDS_TO_DOWN = 15
"""Without an answer, after which slurmctld takes a node for lost (SlurmdTimeout)."""


def missing() -> str | None:
    """Why there can be no Slurm here."""
    if os.geteuid():
        return "a Slurm on one machine needs root"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"{', '.join(absent)} not found: apt-get install {' '.join(PACKAGES)}" if absent else None


class Slurm(Pair):
    """The head and nodes A and B; jobs, and what happens to them. The head reaches both nodes also when they are cut."""

    def __init__(self, folder: Path):
        self.folder = folder
        net, tag = f"10.78.{16 + os.getpid() % 200}", f"as{os.getpid() % 100_000}"
        self.head, self.a, self.b = Node(f"{tag}h", f"{net}.254"), Node(f"{tag}a", f"{net}.1"), Node(f"{tag}b", f"{net}.2")
        self.nodes = (self.a, self.b)
        self.machines = (self.head, *self.nodes)

    def __enter__(self) -> "Slurm":
        try:
            self.bring_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def bring_up(self) -> None:
        self.write_config()
        for machine in self.machines:
            call("ip", "netns", "add", machine.name)
            call("ip", "-n", machine.name, "link", "set", "lo", "up")
        bridge = ("ip", "-n", self.head.name)
        call(*bridge, "link", "add", "bridge0", "type", "bridge")
        call(*bridge, "addr", "add", f"{self.head.address}/24", "dev", "bridge0")
        call(*bridge, "link", "set", "bridge0", "up")
        for number, node in enumerate(self.nodes):
            call(*bridge, "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", node.name)
            call(*bridge, "link", "set", f"port{number}", "master", "bridge0", "up")
            call("ip", "-n", node.name, "addr", "add", f"{node.address}/24", "dev", "eth0")
            call("ip", "-n", node.name, "link", "set", "eth0", "up")
        munged = ["munged", "--foreground", "--force", *(f"--{name}={self.folder}/munge.{name}" for name in ("key-file", "socket"))]
        munged += [f"--{name}={self.folder}/munge.{name}" for name in ("pid-file", "log-file", "seed-file")]
        self.boot(self.head, f"{' '.join(munged)} & until [ -S {self.folder}/munge.socket ]; do sleep 0.1; done; slurmctld -D")
        self.wait_for((self.folder / "munge.socket").is_socket, 10)
        for node in self.nodes:
            self.boot_node(node)
        self.wait_for_nodes()

    def write_config(self) -> None:
        key = self.folder / "munge.key-file"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        names = ["127.0.0.1 localhost", *(f"{machine.address} {machine.name}" for machine in self.machines)]
        (self.folder / "hosts").write_text("\n".join(names) + "\n")
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        settings = {
            "ClusterName": "lab",
            "SlurmctldHost": f"{self.head.name}({self.head.address})",
            "SlurmUser": "root",
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self.folder}/munge.socket",
            "SlurmctldPidFile": f"{self.folder}/slurmctld.pid",
            "SlurmctldLogFile": f"{self.folder}/slurmctld.log",
            "StateSaveLocation": f"{self.folder}/state",
            "SlurmdPidFile": f"{self.folder}/slurmd.%n.pid",
            "SlurmdLogFile": f"{self.folder}/slurmd.%n.log",
            "SlurmdSpoolDir": f"{self.folder}/spool/%n",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "AccountingStorageType": "accounting_storage/none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core",
            "SchedulerParameters": "sched_interval=2,bf_interval=2,batch_sched_delay=0",
            "MpiDefault": "none",
            "ReturnToService": "2",
            "KillWait": "30",
            "SlurmdTimeout": str(SECONDS_TO_DOWN),
            "InactiveLimit": "0",
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
        }
        lines = [f"{name}={value}" for name, value in settings.items()]
        lines += [f"NodeName={node.name} NodeAddr={node.address} CPUs=2 State=UNKNOWN" for node in self.nodes]
        lines += ["PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=60"]
        lines += ["PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2"]
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")
        # slurmd 22.05 loads a cgroup plugin whatever TaskPlugin says; `ip netns exec` mounts /sys without cgroups
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")

    def boot(self, machine: Node, command: str) -> None:
        """Start a machine whose init runs `command` and buries orphans."""
        init = f"hostname {machine.name}; mount --bind {self.folder}/hosts /etc/hosts; mount -t tmpfs cgroup /sys/fs/cgroup; "
        init += f"cd {self.folder}; ({command}) & while :; do sleep 3600 & wait $!; done"
        unshare = ["unshare", "--uts", "--ipc", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc", "bash", "-c", init]
        with (self.folder / f"{machine.name}.log").open("a") as log:
            machine.holder = subprocess.Popen(
                ["ip", "netns", "exec", machine.name, *unshare],
                env=os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.wait_for(lambda: bool(machine.init()), 10)

    def boot_node(self, node: Node) -> None:
        self.boot(node, f"slurmd -D -N {node.name}")

    def run(self, *command: object, code: int = 0, **environment: str) -> str:
        """A command on the head, which is the login node too; what it printed."""
        variables = {"SLURM_CONF": str(self.folder / "slurm.conf"), "GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}
        finished = subprocess.run(
            [*self.head.enter(), *map(str, command)],
            env=os.environ | variables | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert finished.returncode == code, f"{command}: {finished.returncode}\n{finished.stdout}{finished.stderr}"
        return finished.stdout + finished.stderr

    def show(self, job: str, name: str) -> str:
        """A field of `scontrol show job`."""
        fields = self.run("scontrol", "--oneliner", "show", "job", job).split()
        return next(field.partition("=")[2] for field in fields if field.startswith(f"{name}="))

    def wait_for_nodes(self) -> None:
        """Until both nodes are free."""
        self.wait_for(lambda: self.run("sinfo", "--noheader", "--states=idle", "--format=%D").strip() == "2", 180)

    def state(self, job: str) -> str:
        return self.show(job, "JobState")

    def wait_for_end(self, job: str, seconds: float) -> str:
        """Until the job will not go on; its state and exit code, e.g. "COMPLETED 0:0"."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        self.wait_for(lambda: self.state(job) in over, seconds)
        return f"{self.state(job)} {self.show(job, 'ExitCode')}"

    def begin_again_now(self, job: str) -> None:
        """A requeued job without the two minutes that Slurm has it wait."""
        self.wait_for(lambda: self.state(job) == "PENDING", 180)
        time.sleep(2)  # within the second of its requeue: "Killing non-startable batch job: Job credential revoked"
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now")

    def wait_for(self, condition, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not holds(condition):
            if time.monotonic() > deadline:
                log = (self.folder / "slurmctld.log").read_text()[-3000:]
                raise AssertionError(
                    f"waited in vain\n{log}\n{self.run('scontrol', 'show', 'job')}\n{self.run('sinfo', '-N', '-l')}"
                )
            time.sleep(0.2)

    def power_off(self, node: Node) -> None:
        """All its processes end at once."""
        node.init().kill()
        node.holder.wait()

    def power_on(self, node: Node) -> None:
        self.boot_node(node)

    def __exit__(self, *_: object) -> None:
        for machine in reversed(self.machines):
            if machine.holder is not None and machine.holder.poll() is None:
                self.power_off(machine)
            subprocess.run(["ip", "netns", "del", machine.name], capture_output=True)


def holds(condition) -> bool:
    """Whether it does; not while what it asks has not come up."""
    try:
        return bool(condition())
    except (AssertionError, IndexError, FileNotFoundError):
        return False
