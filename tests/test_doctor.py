"""`albert doctor`: one machine; two machines that are well; and each planted fault, found and named."""

import importlib.metadata
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import cluster
import psutil
import pytest
from conftest import ALBERT
from synthetic import write_synthetic_data

from launch.host_pairs import schedule
from launch.messages import Reader, say
from launch.verdicts import Host, Wanted, clock_skew, driver_row, gpu_row, nccl_takes, network_row

needs_nodes = pytest.mark.skipif(cluster.missing() is not None, reason=str(cluster.missing()))
WIDE = {"COLUMNS": "400"}


def colours(output: str) -> dict[str, str]:
    """Colour of each check in the printed table."""
    cells = [[cell.strip() for cell in line.split("│")[1:]] for line in output.splitlines() if line.startswith("│")]
    return {cell[0]: cell[1] for cell in cells if cell[0]}


def red(output: str) -> list[str]:
    return [check for check, colour in colours(output).items() if colour == "red"]


@pytest.fixture(scope="module")
def plenty(tmp_path_factory) -> Path:
    """Data in which nothing is amiss."""
    return write_synthetic_data(tmp_path_factory.mktemp("data") / "synthetic", num_instances=1100)


@pytest.fixture
def where(small_config, plenty, tmp_path):
    return ("--config", small_config, "--data", plenty, "--output", tmp_path / "run", "--optimizer.lr", 7.8e-5)


def wrong_tokenizer(data: Path, to: Path) -> Path:
    shutil.copytree(data, to)
    (to / "tokenizer" / "tokenizer.json").write_text('{"another": 1}')
    return to


# --- one machine


def test_a_machine_that_is_well_is_green_and_nothing_is_left(albert, where, tmp_path):
    output = albert("doctor", *where, "--num_procs", 2, **WIDE).stdout
    assert set(colours(output).values()) - {""} == {"green"}
    assert "nothing that was checked would stop the run" in output
    assert {"hosts", "packages", "run folder", "disk", "tokenizer", "learning rate"} <= colours(output).keys()
    assert list(tmp_path.iterdir()) == []


def test_without_options_it_looks_at_this_machine_and_says_what_it_did_not_check(albert):
    output = albert("doctor", **WIDE).stdout
    assert "hosts" in colours(output)
    for option in ("--config", "--data", "--output", "--hostfile or --slurm"):
        assert f"not checked without {option}" in output


def test_a_driver_that_fails_is_said_in_its_row_and_stops_no_run_on_cpus(albert, where, tmp_path):
    """nvidia-smi ends with an error, as where the driver's modules are not loaded."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (programs / "nvidia-smi").chmod(0o755)
    environment = WIDE | {"PATH": f"{programs}:{os.environ['PATH']}"}
    output = albert("doctor", *where, "--num_procs", 2, **environment).stdout
    assert colours(output)["driver"] == "yellow"
    assert "nvidia-smi fails" in output
    output = albert("doctor", *where, "--num_procs", 2, "--precision.device", "auto", code=1, **environment).stdout
    assert (colours(output)["driver"], colours(output)["packages"]) == ("red", "green")


def test_a_run_folder_that_is_a_link_is_looked_at_where_it_leads(albert, where, tmp_path):
    (tmp_path / "run").symlink_to("/proc/self")
    assert "run folder" in red(albert("doctor", *where, "--num_procs", 2, code=1, **WIDE).stdout)


@pytest.mark.parametrize(
    ("options", "environment", "checks", "words"),
    [
        (["--training.global_batch_size", 4, "--num_procs", 5], {}, ["config and data"], "below the 5 processes"),
        (["--checkpoint.keep_last", 10**9], {}, ["disk"], "GB free; checkpoints take"),
        (["--output", "/proc/albert/run"], {}, ["run folder", "disk"], "here: /proc/.albert-doctor-"),
        (["--training.compile", "true"], {"PATH": "/absent"}, ["compiler"], "set training.compile to false"),
        (["--precision.device", "cuda"], {"CUDA_VISIBLE_DEVICES": ""}, ["GPUs"], "none that PyTorch can use"),
        (["--training.steps", -1], {}, ["config"], "training.steps"),
        (["--data", "/absent"], {}, ["data"], "/absent/manifest.json: not found"),
    ],
)
def test_what_would_stop_the_run_on_this_machine_is_red(albert, where, options, environment, checks, words):
    output = albert("doctor", *where, *options, code=1, **WIDE, **environment).stdout
    assert red(output) == checks
    assert words in output


def test_the_wrong_tokenizer_is_red_also_without_a_config(albert, plenty, tmp_path):
    output = albert("doctor", "--data", wrong_tokenizer(plenty, tmp_path / "data"), code=1, **WIDE).stdout
    assert red(output) == ["tokenizer"]
    assert "is not the tokenizer of the shards" in output


def test_data_that_ruins_training_and_a_far_learning_rate_are_yellow(albert, where, synthetic):
    output = albert("doctor", *where, "--data", synthetic, "--optimizer.lr", 0.01, **WIDE).stdout
    assert colours(output)["data"] == colours(output)["learning rate"] == "yellow"
    assert "44 instance(s), too few" in output


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--hostfile", "x", "--slurm"], "two ways to the same hosts"),
        (["--num_nodes", 2], "--num_nodes: goes with --slurm alone"),
        (["--sbatch", "partition=gpu"], "--sbatch: goes with --slurm alone"),
        (["--slurm", "--sbatch", "nodes=4"], "--sbatch nodes: is set here"),
        (["--slurm", "--sbatch", "--partition=x;y"], "expected"),
        (["--optimizer.lr", 0.1], "--optimizer.lr: changes a config; give it with --config"),
        (["--timeout", 0], "--timeout: must be above 0"),
        (["--hostfile", "/absent"], "--hostfile /absent: cannot be read"),
    ],
)
def test_options_that_cannot_be_used_end_with_code_2(albert, options, expected):
    assert expected in albert("doctor", *options, code=2).stderr


def test_an_interrupted_look_leaves_nothing(where, tmp_path):
    process = subprocess.Popen(list(map(str, (ALBERT, "doctor", *where))), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not (begun := list(tmp_path.glob(".albert-doctor-*/host-0"))):
        assert process.poll() is None
        time.sleep(0.01)
    program = next(child for child in psutil.Process(process.pid).children() if "launch.host_facts" in child.cmdline())
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert begun
    assert list(tmp_path.iterdir()) == []
    program.wait(10)


# --- parts


def test_messages_come_through_noise_prefixes_and_mixed_lines(capfd):
    contents = [{"text": "ä\n" * 900, "number": number} for number in range(3)]
    for number, content in enumerate(contents):
        say(number, "fact", content)
    lines = capfd.readouterr().out.splitlines()
    assert max(map(len, lines)) < 1000
    random.Random(0).shuffle(lines)
    reader = Reader()
    noisy = ["Welcome to node1", *(f"node{place}: Last login: never {line} and more" for place, line in enumerate(lines))]
    found = {message.number: message for message in map(reader.read, noisy) if message}
    assert [found[number].content for number in range(3)] == contents


@pytest.mark.parametrize("num_hosts", range(1, 10))
def test_each_pair_is_in_one_round_and_pairs_of_a_round_are_disjoint(num_hosts):
    rounds = schedule(num_hosts)
    assert sorted(itertools.chain(*rounds)) == list(itertools.combinations(range(num_hosts), 2))
    assert all(len(set(itertools.chain(*pairs))) == 2 * len(pairs) for pairs in rounds)
    assert len(rounds) <= max(num_hosts, 1)


@pytest.mark.parametrize(("skew", "least"), [(0.0, 0.0), (90.0, 89.0), (-90.0, -90.0)])
def test_the_way_there_and_back_is_no_skew(skew, least):
    """Asked at 1000; it speaks after 3 s and 5 s, and is heard 0.5 s later."""
    clock = [(1003.0 + skew, 1003.5), (1005.0 + skew, 1005.5)]
    found = clock_skew(clock, 1000.0)
    assert least - 0.01 <= found <= max(skew, -87.0)


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [("eth", {"eth0", "eth1"}), ("=eth0", {"eth0"}), ("=eth", set()), ("^lo,docker", {"eth0", "eth1"}), ("ib0,eth1", {"eth1"})],
)
def test_nccl_names_cards_by_their_beginnings(wanted, taken):
    assert set(filter(nccl_takes(wanted), ["lo", "eth0", "eth1", "docker0"])) == taken


def host_with(number: int, **facts) -> Host:
    return Host(number, f"n{number}", {kind: {"value": value, "fault": None} for kind, value in facts.items()})


def gpus(names=(), driver_cuda=None, torch_cuda="13.0", said=()) -> dict:
    driver = driver_cuda and {"count": 2, "version": "550.1", "cuda": driver_cuda}
    return {"usable": bool(names), "names": list(names), "driver": driver, "torch_cuda": torch_cuda, "said": list(said)}


@pytest.mark.parametrize(
    ("found", "gpu", "driver", "words"),
    [
        ([gpus(["H100"] * 2, "13.0")] * 2, "green", "green", "2 x H100"),
        ([gpus(["H100"] * 2, "13.0"), gpus(["H100"], "13.0")], "red", "green", "n1: 1, below its 2 processes"),
        ([gpus(["H100"] * 2, "13.0"), gpus(["A100"] * 2, "13.0")], "yellow", "green", "A100, H100"),
        ([gpus(["H100"] * 2, "12.4")], "green", "yellow", "older than PyTorch's CUDA 13.0"),
        ([gpus((), "11.4", said=["too old"])], "yellow", "red", "too old"),
        ([gpus((), "12.4", torch_cuda=None)], "yellow", "red", "PyTorch is built for CPUs"),
        ([gpus(["H100"] * 2, "13.0"), gpus((), None)], "red", "green", "n1: none that PyTorch can use, but others have some"),
    ],
)
def test_gpus_and_driver_are_compared(found, gpu, driver, words):
    hosts = [host_with(number, gpus=each) for number, each in enumerate(found)]
    wanted = Wanted({host.name: 2 for host in hosts}, "auto", None)
    rows = gpu_row(hosts, wanted), driver_row(hosts, wanted)
    assert [each.colour for each in rows] == [gpu, driver]
    assert words in rows[0].found + rows[1].found


@pytest.mark.parametrize(
    ("gloo", "nccl", "route", "own_address", "colour", "words"),
    [
        (None, None, "eth0", "10.0.0.1", "green", "eth0 to n1"),
        ("eth0", "=eth0", "eth0", "127.0.1.1", "green", "eth0 to n1"),
        ("ib0", None, "eth0", "10.0.0.1", "red", "GLOO_SOCKET_IFNAME names ib0, but it has eth0, lo"),
        (None, "ib", "eth0", "10.0.0.1", "red", "NCCL_SOCKET_IFNAME is ib"),
        (None, None, "lo", "10.0.0.1", "red", "takes n1 for itself"),
        (None, None, "eth0", "127.0.1.1", "red", "gloo would wait where nobody reaches it"),
    ],
)
def test_network_cards_are_compared_with_the_variables(gloo, nccl, route, own_address, colour, words):
    said = {"NCCL_SOCKET_IFNAME": nccl, "GLOO_SOCKET_IFNAME": gloo}
    more = {"cards": ["eth0", "lo"], "own_name": "n0", "own_address": own_address, "toward": "n1", "route": route}
    found = network_row([host_with(0, network={"wanted": said, **more})], "auto")
    assert (found.colour, words in found.found) == (colour, True)


# --- two machines


@pytest.fixture
def doctor(nodes, where, monkeypatch):
    """`albert doctor` on node A, of both; the exit code must be `code`, and nothing may be left on either."""
    monkeypatch.setenv("COLUMNS", "400")

    def run(*options: object, code: int) -> str:
        process = nodes.start(ALBERT, "doctor", "--hostfile", nodes.hostfile, *where, "--timeout", 30, *options)
        begun_at = time.monotonic()
        output, _ = process.communicate(timeout=120)
        print(f"{output}\nafter {time.monotonic() - begun_at:.1f} s")
        assert process.returncode == code, output
        assert_nothing_left(nodes)
        return output

    return run


def assert_nothing_left(nodes) -> None:
    """No program of ours, and nothing that started one, on a machine that is up."""
    up = [node for node in nodes.nodes if node.holder.poll() is None]
    deadline = time.monotonic() + 10
    while left := [each.pid for node in up for each in node.processes() if is_ours(each)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def is_ours(process: psutil.Process) -> bool:
    try:
        words = " ".join(process.cmdline())
        return any(name in words for name in ("launch.host_facts", "multiprocessing", "pdsh")) and process.status() != "zombie"
    except psutil.NoSuchProcess:
        return False


@contextmanager
def on_b(nodes, *commands: tuple[object, ...], undo: tuple[tuple[object, ...], ...]):
    """Commands on node B, undone afterwards."""
    try:
        for command in commands:
            cluster.call(*nodes.b.enter(), *command)
        yield
    finally:
        for command in undo:
            subprocess.run([*nodes.b.enter(), *map(str, command)], check=False)


def mounted(nodes, source: Path, target: Path, *more: tuple[object, ...]):
    """On node B alone, `source` stands for `target`."""
    return on_b(nodes, ("mount", "--bind", source, target), *more, undo=(("umount", target),))


@needs_nodes
def test_two_machines_that_are_well_are_green(nodes, doctor, tmp_path):
    output = doctor(code=0)
    assert set(colours(output).values()) - {""} == {"green"}
    assert {"clock", "network", "ports", "all-reduce (gloo)", "data folder"} <= colours(output).keys()
    assert f"2 of 2: {nodes.a.name}, {nodes.b.name}" in output
    assert f"slowest: {nodes.a.name} and {nodes.b.name}, " in output
    assert list(tmp_path.iterdir()) == []


@needs_nodes
def test_an_interrupted_look_ends_on_both_machines(nodes, where, tmp_path):
    process = nodes.start(ALBERT, "doctor", "--hostfile", nodes.hostfile, *where)
    while not list(tmp_path.glob(".albert-doctor-*/host-1")):
        assert process.poll() is None
        time.sleep(0.01)
    nodes.a.find("albert doctor").send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130, output
    assert list(tmp_path.iterdir()) == []
    assert_nothing_left(nodes)


@needs_nodes
def test_another_package_version_other_code_and_the_wrong_tokenizer_are_found(nodes, doctor, plenty, tmp_path):
    metadata = next(path for path in importlib.metadata.distribution("xxhash").files if path.name == "METADATA").locate()
    module = Path(__file__).parent.parent / "pretrain" / "schedule.py"
    version = importlib.metadata.version("xxhash")
    (tmp_path / "METADATA").write_text(Path(metadata).read_text().replace(f"Version: {version}", "Version: 0.0.1"))
    (tmp_path / "schedule.py").write_text(module.read_text() + "# another revision\n")
    data = wrong_tokenizer(plenty, tmp_path / "data")
    with mounted(nodes, tmp_path / "METADATA", metadata), mounted(nodes, tmp_path / "schedule.py", module):
        output = doctor("--data", data, code=1)
    assert red(output) == ["packages", "code", "tokenizer"]
    assert f"{nodes.b.name}: xxhash 0.0.1 (here {version})" in output
    assert re.search(rf"{nodes.b.name}: \w{{12}} \(here \w{{12}}\)", output)


@needs_nodes
def test_a_run_folder_that_cannot_be_written_on_one_machine_is_found(nodes, doctor, tmp_path):
    shared = tmp_path / "shared folder"
    shared.mkdir()
    with mounted(nodes, shared, shared, ("mount", "-o", "remount,ro,bind", shared)):
        output = doctor("--output", shared / "run", code=1)
    assert red(output) == ["run folder"]
    assert f"{nodes.b.name}: {shared}/.albert-doctor-" in output
    assert "Read-only file system" in output
    assert list(shared.iterdir()) == []


@needs_nodes
def test_a_run_folder_that_is_another_one_there_is_found(nodes, doctor, tmp_path):
    for name in ("shared", "other"):
        (tmp_path / name).mkdir()
    with mounted(nodes, tmp_path / "other", tmp_path / "shared"):
        output = doctor("--output", tmp_path / "shared" / "run", code=1)
    assert red(output) == ["run folder"]
    assert "No such file or directory" in output


@needs_nodes
def test_closed_ports_are_found_in_a_set_time(nodes, doctor):
    """Nothing leaves B for a high port, but for the answers of sshd."""
    keep = ("ip", "rule", "add", "pref", 100, "ipproto", "tcp", "sport", cluster.PORT, "lookup", "main")
    close = ("ip", "rule", "add", "pref", 200, "ipproto", "tcp", "dport", "20000-65534", "prohibit")
    undo = (("ip", "rule", "del", "pref", 200), ("ip", "rule", "del", "pref", 100))
    with on_b(nodes, keep, close, undo=undo):
        output = doctor("--timeout", 20, code=1)
    assert red(output) == ["ports", "all-reduce (gloo)"]
    assert f"{nodes.b.name}: {nodes.a.name}:" in output
    assert "Let TCP through between the hosts: 20000-32000" in output


@needs_nodes
def test_a_closed_range_beside_the_rendezvous_is_found(nodes, doctor):
    """The hosts meet, but what gloo listens on cannot be reached."""
    keep = ("ip", "rule", "add", "pref", 100, "ipproto", "tcp", "sport", "1-32000", "lookup", "main")
    close = ("ip", "rule", "add", "pref", 200, "ipproto", "tcp", "dport", "32768-65534", "prohibit")
    undo = (("ip", "rule", "del", "pref", 200), ("ip", "rule", "del", "pref", 100))
    with on_b(nodes, keep, close, undo=undo):
        output = doctor("--timeout", 20, code=1)
    assert red(output) == ["ports", "all-reduce (gloo)"]


@pytest.fixture
def patched_b(nodes, tmp_path, monkeypatch):
    """Python code that node B's interpreters run at their start: PYTHONPATH travels, and B has another sitecustomize.py there."""

    def patch(code: str):
        for name, text in (("here", ""), ("there", code)):
            (tmp_path / "site").mkdir(exist_ok=True)
            (tmp_path / "site" / f"{name}.py").write_text(text)
        (tmp_path / "site" / "sitecustomize.py").write_text("")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
        return mounted(nodes, tmp_path / "site" / "there.py", tmp_path / "site" / "sitecustomize.py")

    return patch


@needs_nodes
def test_a_skewed_clock_is_found(nodes, doctor, patched_b):
    """`time.time` is what shifts: no namespace shifts the real-time clock."""
    with patched_b("import time\nreal = time.time\ntime.time = lambda: real() - 90\n"):
        output = doctor(code=1)
    assert red(output) == ["clock"]
    assert re.search(rf"{nodes.b.name}: [89]\d\.\d s behind this machine", output)


@needs_nodes
def test_an_all_reduce_that_hangs_is_ended(nodes, doctor, patched_b):
    code = "import sys\nif 'host_facts' in str(sys.orig_argv) or 'forkserver' in str(sys.orig_argv):\n"
    code += "    import time\n    import torch.distributed\n    torch.distributed.all_reduce = lambda *_, **__: time.sleep(3600)\n"
    with patched_b(code):
        output = doctor("--timeout", 20, code=1)
    assert red(output) == ["all-reduce (gloo)"]
    assert f"{nodes.a.name} and {nodes.b.name}: " in output


@needs_nodes
def test_a_network_card_that_is_not_there_is_found(nodes, doctor, monkeypatch, tmp_path):
    variables = tmp_path / "variables"
    variables.write_text("GLOO_SOCKET_IFNAME=ib0\n")
    monkeypatch.setenv("DS_ENV_FILE", str(variables))
    output = doctor(code=1)
    assert "network" in red(output)
    assert f"{nodes.a.name}: GLOO_SOCKET_IFNAME names ib0, but it has eth0, lo" in output


@needs_nodes
def test_a_machine_that_is_gone_is_found_in_a_set_time(nodes, doctor):
    nodes.power_off(nodes.b)
    try:
        output = doctor(code=1)
    finally:
        nodes.power_on(nodes.b)
    assert "hosts" in red(output)
    assert f"{nodes.b.name}: no answer" in output
