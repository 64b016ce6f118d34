"""`albert launch` starts a crashed run again by itself, and a process that hangs ends itself; the result is that of before."""

import signal
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest
from runs import FAULTS, SLOW, assert_same_run, records, start, wait_for, workers

from pretrain.report import newest_step

SUPERVISED = ("--supervision.max_restarts", 2, "--supervision.watchdog_seconds", 4, "--checkpoint.every_n_steps", 2)


def rank(process: subprocess.Popen, number: int) -> psutil.Process:
    return next(worker for worker in workers(process) if worker.environ()["RANK"] == str(number))


def kill_rank(process: subprocess.Popen) -> None:
    rank(process, 1).kill()


def node_launchers(process: subprocess.Popen) -> list[psutil.Process]:
    """DeepSpeed's, not the git that is asked for the revision."""
    found = []
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.Error):
            found += [child] * ("deepspeed.launcher.launch" in child.cmdline())
    return found


def kill_node_launcher(process: subprocess.Popen) -> None:
    node_launchers(process)[0].kill()


def test_a_start_that_comes_to_nothing_is_found_and_tried_again(undisturbed, small_config, synthetic, tmp_path):
    """DeepSpeed's launcher stands still before it has started a worker."""
    process = start(small_config, synthetic, tmp_path / "run", *SUPERVISED)
    wait_for(lambda: bool(node_launchers(process)), process)
    node_launchers(process)[0].suspend()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "rank 0 did not start within 30 s\nrestart 1 in 5 s" in output
    assert_same_run(tmp_path / "run", undisturbed)


def stop_rank(process: subprocess.Popen) -> None:
    """A process that hangs: it neither answers nor ends; the others wait for it."""
    rank(process, 1).suspend()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (kill_rank, "a process ended without a word"),
        (kill_node_launcher, "the workers ended without a report"),
        (stop_rank, "rank 0: no sign of life for "),
    ],
)
def test_a_run_that_loses_a_process_goes_on_by_itself_to_the_same_result(
    fault, reason, undisturbed, small_config, synthetic, tmp_path
):
    run_folder = tmp_path / "run"
    process = start(small_config, synthetic, run_folder, *SUPERVISED, **SLOW)
    wait_for(lambda: newest_step(run_folder) >= 2, process)
    old = workers(process)
    fault(process)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert reason in output
    assert "restart 1 in 5 s" in output
    assert not [worker for worker in old if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]
    (restart,) = records(run_folder, "restart")
    assert restart["number"] == 1
    assert reason in restart["message"]
    assert restart["step"] >= 2
    assert_same_run(run_folder, undisturbed)


def starts(output: str) -> int:
    return output.count("process(es), ")


def test_restarts_end_where_they_gain_nothing(albert, small_config, synthetic, tmp_path):
    """Each start dies in the same step, before the first checkpoint."""
    where = ("--config", small_config, "--data", synthetic, "--output", tmp_path / "run", "--num_procs", 2)
    options = ("--supervision.max_restarts", 1)
    finished = albert("launch", *where, *options, code=1, PYTHONPATH=FAULTS, DIES_AT="3")
    assert starts(finished.stdout) == 2
    assert finished.stderr.count("restart 1 in 5 s") == 1
    assert "The same command goes on" in finished.stderr
    assert not (tmp_path / "run" / "DONE").exists()


def test_progress_gives_new_restarts(albert, small_config, synthetic, undisturbed, tmp_path):
    """Each start comes 3 steps further before it dies, and saves two of them: more restarts than max_restarts in all."""
    where = ("--config", small_config, "--data", synthetic, "--output", tmp_path / "run", "--num_procs", 2)
    options = ("--supervision.max_restarts", 1, "--checkpoint.every_n_steps", 1, "--checkpoint.keep_last", 20)
    finished = albert("launch", *where, *options, PYTHONPATH=FAULTS, DIES_AT="9")
    assert [record["number"] for record in records(tmp_path / "run", "restart")] == [1, 2, 3][: starts(finished.stdout) - 1]
    assert starts(finished.stdout) >= 3
    assert_same_run(tmp_path / "run", undisturbed)


def test_an_error_that_comes_back_with_the_same_words_is_not_tried_a_third_time(albert, small_config, synthetic, tmp_path):
    where = ("--config", small_config, "--data", synthetic, "--output", tmp_path / "run", "--num_procs", 2)
    options = ("--supervision.max_restarts", 5)
    finished = albert("launch", *where, *options, code=1, PYTHONPATH=FAULTS, DIES_AT="3", DIES_BY="error")
    assert starts(finished.stdout) == 2
    assert "RuntimeError: a fault of the code" in finished.stderr


def test_a_signal_in_the_pause_before_a_restart_ends_with_code_3(small_config, synthetic, launch, undisturbed, tmp_path):
    run_folder = tmp_path / "run"
    process = start(small_config, synthetic, run_folder, *SUPERVISED, **SLOW)
    wait_for(lambda: newest_step(run_folder) >= 2, process)
    kill_rank(process)
    next(line for line in process.stdout if "restart 1 in 5 s" in line)  # before that, the signal is answered with the crash
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 3, output
    assert not (run_folder / "STOP").exists()
    launch(run_folder)
    assert_same_run(run_folder, undisturbed)


WATCHED = """
import sys, time
from pretrain.watchdog import Watchdog
watchdog = Watchdog(1.0, lambda what: print("told:", what, flush=True))
{body}
print("alive")
"""


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("watchdog.beat('dancing'); time.sleep(5)", 1),
        ("[(watchdog.beat('dancing'), time.sleep(0.5)) for _ in range(4)]", 0),
        ("watchdog.beat('saving', 10); time.sleep(2.5)", 0),
        # nothing is hung that takes less than three times the longest before
        ("watchdog.beat('dancing'); time.sleep(0.75); watchdog.beat('dancing'); time.sleep(1.75)", 0),
        ("time.sleep(2.5)", 0),  # starting
        # nor if the longest came where more was allowed, as in the first step
        ("watchdog.beat('dancing', 10); time.sleep(1.25); watchdog.beat('dancing'); time.sleep(3)", 0),
        ("watchdog.beat('dancing'); watchdog.close(); time.sleep(2.5)", 0),
    ],
)
def test_what_is_taken_for_hung(body, code):
    command = [sys.executable, "-c", WATCHED.format(body=body)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert finished.returncode == code, finished.stderr
    assert ("told: no sign of life for" in finished.stdout) == bool(code)
    assert ("while dancing" in finished.stderr and 'File "<string>"' in finished.stderr) == bool(code)
    assert ("alive" in finished.stdout) == (not code)
