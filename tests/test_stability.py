"""When training goes wrong: skipped steps, rollbacks, diagnoses and warnings, with real faults in real processes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runs import FAULTS, STEPS, assert_same_run, figures, records, tensors
from safetensors.torch import load_file
from synthetic import write_synthetic_data

from data_prep.schema import read_manifest
from pretrain.config_file import check_config
from pretrain.data import open_split
from pretrain.progress import Progress, Rollback, merged, read_rollbacks, sample_numbers, write_rollbacks
from pretrain.sample_order import sample_rows
from pretrain.watch import Watch

BAD_STEP = 4
EVERY_STEP = ["--checkpoint.every_n_steps", 1, "--checkpoint.keep_last", 20]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Enough instances for one epoch: the bad one comes once."""
    return write_synthetic_data(tmp_path_factory.mktemp("data") / "synthetic", num_instances=200)


@pytest.fixture(scope="module")
def bad_row(data) -> str:
    """An instance of the step after BAD_STEP updates, which no other row begins with."""
    return bad_rows(data, num_steps=1)


def bad_rows(data: Path, num_steps: int, after: int = BAD_STEP) -> str:
    """The longest instance of each of the steps after some updates, as JSON."""
    split, bad = open_split(data, read_manifest(data), "train"), []
    for step in range(after, after + num_steps):
        rows = sample_rows(step * 8 + np.arange(8), split.shard_rows, seed=0, window=8)
        (longest,) = split.read(rows[[split.lengths(rows).argmax()]])
        bad.append(longest.input_ids.tolist())
    return json.dumps(bad)


@pytest.mark.parametrize("fault", ["BAD_INSTANCE", "BAD_GRADIENT"])
def test_a_step_whose_loss_or_gradient_is_no_number_is_skipped_on_all_ranks_and_counted(fault, launch, data, bad_row, tmp_path):
    run_folder = tmp_path / "run"
    options = ["--data", data, *EVERY_STEP]
    launch(run_folder, *options, "--training.steps", BAD_STEP + 1, PYTHONPATH=FAULTS, **{fault: bad_row})
    (skipped,) = records(run_folder, "skipped")
    assert skipped["step"] == BAD_STEP + 1
    assert skipped["message"].startswith("no update: loss nan" if fault == "BAD_INSTANCE" else "no update: loss 4.")
    before, after = (tensors(run_folder, step) for step in (BAD_STEP, BAD_STEP + 1))
    assert all(torch.equal(before[name], after[name]) for name in before)  # weights and both moments
    launch(run_folder, *options, PYTHONPATH=FAULTS, **{fault: bad_row})
    assert [record["step"] for record in records(run_folder)] == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert records(run_folder)[-1]["skipped_steps"] == 1
    assert np.isfinite(figures(run_folder, "loss", "grad_norm")).all()
    assert not (run_folder / "rollbacks.json").exists()


def test_a_rollback_goes_past_the_bad_samples_with_a_lower_rate_and_survives_an_interruption(launch, data, bad_row, tmp_path):
    options = ["--data", data, "--stability.max_skipped_steps", 1, "--checkpoint.every_n_steps", 2]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    launch(whole, *options, PYTHONPATH=FAULTS, BAD_INSTANCE=bad_row)
    assert json.loads((whole / "rollbacks.json").read_text())["rollbacks"] == [
        {
            "to_step": BAD_STEP,
            "from_step": BAD_STEP + 1,
            "skipped": [8 * BAD_STEP, 8 * BAD_STEP + 8],
            "lr_factor": 0.5,
            "reason": "1 step(s) in a row with a loss or gradient that is no finite number",
        }
    ]
    assert [record["step"] for record in records(whole)] == list(range(1, STEPS + 1))
    assert [record["samples"][0] // 8 for record in records(whole)] == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]
    (event,) = records(whole, "rollback")
    assert event["step"] == BAD_STEP
    launch(tmp_path / "healthy", "--data", data)
    ratios = np.array(figures(whole, "lr")[1:]) / np.array(figures(tmp_path / "healthy", "lr")[1:])  # the first rate is 0
    np.testing.assert_allclose(ratios[:, 0], [1.0] * 3 + [0.5] * 6)

    launch(halves, *options, "--training.steps", 5, PYTHONPATH=FAULTS, BAD_INSTANCE=bad_row)
    launch(halves, *options, PYTHONPATH=FAULTS, BAD_INSTANCE=bad_row)
    assert_same_run(halves, whole)


def test_a_rollback_that_was_cut_short_before_the_next_checkpoint_is_not_undone(launch, data, bad_row, tmp_path):
    """RUN/rollbacks.json alone knows of it: the only checkpoint is from before."""
    options = ["--data", data, "--stability.max_skipped_steps", 1, "--checkpoint.every_n_steps", 4]
    launch(tmp_path / "whole", *options, PYTHONPATH=FAULTS, BAD_INSTANCE=bad_row)
    cut = tmp_path / "cut"
    launch(cut, *options, "--training.steps", 5, PYTHONPATH=FAULTS, BAD_INSTANCE=bad_row)
    shutil.rmtree(cut / "checkpoints" / "step-5")
    launch(cut, *options, PYTHONPATH=FAULTS, BAD_INSTANCE=bad_row)
    assert len(json.loads((cut / "rollbacks.json").read_text())["rollbacks"]) == 1
    assert_same_run(cut, tmp_path / "whole")


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_saves_during_bad_steps_do_not_push_out_the_checkpoint_before_them(dtype, launch, data, tmp_path):
    options = ["--stability.max_skipped_steps", 3, "--checkpoint.every_n_steps", 1, "--checkpoint.keep_last", 1]
    options += ["--precision.dtype", dtype]
    launch(tmp_path / "run", "--data", data, *options, PYTHONPATH=FAULTS, BAD_INSTANCE=bad_rows(data, num_steps=3))
    (rollback,) = json.loads((tmp_path / "run" / "rollbacks.json").read_text())["rollbacks"]
    last_update = BAD_STEP - (dtype == "fp16")  # fp16 is still finding its scale in the step before
    assert (rollback["to_step"], rollback["from_step"]) == (last_update, BAD_STEP + 3)
    assert rollback["skipped"] == [8 * last_update, 8 * (BAD_STEP + 3)]
    assert not list((tmp_path / "run" / "checkpoints").glob("abandoned-*"))  # none was made in between


def test_a_last_step_without_an_update_is_saved_beside_the_good_one_before(launch, data, bad_row, tmp_path):
    options = ["--data", data, "--training.steps", BAD_STEP + 1, "--checkpoint.every_n_steps", 1, "--checkpoint.keep_last", 1]
    launch(tmp_path / "run", *options, PYTHONPATH=FAULTS, BAD_INSTANCE=bad_row)
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {f"step-{BAD_STEP}", f"step-{BAD_STEP + 1}"}


def test_a_run_that_always_diverges_tries_earlier_checkpoints_and_then_stops_with_code_4(launch, tmp_path):
    options = ["--optimizer.lr", "1e30", *EVERY_STEP, "--stability.max_skipped_steps", 2, "--stability.max_rollbacks", 2]
    error = launch(tmp_path / "run", *options, code=4).stderr
    assert "diverged" in error
    assert "after 2 rollback(s)" in error
    assert "lower optimizer.lr" in error
    assert "Traceback" not in error
    rollbacks = json.loads((tmp_path / "run" / "rollbacks.json").read_text())["rollbacks"]
    assert [rollback["to_step"] for rollback in rollbacks] == [2, 1]  # step 2 holds the ruined weights
    assert {path.name for path in (tmp_path / "run" / "checkpoints").glob("abandoned-*")} >= {"abandoned-step-2"}
    weights = [load_file(path) for path in (tmp_path / "run" / "checkpoints").glob("step-*/model.safetensors")]
    assert all(torch.isfinite(tensor).all() for checkpoint in weights for tensor in checkpoint.values())


def test_a_run_without_a_good_checkpoint_from_before_stops_and_does_not_begin_anew(launch, tmp_path):
    options = ["--optimizer.lr", "1e30", "--checkpoint.every_n_steps", 1, "--checkpoint.keep_last", 1]
    error = launch(tmp_path / "run", *options, "--stability.max_skipped_steps", 2, code=4).stderr
    assert "no good checkpoint from before" in error
    assert (tmp_path / "run" / "checkpoints" / "step-2").is_dir()


def test_what_a_start_without_a_checkpoint_left_behind_does_not_bind_another_config(launch, tmp_path):
    late = ["--checkpoint.every_n_steps", 100, "--stability.max_skipped_steps", 1, "--stability.max_rollbacks", 1]
    launch(tmp_path / "run", "--optimizer.lr", "1e30", *late, code=4)
    assert (tmp_path / "run" / "rollbacks.json").exists()
    launch(tmp_path / "run", *late)
    launch(tmp_path / "fresh", *late)
    assert not (tmp_path / "run" / "rollbacks.json").exists()
    assert_same_run(tmp_path / "run", tmp_path / "fresh")


def test_rollbacks_on_other_data_before_the_first_checkpoint_do_not_bind_the_data_prepared_anew(launch, tmp_path):
    data, never = tmp_path / "data", ["--checkpoint.every_n_steps", 100, "--stability.max_skipped_steps", 1]
    write_synthetic_data(data, num_instances=200)
    faults = {"PYTHONPATH": FAULTS, "BAD_INSTANCE": bad_rows(data, num_steps=2)}
    launch(tmp_path / "run", "--data", data, *never, "--stability.max_rollbacks", 1, code=4, **faults)
    shutil.rmtree(data)
    write_synthetic_data(data, num_instances=200, seed=1)
    launch(tmp_path / "run", "--data", data, *never, "--stability.max_rollbacks", 1)
    launch(tmp_path / "fresh", "--data", data, *never)
    assert_same_run(tmp_path / "run", tmp_path / "fresh")


def test_weights_that_one_process_has_ruined_are_not_saved_and_all_go_back(launch, tmp_path):
    """In step 4, of two forward passes a process each, and a save after every second step."""
    options = ["--model.max_position_embeddings", 33, "--checkpoint.every_n_steps", 2, "--checkpoint.keep_last", 20]
    launch(tmp_path / "run", *options, PYTHONPATH=FAULTS, RUINED_WEIGHT="7")
    (rollback,) = json.loads((tmp_path / "run" / "rollbacks.json").read_text())["rollbacks"]
    assert (rollback["to_step"], rollback["from_step"]) == (2, 4)
    assert rollback["reason"] == "weights that are no finite numbers"
    checkpoints = (tmp_path / "run" / "checkpoints").glob("step-*")
    assert all(torch.isfinite(tensor).all() for path in checkpoints for tensor in load_file(path / "model.safetensors").values())


def test_a_rate_that_the_rollbacks_make_sane_trains_to_the_end(launch, tmp_path):
    options = ["--optimizer.lr", "1e30", *EVERY_STEP, "--stability.max_skipped_steps", 2, "--stability.lr_factor", "1e-32"]
    launch(tmp_path / "run", *options)
    assert (tmp_path / "run" / "DONE").exists()
    assert np.isfinite(figures(tmp_path / "run", "loss")).all()


def test_without_rollbacks_a_diverged_run_stops_with_a_diagnosis_and_code_4(launch, tmp_path):
    options = ["--optimizer.lr", "1e30", "--stability.on_divergence", "stop", "--stability.max_skipped_steps", 2]
    error = launch(tmp_path / "run", *options, code=4).stderr
    assert "2 step(s) in a row" in error
    assert json.loads((tmp_path / "run" / "state.json").read_text())["status"] == "stopped by diagnosis"
    assert not (tmp_path / "run" / "rollbacks.json").exists()


def test_fp16_finds_its_scale_without_counting_towards_a_rollback(launch, tmp_path):
    """A loss a thousand times as large as usual overflows fp16 at the first scales."""
    options = ["--precision.dtype", "fp16", "--model.initializer_range", 1, "--stability.max_skipped_steps", 1]
    launch(tmp_path / "run", *options, "--stability.on_divergence", "stop")
    skipped = records(tmp_path / "run", "skipped")
    assert skipped
    assert all("inf at loss scale" in event["message"] and event["in_a_row"] == 0 for event in skipped)


def test_a_plateau_at_the_unigram_entropy_is_named_in_the_log_once(launch, synthetic, tmp_path):
    """The manifest of the synthetic data says 4.0 nats; a model that hardly learns stays there."""
    options = ["--optimizer.lr", 1e-9, "--training.steps", 20, "--stability.plateau_steps", 12]
    output = launch(tmp_path / "run", *options).stdout
    (warning,) = records(tmp_path / "run", "warning")
    assert warning["kind"] == "plateau"
    assert "stuck at unigram entropy" in warning["message"]
    assert "lower optimizer.lr, or lengthen schedule.warmup_steps" in output


def test_a_loss_spike_is_named_in_the_log_when_it_happens(launch, data, tmp_path):
    options = ["--data", data, "--training.steps", 20]
    output = launch(tmp_path / "run", *options, PYTHONPATH=FAULTS, LOUD_INSTANCE=bad_rows(data, num_steps=1, after=14)).stdout
    (warning,) = records(tmp_path / "run", "warning")
    assert (warning["step"], warning["kind"]) == (15, "spike")
    assert "step 15  warning: loss spike at step 15" in output


def watch(plateau_steps: int = 100, warmup_steps: int = 0, every: int = 5) -> Watch:
    sections = {"stability": {"plateau_steps": plateau_steps}, "schedule": {"warmup_steps": warmup_steps, "total_steps": 1000}}
    sections["logging"] = {"every_n_steps": every}
    config = check_config({"data": {"path": "x"}, "training": {"steps": 1000}} | sections, source="test")
    return Watch(config, unigram_entropy=7.0)


def see(watch: Watch, losses: list[float], every: int = 5) -> list[tuple[int, str]]:
    """(step, kind) of what the watch names, with a record every 5 steps."""
    steps = range(every, every * (len(losses) + 1), every)
    return [(step, finding.kind) for step, loss in zip(steps, losses, strict=True) for finding in watch.see(step, loss)]


def test_the_watch_names_a_plateau_but_no_progress_no_low_loss_and_nothing_in_the_warm_up():
    noise = np.random.default_rng(0).normal(0, 0.05, 60)
    assert [kind for _, kind in see(watch(), list(7.0 + noise))] == ["plateau"]
    assert see(watch(), list(np.linspace(10, 6.3, 60) + noise)) == []
    assert see(watch(), list(0.87 * 7.0 + noise)) == []  # less than without context
    assert see(watch(), list(4.0 + noise)) == []  # far below the entropy, a flat loss is a trained model's
    assert see(watch(warmup_steps=290), list(7.0 + noise)) == []
    assert [kind for _, kind in see(watch(every=25), [7.0] * 60, every=25)] == ["plateau"]  # few lines take longer


def test_the_watch_names_a_spike_when_it_happens_and_again_only_after_it_was_over():
    calm = [4.0 + 0.02 * (number % 3) for number in range(30)]
    assert see(watch(), [*calm, 6.0, 6.0, *calm, 6.5]) == [(155, "spike"), (315, "spike")]
    assert see(watch(), [*calm, 4.2]) == []  # 5 %: noise of a batch
    assert see(watch(), [9.0, 5.0, 9.0]) == []  # too few to judge


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=5), st.integers(0, 80))
def test_positions_go_through_all_samples_but_the_left_out_ones(ranges, position):
    skipped = [(begin, begin + length) for begin, length in ranges]
    left = [number for number in range(400) if not any(begin <= number < end for begin, end in skipped)]
    assert sample_numbers(np.arange(position, position + 20), skipped).tolist() == left[position : position + 20]
    assert all(first[1] < second[0] for first, second in zip(merged(skipped), merged(skipped)[1:], strict=False))


def test_rollbacks_stay_in_the_order_they_happened(tmp_path):
    def rollback(to_step: int) -> Rollback:
        return Rollback(to_step=to_step, from_step=20, skipped=(0, 8), lr_factor=0.5, reason="")

    in_vain = [rollback(10), rollback(5)]
    write_rollbacks(tmp_path, "data", in_vain)
    assert read_rollbacks(tmp_path, "data", in_vain[:1]) == in_vain
    assert read_rollbacks(tmp_path / "absent", "data", in_vain) == in_vain
    assert read_rollbacks(tmp_path, "other data") == []


def test_the_rate_is_lowered_from_the_step_that_was_gone_back_to():
    rollbacks = [Rollback(to_step=to_step, from_step=to_step + 9, skipped=(0, 8), lr_factor=0.5, reason="") for to_step in (10, 30)]
    assert [Progress(step=step, rollbacks=rollbacks).lr_factor() for step in (9, 10, 29, 30)] == [1.0, 0.5, 0.5, 0.25]
