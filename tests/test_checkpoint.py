"""Checkpoints in-process: whole or refused, kept or deleted, and the golden one that every release must read."""

import concurrent.futures
import json
import resource
import signal
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pretrain.checkpoint import (
    delete_old_checkpoints,
    delete_unfinished,
    find_fault,
    list_checkpoints,
    load_checkpoint,
    newest_good_checkpoint,
    read_state,
    set_aside,
    snapshot,
    write_checkpoint,
)
from pretrain.checkpoint_writer import CheckpointWriter
from pretrain.config import ModelConfig, OptimizerConfig
from pretrain.config_file import load_config
from pretrain.metrics_file import truncate_after
from pretrain.model import Albert
from pretrain.optimizer import build_optimizer
from tokenizer.errors import UserError

GOLDEN = Path(__file__).parent / "golden" / "run"
MODEL = ModelConfig(
    embedding_size=4, hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=4, max_position_embeddings=8
)


def make_model(name: str = "lamb", steps: int = 2):
    """A tiny model and its optimizer after some steps on made-up gradients."""
    model = Albert(MODEL, 20)
    model.initialize(0.02, torch.Generator().manual_seed(0))
    optimizer = build_optimizer(model, OptimizerConfig(name=name, lr=0.00176))
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return model, optimizer


def save_checkpoint(folder: Path, model, optimizer, state: dict) -> None:
    write_checkpoint(folder, snapshot(model, optimizer), state)


def save_steps(folder: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(folder / f"step-{step}", *make_model(), {"step": step})


@pytest.mark.parametrize("name", ["lamb", "adamw"])
def test_weights_and_optimizer_state_come_back_bitwise(name, tmp_path):
    model, optimizer = make_model(name)
    save_checkpoint(tmp_path / "step-2", model, optimizer, {"step": 2, "wandb_id": "abc"})
    other, other_optimizer = make_model(name, steps=0)
    load_checkpoint(tmp_path / "step-2", other, other_optimizer)
    state = read_state(tmp_path / "step-2")
    assert (state["step"], state["wandb_id"]) == (2, "abc")
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        assert optimizer.state[ours].keys() == other_optimizer.state[theirs].keys()
        for key, value in optimizer.state[ours].items():
            assert torch.equal(value, other_optimizer.state[theirs][key]), key


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_any_damage_is_found_and_the_one_before_taken(name, damage, tmp_path):
    save_steps(tmp_path, 9, 10)
    path = tmp_path / "step-10" / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 4
        path.write_bytes(content)
    folder, damaged = newest_good_checkpoint(tmp_path)
    assert folder == tmp_path / "step-9"
    assert list(damaged) == [tmp_path / "step-10"]
    set_aside(tmp_path / "step-10")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-9"]
    assert (tmp_path / "damaged-step-10").is_dir()


def test_no_checkpoint_is_a_start_and_none_whole_is_an_error(tmp_path):
    assert newest_good_checkpoint(tmp_path / "absent") == (None, {})
    save_steps(tmp_path, 1)
    (tmp_path / "step-1" / "state.json").unlink()
    with pytest.raises(UserError, match=r"(?s)no checkpoint is whole.*state\.json is missing"):
        newest_good_checkpoint(tmp_path)


def test_the_last_k_and_the_best_are_kept_in_order_of_steps(tmp_path):
    save_steps(tmp_path, 8, 9, 10, 11)
    delete_old_checkpoints(tmp_path, keep_last=2, best_step=8)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step-8", "step-10", "step-11"]


def test_a_save_that_does_not_fit_leaves_what_was_there(tmp_path):
    save_steps(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # the optimizer's file is larger
    try:
        with pytest.raises(UserError, match="cannot be written"):
            save_checkpoint(tmp_path / "step-2", *make_model(), {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    assert find_fault(tmp_path / "step-1") is None


def test_a_save_copies_and_goes_on_while_the_disk_is_written(tmp_path):
    model, optimizer = make_model()
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    writer = CheckpointWriter(tmp_path, keep_last=2)
    going_on = threading.Event()
    writer.save(model, optimizer, {"step": 1, "best": {}}, before_write=lambda: going_on.wait(60))
    with torch.no_grad():
        for tensor in model.state_dict().values():  # the next step comes while the save is written
            tensor.add_(1)
    assert not (tmp_path / "step-1").exists()
    going_on.set()
    writer.wait()
    written = load_file(tmp_path / "step-1" / "model.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in expected.items())
    assert find_fault(tmp_path / "step-1") is None


def test_a_checkpoint_that_is_whole_or_being_written_is_not_written_again(tmp_path):
    writer = CheckpointWriter(tmp_path, keep_last=2)
    assert writer.save(*make_model(), {"step": 1, "best": {}}) is not None
    assert writer.save(*make_model(), {"step": 1, "best": {}}) is None
    assert writer.pending is None


def test_a_kill_between_the_renames_of_a_replaced_checkpoint_loses_neither(tmp_path):
    save_steps(tmp_path, 1, 2)
    (tmp_path / "step-1").rename(tmp_path / ".step-1.old-0a1b")
    (tmp_path / "step-2").rename(tmp_path / ".step-2.old-0a1b")
    save_steps(tmp_path, 2)
    delete_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-1", "step-2"]


def test_a_checkpoint_without_optimizer_state_takes_away_what_was_there(tmp_path):
    save_checkpoint(tmp_path / "step-0", *make_model(steps=0), {"step": 0})
    model, optimizer = make_model()
    load_checkpoint(tmp_path / "step-0", model, optimizer)
    assert not optimizer.state


@pytest.mark.parametrize("call", ["check", "wait", "save"])
def test_an_error_in_the_background_is_raised_by_the_next_call(call, tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    writer = CheckpointWriter(tmp_path / "checkpoints", keep_last=2)
    writer.save(*make_model(), {"step": 1, "best": {}})
    concurrent.futures.wait([writer.pending])
    with pytest.raises(OSError, match="checkpoints"):
        writer.save(*make_model(), {"step": 2, "best": {}}) if call == "save" else getattr(writer, call)()


def test_weights_of_another_model_are_a_user_error(tmp_path):
    save_steps(tmp_path, 1)
    model = Albert(MODEL, 21)
    with pytest.raises(UserError, match="another model"):
        load_checkpoint(tmp_path / "step-1", model, build_optimizer(model, OptimizerConfig(lr=0.00176)))


def test_a_format_of_another_release_is_named(tmp_path):
    save_steps(tmp_path, 1)
    path = tmp_path / "step-1" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 7}))
    with pytest.raises(UserError, match="format_version is 7"):
        read_state(tmp_path / "step-1")


def test_the_golden_run_of_format_version_1_still_opens():
    """Made once by `save_checkpoint(GOLDEN / "checkpoints" / "step-2", *make_model(), {...})` and `to_plain` of its config."""
    config = load_config(GOLDEN / "config.yaml")
    assert config.model == MODEL
    folder, damaged = newest_good_checkpoint(GOLDEN / "checkpoints")
    assert damaged == {}
    model, optimizer = make_model(steps=0)
    load_checkpoint(folder, model, optimizer)
    assert read_state(folder)["step"] == 2
    expected, expected_optimizer = make_model()
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)  # to fp32 rounding: kernels may sum in another order
        torch.testing.assert_close(optimizer.state[ours]["exp_avg_sq"], expected_optimizer.state[theirs]["exp_avg_sq"])


def test_metrics_beyond_the_checkpoint_and_a_torn_line_are_dropped(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    first, second, third = (f'{{"event": "train", "step": {step}, "loss": {1 / step}}}\n' for step in (1, 2, 3))
    path.write_text(first + second + third + '{"st')
    truncate_after(path, 2)
    assert path.read_text() == first + second
    assert capsys.readouterr().out == ""
