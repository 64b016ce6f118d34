"""`albert launch --dry_run`: what it says of a run, that it starts nothing, and what it refuses."""

import json
import re
import shutil
from typing import get_args

import numpy as np
import pytest
from conftest import ROOT

from data_prep.schema import read_manifest
from launch.dry_run import amount, describe_hours
from launch.options import Gpu as GpuOption
from pretrain.config_file import load_config
from pretrain.data import open_split
from pretrain.flops import GPUS, step_flops
from pretrain.memory import count_parameters


@pytest.fixture
def dry_run(albert, small_config, synthetic):
    def run(*options: object, code: int = 0) -> str:
        finished = albert("launch", "--config", small_config, "--data", synthetic, "--dry_run", *options, code=code)
        return finished.stderr if code else finished.stdout

    return run


def figure(output: str, name: str) -> str:
    return re.search(rf"^{name} +(.*)$", output, re.MULTILINE)[1]


def test_every_figure_follows_from_config_and_data(dry_run, small_config, synthetic):
    options = ["--gpu", "h100", "--num_gpus", 4, "--price_per_hour", 2500, "--mfu", 0.5]
    steps = ["--training.steps", 10**9, "--schedule.total_steps", 10**9, "--precision.dtype", "bf16"]
    output = dry_run(*options, *steps)
    config, manifest = load_config(small_config, [("data.path", f'"{synthetic}"')]), read_manifest(synthetic)
    train = manifest.splits["train"]
    assert figure(output, "parameters") == f"{count_parameters(config.model, manifest.vocab_size):,}"
    split = open_split(synthetic, manifest, "train")
    lengths = split.lengths(np.arange(len(split)))
    flops = 8 / len(split) * step_flops(config.model, manifest.vocab_size, lengths, train.masked_pieces)
    assert f"{amount(flops)}FLOP" in figure(output, "a step")
    hours = 1e9 * flops / (4 * GPUS["h100"].peaks["bf16"] * 0.5) / 3600
    epochs = 1e9 * 8 * train.pieces / train.instances / train.text_pieces
    assert figure(output, "steps") == "1,000,000,000"
    assert figure(output, "time").startswith(f"{describe_hours(hours)} on 4 x ")
    assert figure(output, "cost").startswith(f"{hours * 4 * 2500:,.2f} at 2500 ")
    assert figure(output, "epochs") == f"{epochs:,.1f} over the unique text"
    assert f"warning: the unique text would be seen {epochs:,.0f} times" in output
    share = 1e-9 * int(1e9 * 0.001 / hours)
    assert 0 < share < 1
    output = dry_run(*options, *steps, "--training.max_hours", 0.001)
    assert figure(output, "steps") == f"{1e9 * share:,.0f}, where training.max_hours 0.001 is over, of 1,000,000,000"
    assert figure(output, "in all").endswith(f"{amount(1e9 * share * flops)}FLOP")
    assert figure(output, "time").startswith(f"{describe_hours(0.001)} on 4 x ")
    assert figure(output, "cost").startswith("10.00 at 2500 ")
    assert figure(output, "epochs") == f"{share * epochs:,.1f} over the unique text"
    assert "in its warm-up" not in output


def test_hours_are_written_in_the_unit_that_reads_well():
    written = {hours: describe_hours(hours) for hours in (0.001, 0.9991, 0.9992, 1, 71.94, 71.96)}
    assert list(written.values()) == ["0.1 minutes", "59.9 minutes", "1.0 hours", "1.0 hours", "71.9 hours", "3.0 days"]


def test_few_epochs_are_no_warning(dry_run):
    assert "warning" not in dry_run("--training.steps", 5)


def test_too_much_memory_or_too_little_time_is_a_warning_and_auto_takes_what_fits(dry_run):
    large = ["--gpu", "t4", "--model.intermediate_size", 65536, "--training.global_batch_size", 4096, "--training.steps", 5]
    output = dry_run(*large, "--training.micro_batch_size", 4096, "--training.max_hours", 1e-6)
    assert "warning: that is more memory than there is" in output
    assert "warning: training.max_hours ends the run in its warm-up" in output
    output = dry_run(*large, "--training.micro_batch_size", "auto")
    assert "more memory than there is" not in output
    assert 1 < int(re.search(r"in micro-batches of (\d+)", output)[1]) < 4096


def test_nothing_is_written_and_a_run_is_reckoned_from_where_it_stands(dry_run, launch, tmp_path):
    assert figure(dry_run("--output", tmp_path / "run"), "steps") == "10"
    assert not (tmp_path / "run").exists()
    launch(tmp_path / "run", "--training.steps", 5)
    before = sorted(tmp_path.rglob("*"))
    output = dry_run("--output", tmp_path / "run")
    assert figure(output, "steps") == "5 (from step 5)"
    assert figure(output, "epochs").endswith("over the unique text from here on")
    phase = ["--continue_from", tmp_path / "run", "--training.steps", 8]
    assert figure(dry_run(*phase), "steps") == "3 (from step 5)"
    assert sorted(tmp_path.rglob("*")) == before
    spent = json.loads((tmp_path / "run" / "checkpoints" / "step-5" / "state.json").read_text())["training_seconds"] / 3600
    limited = ["--output", tmp_path / "run", "--training.steps", 10**9, "--schedule.total_steps", 10**9, "--training.max_hours"]
    assert figure(dry_run(*limited, spent), "steps").startswith("0 (from step 5), where training.max_hours")
    assert figure(dry_run(*limited, spent + 1), "time").startswith("1.0 hours")


def test_a_phase_that_has_begun_is_reckoned_without_the_run_before_it(dry_run, launch, tmp_path):
    launch(tmp_path / "one", "--training.steps", 3)
    phase = ["--continue_from", tmp_path / "one", "--training.steps"]
    launch(tmp_path / "two", *phase, 5)
    shutil.rmtree(tmp_path / "one")
    assert figure(dry_run("--output", tmp_path / "two", *phase, 8), "steps") == "3 (from step 5)"


@pytest.mark.parametrize(
    ("options", "command", "files"),
    [
        ((), "-m deepspeed.launcher.launch --world_info=", {"config.yaml": "micro_batch_size: 2"}),
        (("--hostfile", "HOSTS"), "pdsh -R ssh -S -f 1024 -w n1,n2 ", {"nodes.json": '"NCCL_DEBUG": "INFO"'}),
        (
            ("--hostfile", "HOSTS", "--launcher", "openmpi", "--launcher_args", "--mca x y"),
            "-m deepspeed.launcher.runner '--hostfile=",
            {"hostfile": "n1 slots=2\nn2 slots=2\n", "environment": "MASTER_ADDR=n1\nMASTER_PORT=PORT\n"},
        ),
        (
            ("--slurm", "--num_nodes", 2, "--sbatch", "gres=gpu:8", "comment=a b"),
            "sbatch --parsable '",
            {"launch.sbatch": "#SBATCH --gres=gpu:8\n#SBATCH --comment='a b'\n"},
        ),
    ],
)
def test_with_an_output_the_exact_command_and_its_files_are_shown(options, command, files, dry_run, tmp_path, monkeypatch):
    hostfile = tmp_path / "hosts"
    hostfile.write_text("n1 slots=2\nn2 slots=2\n")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.setenv("WANDB_API_KEY", "canary")
    run_folder = tmp_path / "a run"
    output = dry_run("--output", run_folder, *[hostfile if option == "HOSTS" else option for option in options])
    shown = output.partition("\ncommand\n")[2]
    assert command in shown.partition("\n")[0]
    for name, text in files.items():
        assert text in shown.partition(f"{run_folder / name}\n")[2]
    assert "canary" not in output
    assert not run_folder.exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--gpu", "t4", "--precision.dtype", "bf16"], "--gpu t4: has no bf16. Set precision.dtype to one of fp16, fp32."),
        (["--gpu", "h101"], "h101"),
        (["--num_gpus", 0], "--num_gpus: must be above 0, found 0"),
        (["--mfu", 1.5], "--mfu: must be at most 1, found 1.5"),
        (["--price_per_hour", -1], "--price_per_hour: must be above 0"),
        (["--num_gpus", 16], "training.global_batch_size: is 8, below the 16 processes"),
        (["--num_gpus", 2, "--num_procs", 2], "--num_gpus: stands for --num_procs"),
    ],
)
def test_what_cannot_be_reckoned_is_refused(dry_run, options, expected):
    assert expected in dry_run(*options, code=2)


def test_its_options_are_refused_without_it_and_a_real_run_needs_an_output(albert, synthetic):
    start = ["launch", "--config", ROOT / "configs/demo.yaml", "--data", synthetic]
    error = albert(*start, "--gpu", "h100", code=2).stderr
    assert "--output: is missing" in error
    assert "--gpu: go with --dry_run alone" in error


def test_the_option_knows_the_gpus_of_the_table():
    assert set(get_args(GpuOption)) == set(GPUS)
