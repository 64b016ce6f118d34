"""`continue_from`: the checkpoint of one run as the beginning of another, with other data, length, batch or schedule."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from data_prep.schema import Manifest, manifest_sha256
from pretrain.checkpoint import newest_good_checkpoint, read_state
from pretrain.config import RunConfig
from pretrain.config_file import load_config
from pretrain.progress import Progress, progress_from, read_rollbacks
from tokenizer.errors import UserError

MAY_DIFFER = ("hidden_dropout", "attention_dropout", "initializer_range", "init_from")
"""Fields of `model` that do not shape the weights."""


def find_predecessor(config: RunConfig, manifest: Manifest) -> Path:
    """The newest whole checkpoint of the run `continue_from`, if this run can go on from it.

    Raises:
        UserError: that run has no checkpoint, or model, optimizer, tokenizer or steps do not fit; all are listed.
    """
    run = config.continue_from
    if not (run / "config.yaml").is_file():
        raise UserError(f"continue_from: {run} is no run folder: there is no config.yaml in it. Give a folder of `albert launch`.")
    before = load_config(run / "config.yaml")
    folder, damaged = newest_good_checkpoint(run / "checkpoints")
    if folder is None:
        raise UserError(f"continue_from: {run} has no checkpoint to begin with. Train it first.")
    for bad, fault in damaged.items():
        print(f"damaged checkpoint passed over: {bad}: {fault}", flush=True)
    state = read_state(folder)
    faults = [
        f"model.{item.name}: is {getattr(config.model, item.name)}, but {getattr(before.model, item.name)} there"
        for item in fields(config.model)
        if item.name not in MAY_DIFFER and getattr(config.model, item.name) != getattr(before.model, item.name)
    ]
    if config.optimizer.name != before.optimizer.name:
        faults.append(f"optimizer.name: is {config.optimizer.name}, but {before.optimizer.name} there, with another state")
    if state.get("tokenizer_sha256") not in (None, manifest.tokenizer_sha256):
        faults.append(f"data.path: {config.data.path} was prepared with another tokenizer; its ids mean other pieces")
    if config.training.steps <= state["step"]:
        faults.append(
            f"training.steps: is {config.training.steps}, but {folder} stands at step {state['step']}; steps are carried on"
        )
    if config.schedule.start_step > state["step"]:
        start = config.schedule.start_step
        faults.append(f"schedule.start_step: is {start}, but {folder} stands at step {state['step']}; until then nothing is learnt")
    if faults:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise UserError(f"continue_from: this run cannot go on from {run}:\n{listed}")
    return folder


def carried_on(folder: Path, config: RunConfig, state: dict[str, Any]) -> Progress:
    """The progress that a run begins with after another's checkpoint: its step; its place in the data if that comes in the same
    order.

    Rollbacks stay behind: this run has a learning rate of its own.
    """
    before = progress_from(state)
    progress = Progress(step=before.step)
    run_folder, data_sha256 = folder.parent.parent, manifest_sha256(config.data.path)
    if state["data_sha256"] == data_sha256 and order_of(config) == order_of(load_config(run_folder / "config.yaml")):
        progress.samples_seen = before.samples_seen
        before.rollbacks = read_rollbacks(run_folder, data_sha256, before.rollbacks)
        progress.left_out = before.skipped()
    return progress


def order_of(config: RunConfig) -> tuple[int, int]:
    """What the order of the samples depends on, beside the data."""
    return config.training.seed, config.data.shuffle_window
