"""The parts of a training step alone: LAMB against AdamW, and what the loader delivers (benchmarks/train.md).

    python -m benchmarks.train_parts --data FOLDER [--sizes base xxlarge] [--micro_batch_size 32] [--device cpu|cuda]

The optimizers alternate in one run, on the same gradients; `torch.optim.AdamW(foreach=True)` has no clip, LAMB's is counted.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from data_prep.schema import read_manifest
from pretrain.config import OptimizerConfig
from pretrain.config_file import load_config
from pretrain.data import open_split
from pretrain.loader import Loader
from pretrain.model import Albert
from pretrain.optimizer import build_optimizer

VOCAB_SIZE, ROUNDS, BATCH = 30_000, 9, 4096
CONFIGS = Path(__file__).parent.parent / "configs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that `albert prepare` wrote")
    parser.add_argument("--sizes", nargs="*", default=["base", "xxlarge"])
    parser.add_argument("--micro_batch_size", type=int, default=32)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    for size in options.sizes:
        measure_optimizers(size, torch.device(options.device))
    measure_loader(options.data, options.micro_batch_size)


def measure_optimizers(size: str, device: torch.device) -> None:
    config = load_config(CONFIGS / f"albert_{size}_v2.yaml", [("data.path", "unused")])
    model = Albert(config.model, VOCAB_SIZE)
    model.initialize(0.02, torch.Generator().manual_seed(0))
    parameters = list(model.to(device).parameters())
    grads = [1e-3 * torch.randn_like(parameter) for parameter in parameters]
    lamb = build_optimizer(model, OptimizerConfig(lr=1e-4))
    compiled = build_optimizer(model, OptimizerConfig(lr=1e-4))
    compiled.compile()
    optimizers = {"AdamW": torch.optim.AdamW(parameters, lr=1e-4, foreach=True), "LAMB": compiled, "LAMB, not compiled": lamb}
    times: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(ROUNDS + 1):
        for name, optimizer in optimizers.items():
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = grad.clone()
            times[name].append(seconds(optimizer.step, device))
    medians = {name: statistics.median(each[1:]) for name, each in times.items()}
    print(f"{size}, {device.type}: a step of the optimizer, median of {ROUNDS}; LAMB's first, compiling: {times['LAMB'][0]:.1f} s")
    for name, median in medians.items():
        print(f"  {name:20}{1000 * median:10.1f} ms{median / medians['AdamW']:8.2f} of AdamW")


def seconds(work, device: torch.device) -> float:
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    began = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - began


def measure_loader(folder: Path, micro_batch_size: int) -> None:
    """Whole global batches, one after another, with the page cache warm."""
    config = load_config(CONFIGS / "albert_base_v2.yaml", [("data.path", f'"{folder}"')])
    loader = Loader(open_split(folder, read_manifest(folder), "train"), config, micro_batch_size, torch.device("cpu"))
    times, pieces = [], []
    for step in range(ROUNDS + 1):
        began = time.perf_counter()
        batch = loader.read(step, step * BATCH + np.arange(BATCH))
        times.append(time.perf_counter() - began)
        pieces.append(batch.lengths.sum())
    speeds = [count / each for count, each in zip(pieces[1:], times[1:], strict=True)]
    rate = BATCH / statistics.median(times[1:])
    print(
        f"loader on {folder.name}: {rate:,.0f} instances/s, {statistics.median(speeds):,.0f} pieces/s, median of {ROUNDS} batches"
    )


if __name__ == "__main__":
    main()
