"""The demo: the five commands of the README on the bundled corpus, one after the other, and a table of what came of it.

`python -m launch.demo [--work DIR] [--steps N] [--seed N]`, run in the repository; `make demo` does that. It stops at the first
command that fails, with its exit code.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from data_prep.schema import read_manifest

CORPUS = Path("data_prep/bundled/sotu_1961_2026.txt.gz")
CONFIG = Path("configs/demo.yaml")
SENTENCES = (
    "The state of the [MASK] is strong.",
    "The people of the United [MASK] want peace.",
    "Thank you, and God bless [MASK].",
)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m launch.demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("work"), help="folder for everything the demo makes (default: work)")
    parser.add_argument("--steps", type=int, help="stop training earlier than the config says")
    parser.add_argument("--seed", type=int, default=0, help="seed of masks, weights and order (default: 0)")
    options = parser.parse_args(arguments)
    if not CONFIG.is_file() or not CORPUS.is_file():
        print(f"the demo runs in the repository: {CONFIG} and {CORPUS} are not here; change into its folder", file=sys.stderr)
        return 2
    began = time.perf_counter()
    for command in commands(options.work, options.steps, options.seed):
        print(f"\n$ {shlex.join(command)}", flush=True)
        code = subprocess.run([str(Path(sys.executable).with_name(command[0])), *command[1:]]).returncode
        if code:
            return code
    print_table(options.work, time.perf_counter() - began)
    return 0


def commands(work: Path, steps: int | None, seed: int) -> list[list[str]]:
    """The first four of the README's five commands, seeds and a shorter run added where asked; the fifth fills the table."""
    tokenizer, data, run, hf = (str(work / name) for name in ("tokenizer", "data", "run", "hf"))
    launch = ["albert", "launch", "--config", str(CONFIG), "--data", data, "--output", run, "--num_procs", "2"]
    prepare = ["albert", "prepare", "--input", str(CORPUS), "--tokenizer", tokenizer, "--output", data, "--max_seq_length", "64"]
    if seed:
        prepare += ["--seed", str(seed)]
        launch += ["--training.seed", str(seed)]
    if steps is not None:
        launch += ["--training.steps", str(steps)]
    return [
        ["albert", "tokenizer", "--input", str(CORPUS), "--output", tokenizer, "--vocab_size", "2000"],
        prepare,
        launch,
        ["albert", "export", "--run", run, "--output", hf],
    ]


def print_table(work: Path, seconds: float) -> None:
    """Corpus, vocabulary, instances, parameters, losses against the unigram entropy, speed, and three fill-mask examples."""
    manifest = read_manifest(work / "data")
    train, held_out = manifest.splits["train"], manifest.splits["validation"]
    records = [json.loads(line) for line in (work / "run" / "metrics.jsonl").read_text().splitlines()]
    validations = [record for record in records if record["event"] == "validation"]
    speeds = sorted(record["tokens_per_second"] for record in records if record["event"] == "train")
    first, last = validations[0], validations[-1]
    gain = held_out.unigram_entropy - last["mlm_loss"]

    table = Table(title="The demo", show_header=False)
    table.add_row("corpus", f"{CORPUS.name}: {train.documents + held_out.documents} documents, {held_out.documents} held out")
    table.add_row("vocabulary", f"{manifest.vocab_size:,} pieces")
    table.add_row("instances", f"{train.instances:,} of up to {manifest.max_seq_length} pieces")
    table.add_row("parameters", f"{count_parameters(work / 'hf'):,}")
    table.add_row("unigram entropy of the held-out text", f"{held_out.unigram_entropy:.4f} nats")
    table.add_row(f"validation MLM loss, step {first['step']}", f"{first['mlm_loss']:.4f} nats")
    table.add_row(f"validation MLM loss, step {last['step']}", f"{last['mlm_loss']:.4f} nats, {gain:.4f} below the entropy")
    table.add_row("sentence-order accuracy", f"{first['sop_accuracy']:.3f} -> {last['sop_accuracy']:.3f}")
    table.add_row("training speed (median)", f"{speeds[len(speeds) // 2]:,.0f} tokens/s, padding not counted")
    table.add_row("export", str((work / "hf").absolute()))
    for sentence, guesses in fill_masks(work / "hf"):
        table.add_row(sentence, guesses)
    table.add_row("wall-clock time", f"{seconds:.0f} s")
    Console(width=max(100, Console().width)).print("\n", table)


def count_parameters(export: Path) -> int:
    from safetensors import safe_open

    with safe_open(export / "model.safetensors", framework="np") as file:
        return sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118  (safe_open is no dict)


def fill_masks(export: Path) -> list[tuple[str, str]]:
    """Each sentence with the three likeliest pieces of its mask and their probabilities, by `transformers` alone."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    from transformers import pipeline
    from transformers.utils import logging

    logging.disable_progress_bar()
    fill = pipeline("fill-mask", str(export), top_k=3)
    return [(text, ", ".join(f"{guess['token_str']} {guess['score']:.2f}" for guess in fill(text))) for text in SENTENCES]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
