"""Real offline wandb runs under `albert launch`, read back from the files that wandb wrote."""

import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from runs import kill_with_workers, records, start, wait_for, workers

from data_prep.schema import manifest_sha256
from tokenizer.provenance import code_revision

OFFLINE = ("--logging.wandb", "offline")
KEY = "0123456789abcdef0123456789abcdef01234567"
BLOCK = 1 << 15


def read_log(folder: Path) -> Iterator:
    """Every record in the .wandb file of an offline run: protobufs in LevelDB's log format, blocks of 32 kB with pieces of 7 + n
    bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("run-*.wandb")
    content, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = BLOCK - place % BLOCK
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        if left < 7 or kind == 0:
            place += left
            continue
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a full piece, or the last of several
            yield Record.FromString(whole)
            whole = b""


def read_run(folder: Path) -> tuple[str, dict, list[int]]:
    """Id, config and logged steps of an offline run."""
    run_id, config, steps = "", {}, []
    for record in read_log(folder):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run_id = record.run.run_id
            config = {update.key: json.loads(update.value_json) for update in record.run.config.update}
        elif kind == "history":
            steps.append(record.history.step.num)
    return run_id, config, steps


def offline_runs(run_folder: Path) -> list[Path]:
    return sorted((run_folder / "wandb").glob("offline-run-*"))


def test_a_run_says_what_it_is_and_a_resumed_one_has_its_id(launch, synthetic, tmp_path):
    run = tmp_path / "run"
    for steps in (2, 4):
        launch(run, *OFFLINE, "--training.steps", steps, num_procs=2, WANDB_API_KEY=KEY, HF_TOKEN="hf_secret")
    first, second = map(read_run, offline_runs(run))
    run_id = (run / "wandb_id").read_text().strip()
    assert first[0] == second[0] == run_id
    assert len(run_id) == 8
    assert set(first[2]) == {0, 1, 2}
    assert set(second[2]) >= {3, 4}
    assert min(second[2]) > 2
    for _, config, _ in (first, second):
        assert config["code"] == code_revision()
        assert config["data_manifest_sha256"] == manifest_sha256(synthetic)
        environment = config["environment"]
        assert environment["world_size"] == 2
        assert environment["host"] == socket.gethostname()
        assert environment["torch"].startswith("2.")
        assert environment["deepspeed"]
        assert environment["device"]
        assert environment["cuda"] is None
        assert config["training"]["global_batch_size"] == 8
    assert second[1]["training"]["steps"] == 4
    states = [json.loads(path.read_text()) for path in run.glob("checkpoints/step-*/state.json")]
    assert {state["wandb_id"] for state in states} == {run_id}
    for path in (path for path in run.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert KEY.encode() not in content, path
        assert b"hf_secret" not in content, path


def test_a_restart_before_the_first_checkpoint_keeps_the_id(small_config, synthetic, launch, tmp_path):
    """kill -9 of all workers before anything is saved; then of `albert launch` as well; then to the end."""
    run = tmp_path / "run"
    options = (
        *OFFLINE,
        "--training.steps",
        300,
        "--schedule.total_steps",
        300,
        "--checkpoint.every_n_steps",
        300,
        "--supervision.max_restarts",
        1,
    )
    process = start(small_config, synthetic, run, *options, num_procs=1)

    def has_stepped() -> bool:
        return (run / "metrics.jsonl").exists() and len(records(run)) >= 2

    wait_for(has_stepped, process)
    old = workers(process)
    old[0].kill()
    wait_for(lambda: len(offline_runs(run)) == 2 and has_stepped() and workers(process) not in ([], old), process)
    kill_with_workers(process)
    assert not any((run / "checkpoints").glob("step-*"))
    launch(run, *options, num_procs=1)
    folders = offline_runs(run)
    run_id = (run / "wandb_id").read_text().strip()
    assert len(folders) == 3
    assert {folder.name.rpartition("-")[2] for folder in folders} == {run_id}
    assert read_run(folders[-1])[0] == run_id
    assert max(read_run(folders[-1])[2]) == 300


def test_another_config_before_the_first_checkpoint_is_another_wandb_run(launch, synthetic, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    run = tmp_path / "run"
    launch(run, *OFFLINE, "--precision.device", "cuda", num_procs=1, code=2)  # without a GPU it ends before wandb starts
    assert not (run / "wandb_id").exists()
    (run / "wandb_id").write_text("earlier1\n")
    launch(run, *OFFLINE, "--training.steps", 1, "--optimizer.lr", 0.02, num_procs=1)
    assert read_run(offline_runs(run)[0])[0] == (run / "wandb_id").read_text().strip() != "earlier1"


def test_a_run_of_an_earlier_release_keeps_the_id_of_its_checkpoint(launch, tmp_path):
    run = tmp_path / "run"
    launch(run, *OFFLINE, "--training.steps", 1, num_procs=1)
    run_id = (run / "wandb_id").read_text().strip()
    (run / "wandb_id").unlink()
    launch(run, *OFFLINE, "--training.steps", 2, num_procs=1)
    assert (run / "wandb_id").read_text().strip() == run_id
    assert read_run(offline_runs(run)[-1])[0] == run_id


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_the_environment_may_keep_wandb_off_the_network(launch, mode, tmp_path):
    """Without a key and with an address at which nobody answers."""
    run = tmp_path / "run"
    nobody = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_MODE": mode}
    output = launch(run, "--logging.wandb", "online", "--training.steps", 1, num_procs=1, **nobody)
    assert "wandb" not in output.stderr
    assert len(offline_runs(run)) == (mode == "offline")
    assert os.path.exists(run / "wandb_id") == (mode == "offline")
