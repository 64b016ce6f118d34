"""How long a checkpoint holds training up: written in the background, against the same checkpoint written while training waits.

    python -m benchmarks.checkpoint [--size base|large|xlarge|xxlarge] [--length 128] [--repeats 5] [--work FOLDER]

Alternates the two in one run. Prints medians: seconds that the call holds training up, seconds the write takes, and a training step
(forward, backward and LAMB over 2 sequences of --length pieces) alone, and begun together with a write.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from pretrain.checkpoint import snapshot, write_checkpoint
from pretrain.checkpoint_writer import CheckpointWriter
from pretrain.config_file import load_config
from pretrain.micro_batch import full_batch
from pretrain.model import Albert, MicroBatch
from pretrain.optimizer import build_optimizer, set_lr

VOCAB_SIZE, BATCH = 30_000, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base", choices=("base", "large", "xlarge", "xxlarge"))
    parser.add_argument("--length", type=int, default=128, help="pieces of a sequence")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--work", type=Path, help="where to write; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        measure(options.size, options.length, options.repeats, Path(folder))


def measure(size: str, length: int, repeats: int, folder: Path) -> None:
    config = load_config(Path(__file__).parent.parent / "configs" / f"albert_{size}_v2.yaml", [("data.path", "unused")])
    model = Albert(config.model, VOCAB_SIZE)
    model.initialize(0.02, torch.Generator().manual_seed(0))
    optimizer = build_optimizer(model, config.optimizer)
    set_lr(optimizer, 1e-4)
    batch = full_batch(BATCH, length, max(1, round(0.15 * length)))
    train_step(model, optimizer, batch)
    writer = CheckpointWriter(folder, keep_last=1)
    times: dict[str, list[float]] = {name: [] for name in ("waits", "held up", "writes beside", "step alone", "step with a write")}
    for number in range(repeats):
        times["step alone"].append(seconds(lambda: train_step(model, optimizer, batch)))
        step = 2 * number
        times["waits"].append(seconds(lambda step=step: write_checkpoint(folder / f"step-{step}", snapshot(model, optimizer), {})))
        times["held up"].append(writer.save(model, optimizer, {"step": step + 1, "best": {}}))
        times["step with a write"].append(seconds(lambda: train_step(model, optimizer, batch)))
        writer.wait()
        times["writes beside"].append(writer.write_seconds)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{size}: {parameters:,} parameters, checkpoint of {12 * parameters / 1e6:.0f} MB, medians of {repeats}")
    for name, measured in times.items():
        print(f"  {name:<20} {statistics.median(measured):.3f} s")
    print(f"  ratio waits / held up {statistics.median(times['waits']) / statistics.median(times['held up']):.1f}")


def train_step(model: Albert, optimizer: torch.optim.Optimizer, batch: MicroBatch) -> None:
    sums = model(batch)
    (sums.mlm_loss / len(batch.mlm_labels_M) + sums.sop_loss / BATCH).backward()
    optimizer.step()
    optimizer.zero_grad()


def seconds(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
