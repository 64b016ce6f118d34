"""Figures of a run: RUN/metrics.jsonl, a line on the terminal, and wandb. Rank 0 alone makes a `MetricsLog`."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pretrain.config import RunConfig
from pretrain.metrics_file import truncate_after
from pretrain.watch import Watch
from tokenizer.errors import UserError


class MetricsLog:
    """Appends records to metrics.jsonl, shows them, and hands them to wandb if that works; a run without wandb trains on."""

    def __init__(self, run_folder: Path, config: RunConfig, unigram_entropy: float, *, step: int, wandb_run: Any | None):
        """step: records after it are dropped, -1 for all. unigram_entropy: of the training text, in nats. wandb_run: from
        `start_wandb`."""
        self.path, self.config, self.unigram_entropy = run_folder / "metrics.jsonl", config, unigram_entropy
        self.open_after(step)
        self.wandb_run = wandb_run

    def write(self, record: dict[str, Any]) -> None:
        """`record` has `event` (train, validation, checkpoint, skipped, rollback, warning), `step`, and figures or words.

        Raises:
            UserError: the disk is full or not writable.
        """
        with self.user_errors():
            self.file.write(json.dumps(record) + "\n")
        print_record(record)
        figures = {f"{record['event']}/{key}": value for key, value in record.items() if key not in ("event", "step", "time")}
        self.call_wandb("log", figures, step=record["step"])
        if record["event"] == "train":
            for finding in self.watch.see(record["step"], record["mlm_loss"]):
                self.write_event("warning", record["step"], finding.message, kind=finding.kind)

    def write_event(self, event: str, step: int, message: str, **more: Any) -> None:
        """A record in words."""
        self.write({"event": event, "step": step, "message": message, **more, "time": time.time()})

    def open_after(self, step: int) -> None:
        """Go on behind the records up to `step`, which the watch sees again."""
        losses = truncate_after(self.path, step)
        self.file = self.path.open("a", encoding="utf-8", buffering=1)
        self.watch = Watch(self.config, self.unigram_entropy)
        for seen in losses:
            self.watch.see(*seen)

    def rewind(self, step: int) -> None:
        """Drop the records after `step`, which the run went back to."""
        self.file.close()
        self.open_after(step)

    def flush(self) -> None:
        """Have the disk hold what was written: a checkpoint promises the metrics before it."""
        with self.user_errors():
            os.fsync(self.file.fileno())

    @contextmanager
    def user_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror}). Make room there; the same command goes on."
            ) from error

    def close(self) -> None:
        with self.user_errors():
            self.file.close()
        self.call_wandb("finish")

    def call_wandb(self, method: str, *arguments: Any, **options: Any) -> None:
        """Call wandb; if it fails, say so and go on without it: a logger must not end a run."""
        if self.wandb_run is None:
            return
        try:
            getattr(self.wandb_run, method)(*arguments, **options)
        except Exception as error:
            print(f"wandb fails ({error}); the run goes on without it, metrics.jsonl is complete", file=sys.stderr)
            self.wandb_run = None


def print_record(record: dict[str, Any]) -> None:
    """One line; on a terminal, training lines overwrite each other."""
    if record["event"] == "train":
        text = (
            f"step {record['step']}  epoch {record['epoch']:.2f}  loss {record['loss']:.4f}  mlm {record['mlm_loss']:.4f}"
            f"  sop acc {number(record['sop_accuracy'], '.3f')}  lr {record['lr']:.2e}  grad {number(record['grad_norm'], '.2f')}"
            f"  {record['tokens_per_second']:,.0f} tokens/s  MFU {record['mfu']:.0%}  ETA {format_seconds(record['eta_seconds'])}"
        )
    elif record["event"] == "checkpoint":
        return
    elif record["event"] != "validation":
        text = f"step {record['step']}  {record['event']}: {record['message']}"
    else:
        text = (
            f"step {record['step']}  validation: mlm {record['mlm_loss']:.4f} (unigram entropy {record['unigram_entropy']:.4f})"
            f"  mlm acc {record['mlm_accuracy']:.3f}  sop acc {number(record['sop_accuracy'], '.3f')}"
        )
    live = sys.stdout.isatty() and record["event"] == "train"
    print(f"\r\033[K{text}" if sys.stdout.isatty() else text, end="" if live else "\n", flush=True)


def number(value: float | None, form: str) -> str:
    """A figure, or `-` where there is none: no order labels, or no gradient norm because fp16 skipped every step so far."""
    return "-" if value is None else format(value, form)


def format_seconds(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


class Clock:
    """Seconds of training: of the steps, and of nothing between them."""

    def __init__(self) -> None:
        self.seconds, self.began = 0.0, 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """What is done inside is counted."""
        self.began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - self.began

    def take(self) -> float:
        """Seconds since the last call of this, which is made inside `running`."""
        now = time.perf_counter()
        seconds, self.seconds, self.began = self.seconds + now - self.began, 0.0, now
        return seconds


class Throughput:
    """Speed since the last reading."""

    def __init__(self, peak_flops: float):
        """peak_flops: FLOP/s of all devices together."""
        self.peak_flops = peak_flops
        self.restart()

    def restart(self) -> None:
        self.began, self.pieces, self.flops, self.waited, self.steps = time.perf_counter(), 0.0, 0.0, 0.0, 0
        self.positions, self.padded = 0, 0

    def add(self, pieces: float, flops: float, *, waited: float, positions: int, padded: int) -> None:
        """A step over so many real pieces and model FLOPs, of all ranks; of this rank, seconds that it waited for its data,
        positions that attention went through, and those of them that were padding."""
        self.positions += positions
        self.padded += padded
        self.pieces += pieces
        self.flops += flops
        self.waited += waited
        self.steps += 1

    def read(self) -> dict[str, float]:
        """Real pieces a second (padding is not counted), seconds a step, model FLOP/s and their share of the peak (MFU), the
        share of the time that was spent waiting for data, and the share of attention's positions that are padding."""
        elapsed = max(time.perf_counter() - self.began, 1e-9)
        figures = {
            "tokens_per_second": self.pieces / elapsed,
            "seconds_per_step": elapsed / max(self.steps, 1),
            "model_flops_per_second": self.flops / elapsed,
            "mfu": self.flops / elapsed / self.peak_flops,
            "data_wait": self.waited / elapsed,
            "padding": self.padded / max(self.positions, 1),
        }
        self.restart()
        return figures
