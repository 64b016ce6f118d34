"""`albert launch --hostfile` on two machines, and what can happen to them: each run comes to the result of an undisturbed one."""

import time
from contextlib import suppress
from pathlib import Path

import cluster
import numpy as np
import psutil
import pytest
from conftest import ALBERT
from runs import FAULTS, LONG, SLOW, assert_same_run, figures, records, wait_for

from launch.hosts import read_hostfile
from pretrain.report import newest_step
from tokenizer.errors import UserError

needs_nodes = pytest.mark.skipif(cluster.missing() is not None, reason=str(cluster.missing()))
SUPERVISED = ("--supervision.max_restarts", 2, "--supervision.watchdog_seconds", 8, "--checkpoint.every_n_steps", 1)


@pytest.fixture
def begin(nodes, small_config, synthetic):
    """Start a run on both nodes; whatever is left there at the end of the test is ended."""
    begun = []

    def run(run_folder: Path, *options: object, until_step: int = -1):
        where = ("--config", small_config, "--data", synthetic, "--output", run_folder, "--hostfile", nodes.hostfile)
        process = nodes.start(ALBERT, "launch", *where, *SUPERVISED, "--checkpoint.keep_last", 20, *options)
        begun.append(process)
        wait_for(lambda: newest_step(run_folder) >= until_step, process)
        return process

    yield run
    for process in begun:
        if process.poll() is None:
            process.kill()
            process.wait()
    for each in left_on(nodes):
        with suppress(psutil.NoSuchProcess):
            each.kill()


@pytest.fixture
def slow_step(tmp_path, monkeypatch):
    """Slow steps on both nodes, so that a fault meets a run at work; they come to the same."""
    path = tmp_path / "slow_step"
    path.write_text("".join(f"{name}={value}\n" for name, value in SLOW.items()))
    monkeypatch.setenv("DS_ENV_FILE", str(path))


def end(process, code: int, seconds: float) -> str:
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == code, output
    return output


def assert_nothing_left(nodes) -> None:
    """No worker, and nothing that started one, on either node."""
    deadline = time.monotonic() + 10
    while True:
        left = left_on(nodes)
        if not left or time.monotonic() > deadline:
            assert not left
            return
        time.sleep(0.2)


def left_on(nodes) -> list[psutil.Process]:
    return [each for node in nodes.nodes for each in node.processes() if is_ours(each)]


def is_ours(process: psutil.Process) -> bool:
    try:
        ours = {str(ALBERT), "pretrain", "launch.node", "deepspeed.launcher.launch", "pdsh"} & set(process.cmdline())
        return bool(ours) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@needs_nodes
def test_two_nodes_make_the_run_of_one_whatever_the_folder_is_called(nodes, begin, undisturbed, tmp_path):
    run_folder = tmp_path / 'a run\'s "100 %n" $HOME; `true`'
    end(begin(run_folder), 0, 300)
    ours, theirs = (figures(folder, "loss", "grad_norm", "rows_crc32") for folder in (run_folder, undisturbed))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert_nothing_left(nodes)


def kill_trainer_on_b(nodes) -> None:
    nodes.b.find("-m pretrain").kill()


def kill_launcher_on_a(nodes) -> None:
    nodes.a.find("deepspeed.launcher.launch").kill()


def kill_pdsh(nodes) -> None:
    next(process for process in nodes.a.processes() if process.name().startswith("pdsh")).kill()


@needs_nodes
@pytest.mark.parametrize("fault", [kill_trainer_on_b, kill_launcher_on_a, kill_pdsh])
def test_a_process_that_dies_on_either_node_is_a_restart(fault, nodes, begin, slow_step, undisturbed, tmp_path):
    process = begin(tmp_path / "run", until_step=2)
    fault(nodes)
    fault_at = time.monotonic()
    output = end(process, 0, 300)
    print(f"{fault.__name__}: done after {time.monotonic() - fault_at:.1f} s")
    assert "restart 1 in 5 s" in output
    assert len(records(tmp_path / "run", "restart")) == 1
    assert_same_run(tmp_path / "run", undisturbed)
    assert_nothing_left(nodes)


@needs_nodes
def test_albert_launch_that_is_killed_leaves_workers_on_both_nodes_that_go_on_to_the_end(
    nodes, begin, slow_step, undisturbed, tmp_path
):
    process = begin(tmp_path / "run", until_step=2)
    nodes.a.find("albert launch").kill()
    fault_at = time.monotonic()
    while not (tmp_path / "run" / "DONE").exists():
        assert time.monotonic() < fault_at + 180
        time.sleep(0.1)
    print(f"albert launch killed: done after {time.monotonic() - fault_at:.1f} s")
    end(process, -9, 60)
    assert_same_run(tmp_path / "run", undisturbed)
    assert_nothing_left(nodes)


@needs_nodes
def test_an_sshd_that_dies_takes_nothing_with_it(nodes, begin, slow_step, undisturbed, tmp_path):
    """The connection to node B ends; its workers do not, and the run is done."""
    process = begin(tmp_path / "run", until_step=2)
    for connection in [each for each in nodes.b.processes() if each.name() == "sshd"]:
        connection.kill()
    fault_at = time.monotonic()
    output = end(process, 0, 300)
    print(f"sshd: done after {time.monotonic() - fault_at:.1f} s")
    assert "restart" not in output
    assert_same_run(tmp_path / "run", undisturbed)
    nodes.power_off(nodes.b)
    nodes.power_on(nodes.b)


def wait_for_step(run_folder: Path, process, step: int) -> None:
    """Two steps after the checkpoint of step 20, others may no longer be saving: what hangs then is given no more time."""
    wait_for(lambda: (run_folder / "metrics.jsonl").exists() and len(records(run_folder)) >= step, process)


@needs_nodes
def test_a_network_that_is_cut_for_a_while_holds_the_run_up_and_no_more(nodes, begin, slow_step, long_undisturbed, tmp_path):
    process = begin(tmp_path / "run", *LONG, "--supervision.watchdog_seconds", 60)
    wait_for_step(tmp_path / "run", process, 22)
    nodes.cut()
    time.sleep(20)
    steps = len(records(tmp_path / "run"))
    nodes.join()
    joined_at = time.monotonic()
    assert "restart" not in end(process, 0, 300)
    print(f"network cut for 20 s: done {time.monotonic() - joined_at:.1f} s after it was back")
    assert steps < 60
    assert_same_run(tmp_path / "run", long_undisturbed, step=60)


@needs_nodes
def test_a_network_that_is_cut_for_longer_is_found_and_the_run_goes_on_once_it_is_back(
    nodes, begin, slow_step, long_undisturbed, tmp_path
):
    run_folder = tmp_path / "run"
    process = begin(run_folder, *LONG)
    wait_for_step(run_folder, process, 22)
    nodes.cut()
    cut_at = time.monotonic()
    try:
        while "no sign of life" not in (run_folder / "state.json").read_text():
            assert time.monotonic() - cut_at < 60  # watchdog_seconds is 8
            time.sleep(0.1)
    finally:
        nodes.join()
    print(f"cut network: found after {time.monotonic() - cut_at:.1f} s")
    output = end(process, 0, 300)
    assert "restart 1 in 5 s" in output
    assert_same_run(run_folder, long_undisturbed, step=60)
    assert_nothing_left(nodes)
    print(f"cut network: done after {time.monotonic() - cut_at:.1f} s")


@needs_nodes
def test_a_network_that_stays_cut_ends_the_run_on_both_nodes_and_the_same_command_goes_on(
    nodes, begin, slow_step, long_undisturbed, tmp_path
):
    process = begin(tmp_path / "run", *LONG, "--supervision.max_restarts", 1)
    wait_for_step(tmp_path / "run", process, 22)
    nodes.cut()
    cut_at = time.monotonic()
    try:
        output = end(process, 1, 300)
        print(f"network cut for good: code 1 after {time.monotonic() - cut_at:.1f} s")
        assert_nothing_left(nodes)
    finally:
        nodes.join()
    assert "no sign of life" in output
    assert "not every host can be reached" in output
    end(begin(tmp_path / "run", *LONG), 0, 300)
    assert_same_run(tmp_path / "run", long_undisturbed, step=60)


@needs_nodes
def test_a_node_that_is_gone_ends_the_run_with_code_1_and_the_same_command_goes_on(
    nodes, begin, slow_step, long_undisturbed, tmp_path
):
    process = begin(tmp_path / "run", *LONG, "--supervision.max_restarts", 1)
    wait_for_step(tmp_path / "run", process, 22)
    nodes.power_off(nodes.b)
    gone_at = time.monotonic()
    try:
        output = end(process, 1, 300)
    finally:
        nodes.power_on(nodes.b)
    print(f"node gone: code 1 after {time.monotonic() - gone_at:.1f} s")
    assert "no sign of life" in output
    assert "not every host can be reached" in output
    assert "The same command goes on" in output
    end(begin(tmp_path / "run", *LONG), 0, 300)
    assert_same_run(tmp_path / "run", long_undisturbed, step=60)
    assert_nothing_left(nodes)


@needs_nodes
def test_a_signal_saves_on_both_nodes_and_a_second_one_ends_both_at_once(
    nodes, begin, slow_step, undisturbed, tmp_path, monkeypatch
):
    """The second falls into the writing of a checkpoint, which the environment file makes take half a minute on node A."""
    process = begin(tmp_path / "run", until_step=2)
    nodes.a.find("albert launch").terminate()
    asked_at = time.monotonic()
    end(process, 3, 120)
    print(f"SIGTERM: code 3 after {time.monotonic() - asked_at:.1f} s")
    saved = newest_step(tmp_path / "run")
    variables = tmp_path / "variables"
    variables.write_text(f"PYTHONPATH={FAULTS}\nSLOW_WRITE=30\nAPI_TOKEN=canary\n")
    monkeypatch.setenv("DS_ENV_FILE", str(variables))
    process = begin(tmp_path / "run")
    while len(records(tmp_path / "run")) <= saved:
        assert process.poll() is None
        time.sleep(0.05)
    launcher = nodes.a.find("albert launch")
    launcher.terminate()
    wait_for((tmp_path / "run" / "STOP").exists, process, 60)
    launcher.terminate()
    asked_at = time.monotonic()
    output = end(process, 1, 20)
    print(f"second SIGTERM: code 1 after {time.monotonic() - asked_at:.1f} s")
    assert "not carried to the other nodes, for they look like secrets: API_TOKEN" in output
    assert "canary" not in (tmp_path / "run" / "nodes.json").read_text() + output
    assert (tmp_path / "run" / "nodes.json").stat().st_mode & 0o777 == 0o600
    assert_nothing_left(nodes)
    monkeypatch.delenv("DS_ENV_FILE")
    end(begin(tmp_path / "run"), 0, 300)
    assert_same_run(tmp_path / "run", undisturbed)


@needs_nodes
def test_a_host_without_the_program_is_refused_before_anything_starts(nodes, begin, tmp_path):
    """Node B cannot be reached."""
    nodes.power_off(nodes.b)
    try:
        began_at = time.monotonic()
        output = end(begin(tmp_path / "run"), 2, 60)
        print(f"unreachable at the start: code 2 after {time.monotonic() - began_at:.1f} s")
    finally:
        nodes.power_on(nodes.b)
    assert "not every host can be reached by ssh without a password" in output
    assert nodes.b.name in output


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a slots=1\nb slots=x\na slots=2\n", ["line 2: expected `HOST slots=N`, found 'b slots=x'", "line 3: a is there already"]),
        ("$(reboot) slots=1", ["line 1: expected"]),
        ("n[1-2] slots=1", ["line 1: expected"]),
        ("# nobody\n", ["it names no host"]),
        ("localhost slots=1\nb slots=1", ["localhost: means another machine on each"]),
    ],
)
def test_a_hostfile_is_checked_line_by_line(content, expected, tmp_path):
    path = tmp_path / "hostfile"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        read_hostfile(path)
    assert all(words in str(error.value) for words in expected)
