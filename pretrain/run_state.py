"""What a run stands on between two steps: weights, optimizer state and progress; where they come from, go to, and go back to.

Every method is collective: all ranks call it together. Rank 0 alone chooses, writes and renames.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from data_prep.schema import Manifest, manifest_sha256
from pretrain.checkpoint import (
    delete_unfinished,
    list_checkpoints,
    load_checkpoint,
    newest_good_checkpoint,
    read_state,
    set_aside,
    step_of,
)
from pretrain.checkpoint_writer import CheckpointWriter
from pretrain.config import RunConfig
from pretrain.distributed import agreed, barrier, rank
from pretrain.engine import Engine
from pretrain.hf_weights import load_hf_weights
from pretrain.model import Albert
from pretrain.phases import carried_on, find_predecessor
from pretrain.progress import Progress, Rollback, progress_from, read_rollbacks, write_rollbacks
from tokenizer.errors import UserError


class RunState:
    """The state in an engine, and how far it has come (`progress`)."""

    def __init__(self, run_folder: Path, config: RunConfig, manifest: Manifest, engine: Engine):
        self.run_folder, self.config, self.manifest, self.engine = run_folder, config, manifest, engine
        self.checkpoints = run_folder / "checkpoints"
        self.data_sha256 = manifest_sha256(config.data.path)
        self.fresh_scaler = self.scaler_state()
        self.writer = CheckpointWriter(self.checkpoints, config.checkpoint.keep_last)
        self.progress = Progress()
        self.wandb_id: str | None = None

    def restore(self, no_later_than: int | None = None) -> bool:
        """Load the newest good checkpoint, or begin; whether there was a checkpoint.

        Raises:
            UserError: no checkpoint is whole, or the data is not that of the run.
        """
        step = agreed(self.newest_checkpoint(no_later_than) if rank() == 0 else 0)
        if step < 0:
            self.begin()
            return False
        folder = self.checkpoints / f"step-{step}"
        state = read_state(folder)
        if state["data_sha256"] != self.data_sha256:
            raise UserError(
                f"{self.config.data.path}: is not the data that {folder} was trained on (the manifest differs). "
                "Put the former data back, or start a new run with another --output."
            )
        self.load(folder, state)
        self.progress = progress_from(state)
        self.progress.rollbacks = sorted({*self.progress.rollbacks, *read_rollbacks(self.run_folder)})
        self.wandb_id = state["wandb_id"]
        if rank() == 0:
            print(f"resuming from {folder}", flush=True)
        return True

    def newest_checkpoint(self, no_later_than: int | None) -> int:
        """Step of the newest good checkpoint, -1 without one; damaged ones, and later ones than wanted, are set aside."""
        delete_unfinished(self.checkpoints)
        if no_later_than is not None:
            for folder in list_checkpoints(self.checkpoints):
                if step_of(folder) > no_later_than:
                    set_aside(folder, "abandoned")
        folder, damaged = newest_good_checkpoint(self.checkpoints)
        for bad, fault in damaged.items():
            print(f"damaged checkpoint set aside: {bad}: {fault}", flush=True)
            set_aside(bad)
        return step_of(folder) if folder else -1

    def begin(self) -> None:
        """Random weights, the same for the same seed; or those of `init_from`; or all of the run `continue_from`."""
        config = self.config
        if config.continue_from is not None:
            step = agreed(step_of(find_predecessor(config, self.manifest)) if rank() == 0 else 0)
            folder = config.continue_from / "checkpoints" / f"step-{step}"
            state = read_state(folder)
            self.load(folder, state)
            self.progress = carried_on(folder, config, state)
            if rank() == 0:
                print(f"beginning with {folder}", flush=True)
            return
        initial = Albert(config.model, self.manifest.vocab_size)
        initial.initialize(config.model.initializer_range, torch.Generator().manual_seed(config.training.seed))
        self.engine.model.load_state_dict(initial.state_dict())
        self.engine.optimizer.state.clear()
        self.load_scaler(self.fresh_scaler)
        if config.model.init_from is not None:
            load_hf_weights(self.engine.model, config.model, config.model.init_from)
        self.progress = Progress(rollbacks=read_rollbacks(self.run_folder))

    def save(self, validation: dict[str, Any] | None) -> float | None:
        """Write a checkpoint of this step in the background; the seconds that rank 0 was held up, None if the step has one.

        validation: figures of this step, which may make it the best.
        """
        progress = self.progress
        if validation and validation["mlm_loss"] < progress.best.get("mlm_loss", float("inf")):
            progress.best = {"step": progress.step, "mlm_loss": validation["mlm_loss"]}
        if rank() != 0 or (self.checkpoints / f"step-{progress.step}").exists():
            return None
        state = {
            **dataclasses.asdict(progress),
            "grad_scaler": self.scaler_state(),
            "wandb_id": self.wandb_id,
            "data_sha256": self.data_sha256,
            "tokenizer_sha256": self.manifest.tokenizer_sha256,
        }
        return self.writer.save(self.engine.model, self.engine.optimizer, state)

    def finish_saving(self) -> None:
        """Wait until the last checkpoint is on the disk.

        Raises:
            UserError: it could not be written.
        """
        self.writer.wait()
        barrier()

    def go_back(self, reason: str) -> Rollback:
        """Return to the last good checkpoint before the bad steps, leave out their samples, and lower the learning rate.

        Where no update has been made since the last rollback, its checkpoint is no good either: the one before it is taken.
        """
        progress, batch = self.progress, self.config.training.global_batch_size
        num_bad = max(1, progress.skipped_in_a_row)
        bad = progress.samples(num_bad * batch, progress.samples_seen - num_bad * batch)
        first_bad = progress.step - num_bad
        tried_in_vain = bool(progress.rollbacks) and progress.rollbacks[-1].to_step == first_bad
        self.finish_saving()
        self.restore(no_later_than=first_bad - tried_in_vain)
        rollback = Rollback(
            to_step=self.progress.step,
            from_step=progress.step,
            skipped=(int(bad[0]), int(bad[-1]) + 1),
            lr_factor=self.config.stability.lr_factor,
            reason=reason,
        )
        self.progress.rollbacks = [*progress.rollbacks, rollback]
        if rank() == 0:
            write_rollbacks(self.run_folder, self.progress.rollbacks)
        return rollback

    def is_finite(self) -> bool:
        """Whether all weights are finite numbers."""
        return bool(torch.stack([parameter.isfinite().all() for parameter in self.engine.model.parameters()]).all())

    def load(self, folder: Path, state: dict[str, Any]) -> None:
        load_checkpoint(folder, self.engine.model, self.engine.optimizer)
        self.load_scaler(state["grad_scaler"])

    def scaler_state(self) -> dict[str, Any] | None:
        return self.engine.grad_scaler.state_dict() if self.engine.grad_scaler else None

    def load_scaler(self, state: dict[str, Any] | None) -> None:
        if self.engine.grad_scaler and state:
            self.engine.grad_scaler.load_state_dict(state)
