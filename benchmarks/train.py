"""Speed and memory of a training step beside Hugging Face's, on the same instances, in one run (benchmarks/train.md).

Each contender is a process of its own that stays while others work, so that the rounds alternate and the peak memory is its own:

- `ours`: the engine of `albert launch`, length buckets, LAMB;
- `hf_eager` and `hf_compiled`: `AlbertForPreTraining` with SDPA in a plain loop, each micro-batch padded to its longest, AdamW;
- `hf_trainer`: the same model under `transformers.Trainer`, at accumulation 1.

One round is a pass over the same batches of instances; it is timed by the contender, the first rounds are for warm-up.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml

from data_prep.schema import Manifest, read_manifest
from pretrain.config import RunConfig
from pretrain.config_file import check_config
from pretrain.data import Instance, open_split
from pretrain.flops import peak_flops, step_flops
from pretrain.sample_order import sample_rows

PRESETS = Path(__file__).parent.parent / "configs"
CONTENDERS = ("ours", "ours_eager", "ours_recompute", "hf_eager", "hf_compiled", "hf_trainer")
MB = 1e6
SAYS = "contender says "


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that `albert prepare` wrote")
    parser.add_argument("--size", default="base", help="preset of configs/: base, large, xlarge, xxlarge")
    parser.add_argument("--layers", type=int, help="fewer layers than the preset's, to save time")
    parser.add_argument("--batch", type=int, default=16, help="instances of a global batch")
    parser.add_argument("--micro_batch_size", type=int, default=4)
    parser.add_argument("--batches", type=int, default=1, help="global batches of a round")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, the median of which counts")
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--together", action="store_true", help="warm up all at once, to save time; warm-up figures mean nothing then"
    )
    parser.add_argument("--contenders", nargs="+", default=["ours", "hf_eager", "hf_compiled", "hf_trainer"], choices=CONTENDERS)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    if arguments.contender:
        contend(arguments)
        return 0
    processes, told = {}, {}
    for name in arguments.contenders:
        command = [sys.executable, "-m", "benchmarks.train", *sys.argv[1:], "--contender", name]
        processes[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if not arguments.together:  # one after another, so that warm-up, too, is timed alone
            told[name] = json.loads(read_line(processes[name]))
    for name, process in processes.items():
        if name not in told:
            told[name] = json.loads(read_line(process))
    seconds = {name: [] for name in processes}
    for _ in range(arguments.rounds):
        for name, process in processes.items():
            seconds[name].append(json.loads(ask(process, "round"))["seconds"])
    for name, process in processes.items():
        told[name] |= json.loads(ask(process, "end"))
        process.wait()
    if not arguments.rounds:  # kernels are in their cache now
        return 0
    report(arguments, told, {name: statistics.median(times) for name, times in seconds.items()}, seconds)
    return 0


def ask(process: subprocess.Popen[str], word: str) -> str:
    process.stdin.write(word + "\n")
    process.stdin.flush()
    return read_line(process)


def read_line(process: subprocess.Popen[str]) -> str:
    """The next line that a contender has to say: libraries print, too."""
    for line in process.stdout:
        if line.startswith(SAYS):
            return line.removeprefix(SAYS)
    raise SystemExit(f"{' '.join(process.args)} ended with code {process.wait()}")


def report(arguments: argparse.Namespace, told: dict, medians: dict[str, float], seconds: dict[str, list[float]]) -> None:
    first = next(iter(told.values()))
    print(f"\n{arguments.size}, {arguments.dtype} on {arguments.device}, {arguments.data.name}; a round:")
    padding = 1 - first["pieces"] / first["padded"]
    print(f"{first['instances']} instances, {first['pieces']:,} pieces; {padding:.1%} of the peers' positions are padding")
    print(f"{'':16}{'pieces/s':>10}{'peak MB':>10}{'warm-up s':>11}{'MFU':>6}   seconds of each round")
    for name, median in medians.items():
        rounds = " ".join(f"{each:.3g}" for each in seconds[name])
        row = f"{name:16}{first['pieces'] / median:10,.0f}{told[name]['peak'] / MB:10,.0f}{told[name]['warm_up']:11.1f}"
        row += f"{first['flops'] / median / first['peak_flops']:6.1%}"
        print(f"{row}   {rounds}")
    ours, *peers = medians
    for name in peers:
        speed, memory = medians[name] / medians[ours], told[ours]["peak"] / told[name]["peak"]
        print(f"{ours} against {name}: speed {speed:.2f}, peak memory {memory:.2f}")


def contend(arguments: argparse.Namespace) -> None:
    """A contender's process: build, warm up, then a round for each line of input."""
    manifest = read_manifest(arguments.data)
    split = open_split(arguments.data, manifest, "train")
    rows = sample_rows(np.arange(arguments.batch * arguments.batches), split.shard_rows, seed=0, window=8)
    batches = [split.read(part) for part in np.split(rows, arguments.batches)]
    device_peak = peak_flops(torch.device(arguments.device), arguments.dtype)  # may measure, which takes memory of its own
    run_round, peak = build(arguments, manifest, batches)
    began = time.perf_counter()
    run_round()
    synchronize(arguments.device)
    warm_up = time.perf_counter() - began
    run_round()
    masks = [padded(part)["attention_mask"] for batch in batches for part in cut(batch, arguments.micro_batch_size)]
    pieces, positions = sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)
    lengths = np.concatenate([[len(instance.input_ids) for instance in batch] for batch in batches])
    masked = sum(len(instance.mlm_labels) for batch in batches for instance in batch)
    flops = step_flops(run_config(arguments).model, manifest.vocab_size, lengths, masked)
    known = {"flops": flops, "peak_flops": device_peak}
    say({"instances": len(rows), "pieces": pieces, "padded": positions, "warm_up": warm_up} | known)
    for line in sys.stdin:
        if line.strip() == "end":
            say({"peak": peak()})
            return
        synchronize(arguments.device)
        began = time.perf_counter()
        run_round()
        synchronize(arguments.device)
        say({"seconds": time.perf_counter() - began})


def say(message: dict) -> None:
    print(SAYS + json.dumps(message), flush=True)


def synchronize(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def run_config(arguments: argparse.Namespace) -> RunConfig:
    preset = yaml.safe_load((PRESETS / f"albert_{arguments.size}_v2.yaml").read_text())
    if arguments.layers:
        preset["model"]["num_hidden_layers"] = arguments.layers
    own = {"data": {"path": str(arguments.data)}, "precision": {"dtype": arguments.dtype, "device": arguments.device}}
    own["training"] = {
        "compile": arguments.contender != "ours_eager",
        "activation_checkpointing": arguments.contender == "ours_recompute",
    }
    return check_config({"model": preset["model"]} | own, source="benchmark")


def build(arguments: argparse.Namespace, manifest: Manifest, batches: list[list[Instance]]) -> tuple[Callable, Callable]:
    """One round, and the peak of memory above what there was before the model."""
    from pretrain.engine import start_deepspeed
    from pretrain.micro_batch import peak, reset_peak

    device = torch.device("cuda", 0) if arguments.device == "cuda" else torch.device(arguments.device)
    config = run_config(arguments)
    if arguments.contender.startswith("ours"):
        start_deepspeed(device)
        before = reset_peak(device)
        run = build_ours(arguments, config, manifest, batches, device)
    else:
        import transformers

        transformers.logging.set_verbosity_error()
        _ = transformers.AlbertForPreTraining, transformers.Trainer, transformers.TrainingArguments  # imported when they are named
        before = reset_peak(device)
        kind = build_trainer if arguments.contender == "hf_trainer" else build_loop
        run = kind(arguments, config, manifest, batches, device)
    return run, lambda: peak(device) - before


def build_ours(arguments, config: RunConfig, manifest: Manifest, batches: list[list[Instance]], device: torch.device) -> Callable:
    from pretrain.cut import cut_batch
    from pretrain.data import collate
    from pretrain.train import build_engine

    engine = build_engine(config, manifest.vocab_size, device)
    engine.model.initialize(0.02, torch.Generator(device).manual_seed(0))

    def run() -> None:
        for instances in batches:
            masked = sum(len(instance.mlm_labels) for instance in instances)
            labelled = sum(instance.sentence_order_label >= 0 for instance in instances)
            lengths = np.array([len(instance.input_ids) for instance in instances])
            for places in cut_batch(len(instances), 1, arguments.micro_batch_size, lengths)[0]:
                sums = engine.forward(collate([instances[place] for place in places]).to(device))
                engine.backward(sums.mlm_loss / masked + sums.sop_loss / labelled)
            engine.step()

    return run


def hugging_face_model(config: RunConfig, manifest: Manifest, device: torch.device):
    import transformers

    from pretrain.hf_weights import hf_config

    torch.manual_seed(0)
    model = transformers.AlbertForPreTraining(transformers.AlbertConfig(**hf_config(config.model, manifest.vocab_size)))
    assert model.config._attn_implementation == "sdpa"
    return model.to(device)


def cut(instances: list[Instance], micro_batch_size: int) -> list[list[Instance]]:
    return [instances[start : start + micro_batch_size] for start in range(0, len(instances), micro_batch_size)]


def padded(instances: list[Instance]) -> dict[str, torch.Tensor]:
    """A micro-batch as the peer takes it, padded to its longest."""
    longest = max(len(instance.input_ids) for instance in instances)
    ids = torch.zeros(len(instances), longest, dtype=torch.int64)
    labels = torch.full_like(ids, -100)
    mask, segments = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, instance in enumerate(instances):
        length = len(instance.input_ids)
        ids[row, :length] = torch.from_numpy(instance.input_ids.astype(np.int64))
        mask[row, :length] = 1
        segments[row, int(instance.segment_b_start) or length : length] = 1
        labels[row, torch.from_numpy(instance.mlm_positions.astype(np.int64))] = torch.from_numpy(
            instance.mlm_labels.astype(np.int64)
        )
    order = torch.tensor([int(instance.sentence_order_label) for instance in instances])
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": segments,
        "labels": labels,
        "sentence_order_label": order,
    }


def build_loop(arguments, config: RunConfig, manifest: Manifest, batches: list[list[Instance]], device: torch.device) -> Callable:
    model = hugging_face_model(config, manifest, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, foreach=True)
    forward = torch.compile(model) if arguments.contender == "hf_compiled" else model
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=arguments.dtype == "bf16")

    def run() -> None:
        for instances in batches:
            for inputs in map(padded, cut(instances, arguments.micro_batch_size)):
                with autocast:
                    loss = forward(**{name: tensor.to(device) for name, tensor in inputs.items()}).loss
                loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return run


def build_trainer(
    arguments, config: RunConfig, manifest: Manifest, batches: list[list[Instance]], device: torch.device
) -> Callable:
    """A round is a call of `train` on the instances in their order; its start-up is part of it, as it is small."""
    import transformers

    model = hugging_face_model(config, manifest, device)
    options = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=arguments.micro_batch_size,
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        bf16=arguments.dtype == "bf16",
        use_cpu=device.type == "cpu",
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    instances = [instance for batch in batches for instance in batch]
    trainer = transformers.Trainer(model=model, args=options, train_dataset=instances, data_collator=padded)
    return lambda: trainer.train()


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
