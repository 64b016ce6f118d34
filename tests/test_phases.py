"""`continue_from`: one run begins where another stands, with optimizer state and step."""

import json
import shutil

import numpy as np
import pytest
import torch
from runs import assert_same_run, figures, records, tensors
from synthetic import write_synthetic_data

from tokenizer.files import sha256_of_files, write_json

FIRST = ["--training.steps", 6, "--schedule.total_steps", 10, "--checkpoint.every_n_steps", 3]
SECOND = ["--training.steps", 10, "--schedule.total_steps", 10, "--training.validate_every_n_steps", 5]


@pytest.fixture(scope="module")
def first(launch, tmp_path_factory):
    """Six steps at batch 8 on short sequences."""
    run_folder = tmp_path_factory.mktemp("phases") / "first"
    launch(run_folder, *FIRST)
    return run_folder


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    """Data of the same tokenizer with other lengths."""
    return write_synthetic_data(tmp_path_factory.mktemp("longer") / "data", num_instances=40, max_seq_length=32, seed=5)


def test_a_second_phase_carries_weights_moments_and_step_and_reads_its_own_data_from_the_start(first, longer, launch, tmp_path):
    second = tmp_path / "second"
    own = ["--data", longer, "--training.global_batch_size", 4, "--continue_from", first]
    launch(second, *SECOND, *own)
    assert [record["step"] for record in records(second)] == [7, 8, 9, 10]
    assert [record["samples"] for record in records(second)] == [[0, 4], [4, 8], [8, 12], [12, 16]]
    begun, left = tensors(second, 6), tensors(first, 6)
    assert all(torch.equal(begun[name], left[name]) for name in left)  # what it began with is its own first checkpoint
    np.testing.assert_allclose(figures(second, "lr"), [[0.01 * (10 - step) / 8] for step in (6, 7, 8, 9)])
    validated = [record["step"] for record in records(second, "validation")]
    assert validated == [6, 10]
    assert json.loads((second / "DONE").read_text())["step"] == 10


def test_on_the_same_data_a_second_phase_is_the_run_that_went_on(first, launch, tmp_path):
    """With nothing changed but the folder, phases are bitwise one run, the place in the data included."""
    whole, second = tmp_path / "whole", tmp_path / "second"
    launch(whole, *SECOND)
    launch(second, *SECOND, "--continue_from", first)
    ours, theirs = tensors(second, 10), tensors(whole, 10)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert figures(second, "samples", "rows_crc32") == figures(whole, "samples", "rows_crc32")[6:]


@pytest.mark.parametrize("change", [["--training.seed", 1], ["--data.shuffle_window", 1]])
def test_in_another_order_of_the_samples_a_second_phase_begins_at_the_first(change, first, launch, tmp_path):
    launch(tmp_path / "second", *SECOND, "--training.steps", 7, "--continue_from", first, *change)
    assert figures(tmp_path / "second", "samples") == [[[0, 8]]]


def test_a_second_phase_resumes_from_its_own_checkpoints_also_when_the_first_has_gone_on(first, longer, launch, tmp_path):
    moved = tmp_path / "first"
    shutil.copytree(first, moved)
    options = [*SECOND, "--data", longer, "--continue_from", moved]
    launch(tmp_path / "whole", *options)
    launch(tmp_path / "halves", *options, "--training.steps", 7)
    shutil.rmtree(tmp_path / "halves" / "checkpoints" / "step-7")  # as if killed before its first save
    (tmp_path / "halves" / "DONE").unlink()
    launch(moved, *FIRST, "--training.steps", 8)
    launch(tmp_path / "halves", *options)
    assert_same_run(tmp_path / "halves", tmp_path / "whole")


def test_a_warm_up_of_its_own_begins_at_start_step(first, launch, tmp_path):
    launch(tmp_path / "second", *SECOND, "--schedule.start_step", 6, "--schedule.warmup_steps", 2, "--continue_from", first)
    np.testing.assert_allclose(figures(tmp_path / "second", "lr"), [[0.0], [0.005], [0.01], [0.005]])


def test_what_does_not_fit_the_first_phase_is_refused_before_anything_starts_all_in_one_error(first, launch, tmp_path):
    other_tokenizer = write_synthetic_data(tmp_path / "other", num_instances=40)
    manifest = json.loads((other_tokenizer / "manifest.json").read_text())
    (other_tokenizer / "tokenizer" / "tokenizer.json").write_text("[]")
    files = [other_tokenizer / "tokenizer" / name for name in ("tokenizer.json", "tokenizer_config.json")]
    write_json(other_tokenizer / "manifest.json", manifest | {"tokenizer_sha256": sha256_of_files(*files)})
    options = ["--continue_from", first, "--data", other_tokenizer, "--training.steps", 5, "--model.num_hidden_layers", 3]
    error = launch(tmp_path / "run", *options, "--optimizer.name", "adamw", code=2).stderr
    assert "model.num_hidden_layers: is 3, but 2 there" in error
    assert "optimizer.name: is adamw, but lamb there" in error
    assert "prepared with another tokenizer" in error
    assert "training.steps: is 5, but" in error
    assert "stands at step 6" in error
    assert "has no checkpoint" in launch(tmp_path / "run", "--continue_from", empty_run(first, tmp_path), code=2).stderr
    assert "is no run folder" in launch(tmp_path / "run", "--continue_from", tmp_path / "absent", code=2).stderr
    late = ["--continue_from", first, *SECOND, "--schedule.start_step", 7, "--schedule.warmup_steps", 0]
    assert "schedule.start_step: is 7, but" in launch(tmp_path / "run", *late, code=2).stderr
    assert "schedule.start_step: must be 0 without" in launch(tmp_path / "run", "--schedule.start_step", 1, code=2).stderr
    error = launch(tmp_path / "run", "--continue_from", first, "--model.init_from", first, code=2).stderr
    assert "continue_from: brings its own weights" in error


def empty_run(first, tmp_path):
    """A run that was started and has saved nothing."""
    (tmp_path / "empty").mkdir()
    shutil.copy(first / "config.yaml", tmp_path / "empty")
    return tmp_path / "empty"
