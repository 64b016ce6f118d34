"""All pairs of hosts, for `albert doctor`: open ports and an all-reduce, disjoint pairs at once.

Hosts meet in the store of the first one, as the processes of a run do, and go through the rounds together. Each all-reduce is a
process of its own that is ended when its time is over: NCCL may hang where nothing answers. Every wait has a limit, and each
stage an alarm that ends the program.
"""

import json
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from pretrain.rendezvous import free_port

NUM_BYTES = {"gloo": 1 << 24, "nccl": 1 << 27}
"""Of the tensor that is added up, by backend."""
CONNECT_SECONDS = 5.0
"""For one connection to another host's port."""
GRACE_SECONDS = 15.0
"""For a process to start and to say that its time is over."""

Pair = tuple[int, int]
Say = Callable[[str, Any], None]


class Meeting(NamedTuple):
    """Where the hosts meet, and as whom."""

    number: int
    """Of this host; 0 is the first."""
    count: int
    """Hosts that are to come."""
    name: str
    """By which the others reach this host."""
    first: str
    """Address of the first host."""
    port: int
    """Of its store."""
    seconds: float
    """Longest wait for each other."""


def schedule(num_hosts: int) -> list[list[Pair]]:
    """Rounds of disjoint pairs (lower number first) in which each pair of hosts is once: the circle method of tournaments."""
    circle = list(range(num_hosts + num_hosts % 2))  # of an odd number one sits out each round
    rounds = []
    for _ in range(len(circle) - 1):
        facing = zip(circle[: len(circle) // 2], reversed(circle), strict=False)
        rounds.append([(min(pair), max(pair)) for pair in facing if max(pair) < num_hosts])
        circle[1:] = [circle[-1], *circle[1:-1]]
    return rounds


def try_pairs(say: Say, meeting: Meeting, has_gpu: bool) -> None:
    """Say `joined`, and for each pair of this host `ports` and `pair`."""
    from pretrain.distributed import open_store  # takes torch

    children = multiprocessing.get_context("forkserver")
    children.set_forkserver_preload(["pretrain.distributed"])  # so that each child has torch at once
    number, seconds = meeting.number, meeting.seconds
    longest_turn = 2 * (CONNECT_SECONDS + seconds + GRACE_SECONDS)  # two ports, two backends
    with ExitStack() as sockets:
        servers = [sockets.enter_context(socket.create_server(("", port), backlog=meeting.count)) for port in (free_port(), 0)]
        signal.alarm(round(4 * (seconds + GRACE_SECONDS)))
        try:
            store = open_store(meeting.first, meeting.port, serve=number == 0, seconds=seconds)
        except RuntimeError as error:
            say("joined", {"address": f"{meeting.first}:{meeting.port}", "fault": brief(error)})
            return
        say("joined", {"address": f"{meeting.first}:{meeting.port}", "fault": None})
        ports = [server.getsockname()[1] for server in servers]
        store.set(f"host-{number}", json.dumps({"name": meeting.name, "ports": ports, "has_gpu": has_gpu}))
        hosts = find_present(store, meeting)
        for turn, pairs in enumerate(schedule(len(hosts))):
            signal.alarm(round(4 * longest_turn))
            for low, high in pairs:
                pair = sorted(hosts)[low], sorted(hosts)[high]
                if number in pair:
                    try_pair(say, children, meeting, hosts, pair, store)
            wait_for_all(store, f"turn-{turn}", number, hosts, longest_turn)
        store.set(f"end-{number}", "")
        if number == 0:  # the store goes with this process
            arrived(store, [f"end-{other}" for other in hosts], longest_turn)


def find_present(store: Any, meeting: Meeting) -> dict[int, dict[str, Any]]:
    """The hosts that have come in time, by number, as the first one sees it."""
    if meeting.number == 0:
        keys = arrived(store, [f"host-{other}" for other in range(meeting.count)], meeting.seconds)
        found = {key.removeprefix("host-"): json.loads(store.get(key)) for key in keys}
        store.set("present", json.dumps(found))
    else:
        store.wait(["present"], timedelta(seconds=2 * meeting.seconds + GRACE_SECONDS))
        found = json.loads(store.get("present"))
    return {int(other): host for other, host in found.items()}


def arrived(store: Any, keys: Iterable[str], seconds: float) -> list[str]:
    """The keys that are in the store within so long."""
    deadline = time.monotonic() + seconds
    found = []
    for key in keys:
        with suppress(RuntimeError):
            store.wait([key], timedelta(seconds=max(0.1, deadline - time.monotonic())))
            found.append(key)
    return found


def wait_for_all(store: Any, key: str, number: int, hosts: Iterable[int], seconds: float) -> None:
    """A barrier that the first host keeps: whoever does not come is waited for no longer than `seconds`."""
    store.set(f"{key}-{number}", "")
    if number == 0:
        arrived(store, [f"{key}-{other}" for other in hosts], seconds)
        store.set(key, "")
    else:
        arrived(store, [key], 2 * seconds)


def try_pair(say: Say, children: Any, meeting: Meeting, hosts: dict[int, dict[str, Any]], pair: Pair, store: Any) -> None:
    """Connect to the other host's ports, then add up with it."""
    other = pair[0] if meeting.number == pair[1] else pair[1]
    address = meeting.first if other == 0 else hosts[other]["name"]
    closed = []
    for port in hosts[other]["ports"]:
        try:
            socket.create_connection((address, port), CONNECT_SECONDS).close()
        except OSError as error:
            closed.append(f"{address}:{port} ({brief(error)})")
    say("ports", {"to": other, "closed": closed})
    for backend in ["gloo"] + ["nccl"] * all(hosts[each]["has_gpu"] for each in pair):
        receiver, sender = children.Pipe(duplex=False)
        name = f"{backend}-{pair[0]}-{pair[1]}"
        rank = pair.index(meeting.number)
        child = children.Process(target=reduce, args=(sender, meeting, name, rank, backend), daemon=True)
        child.start()
        sender.close()
        bandwidth, fault = None, f"no answer within {meeting.seconds:g} s"
        with suppress(EOFError):
            if receiver.poll(meeting.seconds + GRACE_SECONDS):
                bandwidth, fault = receiver.recv()
        child.kill()
        child.join(CONNECT_SECONDS)  # a driver may not let go of it
        say("pair", {"pair": pair, "backend": backend, "bandwidth": bandwidth, "fault": fault})


def reduce(sender: Connection, meeting: Meeting, name: str, rank: int, backend: str) -> None:
    """The process of one all-reduce: send (bytes a second, None) or (None, what went wrong)."""
    signal.alarm(round(meeting.seconds + 2 * GRACE_SECONDS))  # should nobody be left to end it
    import torch

    from pretrain.distributed import open_store, pair_bandwidth

    device = torch.device("cuda", 0) if backend == "nccl" else torch.device("cpu")
    try:
        store = open_store(meeting.first, meeting.port, serve=False, seconds=meeting.seconds)
        bandwidth = pair_bandwidth(store, name, rank, device, num_bytes=NUM_BYTES[backend], seconds=meeting.seconds)
        sender.send((bandwidth, None))
    except Exception as error:  # whatever the network, gloo, NCCL or CUDA say
        sender.send((None, brief(error)))
    os._exit(0)  # not through the destructors of what may be stuck


def brief(error: Exception) -> str:
    """The first line of an error, without the place in C++ that it comes from."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = str(error)
    line = (text.strip() or type(error).__name__).splitlines()[0]
    return line.rpartition("] ")[2][:300] if line.startswith("[") else line[:300]
