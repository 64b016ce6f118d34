"""What hosts have told in, rows of the table of `albert doctor` out: green, yellow (a thought), red (would stop it)."""

import ipaddress
import re
import statistics
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

GREATEST_SKEW, SMALL_SKEW = 30.0, 1.0
"""Seconds: beyond the first, times in logs, of files and of certificates contradict each other; the second is worth a note."""
SLOW_PAIR = 0.5
"""Share of the median bandwidth below which a pair is worth a note: an all-reduce goes at the pace of its slowest link."""

Colour = Literal["green", "yellow", "red"]


class Row(NamedTuple):
    check: str
    colour: Colour
    found: str
    remedy: str = ""
    """What to do."""


@dataclass
class Host:
    """What one host has told."""

    number: int
    name: str
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`value` and `fault` by kind (`launch.host_facts`)."""
    told: dict[str, list[Any]] = field(default_factory=dict)
    """Of its meeting with the others, by kind (`launch.host_pairs`)."""
    clock: list[tuple[float, float]] = field(default_factory=list)
    """When it said something by its clock, and when that was heard by ours."""

    @property
    def is_done(self) -> bool:
        return "done" in self.told

    def value(self, kind: str) -> Any:
        return self.facts.get(kind, {}).get("value")

    def fault(self, kind: str) -> str | None:
        return self.facts.get(kind, {"fault": "not told"})["fault"]


class Wanted(NamedTuple):
    """What the run asks of the hosts."""

    slots: dict[str, int]
    """Processes by host; empty where the GPUs decide."""
    device: str
    """precision.device."""
    compiles: bool | None
    """training.compile; None without a config."""


def host_rows(hosts: list[Host], here: dict[str, Any], wanted: Wanted) -> list[Row]:
    """A row for each check of what the hosts are and have. here: values of `own_facts` on this machine."""
    rows = [python_row(hosts, here["python"]), packages_row(hosts, here["packages"]), code_row(hosts, here["code"])]
    return [*rows, gpu_row(hosts, wanted), driver_row(hosts, wanted), compiler_row(hosts, wanted)]


def meeting_rows(hosts: list[Host], device: str, sent_at: float) -> list[Row]:
    """A row for each check of what is between several hosts. sent_at: when they were asked, by our clock."""
    rows = [clock_row(hosts, sent_at), network_row(hosts, device)]
    return rows if len(hosts) == 1 else [*rows, ports_row(hosts), *bandwidth_rows(hosts)]


def row(check: str, red: Iterable[str], yellow: Iterable[str], green: str, remedy: str, note: str = "") -> Row:
    """The worst of what was found decides. remedy: for what is red; note: for what is yellow."""
    red, yellow = list(red), list(yellow)
    if red:
        return Row(check, "red", "\n".join(red + yellow), remedy)
    return Row(check, "yellow", "\n".join(yellow), note) if yellow else Row(check, "green", green)


def of_all(hosts: list[Host], kind: str) -> list[str]:
    """A line for each host that could not tell."""
    return [f"{host.name}: {host.fault(kind)}" for host in hosts if host.fault(kind)]


def python_row(hosts: list[Host], here: str) -> Row:
    red, yellow = of_all(hosts, "python"), []
    for host in hosts:
        found = host.value("python")
        if found and found != here:
            same_minor = found.split(".")[:2] == here.split(".")[:2]
            (yellow if same_minor else red).append(f"{host.name}: {found} (here {here})")
    return row("Python", red, yellow, f"{here} on all", "Use one virtual environment, of one Python, on all hosts.")


def packages_row(hosts: list[Host], here: dict[str, str | None]) -> Row:
    red = of_all(hosts, "packages")
    red += [f"{host.name}: torch cannot be loaded ({host.fault('gpus')})" for host in hosts if host.fault("gpus")]
    for host in hosts:
        found = host.value("packages") or {}
        for name in sorted(found.keys() | here.keys()):
            if name in found and found[name] is None:
                red.append(f"{host.name}: {name} is missing")
            elif found and found.get(name) != here.get(name):
                red.append(f"{host.name}: {name} {found.get(name)} (here {here.get(name)})")
    remedy = "Use one virtual environment on all hosts, or install with the same requirements.lock."
    return row("packages", red, [], f"{len(here)} packages, the same versions on all", remedy)


def code_row(hosts: list[Host], here: str) -> Row:
    red = of_all(hosts, "code")
    red += [f"{h.name}: {h.value('code')[:12]} (here {here[:12]})" for h in hosts if h.value("code") not in (None, here)]
    return row("code", red, [], f"sources {here[:12]} on all", "Install the same revision of albert-pretraining on all hosts.")


def gpu_row(hosts: list[Host], wanted: Wanted) -> Row:
    if wanted.device == "cpu":
        return Row("GPUs", "green", "not used (precision.device: cpu)")
    names = {host.name: (host.value("gpus") or {}).get("names", []) for host in hosts}
    red, yellow = [], []
    for host, found in names.items():
        slots = wanted.slots.get(host, 1)
        if wanted.device == "cuda" and not found:
            red.append(f"{host}: none that PyTorch can use, and precision.device is cuda")
        elif found and len(found) < slots:
            red.append(f"{host}: {len(found)}, below its {slots} processes")
        elif not found and any(names.values()):
            red.append(f"{host}: none that PyTorch can use, but others have some")
    kinds = sorted({name for found in names.values() for name in found})
    if len(kinds) > 1:
        yellow.append(f"of different kinds: {', '.join(kinds)}; the slowest sets the pace")
    if not kinds and not red:
        yellow.append("none: the run would be on CPUs")
    counts = sorted({len(found) for found in names.values()})
    green = f"{' or '.join(map(str, counts))} x {kinds[0] if kinds else ''} on each"
    return row(
        "GPUs",
        red,
        yellow,
        green,
        "Take hosts with as many GPUs as processes, lower `slots=` in the hostfile, or ask Slurm for GPUs (--sbatch gres=gpu:N).",
        "" if kinds else "On a GPU machine, look at the row `driver`; for CPUs, set precision.device to cpu.",
    )


def driver_row(hosts: list[Host], wanted: Wanted) -> Row:
    red, yellow, green = [], [], set()
    for host in hosts:
        found = host.value("gpus") or {}
        driver, built = found.get("driver"), found.get("torch_cuda")
        if driver is None:
            green.add(f"no NVIDIA driver; PyTorch is built for {f'CUDA {built}' if built else 'CPUs'}")
            continue
        if "fault" in driver:
            red.append(f"{host.name}: nvidia-smi fails: {driver['fault']}")
            continue
        has = f"driver {driver['version']} for CUDA {driver['cuda']}"
        if built is None:
            red.append(f"{host.name}: {has}, but PyTorch is built for CPUs")
        elif not found["usable"]:
            red.append(f"{host.name}: {has}, PyTorch is built for CUDA {built}: {'; '.join(found['said']) or 'it sees no GPU'}")
        elif driver["cuda"] and numbers(driver["cuda"]) < numbers(built):
            yellow.append(f"{host.name}: {has}, older than PyTorch's CUDA {built}")
        else:
            green.add(f"{has}, PyTorch for CUDA {built}")
    if wanted.device == "cpu":
        red, yellow = [], yellow + red
    remedy = "Install a newer driver, or the build of the same torch for the driver's CUDA (README, GPUs)."
    return row("driver", red, yellow, "; ".join(sorted(green)), remedy, remedy if yellow else "")


def compiler_row(hosts: list[Host], wanted: Wanted) -> Row:
    found = of_all(hosts, "compiler")
    if wanted.compiles is False:
        return Row("compiler", "green", "not needed (training.compile: false)")
    remedy = "Install it on each host (package g++ or gcc-c++, python3-dev), or set training.compile to false."
    red, yellow = (found, []) if wanted.compiles else ([], found)
    return row("compiler", red, yellow, "found on all", remedy, remedy)


def clock_row(hosts: list[Host], sent_at: float) -> Row:
    red, yellow, skews = [], [], []
    for host in hosts:
        skew = clock_skew(host.clock, sent_at)
        skews.append(skew)
        line = f"{host.name}: {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine"
        if abs(skew) > SMALL_SKEW:
            (red if abs(skew) > GREATEST_SKEW else yellow).append(line)
    green = f"within {max(0.1, *map(abs, skews)):.1f} s of this machine"
    return row(
        "clock", red, yellow, green, "Set the clock: start chrony or ntpd there (`timedatectl`).", "Is chrony or ntpd running?"
    )


def clock_skew(clock: list[tuple[float, float]], sent_at: float) -> float:
    """Seconds by which a host is ahead. It spoke after `sent_at` and before it was heard: what lies between is no skew.

    clock: (said by its clock, heard by ours).
    """
    least = max(said - heard for said, heard in clock)
    most = min(said for said, _ in clock) - sent_at
    return max(least, 0.0) + min(most, 0.0)


def network_row(hosts: list[Host], device: str) -> Row:
    red, yellow, green = of_all(hosts, "network"), [], []
    for host in hosts:
        found = host.value("network")
        if found is None:
            continue
        gloo, nccl = found["wanted"]["GLOO_SOCKET_IFNAME"], found["wanted"]["NCCL_SOCKET_IFNAME"]
        cards = ", ".join(found["cards"])
        if gloo and (absent := [name for name in gloo.split(",") if name not in found["cards"]]):
            red.append(f"{host.name}: GLOO_SOCKET_IFNAME names {', '.join(absent)}, but it has {cards}")
        if nccl and not any(map(nccl_takes(nccl), found["cards"])):
            (yellow if device == "cpu" else red).append(f"{host.name}: NCCL_SOCKET_IFNAME is {nccl}, but it has {cards}")
        if found["route"] == "lo":
            red.append(f"{host.name}: takes {found['toward']} for itself (/etc/hosts?)")
        elif not gloo and is_loopback(found["own_address"]):
            where = found["own_address"] or "no address"
            red.append(f"{host.name}: its own name, {found['own_name']}, means {where}: gloo would wait where nobody reaches it")
        green.append(f"{host.name}: {gloo or found['route']} to {found['toward']}")
    remedy = "Export GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME with the card that leads to the other hosts, or mend /etc/hosts."
    return row("network", red, yellow, "\n".join(brief_list(green)), remedy, remedy)


def nccl_takes(wanted: str) -> Any:
    """What NCCL takes by NCCL_SOCKET_IFNAME: beginnings of names, `=` whole names, `^` all others."""
    without = wanted.removeprefix("^")
    names = without.removeprefix("=").split(",")

    def takes(card: str) -> bool:
        named = card in names if without.startswith("=") else card.startswith(tuple(names))
        return named != wanted.startswith("^")

    return takes


def is_loopback(address: str | None) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(address or "127.0.0.1").is_loopback
    return False


def ports_row(hosts: list[Host]) -> Row:
    red = []
    for host in hosts:
        joined = host.told.get("joined", [{"address": "the first host", "fault": "not tried"}])[0]
        if joined["fault"]:
            red.append(f"{host.name}: {joined['address']}: {joined['fault']}")
        red += [f"{host.name}: {fault}" for fault in host.told.get("broken", [])]
        red += [f"{host.name}: {closed}" for told in host.told.get("ports", []) for closed in told["closed"]]
    tried = sum(len(host.told.get("ports", [])) for host in hosts)
    green = f"{2 * tried} connections, each way: one of 20000-32000 and one that the system hands out"
    remedy = (
        "Let TCP through between the hosts: 20000-32000 for the rendezvous, and the ports that the system hands out "
        "(`sysctl net.ipv4.ip_local_port_range`) for gloo and NCCL."
    )
    return row("ports", red, [], green, remedy)


def bandwidth_rows(hosts: list[Host]) -> list[Row]:
    """A row a backend that was tried; all pairs of those who ought to be there."""
    names = {host.number: host.name for host in hosts}
    told: dict[str, dict[tuple[int, int], list[dict[str, Any]]]] = {"gloo": {}}
    for host in hosts:
        for result in host.told.get("pair", []):
            told.setdefault(result["backend"], {}).setdefault(tuple(result["pair"]), []).append(result)
    pairs = [(low, high) for low in sorted(names) for high in sorted(names) if low < high]
    return [bandwidth_row(backend, results, names, pairs) for backend, results in told.items()]


def bandwidth_row(backend: str, results: dict[tuple[int, int], list[dict[str, Any]]], names: dict[int, str], pairs: list) -> Row:
    red, speeds = [], {}
    for pair in pairs if backend == "gloo" else results:
        title = f"{names.get(pair[0], pair[0])} and {names.get(pair[1], pair[1])}"
        found = results.get(pair, [])
        faults = [result["fault"] for result in found if result["fault"]]
        if faults or not found:
            red.append(f"{title}: {faults[0] if faults else 'not tried, for they have not met'}")
        else:
            speeds[title] = min(result["bandwidth"] for result in found)
    median = statistics.median(speeds.values()) if speeds else 0.0
    yellow = [
        f"{title}: {speed(rate)}, the median is {speed(median)}" for title, rate in speeds.items() if rate < SLOW_PAIR * median
    ]
    slowest = min(speeds, key=lambda title: speeds[title], default="")
    green = f"{len(speeds)} pair(s), {speed(median)} in the median; slowest: {slowest}, {speed(speeds.get(slowest, 0.0))}"
    remedy = (
        "Look at the rows `network` and `ports` first. Then try again with "
        + ("NCCL_DEBUG=INFO" if backend == "nccl" else "GLOO_SOCKET_IFNAME")
        + " exported, or leave out one of the two hosts."
    )
    note = "Look for a slower link or switch, or another network card (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME)."
    title = {"gloo": "gloo", "nccl": "NCCL"}[backend]
    return row(f"all-reduce ({title})", brief_list(red), brief_list(yellow), green, remedy, note)


def brief_list(lines: list[str], most: int = 8) -> list[str]:
    return lines if len(lines) <= most else [*lines[:most], f"and {len(lines) - most} more"]


def speed(rate: float) -> str:
    return f"{rate / 1e6:,.0f} MB/s"


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))
