"""Training time to a validation masked-LM loss, ours beside `transformers.Trainer`, in one run (benchmarks/train.md).

    python -m benchmarks.time_to_loss --data FOLDER --loss 6.4

Both train the same architecture (ALBERT tiny: E 128, D 312, L 4) from the same kind of random weights on the same instances in the
same order, at the same batch and learning-rate schedule, each in a process of its own. They take turns of some steps, so that the
machine's moods fall on both; each has a clock of its own, which stands still while the other works and while losses are measured.

- `ours`: LAMB, as `albert launch` would train; `ours_adamw`: the peer's optimizer, so that only the speed differs;
- `hf_trainer`: `AlbertForPreTraining` under `Trainer`, AdamW, accumulation 1, batches padded to their longest.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.train import ask, hugging_face_model, padded, read_line, say
from data_prep.schema import read_manifest
from pretrain.config import RunConfig
from pretrain.config_file import check_config
from pretrain.data import Split, collate, open_split
from pretrain.sample_order import sample_rows

CONTENDERS = ("ours", "ours_adamw", "hf_trainer")
TINY = {"embedding_size": 128, "hidden_size": 312, "num_hidden_layers": 4, "num_attention_heads": 12, "intermediate_size": 1248}
VALIDATION_INSTANCES = 256


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that `albert prepare` wrote")
    parser.add_argument("--loss", type=float, required=True, help="validation masked-LM loss at which a contender's clock is read")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=600, help="of the schedule; at the end, who has not arrived has not")
    parser.add_argument("--warmup_steps", type=int, default=60)
    parser.add_argument("--turn", type=int, default=20, help="steps of a turn; the loss is measured after each")
    parser.add_argument("--lamb_lr", type=float, default=1e-2)
    parser.add_argument("--adamw_lr", type=float, default=1e-3)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    if arguments.contender:
        contend(arguments)
        return 0
    processes = {}
    for name in arguments.contenders:
        command = [sys.executable, "-m", "benchmarks.time_to_loss", *sys.argv[1:], "--contender", name]
        processes[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        read_line(processes[name])
    arrived: dict[str, dict] = {}
    print(f"{'':12}{'step':>6}{'seconds':>10}{'mlm loss':>10}")
    for _ in range(arguments.steps // arguments.turn):
        for name, process in processes.items():
            if name not in arrived:
                told = json.loads(ask(process, "turn"))
                print(f"{name:12}{told['step']:6}{told['seconds']:10.1f}{told['loss']:10.4f}", flush=True)
                if told["loss"] <= arguments.loss:
                    arrived[name] = told
    for process in processes.values():
        process.stdin.close()
        process.wait()
    for name, told in arrived.items():
        print(f"{name}: loss {arguments.loss} at step {told['step']}, after {told['seconds']:.1f} s")
    if "hf_trainer" in arrived:
        for name in arrived.keys() - {"hf_trainer"}:
            print(f"{name}: {arrived[name]['seconds'] / arrived['hf_trainer']['seconds']:.2f} of the time of hf_trainer")
    return 0


class Turns:
    """The clock of a contender: runs while it trains."""

    def __init__(self, length: int):
        self.length, self.step, self.seconds = length, 0, 0.0

    def begin(self) -> None:
        """Wait for the first turn."""
        say({"ready": True})
        sys.stdin.readline()
        self.began = time.perf_counter()

    def end_step(self, measure_loss) -> None:
        """After a turn, tell the loss and wait for the next one; end the process when there is none."""
        self.step += 1
        if self.step % self.length:
            return
        self.seconds += time.perf_counter() - self.began
        say({"step": self.step, "seconds": self.seconds, "loss": measure_loss()})
        if not sys.stdin.readline():
            sys.exit()
        self.began = time.perf_counter()


def contend(arguments: argparse.Namespace) -> None:
    manifest = read_manifest(arguments.data)
    config = run_config(arguments)
    train, validation = (open_split(arguments.data, manifest, name) for name in ("train", "validation"))
    kind = contend_as_trainer if arguments.contender == "hf_trainer" else contend_as_ours
    kind(arguments, config, manifest, train, validation)


def run_config(arguments: argparse.Namespace) -> RunConfig:
    name, lr = ("lamb", arguments.lamb_lr) if arguments.contender == "ours" else ("adamw", arguments.adamw_lr)
    content = {
        "data": {"path": str(arguments.data)},
        "model": TINY,
        "optimizer": {"name": name, "lr": lr},
        "schedule": {"warmup_steps": arguments.warmup_steps, "total_steps": arguments.steps},
        "training": {
            "steps": arguments.steps,
            "global_batch_size": arguments.batch,
            "micro_batch_size": arguments.batch // 2,
        },
        "precision": {"dtype": "fp32", "device": "cpu"},
    }
    return check_config(content, source="benchmark")


def contend_as_ours(arguments, config: RunConfig, manifest, train: Split, validation: Split) -> None:
    from pretrain.engine import start_deepspeed
    from pretrain.loader import Loader
    from pretrain.optimizer import set_lr
    from pretrain.schedule import lr_at
    from pretrain.train import build_engine

    device = torch.device("cpu")
    start_deepspeed(device)
    engine = build_engine(config, manifest.vocab_size, device)
    engine.model.initialize(config.model.initializer_range, torch.Generator().manual_seed(0))
    loader = Loader(train, config, config.training.micro_batch_size, device)
    held_out = collate(validation.read(np.arange(min(VALIDATION_INSTANCES, len(validation)))))

    @torch.no_grad()
    def measure_loss() -> float:
        engine.model.eval()
        loss = engine.model(held_out).mlm_loss.item() / len(held_out.mlm_labels_M)
        engine.model.train()
        return loss

    turns = Turns(arguments.turn)
    turns.begin()
    for step in range(arguments.steps):
        set_lr(engine.optimizer, lr_at(step, peak_lr=config.optimizer.lr, schedule=config.schedule))
        samples = step * arguments.batch + np.arange(arguments.batch)
        batches = loader.get(step, samples, samples + arguments.batch).micro_batches
        masked = sum(len(batch.mlm_labels_M) for batch in batches)
        labelled = sum(int((batch.sop_labels_B >= 0).sum()) for batch in batches)
        for batch in batches:
            sums = engine.forward(batch)
            engine.backward(sums.mlm_loss / masked + sums.sop_loss / labelled)
        engine.step()
        turns.end_step(measure_loss)


def contend_as_trainer(arguments, config: RunConfig, manifest, train: Split, validation: Split) -> None:
    import transformers

    transformers.logging.set_verbosity_error()
    model = hugging_face_model(config, manifest, torch.device("cpu"))
    held_out = validation.read(np.arange(min(VALIDATION_INSTANCES, len(validation))))
    turns = Turns(arguments.turn)

    @torch.no_grad()
    def measure_loss() -> float:
        model.eval()
        loss, masked = 0.0, 0
        for start in range(0, len(held_out), 16):
            inputs = padded(held_out[start : start + 16])
            labels = inputs.pop("labels")
            logits = model(**inputs).prediction_logits[labels >= 0]
            loss += torch.nn.functional.cross_entropy(logits, labels[labels >= 0], reduction="sum").item()
            masked += len(logits)
        model.train()
        return loss / masked

    class TakeTurns(transformers.TrainerCallback):
        def on_train_begin(self, *_, **__) -> None:
            turns.begin()

        def on_step_end(self, *_, **__) -> None:
            turns.end_step(measure_loss)

    rows = sample_rows(np.arange(arguments.batch * arguments.steps), train.shard_rows, seed=0, window=8)
    options = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=arguments.batch,
        max_steps=arguments.steps,
        learning_rate=arguments.adamw_lr,
        weight_decay=config.optimizer.weight_decay,
        lr_scheduler_type="linear",
        warmup_steps=arguments.warmup_steps,
        train_sampling_strategy="sequential",
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    trainer = transformers.Trainer(
        model=model, args=options, train_dataset=train.read(rows), data_collator=padded, callbacks=[TakeTurns()]
    )
    trainer.train()


if __name__ == "__main__":
    sys.exit(main())
