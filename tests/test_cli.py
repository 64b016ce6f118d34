"""The `albert` command: verbs, help, speed of the front door, shadowed packages, errors without tracebacks."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ALBERT
from synthetic import write_synthetic_data

from launch.cli import gather_overrides
from launch.hosts import device_numbers

ROOT = Path(__file__).parent.parent


def test_help_lists_the_verbs_in_the_order_of_use_and_imports_nothing_heavy(albert):
    output = albert("--help").stdout
    assert re.findall(r"^  (\w+)  ", output, re.MULTILINE) == [
        "tokenizer",
        "prepare",
        "inspect",
        "doctor",
        "launch",
        "evaluate",
        "export",
        "finetune",
    ]
    code = "import runpy, sys; sys.argv = ['albert', '--help']\n"
    code += "try: runpy.run_path(%r, run_name='__main__')\nexcept SystemExit: pass\n"
    code += "heavy = ('torch', 'deepspeed', 'transformers', 'numba', 'pyarrow', 'jsonargparse')\n"
    code += "print([name for name in heavy if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code % str(ALBERT)], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "[]"


@pytest.mark.parametrize("verb", ["tokenizer", "prepare", "inspect", "doctor", "launch", "evaluate", "export", "finetune"])
def test_every_option_of_every_verb_is_explained_without_loading_torch_for_it(albert, verb):
    output = albert(verb, "--help").stdout
    code = f"import sys; sys.argv = ['albert', {verb!r}, '--help']; import runpy\n"
    code += f"try: runpy.run_path({str(ALBERT)!r}, run_name='__main__')\nexcept SystemExit: pass\n"
    code += "print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-1] == "False"
    assert ("--html" if verb == "inspect" else "--output") in output
    options = re.findall(r"^  --(\w+)", output, re.MULTILINE)
    assert len(options) >= 3
    for option in options:
        assert re.search(rf"--{option}\b[^\n]*\n? +\S+ \S+ \S+", output), option


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["lunch"], "there is no verb `lunch`; choose one of tokenizer, prepare, inspect, doctor, launch, evaluate, export"),
        (["export", "--run", "x"], "required: output"),
        (["export", "--run", "x", "--output", "y", "--chekpoint", "last"], "--chekpoint"),
        (["tokenizer", "--input", "x", "--output", "y", "--vocab_size", "many"], "vocab_size"),
        (["launch", "--config", "absent.yaml", "--output", "y"], "absent.yaml: cannot be read"),
        (
            ["launch", "--config", str(ROOT / "configs/demo.yaml"), "--data", "absent", "--output", "y"],
            "absent/manifest.json: not found",
        ),
        (
            ["launch", "--config", str(ROOT / "configs/demo.yaml"), "--data", "a", "--output", "y", "--overrides", "steps"],
            "section.field",
        ),
        (["export", "--run", "absent", "--output", "y"], "absent/config.yaml: cannot be read"),
    ],
)
def test_user_errors_are_short_name_the_culprit_and_leave_nothing(albert, arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = albert(*arguments, code=2).stderr
    assert expected in error
    assert "Traceback" not in error
    assert len(error.splitlines()) < 8
    assert list(tmp_path.iterdir()) == []


def test_nothing_in_an_error_is_interpreted_by_the_terminal(albert, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a\\u001b[31m": 1}')
    options = ("--input", tmp_path / "a.jsonl", "--output", tmp_path / "out")
    error = albert("tokenizer", *options, "--text_field", "b\x9b31m\u202e", code=2).stderr
    assert "no field `b\\x9b31m\\u202e`. There are: a\\x1b[31m." in error
    assert all(line.isprintable() for line in error.split("\n"))
    error = albert("tokenizer", "--input", tmp_path, "--output", tmp_path / "out", "--vocab_size", 1, "--seed", -1, code=2).stderr
    assert error.count("\n") == 3, "a line for each option, as before"


def test_output_that_is_not_utf_8_is_no_error(albert, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    printed = albert("tokenizer", "--input", corpus, "--output", tmp_path / "out", "--vocab_size", 600).stdout
    assert "\\u2581" in printed, "the sign for a space"
    assert (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [(["--help"], ""), (["--help"], "1"), (["tokenizer", "--help"], "")]  # unbuffered, argparse itself passes over it
    + [(["tokenizer", "--output", "out", "--input"], unbuffered) for unbuffered in ("", "1")],
)
def test_a_reader_of_the_output_that_goes_away_ends_it_silently(corpus, arguments, unbuffered, tmp_path):
    if arguments[-1] == "--input":
        arguments = [*arguments, str(corpus)]
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    finished = subprocess.run([str(ALBERT), *arguments], stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path, env=environment)
    os.close(writing)
    assert (finished.returncode, finished.stderr) == (1, b"")


def test_another_pipe_that_breaks_is_not_taken_for_the_output(monkeypatch, tmp_path):
    code = "import launch.cli, tokenizer.train\ndef broken(options): raise BrokenPipeError('another')\n"
    code += "tokenizer.train.train_tokenizer = broken\nlaunch.cli.main(['tokenizer', '--input', 'x', '--output', 'y'])"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert finished.stderr.endswith("BrokenPipeError: another\n")


def test_inspect_says_that_it_reads_local_folders(albert):
    error = albert("inspect", "s3://bucket/data", code=2).stderr
    assert error == "albert inspect: s3://bucket/data: inspect reads local folders: fetch it first.\n"


def test_launch_lists_config_and_data_faults_together(albert, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("optimzer: {lr: 1}\ntraining: {steps: -1, micro_batch_size: none}\n")
    error = albert(
        "launch", "--config", path, "--data", tmp_path / "absent", "--output", tmp_path / "run", "--num_procs", 0, code=2
    ).stderr
    for part in (
        "optimzer: no such field",
        "training.steps",
        "training.micro_batch_size",
        "manifest.json: not found",
        "--num_procs: must be",
    ):
        assert part in error
    assert not (tmp_path / "run").exists()


def test_launch_refuses_a_model_or_tokenizer_that_does_not_fit_the_data(albert, tmp_path):
    data = write_synthetic_data(tmp_path / "data")
    options = ("--config", ROOT / "configs/demo.yaml", "--data", data)
    error = albert("launch", *options, "--output", tmp_path / "run", "--model.max_position_embeddings", 16, code=2).stderr
    assert "model.max_position_embeddings: is 16" in error
    error = albert(
        "launch", *options, "--output", tmp_path / "run", "--num_procs", 3, "--training.global_batch_size", 2, code=2
    ).stderr
    assert "training.global_batch_size: is 2, below the 3 processes" in error
    assert not (tmp_path / "run").exists()
    (data / "tokenizer" / "tokenizer.json").write_text("{ }")
    error = albert("launch", *options, "--output", tmp_path / "run", code=2).stderr
    assert f"{data}/tokenizer: is not the tokenizer of the shards" in error


def test_a_data_path_is_taken_as_it_is_typed(albert, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("2024", "data #1", "it's: [odd"):
        error = albert("launch", "--config", ROOT / "configs/demo.yaml", "--data", name, "--output", "run", code=2).stderr
        assert f"{name}/manifest.json: not found" in error


def test_overrides_of_both_forms_add_up():
    arguments = ["--overrides", "training.steps=3", "--output", "x", "--optimizer.lr", "0.5", "--model.share=none"]
    assert sorted(gather_overrides(arguments)[1:4]) == ["model.share=none", "optimizer.lr=0.5", "training.steps=3"]


def test_visible_devices_are_passed_on_by_number():
    assert device_numbers(2, "auto", None) == ([0, 1], [])
    assert device_numbers(2, "cpu", "4") == ([0, 1], [])
    assert device_numbers(2, "auto", "4,5,6") == ([4, 5], [])
    for visible in ("4", "GPU-0aa1,GPU-0bb2"):
        devices, (fault,) = device_numbers(2, "cuda", visible)
        assert devices == []
        assert fault.startswith(f"CUDA_VISIBLE_DEVICES: is {visible}; for --num_procs 2")


def test_launch_leaves_a_folder_of_other_things_alone_and_names_an_output_it_cannot_write(albert, tmp_path):
    data = write_synthetic_data(tmp_path / "data")
    options = ("--config", ROOT / "configs/demo.yaml", "--data", data)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear")
    assert "holds something else" in albert("launch", *options, "--output", tmp_path / "letters", code=2).stderr
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["love.txt"]
    (tmp_path / "letters" / ".lock").touch()
    assert "holds something else" in albert("launch", *options, "--output", tmp_path / "letters", code=2).stderr
    for taken in (tmp_path / "letters" / "love.txt", tmp_path / "letters" / "love.txt" / "below"):
        error = albert("launch", *options, "--output", taken, code=2).stderr
        assert str(taken) in error
        assert "Traceback" not in error


@pytest.mark.parametrize("name", ["tokenizer", "data_prep", "pretrain", "downstream", "launch"])
def test_a_package_that_hides_ours_is_named_in_one_line(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    finished = subprocess.run([str(ALBERT), "--help"], capture_output=True, text=True, env=environment)
    assert finished.returncode == 2
    assert (
        finished.stderr
        == f"albert: the package `{name}` at {tmp_path / name} hides ours; take it out of PYTHONPATH or uninstall it\n"
    )


def test_folders_of_the_working_folder_hide_nothing(albert, tmp_path, monkeypatch):
    for name in ("tokenizer", "pretrain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    monkeypatch.chdir(tmp_path)
    data = write_synthetic_data(tmp_path / "data")
    shutil.copy(ROOT / "configs" / "demo.yaml", "demo.yaml")
    small = ["--model.hidden_size", 16, "--model.num_hidden_layers", 1, "--training.global_batch_size", 4]
    albert(
        "launch",
        "--config",
        "demo.yaml",
        "--data",
        data,
        "--output",
        "run",
        *small,
        "--training.steps",
        1,
        "--logging.wandb",
        "disabled",
    )
    assert (tmp_path / "run" / "DONE").exists()


def test_closed_streams_stop_no_work(tmp_path):
    command = f"{shlex.quote(str(ALBERT))} prepare --input {shlex.quote(str(tmp_path / 'none.txt'))} --tokenizer x --output y"
    finished = subprocess.run(["/bin/sh", "-c", f"{command} 2>&-"], capture_output=True, text=True)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert subprocess.run(["/bin/sh", "-c", f"{shlex.quote(str(ALBERT))} --help >&-"]).returncode == 0
