"""What a machine can do to a run: kills at any moment, disks that fill or turn read-only, files cut short or gone."""

import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from runs import FAULTS, SLOW, STEPS, assert_same_run, records, start, wait_for, workers

from launch.run import alone_in, make_run_folder
from pretrain.checkpoint import find_fault, list_checkpoints
from tokenizer.errors import UserError
from tokenizer.files import write_text

EVERY_STEP = ("--checkpoint.every_n_steps", 1, "--checkpoint.keep_last", 20)


@pytest.mark.parametrize("victim", ["rank 0", "rank 1", "launcher"])
def test_kill_nine_at_random_moments_loses_nothing_that_was_saved(victim, undisturbed, small_config, synthetic, launch, tmp_path):
    """Three kills in a row, each at a moment of its own after the start of the training."""
    run_folder = tmp_path / "run"
    generator = random.Random(victim)
    landed = 0
    for _ in range(3):
        saved = newest(run_folder)
        process = start(small_config, synthetic, run_folder, *EVERY_STEP, **SLOW)
        wait_for(lambda saved=saved: newest(run_folder) > saved, process)
        time.sleep(generator.uniform(0, 0.6))
        landed += kill(process, victim)
        process.communicate(timeout=120)
        assert all(find_fault(folder) is None for folder in list_checkpoints(run_folder / "checkpoints"))
        assert newest(run_folder) > saved
        if (run_folder / "DONE").exists():
            break
    assert landed
    launch(run_folder, *EVERY_STEP)
    assert_same_run(run_folder, undisturbed)


def newest(run_folder: Path) -> int:
    folders = list_checkpoints(run_folder / "checkpoints")
    return int(folders[-1].name.removeprefix("step-")) if folders else -1


def kill(process: subprocess.Popen, victim: str) -> bool:
    """SIGKILL to one process under `albert launch`; whether it was still there."""
    try:
        children = psutil.Process(process.pid).children()
        ranks = {worker.environ()["RANK"]: worker for worker in workers(process)}
        (children[0] if victim == "launcher" else ranks[victim.split()[1]]).kill()
    except (psutil.NoSuchProcess, IndexError, KeyError):
        return False
    return True


def test_a_killed_albert_launch_leaves_workers_that_end_the_run(undisturbed, small_config, synthetic, tmp_path):
    run_folder = tmp_path / "run"
    process = start(small_config, synthetic, run_folder)
    wait_for((run_folder / "metrics.jsonl").exists, process)
    left = workers(process)
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(left, timeout=60)[1]
    assert_same_run(run_folder, undisturbed)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_the_next_step_and_the_run_goes_on_the_same(signum, undisturbed, small_config, synthetic, launch, tmp_path):
    run_folder = tmp_path / "run"
    process = start(small_config, synthetic, run_folder, "--checkpoint.every_n_steps", 100, **SLOW)
    wait_for(lambda: (run_folder / "metrics.jsonl").exists() and len(records(run_folder)) >= 2, process)
    process.send_signal(signum)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 3, output
    seen = records(run_folder)[-1]["step"]
    assert newest(run_folder) == seen  # of the step that was under way, and no later one
    assert json.loads((run_folder / "state.json").read_text())["status"] == "preempted"
    assert not (run_folder / "DONE").exists()
    launch(run_folder, "--checkpoint.every_n_steps", 3)
    assert_same_run(run_folder, undisturbed)


def test_a_signal_reaches_the_workers_also_where_no_stop_file_can_be_made(undisturbed, small_config, synthetic, launch, tmp_path):
    run_folder = tmp_path / "run"
    process = start(small_config, synthetic, run_folder, "--checkpoint.every_n_steps", 2, **SLOW)
    wait_for(lambda: newest(run_folder) >= 2, process)
    if subprocess.run(["chattr", "+i", str(run_folder)], capture_output=True).returncode:
        process.kill()
        pytest.skip("an immutable folder needs root and a file system that knows it")
    try:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    finally:
        subprocess.run(["chattr", "-i", str(run_folder)], check=True)
    assert process.returncode == 1, output  # DeepSpeed's launcher does not pass code 3 on, and the report takes a file
    assert newest(run_folder) == records(run_folder)[-1]["step"] < STEPS
    launch(run_folder)
    assert_same_run(run_folder, undisturbed)


def test_training_goes_on_while_a_checkpoint_is_written(launch, tmp_path):
    """A disk on which a checkpoint takes seconds holds no step up: the steps after one are logged before it is there."""
    run_folder = tmp_path / "run"
    launch(run_folder, "--training.steps", 8, "--training.validate_every_n_steps", 100, PYTHONPATH=FAULTS, SLOW_WRITE="6")
    written = (run_folder / "checkpoints" / "step-5" / "manifest.json").stat().st_mtime
    logged = {record["step"]: record["time"] for record in records(run_folder)}
    assert logged[8] < written
    (begun, _) = records(run_folder, "checkpoint")
    assert begun["held_up_seconds"] < 6


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 2 MB; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_ends_the_run_with_an_error_and_room_lets_it_go_on(undisturbed, launch, small_disk):
    run_folder = small_disk / "run"
    launch(run_folder, "--training.steps", 5, *EVERY_STEP)
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        fill(file, leave=300_000)  # a checkpoint takes some 230 kB
    error = launch(run_folder, *EVERY_STEP, code=2).stderr
    assert "cannot be written (No space left on device)" in error
    assert "Traceback" not in error
    assert newest(run_folder) >= 5
    assert all(find_fault(folder) is None for folder in list_checkpoints(run_folder / "checkpoints"))
    ballast.unlink()
    launch(run_folder, "--checkpoint.every_n_steps", 5, "--checkpoint.keep_last", 2)
    assert_same_run(run_folder, undisturbed)


def fill(file, leave: int) -> None:
    """Write until `leave` bytes are free."""
    while (room := shutil.disk_usage(Path(file.name).parent).free - leave) > 0:
        file.write(bytes(min(room, 65536)))
        file.flush()


def test_a_disk_that_is_full_to_the_last_byte_still_gives_the_true_exit_code(launch, small_disk):
    run_folder = small_disk / "run"
    launch(run_folder, "--training.steps", 3, *EVERY_STEP)
    with (small_disk / "ballast").open("wb") as file:
        fill(file, leave=0)
    error = launch(run_folder, *EVERY_STEP, code=2).stderr
    assert "cannot be written" in error
    assert "Traceback" not in error
    assert newest(run_folder) == 3
    (small_disk / "ballast").unlink()
    launch(run_folder, *EVERY_STEP)
    assert newest(run_folder) == STEPS


def test_a_checkpoint_folder_that_turned_read_only_ends_the_run_with_an_error_and_nothing_is_lost(
    undisturbed, small_config, synthetic, launch, small_disk
):
    run_folder = small_disk / "run"
    launch(run_folder, "--training.steps", 5)
    checkpoints = run_folder / "checkpoints"
    subprocess.run(["mount", "--bind", str(checkpoints), str(checkpoints)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(checkpoints)], check=True)
    try:
        error = launch(run_folder, "--checkpoint.every_n_steps", 1, code=2).stderr
    finally:
        subprocess.run(["umount", str(checkpoints)], check=True)
    assert "cannot be written (Read-only file system)" in error
    assert "Traceback" not in error
    assert newest(run_folder) == 5
    launch(run_folder)
    assert_same_run(run_folder, undisturbed)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "deleted"])
def test_damage_to_the_newest_checkpoint_costs_its_steps_and_nothing_else(damage, undisturbed, launch, tmp_path):
    run_folder = tmp_path / "run"
    shutil.copytree(undisturbed, run_folder)
    (run_folder / "DONE").unlink()
    newest_folder = run_folder / "checkpoints" / f"step-{STEPS}"
    path = newest_folder / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "deleted":
        shutil.rmtree(newest_folder)
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 3])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    output = launch(run_folder).stdout
    assert ("optimizer.safetensors is damaged" in output) == (damage != "deleted")
    assert f"resuming from {run_folder}/checkpoints/step-5" in output
    set_aside = run_folder / "checkpoints" / f"damaged-step-{STEPS}"
    assert set_aside.is_dir() == (damage != "deleted")
    shutil.rmtree(set_aside, ignore_errors=True)
    assert_same_run(run_folder, undisturbed)


def test_two_launches_at_the_same_moment_are_one_run_and_one_refusal(undisturbed, small_config, synthetic, tmp_path):
    run_folder = tmp_path / "run"
    both = [start(small_config, synthetic, run_folder) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    refused = outputs[[process.returncode for process in both].index(2)]
    assert "another run is at work here" in refused
    assert_same_run(run_folder, undisturbed)


def begin(run_folder, ready):
    """What `albert launch` does first; "begun", or why it was refused."""
    ready.wait()
    try:
        make_run_folder(run_folder, "0700")
        with alone_in(run_folder):
            write_text(run_folder / "config.yaml", "seed: 0\n")
        return "begun"
    except UserError as error:
        return str(error)


def test_of_starts_in_a_new_folder_at_one_moment_each_is_begun_or_told_of_the_other(tmp_path):
    refused = 0
    with ThreadPoolExecutor(4) as pool:
        for round_number in range(200):
            run_folder, ready = tmp_path / f"run{round_number}", threading.Barrier(4)
            outcomes = [pool.submit(begin, run_folder, ready) for _ in range(4)]
            reasons = [reason for outcome in outcomes if (reason := outcome.result(timeout=60)) != "begun"]
            assert len(reasons) < 4
            assert all("another run is at work here" in reason for reason in reasons)
            refused += len(reasons)
    assert refused


def test_data_that_changed_since_the_start_is_refused(launch, small_config, synthetic, albert, tmp_path):
    moved, run_folder = tmp_path / "data", tmp_path / "run"
    shutil.copytree(synthetic, moved)
    where = ("--config", small_config, "--data", moved, "--output", run_folder, "--num_procs", 2)
    albert("launch", *where, "--training.steps", 2)
    manifest = json.loads((moved / "manifest.json").read_text())
    (moved / "manifest.json").write_text(json.dumps(manifest | {"seed": 1}))
    error = albert("launch", *where, code=2).stderr
    assert "is not the data" in error
    shutil.copy(synthetic / "manifest.json", moved)
    albert("launch", *where)
    assert (run_folder / "DONE").exists()


def test_a_run_goes_on_over_lines_of_its_log_that_are_no_records(launch, undisturbed, tmp_path):
    run_folder = tmp_path / "run"
    launch(run_folder, "--training.steps", 5)
    with (run_folder / "metrics.jsonl").open("ab") as log:
        log.write(b'\0\0\n[]\n{"event": "train"}\n\xff\xfe\n{"event": "train", "step": 5}\n')
    assert "metrics.jsonl: 4 damaged line(s) dropped" in launch(run_folder).stdout
    assert len(records(run_folder)) == 1 + len(records(undisturbed))  # one record is without figures
