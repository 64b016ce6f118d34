"""Whole runs through `albert launch`: real processes, real DeepSpeed, real kills."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from conftest import ALBERT
from safetensors.torch import load_file
from synthetic import VOCAB_SIZE, write_synthetic_data

from data_prep.schema import read_manifest
from pretrain.config import ModelConfig
from pretrain.data import micro_batches, open_split, rank_slice
from pretrain.evaluate import batch_counts
from pretrain.model import Albert
from pretrain.sample_order import sample_rows

STEPS = 10
CONFIG = """
model: {embedding_size: 16, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 64,
        max_position_embeddings: 32, hidden_dropout: 0.1, attention_dropout: 0.1}
optimizer: {lr: 0.01}
schedule: {warmup_steps: 2, total_steps: 20}
training: {steps: 10, global_batch_size: 8, micro_batch_size: 2, validate_every_n_steps: 5}
precision: {dtype: fp32, device: cpu}
checkpoint: {every_n_steps: 5, keep_last: 2}
logging: {every_n_steps: 1, wandb: disabled}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """44 training instances: at batch 8 the first epoch ends inside step 6."""
    return write_synthetic_data(tmp_path_factory.mktemp("data") / "synthetic", num_instances=44)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "run.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def launch(albert, config, data) -> Callable:
    """`albert launch` of the small config with overrides; 2 processes unless told otherwise."""

    def run(run_folder: Path, *overrides: object, num_procs: int = 2, code: int = 0):
        options = ("--config", config, "--data", data, "--output", run_folder, "--num_procs", num_procs)
        return albert("launch", *options, *overrides, code=code)

    return run


@pytest.fixture(scope="module")
def undisturbed(launch, tmp_path_factory) -> Path:
    """A run of 10 steps in one go: 2 ranks, 2 micro-batches each, dropout 0.1, an epoch's end inside step 6."""
    run_folder = tmp_path_factory.mktemp("run") / "undisturbed"
    launch(run_folder)
    return run_folder


def tensors(run_folder: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    folder = run_folder / "checkpoints" / f"step-{step}"
    return load_file(folder / "model.safetensors") | load_file(folder / "optimizer.safetensors")


def records(run_folder: Path, event: str = "train") -> list[dict]:
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == event]


def assert_same_run(run_folder: Path, reference: Path) -> None:
    """Bitwise the same weights, optimizer state and metrics; wall-clock figures apart."""
    ours, theirs = tensors(run_folder), tensors(reference)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different
    timed = ("time", "tokens_per_second", "eta_seconds")
    for event in ("train", "validation"):
        left, right = (
            [{key: value for key, value in record.items() if key not in timed} for record in records(folder, event)]
            for folder in (run_folder, reference)
        )
        assert left == right


def start(config: Path, data: Path, run_folder: Path, *overrides: str) -> subprocess.Popen:
    """`albert launch` in the background."""
    command = [str(ALBERT), "launch", "--config", str(config), "--data", str(data), "--output", str(run_folder), "--num_procs", "2"]
    return subprocess.Popen([*command, *overrides], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"waited in vain; exit code {process.returncode}:\n{process.stdout.read()}")
        time.sleep(0.002)


def workers(process: subprocess.Popen) -> list[psutil.Process]:
    """The training processes under an `albert launch`."""
    return [
        child for child in psutil.Process(process.pid).children(recursive=True) if child.cmdline()[1:4] == ["-u", "-m", "pretrain"]
    ]


def test_a_run_leaves_what_the_readme_lists(undisturbed):
    assert json.loads((undisturbed / "DONE").read_text()) == {"step": STEPS}
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


def test_kill_nine_during_a_save_loses_nothing(undisturbed, launch, config, data, tmp_path):
    every_step = ("--checkpoint.every_n_steps", "1", "--checkpoint.keep_last", "20")
    run_folder = killed_during_a_save(config, data, tmp_path, *every_step)
    assert (run_folder / "checkpoints" / "step-3").is_dir()
    output = launch(run_folder, *every_step).stdout
    assert "resuming from" in output
    assert not list((run_folder / "checkpoints").glob(".step-*"))
    assert_same_run(run_folder, undisturbed)


def killed_during_a_save(config: Path, data: Path, tmp_path: Path, *overrides: str) -> Path:
    """A run whose workers were all killed while a save after step 3 was half-written; a kill that came too late is tried again."""
    for attempt in range(5):
        checkpoints = tmp_path / f"attempt-{attempt}" / "checkpoints"
        process = start(config, data, checkpoints.parent, *overrides)
        wait_for((checkpoints / "step-3").is_dir, process)
        victims = workers(process)
        wait_for(lambda where=checkpoints: any(where.glob(".step-*")), process)
        for victim in victims:
            victim.kill()
        code = process.wait(timeout=60)
        if any(checkpoints.glob(".step-*")):
            assert code == 1
            return checkpoints.parent
    raise AssertionError("no kill met a save")


def test_sigterm_saves_and_ends_with_code_3_and_the_run_goes_on(undisturbed, launch, config, data, tmp_path):
    run_folder = tmp_path / "run"
    process = start(config, data, run_folder, "--checkpoint.every_n_steps", "1")
    wait_for(lambda: (run_folder / "checkpoints" / "step-2").is_dir(), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 3, process.stdout.read()
    assert json.loads((run_folder / "state.json").read_text())["status"] == "preempted"
    assert not (run_folder / "DONE").exists()
    launch(run_folder, "--checkpoint.every_n_steps", 5)
    assert_same_run(run_folder, undisturbed)


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_used(undisturbed, launch, tmp_path):
    run_folder = tmp_path / "run"
    shutil.copytree(undisturbed, run_folder)
    (run_folder / "DONE").unlink()
    newest = run_folder / "checkpoints" / "step-10" / "model.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    output = launch(run_folder).stdout
    assert "step-10: model.safetensors is damaged" in output
    assert (run_folder / "checkpoints" / "damaged-step-10").is_dir()
    assert f"resuming from {run_folder}/checkpoints/step-5" in output
    shutil.rmtree(run_folder / "checkpoints" / "damaged-step-10")
    assert_same_run(run_folder, undisturbed)


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


CUTS = [(1, 8), (2, 4), (1, 2)]
"""(processes, micro-batch size) of a global batch of 8: 1 x 8, 2 x 4, 1 x 2 with 4 accumulations."""


def test_processes_and_accumulation_do_not_change_losses_and_gradients(launch, data, tmp_path):
    seed = uneven_seed(data)
    runs = []
    for processes, micro_batch_size in CUTS:
        run_folder = tmp_path / f"{processes}x{micro_batch_size}"
        overrides = ["--training.micro_batch_size", micro_batch_size, "--training.seed", seed, "--training.steps", 6]
        launch(run_folder, *overrides, "--model.hidden_dropout", 0, "--model.attention_dropout", 0, num_procs=processes)
        runs.append([[record[key] for key in ("loss", "mlm_loss", "sop_loss", "grad_norm")] for record in records(run_folder)])
    for other in runs[1:]:
        np.testing.assert_allclose(other, runs[0], rtol=1e-5)
    # the mean of the parts' means, which is what DeepSpeed does by itself over ranks and micro-batches, does not pass
    assert abs(naive_grad_norm(data, seed, num_parts=1) / runs[0][0][-1] - 1) < 1e-5
    for num_parts in (2, 4):
        assert abs(naive_grad_norm(data, seed, num_parts) / runs[0][0][-1] - 1) > 1e-3


def uneven_seed(data: Path) -> int:
    """A shuffle seed whose first batch has a rank with 4 times the masked pieces of the other, which has no order label."""
    split = open_split(data, read_manifest(data), "train")
    for seed in range(10_000):
        (first,), (second,) = ([batch_counts([batch]).tolist() for batch in first_batch(split, seed, rank)] for rank in range(2))
        if first[0] >= 4 * second[0] and second[1] == 0:
            return seed
    raise AssertionError("no such seed")


def first_batch(split, seed: int, rank: int, num_ranks: int = 2):
    rows = sample_rows(rank_slice(np.arange(8), rank, num_ranks), split.shard_rows, seed, window=8)
    return list(micro_batches(split, rows, 8))


def naive_grad_norm(data: Path, seed: int, num_parts: int) -> float:
    """Gradient norm of the first step if every part of the batch took the mean over its own masked pieces and labels."""
    split = open_split(data, read_manifest(data), "train")
    model = Albert(ModelConfig(**small_model()), VOCAB_SIZE)
    model.initialize(0.02, torch.Generator().manual_seed(seed))
    for part in range(num_parts):
        (batch,) = first_batch(split, seed, part, num_parts)
        masked, labelled, _ = batch_counts([batch]).tolist()
        sums = model(batch)
        loss = sums.mlm_loss / masked + (sums.sop_loss / labelled if labelled else 0.0)
        (loss / num_parts).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm().item()


def small_model() -> dict:
    import yaml

    return yaml.safe_load(CONFIG)["model"] | {"hidden_dropout": 0.0, "attention_dropout": 0.0}


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_mixed_precision_stays_near_fp32_and_fp16_resumes_bitwise_with_its_scaler(dtype, undisturbed, launch, tmp_path):
    launch(tmp_path / "whole", "--precision.dtype", dtype)
    if dtype == "fp16":
        launch(tmp_path / "halves", "--precision.dtype", dtype, "--training.steps", 5)
        launch(tmp_path / "halves", "--precision.dtype", dtype)
        assert_same_run(tmp_path / "halves", tmp_path / "whole")
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


def test_torchrun_and_a_plain_start_do_what_the_launcher_does(undisturbed, config, data, tmp_path):
    for name, starter in (("torchrun", ["-m", "torch.distributed.run", "--nproc_per_node", "2", "-m"]), ("plain", ["-m"])):
        run_folder = tmp_path / name
        run_folder.mkdir()
        shutil.copy(undisturbed / "config.yaml", run_folder)
        command = [sys.executable, *starter, "pretrain", str(run_folder / "config.yaml")]
        threads = str(max(1, len(os.sched_getaffinity(0)) // 2))  # as `albert launch` sets them: sums are in the same order
        subprocess.run(command, check=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": threads})
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


def test_wandb_runs_offline_and_its_id_survives_a_resume(launch, tmp_path):
    ids = []
    for steps in (2, 4):
        launch(tmp_path / "run", "--logging.wandb", "offline", "--training.steps", steps, num_procs=1)
        ids.append(json.loads((tmp_path / "run" / "checkpoints" / f"step-{steps}" / "state.json").read_text())["wandb_id"])
    assert ids[0] is not None
    assert ids[0] == ids[1]
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


def test_a_changed_field_is_refused_by_name_and_a_finished_run_says_so(undisturbed, launch):
    error = launch(undisturbed, "--optimizer.lr", 0.5, "--model.hidden_dropout", 0, code=2).stderr
    assert "optimizer.lr: 0.01 -> 0.5" in error
    assert "model.hidden_dropout: 0.1 -> 0.0" in error
    assert "already done" in launch(undisturbed, "--logging.every_n_steps", 3).stdout


def test_a_second_launch_is_refused_also_after_the_first_was_killed_and_left_its_workers(launch, config, data, tmp_path):
    run_folder = tmp_path / "run"
    many = ["--training.steps", "20", "--training.global_batch_size", "40", "--model.num_hidden_layers", "40"]  # some seconds
    process = start(config, data, run_folder, *many)
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


def test_a_second_signal_ends_at_once(config, data, tmp_path):
    process = start(config, data, tmp_path / "run", "--training.global_batch_size", "4000", "--model.num_hidden_layers", "40")
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), process)
    left = workers(process)
    process.send_signal(signal.SIGUSR1)
    wait_for(lambda: (tmp_path / "run" / "STOP").exists(), process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 1
    assert not psutil.wait_procs(left, timeout=10)[1]


def test_workers_do_not_outlive_a_launcher_that_is_killed(config, data, tmp_path):
    process = start(config, data, tmp_path / "run", "--training.global_batch_size", "400", "--model.num_hidden_layers", "40")
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), process)
    left = workers(process)
    psutil.Process(process.pid).children()[0].kill()
    assert process.wait(timeout=20) == 1
    assert not psutil.wait_procs(left, timeout=10)[1]


def test_a_process_that_is_killed_is_reported_without_a_traceback(config, data, tmp_path):
    process = start(config, data, tmp_path / "run", "--training.global_batch_size", "400", "--model.num_hidden_layers", "40")
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), process)
    workers(process)[1].kill()
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert "ended without a" in output
    assert "Traceback" not in output


def test_another_number_of_processes_goes_on_with_the_same_losses(launch, tmp_path):
    without_dropout = ["--model.hidden_dropout", 0, "--model.attention_dropout", 0]
    launch(tmp_path / "whole", *without_dropout, num_procs=1)
    launch(tmp_path / "parts", *without_dropout, "--training.steps", 5, "--training.micro_batch_size", 3, num_procs=1)
    launch(tmp_path / "parts", *without_dropout, num_procs=2)
    for key in ("loss", "grad_norm"):
        ours, theirs = ([record[key] for record in records(tmp_path / name)] for name in ("parts", "whole"))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_start_that_failed_before_its_first_checkpoint_does_not_bind_the_next(launch, tmp_path):
    options = ["--training.steps", 1, "--training.validate_every_n_steps", 9]
    error = launch(tmp_path / "run", "--model.init_from", tmp_path / "absent", *options, code=2).stderr
    assert error.count("model.init_from") == 1
    launch(tmp_path / "run", *options, num_procs=1)


def test_other_data_than_the_run_began_with_is_refused(undisturbed, config, albert, tmp_path, data):
    run_folder, moved = tmp_path / "run", tmp_path / "data"
    shutil.copytree(undisturbed, run_folder)
    write_synthetic_data(moved, num_instances=44, seed=9)
    text = (run_folder / "config.yaml").read_text().replace(str(data), str(moved))
    (run_folder / "config.yaml").write_text(text)
    options = ("--config", config, "--data", moved, "--output", run_folder, "--num_procs", 1, "--training.steps", 12)
    assert "is not the data" in albert("launch", *options, code=2).stderr
