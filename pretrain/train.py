"""The training run: RUN/config.yaml in; metrics, checkpoints, state.json and DONE out.

The result is a function of config, data and seed: sample order, dropout and learning rate follow from the step, and losses are
means over the global batch, so neither interruptions nor the cut into processes and micro-batches change it (docs/guarantees.md).
"""

import signal
import time
import zlib
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch.profiler import record_function

from data_prep.schema import Manifest, read_manifest
from pretrain.attention import chosen_kernel
from pretrain.compilation import check_compiler, compile_seconds, compiled_graphs
from pretrain.config import RunConfig
from pretrain.config_file import load_config
from pretrain.data import Split, open_split
from pretrain.data_faults import data_faults
from pretrain.distributed import rank, sum_over_ranks, world_size
from pretrain.engine import AUTOCAST_DTYPES, Engine, start_deepspeed
from pretrain.evaluate import batch_counts, mean_metrics, sum_losses, validate
from pretrain.flops import peak_flops, step_flops
from pretrain.loader import GlobalBatch, Loader
from pretrain.memory import MemoryWatch, estimate_memory
from pretrain.metrics import Clock, MetricsLog, Throughput
from pretrain.micro_batch import full_batch, settle_micro_batch_size
from pretrain.model import Albert, LossSums, MicroBatch
from pretrain.optimizer import build_optimizer, set_lr
from pretrain.profiler import StepProfiler
from pretrain.rendezvous import local_rank
from pretrain.report import Diagnosis, Preempted, read_restart
from pretrain.run_state import RunState
from pretrain.schedule import lr_at
from pretrain.wandb_run import start_wandb
from pretrain.watch import diagnosis
from pretrain.watchdog import SLOW, Watchdog
from tokenizer.device import choose_device
from tokenizer.errors import UserError
from tokenizer.files import write_json

COMPILED_AT_ON_GPU = 4096
"""Pieces that kernels are compiled for at first; they take any number. On a CPU, where it hardly matters, one sequence."""


def train(run_folder: Path, watchdog: Watchdog) -> None:
    """Train from the newest good checkpoint, or the start, until steps or hours are done; the watchdog hears of each micro-batch.

    Raises:
        UserError: config, data or checkpoints do not fit together, or a checkpoint cannot be written.
        Preempted: SIGTERM, SIGUSR1 or a file RUN/STOP ended the run after a checkpoint.
        Diagnosis: the run has diverged, and no rollback is left or wanted.
    """
    config = load_config(run_folder / "config.yaml")
    watchdog.seconds = config.supervision.watchdog_seconds
    device = choose_device(config.precision.device, local_rank())
    start_deepspeed(device, deterministic=config.precision.deterministic)
    watchdog.beat("setting up", SLOW, is_regular=False)
    Trainer(run_folder, config, device, watchdog).run()


class Trainer:
    """One process's part of a run."""

    def __init__(self, run_folder: Path, config: RunConfig, device: torch.device, watchdog: Watchdog):
        self.run_folder, self.config, self.device, self.watchdog = run_folder, config, device, watchdog
        self.patience = SLOW
        """Of the watchdog: with the first step, and while another rank may still be saving."""
        self.manifest = read_manifest(config.data.path)
        if faults := data_faults(config, self.manifest, world_size()):
            raise UserError("\n".join(faults))
        self.train_split = open_split(config.data.path, self.manifest, "train", window=config.data.shuffle_window)
        self.validation_split = open_validation(config.data.path, self.manifest)
        self.engine = build_engine(config, self.manifest.vocab_size, device)
        if config.training.compile:
            watchdog.beat("compiling", SLOW, is_regular=False)
            self.compile_once()
        watchdog.beat("trying micro-batch sizes", SLOW, is_regular=False)
        self.micro_batch_size = self.choose_micro_batch_size()
        self.loader = Loader(self.train_split, config, self.micro_batch_size, device)
        model, dtype = config.model, AUTOCAST_DTYPES.get(config.precision.dtype, torch.float32)
        head_size, drops = model.hidden_size // model.num_attention_heads, model.attention_dropout > 0
        kernel = chosen_kernel(device, head_size, dtype, drops=drops)
        self.pads = kernel == "padded"
        self.estimate = estimate_memory(
            config,
            self.manifest,
            self.micro_batch_size,
            world_size(),
            on_gpu=device.type == "cuda",
            has_flash=kernel == "packed",
        )
        if rank() == 0:
            cut = describe_cut(config.training.global_batch_size, world_size(), self.micro_batch_size)
            print(f"{cut}; {self.estimate}", flush=True)
        self.stop_signal, self.clock = False, Clock()
        self.state = RunState(run_folder, config, self.manifest, self.engine)
        watchdog.beat("loading a checkpoint", SLOW, is_regular=False)
        self.resumed = self.state.restore()
        self.log = None
        if rank() == 0:
            entropy = self.manifest.splits["train"].unigram_entropy
            kept_steps = self.state.progress.step if self.resumed else -1
            if wandb_run := start_wandb(run_folder, config, device, self.state.wandb_id):
                self.state.wandb_id = wandb_run.id
            self.log = MetricsLog(run_folder, config, entropy, step=kept_steps, wandb_run=wandb_run)
            if restart := read_restart():
                self.log.write_event("restart", self.state.progress.step, restart.reason, number=restart.number)

    def run(self) -> None:
        """Train to the end, then mark the run DONE."""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self.request_stop)
        try:
            self.loop()
        finally:
            self.loader.close()
            self.state.writer.close()
            if self.log:
                self.log.close()
        if rank() == 0:
            progress = self.state.progress
            write_json(self.run_folder / "DONE", {"step": progress.step, "training_hours": progress.training_seconds / 3600})

    def loop(self) -> None:
        """A step; go back? log? validate? save? until steps or hours are done."""
        config = self.config
        throughput = Throughput(world_size() * peak_flops(self.device, config.precision.dtype))
        profiler = StepProfiler(self.run_folder, self.device, self.state.progress.step + 1, config.logging.profile_steps)
        self.engine.model.train()
        self.memory = MemoryWatch(self.estimate, self.engine.model, self.engine.optimizer, self.device)
        if not self.resumed:
            self.validate()
            if config.continue_from is not None:
                self.save(None)  # what this run began with, whatever becomes of the other one
        throughput.restart()
        while not self.is_finished():
            step = self.state.progress.step + 1
            self.beat("reading a batch")
            profiler.begin_step(step)
            with self.clock.running():
                record = self.train_step(throughput)
            last = self.is_finished()
            validates = last or step % config.training.validate_every_n_steps == 0
            saves = last or step % config.checkpoint.every_n_steps == 0
            if profiles := step == profiler.last:
                self.watchdog.beat("writing a profile", SLOW, is_regular=False)
            if table := profiler.end_step(step):
                print(f"profile of {config.logging.profile_steps} step(s): {table}", flush=True)
            if trouble := self.find_trouble(saves):
                self.go_back(trouble)
                continue
            if record and self.log:
                self.log.write(record)
            validation = self.validate() if validates else None
            if saves and (last or not self.state.progress.steps_since_update):
                self.save(validation)
            if validates or saves:
                throughput.restart()
            self.patience = SLOW if validates or saves or profiles else 1
        self.watchdog.beat("saving", SLOW, is_regular=False)
        self.state.finish_saving()

    def beat(self, doing: str) -> None:
        self.watchdog.beat(doing, self.patience)

    def is_finished(self) -> bool:
        """The same on all ranks."""
        progress, training = self.state.progress, self.config.training
        return progress.step >= training.steps or self.time_left() <= 0

    def time_left(self) -> float:
        """Share of the hours; 1 where they are not limited."""
        hours = self.config.training.max_hours
        return 1.0 if hours is None else max(0.0, 1 - self.state.progress.training_seconds / (3600 * hours))

    def train_step(self, throughput: Throughput) -> dict[str, Any] | None:
        """One optimizer step over one global batch; its figures if a line of metrics is due and an update was made."""
        config, progress = self.config, self.state.progress
        samples = progress.samples(config.training.global_batch_size)
        with record_function("read"):
            rows, lengths, batches = self.read_batch(samples)
        masked, labelled = self.agree_on(batches)
        lr = lr_at(progress.step, peak_lr=config.optimizer.lr, schedule=config.schedule, time_left=self.time_left())
        lr *= progress.lr_factor()
        set_lr(self.engine.optimizer, lr)
        sums = [self.forward_backward(batch.to(self.device), masked, labelled) for batch in batches]
        self.mark_infinite_loss(sums)
        scale = self.engine.grad_scaler.get_scale() if self.engine.grad_scaler else 1.0
        self.beat("averaging gradients over the processes")
        with record_function("optimizer"):
            applied = self.engine.step()
        progress.count_step(len(samples), applied=applied)
        flops = step_flops(config.model, self.manifest.vocab_size, lengths, masked)
        positions, padded = self.positions(batches)
        throughput.add(float(lengths.sum()), flops, waited=self.loader.waited, positions=positions, padded=padded)
        is_due = progress.step % config.logging.every_n_steps == 0 or self.is_finished()
        if applied and not is_due:
            return None
        means = mean_metrics(sum_over_ranks(sum_losses(sums).cpu()), masked, labelled)
        if not applied:
            return self.note_skipped(means["loss"], scale)
        data = {"samples": [int(samples[0]), int(samples[-1]) + 1], "rows_crc32": zlib.crc32(rows.tobytes())}
        return self.record(means | {"lr": lr} | data, throughput)

    def read_batch(self, samples: np.ndarray) -> GlobalBatch:
        """The batch of these samples (int64 numbers) at this step; the next one is begun."""
        progress, size = self.state.progress, self.config.training.global_batch_size
        last = progress.step + 1 == self.config.training.steps
        return self.loader.get(progress.step, samples, None if last else progress.samples(size, progress.samples_seen + size))

    def agree_on(self, batches: list[MicroBatch]) -> tuple[float, float]:
        """Masked pieces and labelled pairs of the global batch, in the one message in which ranks also agree to stop, and on the
        time: that of rank 0 is what counts.

        Raises:
            Preempted: some rank was asked to; the checkpoint is written.
            UserError: a checkpoint could not be written.
        """
        self.state.writer.check()
        wants_stop = self.stop_signal or (rank() == 0 and (self.run_folder / "STOP").exists())
        seconds = self.state.progress.training_seconds + self.clock.take() if rank() == 0 else 0.0
        counts = torch.cat([batch_counts(batches), torch.tensor([float(wants_stop), seconds], dtype=torch.float64)])
        masked, labelled, stop, self.state.progress.training_seconds = sum_over_ranks(counts).tolist()
        if not stop:
            return masked, labelled
        step = self.state.progress.step
        if rank() == 0:
            (self.run_folder / "STOP").unlink(missing_ok=True)
        if not self.state.is_finite():
            raise Preempted("asked to stop: the weights are no finite numbers, so the newest checkpoint is that of before")
        self.save(None)
        self.state.finish_saving()
        raise Preempted(f"asked to stop: saved step {step}; the same command goes on from there")

    def positions(self, batches: list[MicroBatch]) -> tuple[int, int]:
        """Positions that attention goes through for these, and those of them that are padding."""
        pieces = sum(sum(batch.lengths) for batch in batches)
        if not self.pads:
            return pieces, 0
        positions = sum(len(batch.lengths) * max(batch.lengths) for batch in batches)
        return positions, positions - pieces

    def forward_backward(self, batch: MicroBatch, masked: float, labelled: float) -> LossSums:
        """Gradients of this micro-batch's part of the global mean: DeepSpeed averages over ranks, so the world size undoes that."""
        self.beat("computing a micro-batch")
        with record_function("forward"):
            sums = self.engine.forward(batch)
        loss = sums.mlm_loss / masked + (sums.sop_loss / labelled if labelled else 0.0)
        with record_function("backward"):
            self.engine.backward(loss * world_size())
        return LossSums(*(each.detach() for each in sums))

    def mark_infinite_loss(self, sums: list[LossSums]) -> None:
        """Make one gradient NaN where this rank's loss is no finite number: averaged, it has all ranks skip the step."""
        loss = torch.stack([each.mlm_loss + each.sop_loss for each in sums]).sum()
        grad = next(parameter.grad for parameter in self.engine.model.parameters() if parameter.grad is not None)
        grad.view(-1)[0] += loss - loss  # 0, or NaN

    def note_skipped(self, loss: float, scale: float) -> None:
        """Log a step without an update, and count it unless it only shows that the loss scale of fp16 was too high."""
        if scale <= 1.0 or not np.isfinite(loss):
            self.state.progress.skipped_in_a_row += 1
        grad_norm = self.engine.optimizer.grad_norm
        if self.log:
            seen = f"inf at loss scale {scale:g}" if grad_norm is None else f"{grad_norm.item():.4f}"
            in_a_row = self.state.progress.skipped_in_a_row
            message = f"no update: loss {loss:.4f}, gradient norm {seen}"
            self.log.write_event("skipped", self.state.progress.step, message, in_a_row=in_a_row)

    def record(self, figures: dict[str, Any], throughput: Throughput) -> dict[str, Any]:
        """All figures of the step just taken."""
        progress, optimizer, scaler = self.state.progress, self.engine.optimizer, self.engine.grad_scaler
        speed = throughput.read()
        seconds_left = speed["seconds_per_step"] * (self.config.training.steps - progress.step)
        if max_hours := self.config.training.max_hours:
            seconds_left = min(seconds_left, self.time_left() * 3600 * max_hours)
        compiled = {"compiled_graphs": compiled_graphs(), "compile_seconds": compile_seconds()}
        return {
            "event": "train",
            "step": progress.step,
            "epoch": progress.samples_seen / len(self.train_split),
            **figures,
            "grad_norm": optimizer.grad_norm.item(),
            **optimizer.statistics(),
            **({"loss_scale": scaler.get_scale()} if scaler else {}),
            "skipped_steps": progress.skipped_steps,
            **speed,
            **self.memory.read(),
            **(compiled if self.config.training.compile else {}),
            "eta_seconds": seconds_left,
            "time": time.time(),
        }

    def find_trouble(self, saves: bool) -> str | None:
        """What makes it useless to go on from here, in words. saves: whether a checkpoint is due, which only takes good weights."""
        skipped = self.state.progress.skipped_in_a_row
        if skipped >= self.config.stability.max_skipped_steps:
            return f"{skipped} step(s) in a row with a loss or gradient that is no finite number"
        return "weights that are no finite numbers" if saves and not self.state.is_finite() else None

    def go_back(self, trouble: str) -> None:
        """Roll back, or end.

        Raises:
            Diagnosis: no rollback is left or wanted.
        """
        self.watchdog.beat("going back", SLOW, is_regular=False)
        self.patience = SLOW
        stability, progress = self.config.stability, self.state.progress
        if stability.on_divergence == "stop" or len(progress.rollbacks) >= stability.max_rollbacks:
            after = f", after {len(progress.rollbacks)} rollback(s)" if progress.rollbacks else ""
            raise Diagnosis(diagnosis(progress.step, trouble + after, self.state.checkpoints))
        rollback = self.state.go_back(trouble)
        if self.log:
            self.log.rewind(rollback.to_step)
            begin, end = rollback.skipped
            message = (
                f"back from step {rollback.from_step} after {trouble}; samples {begin} to {end} are left out, "
                f"and the learning rate is multiplied by {rollback.lr_factor:g}"
            )
            self.log.write_event("rollback", rollback.to_step, message)

    def validate(self) -> dict[str, Any] | None:
        """Figures of the held-out split, logged; None without one."""
        if self.validation_split is None:
            return None
        means = validate(
            self.engine,
            self.validation_split,
            micro_batch_size=self.micro_batch_size,
            max_instances=self.config.training.max_validation_instances,
            device=self.device,
            each_batch=lambda: self.beat("validating"),
        )
        if self.log:
            entropy = self.manifest.splits["validation"].unigram_entropy
            step = self.state.progress.step
            self.log.write({"event": "validation", "step": step, **means, "unigram_entropy": entropy, "time": time.time()})
        return means

    def save(self, validation: dict[str, Any] | None) -> None:
        """Begin a checkpoint; the metrics before it are on the disk before it is."""
        self.watchdog.beat("saving", SLOW, is_regular=False)
        held_up = self.state.save(validation, before_write=self.log.flush if self.log else lambda: None)
        if held_up is not None:
            step = self.state.progress.step
            self.log.write_event("checkpoint", step, f"step-{step}", held_up_seconds=held_up)

    def choose_micro_batch_size(self) -> int:
        training = self.config.training
        if training.micro_batch_size != "auto":
            return training.micro_batch_size
        share = -(-training.global_batch_size // world_size())
        return settle_micro_batch_size(self.run_folder, self.engine, self.manifest, self.device, share, training)

    def compile_once(self) -> None:
        """Compile for training and for validation on the same pieces at every start: a kernel can depend on how many it sees first,
        and a resumed run must have the kernels of the run it goes on with."""
        pieces = COMPILED_AT_ON_GPU if self.device.type == "cuda" else 1
        length = self.manifest.max_seq_length
        batch = full_batch(-(-pieces // length), length, max(1, length // 8)).to(self.device)
        self.engine.model.train()
        self.engine.backward(sum(self.engine.forward(batch)[::2]))
        self.engine.discard_gradients()
        with torch.no_grad():
            self.engine.model.eval()
            self.engine.forward(batch)
        self.engine.model.train()

    def request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_signal = True


def build_engine(config: RunConfig, vocab_size: int, device: torch.device) -> Engine:
    """Model and optimizer as the config wants them, the weights not yet set.

    Raises:
        UserError: they are to be compiled, and there is no compiler.
    """
    model = Albert(config.model, vocab_size)
    optimizer = build_optimizer(model.to(device), config.optimizer)
    model.encoder.recompute = config.training.activation_checkpointing
    if config.training.compile:
        check_compiler(device)
        model.encoder.compile_layer()
        optimizer.compile()
    return Engine(model, optimizer, config)


def describe_cut(global_batch_size: int, num_procs: int, micro_batch_size: int) -> str:
    accumulation = -(-global_batch_size // (num_procs * micro_batch_size))
    return (
        f"global batch {global_batch_size:,}: {num_procs} process(es), {accumulation} micro-batch(es) of up to {micro_batch_size}"
    )


def open_validation(folder: Path, manifest: Manifest) -> Split | None:
    counts = manifest.splits.get("validation")
    return open_split(folder, manifest, "validation") if counts and counts.instances else None
