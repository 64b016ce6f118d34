"""Small runs through `albert launch` for tests: the config, and what a run left behind."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from conftest import ALBERT
from safetensors.torch import load_file

from pretrain.metrics import Throughput

STEPS = 10
CONFIG = """
model: {embedding_size: 16, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 64,
        max_position_embeddings: 32, hidden_dropout: 0.1, attention_dropout: 0.1}
optimizer: {lr: 0.01}
schedule: {warmup_steps: 2, total_steps: 20}
training: {steps: 10, global_batch_size: 8, micro_batch_size: 2, compile: false, validate_every_n_steps: 5}
precision: {dtype: fp32, device: cpu}
checkpoint: {every_n_steps: 5, keep_last: 2}
logging: {every_n_steps: 1, wandb: disabled}
supervision: {max_restarts: 0}
"""

LONG = ("--training.steps", 60, "--schedule.total_steps", 100, "--training.validate_every_n_steps", 100)
LONG += ("--checkpoint.every_n_steps", 20)
"""Steps enough for something to happen meanwhile."""
FAULTS = str(Path(__file__).parent / "faults")
SLOW = {"PYTHONPATH": FAULTS, "SLOW_STEP": "0.15"}
"""An environment in which a step of two processes takes a third of a second, and comes to the same."""


def tensors(run_folder: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    folder = run_folder / "checkpoints" / f"step-{step}"
    return load_file(folder / "model.safetensors") | load_file(folder / "optimizer.safetensors")


def records(run_folder: Path, event: str = "train") -> list[dict]:
    lines = (run_folder / "metrics.jsonl").read_text().split("\n")[:-1]  # without one that is being written
    return [record for record in map(json.loads, lines) if record["event"] == event]


def assert_same_run(run_folder: Path, reference: Path, step: int = STEPS) -> None:
    """Bitwise the same weights, optimizer state and metrics; wall-clock figures apart."""
    ours, theirs = tensors(run_folder, step), tensors(reference, step)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different
    timed = {"time", "eta_seconds", "peak_memory", "estimated_memory", *Throughput(1.0).read()}
    for event in ("train", "validation"):
        left, right = (
            [{key: value for key, value in record.items() if key not in timed} for record in records(folder, event)]
            for folder in (run_folder, reference)
        )
        assert left == right


def figures(run_folder: Path, *keys: str) -> list[list[float]]:
    """These figures of each training record."""
    return [[record[key] for key in keys] for record in records(run_folder)]


def start(
    config: Path, data: Path, run_folder: Path, *overrides: object, num_procs: int = 2, **environment: str
) -> subprocess.Popen:
    """`albert launch` in the background."""
    where = ("--config", config, "--data", data, "--output", run_folder, "--num_procs", num_procs)
    command = [str(part) for part in (ALBERT, "launch", *where, *overrides)]
    return subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"waited in vain; exit code {process.returncode}:\n{process.stdout.read()}")
        time.sleep(0.002)


def kill_with_workers(process: subprocess.Popen) -> None:
    """SIGKILL to `albert launch`, then to its workers, which outlive it."""
    victims = workers(process)
    process.kill()
    process.wait()
    for victim in victims:
        victim.kill()
        victim.wait()


def workers(process: subprocess.Popen) -> list[psutil.Process]:
    """The training processes under an `albert launch`."""
    return [
        child for child in psutil.Process(process.pid).children(recursive=True) if child.cmdline()[1:4] == ["-u", "-m", "pretrain"]
    ]
