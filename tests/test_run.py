"""Whole runs through `albert launch`: real processes, real DeepSpeed, real kills."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from runs import SLOW, STEPS, assert_same_run, records, start, wait_for, workers
from safetensors.torch import load_file

from data_prep.schema import read_manifest
from pretrain.data import open_split


def test_a_run_leaves_what_the_readme_lists(undisturbed):
    assert json.loads((undisturbed / "DONE").read_text())["step"] == STEPS
    assert json.loads((undisturbed / "state.json").read_text())["status"] == "done"
    assert [record["step"] for record in records(undisturbed)] == list(range(1, STEPS + 1))
    assert [record["step"] for record in records(undisturbed, "validation")] == [0, 5, 10]
    wanted = {
        "loss",
        "mlm_loss",
        "sop_loss",
        "mlm_accuracy",
        "sop_accuracy",
        "lr",
        "grad_norm",
        "tokens_per_second",
        "eta_seconds",
        "epoch",
    }
    assert wanted <= records(undisturbed)[0].keys()
    assert not list(undisturbed.glob("checkpoints/.*"))


def test_the_best_checkpoint_is_the_one_with_the_lowest_validation_loss_and_is_kept(launch, tmp_path):
    run_folder = tmp_path / "run"
    every = ["--training.validate_every_n_steps", 1, "--checkpoint.every_n_steps", 1, "--checkpoint.keep_last", 1]
    launch(run_folder, *every, "--optimizer.lr", 0.5, num_procs=1)  # a rate at which the loss goes up and down
    losses = {record["step"]: record["mlm_loss"] for record in records(run_folder, "validation") if record["step"]}
    best = min(losses, key=losses.get)
    assert best != STEPS, "choose another rate: the last step is the best"
    assert {path.name for path in (run_folder / "checkpoints").iterdir()} == {f"step-{best}", f"step-{STEPS}"}
    state = json.loads((run_folder / "checkpoints" / f"step-{STEPS}" / "state.json").read_text())
    assert state["best"] == {"step": best, "mlm_loss": losses[best]}


def test_five_steps_and_five_resumed_equal_ten_bitwise(undisturbed, launch, tmp_path):
    rows = len(open_split_of(undisturbed))
    assert rows % 8 != 0
    assert 5 < rows / 8 < STEPS  # the epoch ends inside a batch, in the resumed part
    launch(tmp_path / "run", "--training.steps", 5)
    output = launch(tmp_path / "run").stdout
    assert "resuming from" in output
    assert "step-5" in output
    assert_same_run(tmp_path / "run", undisturbed)


def open_split_of(run_folder: Path):
    import yaml

    folder = Path(yaml.safe_load((run_folder / "config.yaml").read_text())["data"]["path"])
    return open_split(folder, read_manifest(folder), "train")


def test_kill_nine_during_a_save_loses_nothing(undisturbed, launch, small_config, synthetic, tmp_path):
    every_step = ("--checkpoint.every_n_steps", "1", "--checkpoint.keep_last", "20")
    run_folder = killed_during_a_save(small_config, synthetic, tmp_path, *every_step)
    assert (run_folder / "checkpoints" / "step-3").is_dir()
    output = launch(run_folder, *every_step).stdout
    assert "resuming from" in output
    assert not list((run_folder / "checkpoints").glob(".step-*"))
    assert_same_run(run_folder, undisturbed)


def killed_during_a_save(small_config: Path, synthetic: Path, tmp_path: Path, *overrides: str) -> Path:
    """A run whose workers were all killed while a save after step 3 was half-written; a kill that came too late is tried again."""
    for attempt in range(5):
        checkpoints = tmp_path / f"attempt-{attempt}" / "checkpoints"
        process = start(small_config, synthetic, checkpoints.parent, *overrides)
        wait_for((checkpoints / "step-3").is_dir, process)
        victims = workers(process)
        done = checkpoints.parent / "DONE"
        wait_for(lambda where=checkpoints, done=done: any(where.glob(".step-*")) or done.exists(), process)
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        code = process.wait(timeout=120)
        if any(checkpoints.glob(".step-*")):
            assert code == 1
            return checkpoints.parent
    raise AssertionError("no kill met a save")


def test_checkpoints_of_which_none_is_whole_stop_the_run(undisturbed, launch, tmp_path):
    run_folder = tmp_path / "run"
    shutil.copytree(undisturbed, run_folder)
    (run_folder / "DONE").unlink()
    for folder in (run_folder / "checkpoints").iterdir():
        (folder / "optimizer.safetensors").write_bytes(b"")
    error = launch(run_folder, code=2).stderr
    assert "no checkpoint is whole" in error
    assert "Traceback" not in error
    assert len(list((run_folder / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_mixed_precision_stays_near_fp32_and_fp16_resumes_bitwise_with_its_scaler(dtype, undisturbed, launch, tmp_path):
    launch(tmp_path / "whole", "--precision.dtype", dtype)
    if dtype == "fp16":  # with losses so large that the first steps overflow
        options = ["--precision.dtype", dtype, "--model.initializer_range", 1, "--checkpoint.every_n_steps", 1]
        launch(tmp_path / "one go", *options)
        launch(tmp_path / "halves", *options, "--training.steps", 5)
        assert records(tmp_path / "halves", "skipped")
        launch(tmp_path / "halves", *options)
        assert_same_run(tmp_path / "halves", tmp_path / "one go")
    state = json.loads((tmp_path / "whole" / "checkpoints" / "step-10" / "state.json").read_text())
    assert (state["grad_scaler"] is not None) == (dtype == "fp16")
    losses, expected = ([record["mlm_loss"] for record in records(folder)] for folder in (tmp_path / "whole", undisturbed))
    np.testing.assert_allclose(
        losses, expected, rtol=0.01
    )  # bf16 keeps 8 bits: 0.4 % an operation, averaged over hundreds of pieces
    assert losses != expected  # and it was not fp32 after all


def test_a_diverged_run_stops_with_code_4_and_keeps_its_last_good_checkpoint(launch, tmp_path):
    error = launch(tmp_path / "run", "--optimizer.lr", "1e30", "--checkpoint.every_n_steps", 1, code=4).stderr
    assert "diverged" in error
    assert "Traceback" not in error
    weights = [load_file(path) for path in (tmp_path / "run" / "checkpoints").glob("step-*/model.safetensors")]
    assert all(torch.isfinite(tensor).all() for checkpoint in weights for tensor in checkpoint.values())


def test_torchrun_and_a_plain_start_do_what_the_launcher_does(undisturbed, small_config, synthetic, tmp_path):
    for name, starter in (
        ("torchrun", ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]),
        ("plain", ["-m"]),
    ):
        run_folder = tmp_path / name
        run_folder.mkdir()
        shutil.copy(undisturbed / "config.yaml", run_folder)
        command = [sys.executable, *starter, "pretrain", str(run_folder / "config.yaml")]
        threads = str(max(1, len(os.sched_getaffinity(0)) // 2))  # as `albert launch` sets them: sums are in the same order
        subprocess.run(command, check=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": threads})
    assert_same_run(tmp_path / "torchrun", undisturbed)
    assert (tmp_path / "plain" / "DONE").exists()
    first, expected = (records(folder, "validation")[0]["mlm_loss"] for folder in (tmp_path / "plain", undisturbed))
    assert first == pytest.approx(expected, rel=1e-6)


def test_a_worker_says_how_it_is_started(tmp_path):
    (tmp_path / "otherconfig.yaml").touch()
    for name in ("absent/config.yaml", "otherconfig.yaml"):
        command = [sys.executable, "-m", "pretrain", str(tmp_path / name)]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert finished.returncode == 2
        assert finished.stderr.startswith("usage: python -m pretrain RUN/config.yaml")


def test_a_gpu_that_is_not_there_is_a_user_error(launch, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    error = launch(tmp_path / "run", "--precision.device", "cuda", num_procs=1, code=2).stderr
    assert "precision.device: this is process 0 of its machine, but PyTorch sees 0 GPU(s)" in error
    assert "Traceback" not in error


def test_a_changed_field_is_refused_by_name_and_a_finished_run_says_so(undisturbed, launch):
    error = launch(undisturbed, "--optimizer.lr", 0.5, "--model.hidden_dropout", 0, code=2).stderr
    assert "optimizer.lr: 0.01 -> 0.5" in error
    assert "model.hidden_dropout: 0.1 -> 0.0" in error
    assert "already done" in launch(undisturbed, "--logging.every_n_steps", 3).stdout


def test_a_second_launch_is_refused_also_after_the_first_was_killed_and_left_its_workers(launch, small_config, synthetic, tmp_path):
    run_folder = tmp_path / "run"
    many = ["--training.steps", "20", "--training.global_batch_size", "40", "--model.num_hidden_layers", "40"]  # some seconds
    process = start(small_config, synthetic, run_folder, *many)
    wait_for(lambda: len(records(run_folder)) > 0 if (run_folder / "metrics.jsonl").exists() else False, process)
    assert "another run is at work here" in launch(run_folder, code=2).stderr
    left = workers(process)
    process.kill()
    process.wait()
    assert "another run is at work here" in launch(run_folder, code=2).stderr
    (run_folder / "STOP").touch()
    assert not psutil.wait_procs(left, timeout=60)[1]
    assert json.loads((run_folder / "state.json").read_text())["exit_code"] == 3
    assert not (run_folder / "STOP").exists()


def test_a_second_signal_ends_at_once(small_config, synthetic, tmp_path):
    process = start(small_config, synthetic, tmp_path / "run", **SLOW | {"SLOW_STEP": "15"})
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and records(tmp_path / "run", "validation"), process)
    time.sleep(3)  # into the first step, which takes half a minute and looks for STOP at its beginning
    left = workers(process)
    process.send_signal(signal.SIGUSR1)
    wait_for(lambda: (tmp_path / "run" / "STOP").exists(), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 1
    assert not psutil.wait_procs(left, timeout=10)[1]


def test_workers_do_not_outlive_a_launcher_that_is_killed(small_config, synthetic, tmp_path):
    process = start(
        small_config, synthetic, tmp_path / "run", "--training.global_batch_size", "400", "--model.num_hidden_layers", "40"
    )
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), process)
    left = workers(process)
    psutil.Process(process.pid).children()[0].kill()
    assert process.wait(timeout=20) == 1
    assert not psutil.wait_procs(left, timeout=10)[1]


def test_a_process_that_is_killed_is_reported_without_a_traceback(small_config, synthetic, tmp_path):
    process = start(
        small_config, synthetic, tmp_path / "run", "--training.global_batch_size", "400", "--model.num_hidden_layers", "40"
    )
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), process)
    workers(process)[1].kill()
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert "ended without a" in output
    assert "Traceback" not in output


def test_a_start_that_failed_before_its_first_checkpoint_does_not_bind_the_next(launch, tmp_path):
    options = ["--training.steps", 1, "--training.validate_every_n_steps", 9]
    error = launch(tmp_path / "run", "--model.init_from", tmp_path / "absent", *options, code=2).stderr
    assert error.count("model.init_from") == 1
    launch(tmp_path / "run", *options, num_procs=1)
