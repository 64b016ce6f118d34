"""The training run: RUN/config.yaml in; metrics, checkpoints, state.json and DONE out.

The result is a function of config, data and seed (with dropout, also of the cut into processes and micro-batches): sample order,
dropout and learning rate follow from the step, so an interruption changes nothing.
"""

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from data_prep.schema import Manifest, manifest_sha256, read_manifest
from pretrain.checkpoint import (
    delete_old_checkpoints,
    delete_unfinished,
    load_checkpoint,
    newest_good_checkpoint,
    read_state,
    save_checkpoint,
    set_aside,
    step_of,
)
from pretrain.config import RunConfig, data_faults, load_config, to_plain
from pretrain.data import Split, micro_batches, open_split, rank_slice
from pretrain.distributed import barrier, rank, sum_over_ranks, world_size
from pretrain.engine import Engine, choose_device, start_deepspeed
from pretrain.evaluate import batch_counts, mean_metrics, sum_losses, validate
from pretrain.hf_weights import load_hf_weights
from pretrain.metrics import MetricsLog, Throughput
from pretrain.model import Albert, LossSums, MicroBatch
from pretrain.optimizer import build_optimizer, set_lr
from pretrain.report import Diagnosis, Preempted
from pretrain.sample_order import mix, sample_rows
from pretrain.schedule import lr_at
from tokenizer.errors import UserError
from tokenizer.files import write_json


def train(run_folder: Path) -> None:
    """Train from the newest good checkpoint, or from the start, to `training.steps`.

    Raises:
        UserError: config, data or checkpoints do not fit together.
        Preempted: SIGTERM, SIGUSR1 or a file RUN/STOP ended the run after a checkpoint.
        Diagnosis: the loss or the gradient is no finite number.
    """
    config = load_config(run_folder / "config.yaml")
    device = choose_device(config.precision)
    start_deepspeed(device)
    Trainer(run_folder, config, device).run()


class Trainer:
    """One process's part of a run: engine, data, and what has been done so far."""

    def __init__(self, run_folder: Path, config: RunConfig, device: torch.device):
        self.run_folder, self.config, self.device = run_folder, config, device
        self.checkpoints = run_folder / "checkpoints"
        self.manifest = read_manifest(config.data.path)
        if faults := data_faults(config, self.manifest, world_size()):
            raise UserError("\n".join(faults))
        self.train_split = open_split(config.data.path, self.manifest, "train", window=config.data.shuffle_window)
        self.validation_split = open_validation(config.data.path, self.manifest)
        model = build_model(config, self.manifest)
        self.engine = Engine(model.to(device), build_optimizer(model, config.optimizer), config)
        self.step = 0
        self.best: dict[str, float] = {}
        """`step` and `mlm_loss` of the best checkpoint, once one was validated."""
        self.stop_signal = False
        self.resumed = False
        wandb_id = self.resume()
        self.log = None
        if rank() == 0:
            plain = to_plain(config)
            self.log = MetricsLog(
                run_folder, config.logging, plain_config=plain, wandb_id=wandb_id, step=self.step if self.resumed else -1
            )

    def run(self) -> None:
        """Train to the end, then mark the run DONE."""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self.request_stop)
        try:
            self.loop()
        finally:
            if self.log:
                self.log.close()
        if rank() == 0:
            write_json(self.run_folder / "DONE", {"step": self.step})

    def loop(self) -> None:
        """A step; log? validate? save? until the steps are done."""
        self.engine.model.train()
        throughput = Throughput()
        if not self.resumed:
            self.validate()
            throughput.restart()
        while self.step < self.config.training.steps:
            record = self.train_step(throughput)
            last = self.step == self.config.training.steps
            if self.log and record and (last or self.step % self.config.logging.every_n_steps == 0):
                self.log.write(record)
            validates = last or self.step % self.config.training.validate_every_n_steps == 0
            saves = last or self.step % self.config.checkpoint.every_n_steps == 0
            validation = self.validate() if validates else None
            if saves:
                self.save(validation)
            if validates or saves:
                throughput.restart()

    def train_step(self, throughput: Throughput) -> dict[str, Any] | None:
        """One optimizer step over one global batch; its figures when a log line or checkpoint is due."""
        training = self.config.training
        lr = lr_at(self.step, peak_lr=self.config.optimizer.lr, schedule=self.config.schedule)
        set_lr(self.engine.optimizer, lr)
        seed_dropout(training.seed, self.step)
        batches = self.read_batch()
        wants_stop = self.stop_signal or (rank() == 0 and (self.run_folder / "STOP").exists())
        counts = sum_over_ranks(torch.cat([batch_counts(batches), torch.tensor([float(wants_stop)], dtype=torch.float64)]))
        masked, labelled, pieces, stop = counts.tolist()
        if stop:
            self.save(None)
            if rank() == 0:
                (self.run_folder / "STOP").unlink(missing_ok=True)
            raise Preempted(f"asked to stop: saved step {self.step}; the same command goes on from there")
        sums = [self.forward_backward(batch.to(self.device), masked, labelled) for batch in batches]
        self.engine.step()
        self.step += 1
        throughput.add(pieces)
        intervals = (self.config.logging.every_n_steps, self.config.checkpoint.every_n_steps)
        if self.step < training.steps and all(self.step % interval for interval in intervals):
            return None
        return self.record(sum_over_ranks(sum_losses(sums).cpu()), masked, labelled, lr, throughput)

    def read_batch(self) -> list[MicroBatch]:
        """This rank's micro-batches of the coming step."""
        training = self.config.training
        samples = self.step * training.global_batch_size + np.arange(training.global_batch_size)
        mine = rank_slice(samples, rank(), world_size())
        rows = sample_rows(mine, self.train_split.shard_rows, training.seed, self.config.data.shuffle_window)
        return list(micro_batches(self.train_split, rows, training.micro_batch_size))

    def forward_backward(self, batch: MicroBatch, masked: float, labelled: float) -> LossSums:
        """Gradients of this micro-batch's part of the global mean: DeepSpeed averages over ranks, so the world size undoes that."""
        sums = self.engine.forward(batch)
        loss = sums.mlm_loss / masked + (sums.sop_loss / labelled if labelled else 0.0)
        self.engine.backward(loss * world_size())
        return LossSums(*(each.detach() for each in sums))

    def record(self, sums: torch.Tensor, masked: float, labelled: float, lr: float, throughput: Throughput) -> dict[str, Any]:
        """The figures of the step just taken.

        Raises:
            Diagnosis: the loss or the gradient norm is not finite.
        """
        means = mean_metrics(sums, masked, labelled)
        grad_norm = self.engine.optimizer.grad_norm
        grad_norm = None if grad_norm is None else grad_norm.item()
        if not np.isfinite(means["loss"]) or not np.isfinite(grad_norm or 0.0):
            raise Diagnosis(self.divergence(f"loss {means['loss']}, gradient norm {grad_norm}"))
        pieces_per_second, seconds_per_step = throughput.read()
        scaler = self.engine.grad_scaler
        return {
            "event": "train",
            "step": self.step,
            "epoch": self.step * self.config.training.global_batch_size / len(self.train_split),
            **means,
            "lr": lr,
            "grad_norm": grad_norm,
            **({"loss_scale": scaler.get_scale()} if scaler else {}),
            "tokens_per_second": pieces_per_second,
            "eta_seconds": seconds_per_step * (self.config.training.steps - self.step),
            "time": time.time(),
        }

    def divergence(self, seen: str) -> str:
        return (
            f"step {self.step}: {seen}: the run has diverged. The checkpoints in {self.checkpoints} are from before; "
            "lower optimizer.lr or lengthen schedule.warmup_steps in a new run."
        )

    def validate(self) -> dict[str, Any] | None:
        """Figures of the held-out split, logged; None without one."""
        if self.validation_split is None:
            return None
        training = self.config.training
        means = validate(
            self.engine,
            self.validation_split,
            micro_batch_size=training.micro_batch_size,
            max_instances=training.max_validation_instances,
            device=self.device,
        )
        entropy = self.manifest.splits["validation"].unigram_entropy
        if self.log:
            self.log.write({"event": "validation", "step": self.step, **means, "unigram_entropy": entropy, "time": time.time()})
        return means

    def save(self, validation: dict[str, Any] | None) -> None:
        """A checkpoint of this step, unless there is one, by rank 0; the others wait.

        Raises:
            Diagnosis: a weight is not finite; the checkpoints before stay the newest.
        """
        if not torch.stack([parameter.isfinite().all() for parameter in self.engine.model.parameters()]).all():
            raise Diagnosis(self.divergence("weights that are not finite"))
        folder = self.checkpoints / f"step-{self.step}"
        if validation and validation["mlm_loss"] < self.best.get("mlm_loss", float("inf")):
            self.best = {"step": self.step, "mlm_loss": validation["mlm_loss"]}
        if self.log and not folder.exists():
            scaler = self.engine.grad_scaler
            state = {
                "step": self.step,
                "samples_seen": self.step * self.config.training.global_batch_size,
                "best": self.best,
                "grad_scaler": scaler.state_dict() if scaler else None,
                "wandb_id": self.log.wandb_id,
                "data_sha256": manifest_sha256(self.config.data.path),
            }
            save_checkpoint(folder, self.engine.model, self.engine.optimizer, state)
            best_step = self.best.get("step")
            delete_old_checkpoints(self.checkpoints, keep_last=self.config.checkpoint.keep_last, best_step=best_step)
        barrier()

    def resume(self) -> str | None:
        """Load the newest good checkpoint, which rank 0 chooses, and return its wandb id; without one, start from `init_from`."""
        chosen = torch.tensor([-1 if rank() == 0 else 0])
        if rank() == 0:
            delete_unfinished(self.checkpoints)
            folder, damaged = newest_good_checkpoint(self.checkpoints)
            for bad, fault in damaged.items():
                print(f"damaged checkpoint set aside: {bad}: {fault}", flush=True)
                set_aside(bad)
            chosen = torch.tensor([step_of(folder) if folder else -1])
        step = int(sum_over_ranks(chosen).item())
        if step < 0:
            if self.config.model.init_from is not None:
                load_hf_weights(self.engine.model, self.config.model, self.config.model.init_from)
            return None
        folder = self.checkpoints / f"step-{step}"
        state = read_state(folder)
        if state["data_sha256"] != manifest_sha256(self.config.data.path):
            raise UserError(
                f"{self.config.data.path}: is not the data that {folder} was trained on (the manifest differs). "
                "Give the former data, or a new --output."
            )
        load_checkpoint(folder, self.engine.model, self.engine.optimizer)
        if self.engine.grad_scaler and state["grad_scaler"]:
            self.engine.grad_scaler.load_state_dict(state["grad_scaler"])
        self.step, self.best, self.resumed = step, state["best"], True
        if rank() == 0:
            print(f"resuming from {folder}", flush=True)
        return state["wandb_id"]

    def request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_signal = True


def build_model(config: RunConfig, manifest: Manifest) -> Albert:
    """Random weights, the same for the same seed."""
    model = Albert(config.model, manifest.vocab_size)
    model.initialize(config.model.initializer_range, torch.Generator().manual_seed(config.training.seed))
    return model


def open_validation(folder: Path, manifest: Manifest) -> Split | None:
    counts = manifest.splits.get("validation")
    return open_split(folder, manifest, "validation") if counts and counts.instances else None


def seed_dropout(seed: int, step: int) -> None:
    """Seed this rank's generators from (seed, step, rank), so that a resumed run draws what it would have drawn."""
    torch.manual_seed(int(mix(mix(np.uint64(seed), np.uint64(step)), np.uint64(rank())) >> np.uint64(1)))
