"""`micro_batch_size: auto`: found by trying, within the memory there is, the same on all ranks, kept with the run."""

import json
import resource
import subprocess

import numpy as np
from conftest import ALBERT
from runs import FAULTS, figures, records

AUTO = ["--training.micro_batch_size", "auto", "--training.steps", 3, "--training.validate_every_n_steps", 100]


def test_auto_takes_all_of_a_small_batch_and_is_found_again_only_for_another_number_of_processes(launch, tmp_path):
    run_folder = tmp_path / "run"
    output = launch(run_folder, *AUTO).stdout
    assert "micro_batch_size: auto found 4 on cpu with 2 process(es)\n" in output
    path = run_folder / "micro_batch_size.json"
    kept = json.loads(path.read_text())
    assert kept == {
        "micro_batch_size": 4,
        "device": "cpu",
        "num_procs": 2,
        "max_seq_length": 32,
        "compile": False,
        "activation_checkpointing": False,
    }
    path.write_text(json.dumps(kept | {"micro_batch_size": 3}))
    assert "auto found" not in launch(run_folder, *AUTO, "--training.steps", 4).stdout
    output = launch(run_folder, *AUTO, "--training.steps", 5, num_procs=1).stdout
    assert "auto found 8 on cpu with 1 process(es) (was 3 on cpu with 2 process(es))" in output
    launch(tmp_path / "fixed", *AUTO, "--training.steps", 5, "--training.micro_batch_size", 2)
    np.testing.assert_allclose(figures(run_folder, "loss"), figures(tmp_path / "fixed", "loss"), rtol=1e-5)


def test_trying_leaves_no_trace_in_the_run(launch, tmp_path):
    """The micro-batch that auto finds, given by hand, is bitwise the same run."""
    launch(tmp_path / "auto", *AUTO)
    launch(tmp_path / "fixed", *AUTO, "--training.micro_batch_size", 4)
    ours, theirs = (figures(tmp_path / name, "loss", "grad_norm", "weight_norm") for name in ("auto", "fixed"))
    assert ours == theirs


# some three tensors of 32 x 4,096 floats in each of 12 layers: near 15 MB an instance, 4 GB for 256
LARGE = ["--model.intermediate_size", 4096, "--model.num_hidden_layers", 12, "--training.global_batch_size", 256]
LARGE += ["--model.hidden_dropout", 0, "--model.attention_dropout", 0]


def test_auto_stops_at_the_memory_there_is(small_config, synthetic, tmp_path):
    """Under a limit on the memory of a process, a size between 1 and all is found, and the steps fit."""
    command = [ALBERT, "launch", "--config", small_config, "--data", synthetic, "--output", tmp_path / "run", *AUTO, *LARGE]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))

    command = [str(part) for part in (*command, "--num_procs", 1)]
    finished = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr
    assert 1 <= json.loads((tmp_path / "run" / "micro_batch_size.json").read_text())["micro_batch_size"] < 256


def test_all_processes_take_what_fits_into_the_one_with_least_memory(launch, tmp_path):
    launch(tmp_path / "run", *AUTO, *LARGE, PYTHONPATH=FAULTS, LITTLE_MEMORY=str(2 << 30))
    assert 1 <= json.loads((tmp_path / "run" / "micro_batch_size.json").read_text())["micro_batch_size"] < 128
    assert len(records(tmp_path / "run")) == 3
