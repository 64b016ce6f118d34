"""The ablations: configs that differ in what they say, and the runner from data to tables, over a run that fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from benchmarks.ablation_rows import CHANGES, CONFIGS, DATA, REFERENCE, TABLES, Row, Table, config_text
from benchmarks.ablations import main
from pretrain.config_file import flatten, load_config, to_plain

TINY = {
    "model.hidden_size": 16,
    "model.num_attention_heads": 1,
    "model.intermediate_size": 16,
    "training.compile": "false",
    "training.global_batch_size": 4,
    "training.micro_batch_size": 4,
    "training.max_validation_instances": 4,
}


def fields(name: str) -> dict[str, object]:
    return flatten(to_plain(load_config(CONFIGS / f"{name}.yaml", [("data.path", "d")])))


@pytest.mark.parametrize("name", CHANGES)
def test_a_config_differs_from_the_reference_in_its_named_fields_alone(name):
    ours, reference = fields(name), fields(REFERENCE)
    changes = {f"model.{field}": value for field, value in CHANGES[name].items()}
    assert {field: value for field, value in ours.items() if value != reference[field]} == changes
    text = (CONFIGS / f"{name}.yaml").read_text()
    assert text == config_text(name)
    assert all(f" {field}" in text.splitlines()[0] for field in CHANGES[name])


def test_configs_files_and_rows_are_the_same_ones():
    rows = [row for table in TABLES.values() for row in table.rows]
    assert {row.config for row in rows} == {path.stem for path in CONFIGS.iterdir()} == {*CHANGES, REFERENCE}
    judged = {name for table in TABLES.values() for name in (*table.masked_lm_on, *table.order_on)}
    assert {row.data for row in rows} | judged == set(DATA)
    shapes = [str(fields(name)) for name in (*CHANGES, REFERENCE)]
    assert len(set(shapes)) == len(shapes)
    assert len({row.run: row for row in rows}) == len({(row.config, row.data) for row in rows})


def test_tables_from_data_over_a_run_that_fails(data, tmp_path, monkeypatch, capsys):
    rows = [Row("six layers"), Row("one layer, pieces", "layers_1", "piece")]
    monkeypatch.setitem(TABLES, "masks", Table("Two rows", rows))
    work = tmp_path / "work"
    (work / "data").mkdir(parents=True)
    (work / "data" / "sop").symlink_to(data)
    in_the_way = work / "steps_2" / "layers_1_piece" / "seed-1" / "letter.txt"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    settings = [part for name, value in TINY.items() for part in (f"--{name}", str(value))]
    budget = ["--steps", "2", "--seeds", "2", "--jobs", "2", "--device", "cpu", "--max_instances", "8"]
    command = ["--tables", "masks", "--work", str(work), *budget, *settings]

    assert main(command) == 1
    said = capsys.readouterr()
    assert "layers_1_piece seed 1: FAILED with exit code 2" in said.out
    assert "failed: layers_1_piece seed 1: exit code 2: " in said.err
    assert "letter.txt" in said.err or "seed-1" in said.err
    first, second = read(work)
    assert [run["seed"] for run in first["runs"]] == [0, 1]
    assert [run["seed"] for run in second["runs"]] == [0]
    assert second["mlm_loss_sop"]["std"] is None

    in_the_way.unlink()
    assert main(command) == 0
    assert "4 runs, 3 of them done before" in capsys.readouterr().out
    first, second = read(work)
    losses = [
        next(
            column["masked_lm"]["loss"]
            for column in evaluation(work, seed)
            if column.get("path", "").endswith(f"_piece/seed-{seed}")
        )
        for seed in (0, 1)
    ]
    assert [run["mlm_loss_sop"] for run in second["runs"]] == losses
    assert losses[0] != losses[1]
    assert second["mlm_loss_sop"]["mean"] == pytest.approx(sum(losses) / 2)
    assert second["mlm_loss_sop"]["std"] == pytest.approx(abs(losses[0] - losses[1]) / 2**0.5)
    assert first["parameters"] == second["parameters"]  # shared layers count once
    assert first["order_accuracy_sop"]["num_runs"] == 2
    assert first["tokens_per_second"]["mean"] > 0
    lines = (work / "steps_2" / "results.md").read_text().splitlines()
    assert len([line for line in lines if line.startswith(("| six layers |", "| one layer, pieces |"))]) == 2
    assert not any("tokens/s" in line for line in lines)  # two runs at once share the cores

    for more in ([], ["--report_only"]):
        assert main([*command, "--optimizer.lr", "0.5", *more]) == 1
        assert "was run with another config (optimizer.lr: 0.004 -> 0.5)" in capsys.readouterr().err
        assert [row["runs"] for row in read(work)] == [[], []]

    assert main([*command, "--vocab_size", "999"]) == 2
    assert re.search(r"was made with other settings \(vocab_size: \d+ -> 999\)", capsys.readouterr().err)
    assert main([*command, "--work", str(tmp_path / "typo"), "--report_only"]) == 2
    assert "there is no data in it" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def read(work):
    return json.loads((work / "steps_2" / "results.json").read_text())["tables"]["masks"]


def evaluation(work, seed):
    return json.loads((work / "steps_2" / "evaluations" / f"sop-{seed}.json").read_text())["columns"]


def test_a_signal_reaches_the_running_processes_once_and_they_are_waited_for(tmp_path):
    script = f"""
import sys
from pathlib import Path
from benchmarks.ablation_jobs import Job, run_jobs
saves = "trap 'echo asked; sleep 1; echo saved; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
jobs = [Job(str(n), ["sh", "-c", saves], Path({str(tmp_path)!r}, f"{{n}}.log")) for n in range(3)]
try:
    run_jobs(jobs, 2, print)
except KeyboardInterrupt:
    sys.exit(130)
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    deadline = time.monotonic() + 60
    while not all(log.exists() and "ready" in log.read_text() for log in logs[:2]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert [log.read_text().split() for log in logs[:2]] == [["ready", "asked", "saved"]] * 2
    assert not logs[2].exists()


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--steps", "0"], "at least 1"),
        (["--hours", "-1"], "above 0"),
        (["--hours", "1", "--steps", "5"], "not allowed with"),
        (["--tables", "colour"], "invalid choice"),
        (["--stepz", "5"], "unrecognized: --stepz"),
        (["--training.seed", "5"], "--training.seed: each run has its own"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(arguments, fault, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert fault in capsys.readouterr().err


def test_a_field_that_cannot_be_used_is_named_before_anything_is_made(tmp_path, capsys):
    assert main(["--work", str(tmp_path / "work"), "--model.num_hidden_layer", "2", "--device", "cpu"]) == 2
    assert "did you mean num_hidden_layers?" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
