"""What a run stands on between two steps: weights, optimizer state and progress; where they come from, go to, and go back to.

Every method is collective: all ranks call it together. Rank 0 alone chooses, writes and renames.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from data_prep.schema import TOKENIZER_FOLDER, Manifest, manifest_sha256
from pretrain.checkpoint import (
    delete_unfinished,
    find_fault,
    list_checkpoints,
    load_checkpoint,
    newest_good_checkpoint,
    read_state,
    set_aside,
    step_of,
)
from pretrain.checkpoint_writer import CheckpointWriter
from pretrain.config import RunConfig
from pretrain.distributed import agreed, rank, sum_over_ranks
from pretrain.engine import Engine
from pretrain.init_from import load_init_weights
from pretrain.model import Albert
from pretrain.phases import carried_on, find_predecessor
from pretrain.progress import Progress, Rollback, progress_from, read_rollbacks, write_rollbacks
from pretrain.report import Diagnosis
from pretrain.sessions import record_kept_rows, record_predecessor
from pretrain.watch import diagnosis
from tokenizer.chain import load_chain
from tokenizer.errors import UserError

NOTHING_SAVED, NOTHING_GOOD = -1, -2
"""In place of a step: the run has no checkpoint yet; it has some, but none of them will do."""


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

    def restore(self) -> bool:
        """Load the newest good checkpoint, or begin; whether there was a checkpoint.

        Raises:
            UserError: no checkpoint is whole, or the data is not that of the run.
        """
        step = agreed(self.newest_checkpoint() if rank() == 0 else 0)
        if step == NOTHING_SAVED:
            self.begin()
            return False
        self.load_step(step)
        return True

    def newest_checkpoint(self) -> int:
        """Step of the newest good checkpoint, NOTHING_SAVED without one; damaged ones are set aside."""
        delete_unfinished(self.checkpoints)
        folder, damaged = newest_good_checkpoint(self.checkpoints)
        for bad, fault in damaged.items():
            print(f"damaged checkpoint set aside: {bad}: {fault}", flush=True)
            set_aside(bad)
        return step_of(folder) if folder else NOTHING_SAVED

    def load_step(self, step: int) -> None:
        """All of the checkpoint of a step, and what RUN/rollbacks.json knows beside it."""
        folder = self.checkpoints / f"step-{step}"
        state = read_state(folder)
        if state["data_sha256"] != self.data_sha256:
            raise UserError(
                f"{self.config.data.path}: is not the data that {folder} was trained on (the manifest differs). "
                "Put the former data back, or start a new run with another --output."
            )
        self.load(folder, state)
        self.progress = progress_from(state)
        self.progress.rollbacks = read_rollbacks(self.run_folder, self.data_sha256, self.progress.rollbacks)
        self.wandb_id = state["wandb_id"]
        if rank() == 0:
            print(f"resuming from {folder}", flush=True)

    def begin(self) -> None:
        """All of the run `continue_from`; or the weights of `init_from`; or random ones, the same for the same seed."""
        if self.config.continue_from is not None:
            self.begin_with_predecessor(self.config.continue_from)
        else:
            self.begin_with_new_weights()
        self.progress.rollbacks = read_rollbacks(self.run_folder, self.data_sha256)

    def begin_with_predecessor(self, run_folder: Path) -> None:
        step = agreed(step_of(find_predecessor(self.config, self.manifest)) if rank() == 0 else 0)
        folder = run_folder / "checkpoints" / f"step-{step}"
        state = read_state(folder)
        self.load(folder, state)
        self.progress = carried_on(folder, self.config, state)
        if rank() == 0:
            record_predecessor(self.run_folder, folder)
            print(f"beginning with {folder}", flush=True)

    def begin_with_new_weights(self) -> None:
        config = self.config
        initial = Albert(config.model, self.manifest.vocab_size)
        initial.initialize(config.model.initializer_range, torch.Generator().manual_seed(config.training.seed))
        self.engine.model.load_state_dict(initial.state_dict())
        self.engine.optimizer.state.clear()
        self.load_scaler(self.fresh_scaler)
        if config.model.init_from is not None:
            pieces = [piece for piece, _ in load_chain(config.data.path / TOKENIZER_FOLDER).pieces]
            rows, lacking = load_init_weights(self.engine.model, config.model, pieces, config.training.seed)
            if rank() == 0:
                record_kept_rows(self.run_folder, rows._asdict())
                random = f"; random weights for {', '.join(lacking)}, which it lacks" if lacking else ""
                print(f"beginning with {config.model.init_from}: {rows}{random}", flush=True)
        self.progress = Progress()

    def save(self, validation: dict[str, Any] | None, before_write: Callable[[], None]) -> float | None:
        """Write a checkpoint of this step in the background; the seconds that rank 0 was held up, None if the step has one.

        validation: figures of this step, which may make it the best. before_write: called in the background, before the files.
        """
        progress = self.progress
        if validation and validation["mlm_loss"] < progress.best.get("mlm_loss", float("inf")):
            progress.best = {"step": progress.step, "mlm_loss": validation["mlm_loss"]}
        if rank() != 0:
            return None
        state = {
            **dataclasses.asdict(progress),
            "grad_scaler": self.scaler_state(),
            "wandb_id": self.wandb_id,
            "data_sha256": self.data_sha256,
            "tokenizer_sha256": self.manifest.tokenizer_sha256,
        }
        good_ones_stay = progress.steps_since_update > 0  # those from before the bad steps
        return self.writer.save(
            self.engine.model, self.engine.optimizer, state, before_write=before_write, delete_old=not good_ones_stay
        )

    def finish_saving(self) -> None:
        """Wait until the last checkpoint is on the disk.

        Raises:
            UserError: it could not be written.
        """
        fault = None
        try:
            self.writer.wait()
        except Exception as error:
            fault = error
        failed = sum_over_ranks(torch.tensor([float(fault is not None)])).item()
        if fault is not None:
            raise fault
        if failed:
            raise UserError("another process could not write a checkpoint")

    def go_back(self, reason: str) -> Rollback:
        """Return to the last good checkpoint before the bad steps, leave out their samples, and lower the learning rate.

        Where no update has been made since the last rollback, its checkpoint is no good either: the one before it is taken.

        Raises:
            Diagnosis: there are checkpoints, but none from before the bad steps is whole.
        """
        progress, batch = self.progress, self.config.training.global_batch_size
        num_bad = max(1, progress.steps_since_update)
        bad = progress.samples(num_bad * batch, progress.samples_seen - num_bad * batch)
        first_bad = progress.step - num_bad
        tried_in_vain = bool(progress.rollbacks) and progress.rollbacks[-1].to_step == first_bad
        self.finish_saving()
        step = agreed(self.checkpoint_before(first_bad - tried_in_vain) if rank() == 0 else 0)
        if step == NOTHING_GOOD:
            raise Diagnosis(diagnosis(progress.step, f"{reason}, and no good checkpoint from before", self.checkpoints))
        if step == NOTHING_SAVED:
            self.begin()
        else:
            self.load_step(step)
        best = self.checkpoints / f"step-{self.progress.best.get('step')}"
        if not agreed(int(best.is_dir())):  # a later one, now abandoned, had pushed it out
            self.progress.best = {}
        rollback = Rollback(
            to_step=self.progress.step,
            from_step=progress.step,
            skipped=(int(bad[0]), int(bad[-1]) + 1),
            lr_factor=self.config.stability.lr_factor,
            reason=reason,
        )
        self.progress.rollbacks = [*progress.rollbacks, rollback]
        if rank() == 0:
            write_rollbacks(self.run_folder, self.data_sha256, self.progress.rollbacks)
        return rollback

    def checkpoint_before(self, limit: int) -> int:
        """Step of the newest good checkpoint that is no later than `limit`; later ones are set aside once it is known."""
        folders = list_checkpoints(self.checkpoints)
        if not folders:
            return NOTHING_SAVED
        good = next((folder for folder in reversed(folders) if step_of(folder) <= limit and find_fault(folder) is None), None)
        if good is None:
            return NOTHING_GOOD
        for folder in folders:
            if step_of(folder) > step_of(good):
                set_aside(folder, "abandoned")
        return step_of(good)

    def is_finite(self) -> bool:
        """Whether all weights are finite numbers, on all ranks."""
        finite = torch.stack([parameter.isfinite().all() for parameter in self.engine.model.parameters()]).all()
        return not sum_over_ranks(torch.tensor([float(not finite)])).item()

    def load(self, folder: Path, state: dict[str, Any]) -> None:
        load_checkpoint(folder, self.engine.model, self.engine.optimizer)
        self.load_scaler(state["grad_scaler"])

    def scaler_state(self) -> dict[str, Any] | None:
        return self.engine.grad_scaler.state_dict() if self.engine.grad_scaler else None

    def load_scaler(self, state: dict[str, Any] | None) -> None:
        if self.engine.grad_scaler and state:
            self.engine.grad_scaler.load_state_dict(state)
