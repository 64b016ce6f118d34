"""What pretraining brings to a classifier, and what its parts do: sentence order, n-gram masks (docs/does_it_help.md).

    python -m benchmarks.sentiment --input CORPUS --labelled FOLDER --work FOLDER     # FOLDER: of benchmarks.sentiment_rows, say

The same encoder is pretrained three times on the same text, from the same random weights: as ALBERT does, without sentence order,
and with masks of single words. Each is fine-tuned with several seeds on FOLDER/train.jsonl, as is one with random weights;
FOLDER/dev.jsonl chooses epoch and learning rate, FOLDER/test.jsonl is what the table shows. A naive Bayes over words stands beside.

What is in the work folder is not made again, so it takes one pretraining and one set of labelled files; fine-tuning may differ from
command to command, and WORK/results_ROWS_EPOCHS.json is that of the last one. A vocabulary may have been put there as
WORK/tokenizer. Arguments that are not known here go to `albert launch`, such as --training.micro_batch_size 32.
"""

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.ablation_jobs import ALBERT, Job, fault_of, run_jobs
from benchmarks.work_folder import bind
from pretrain.config_file import load_config
from tokenizer.errors import UserError
from tokenizer.files import as_user_error, write_json

ROOT = Path(__file__).parent.parent
OBJECTIVES = {
    "albert": (),
    "no_sentence_order": ("--pair_objective", "none"),
    "word_masks": ("--mask_unit", "word"),
}
"""Name of an encoder -> options of `albert prepare`."""
ARMS = {
    "albert": "pretrained",
    "no_sentence_order": "pretrained without sentence order",
    "word_masks": "pretrained with masks of single words",
    "random": "random weights",
}


def parse_arguments(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, help="text to pretrain on")
    parser.add_argument("--labelled", type=Path, required=True, help="folder with train.jsonl, dev.jsonl, test.jsonl: text, label")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=list(ARMS), help="rows of the table; random takes albert's shape"
    )
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "small.yaml")
    parser.add_argument("--steps", type=int, help="of pretraining, a tenth of them warm-up; default: the config's")
    parser.add_argument("--vocab_size", type=int, default=8000)
    parser.add_argument("--dupe_factor", type=int, default=10, help="copies of the text, each masked anew")
    parser.add_argument("--train_rows", type=int, help="fine-tune on so many rows, drawn once; default: all")
    parser.add_argument("--num_seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6, help="of fine-tuning, at most")
    parser.add_argument("--learning_rates", type=float, nargs="+", default=[5e-5, 2e-4], help="of fine-tuning; dev chooses")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, on the same device")
    arguments, of_launch = parser.parse_known_args(words)
    if "random" in arguments.arms and "albert" not in arguments.arms:
        parser.error("--arms random: takes the shape of albert, so name that, too")
    return arguments, of_launch


def main(words: Sequence[str]) -> int:
    """The exit code: 0 done, 2 something to mend."""
    try:
        experiment(*parse_arguments(words))
    except (UserError, OSError) as error:
        print(f"sentiment: {as_user_error(error)}", file=sys.stderr)
        return 2
    return 0


def experiment(arguments: argparse.Namespace, of_launch: list[str]) -> None:
    work = arguments.work
    if absent := [str(path) for path in (*labelled_files(arguments).values(), arguments.config) if not path.is_file()]:
        raise UserError(f"not there: {', '.join(absent)}")
    settings = {name: os.path.abspath(getattr(arguments, name)) for name in ("input", "labelled", "config")}
    settings |= {name: getattr(arguments, name) for name in ("steps", "vocab_size", "dupe_factor")} | {"of_launch": of_launch}
    bind(work / "settings.json", settings)
    objectives = {name: options for name, options in OBJECTIVES.items() if name in arguments.arms}
    if arguments.train_rows:
        draw_rows(arguments)
    tokenizer, data = work / "tokenizer", {name: work / "data" / name for name in objectives}
    if not tokenizer.is_dir():
        make = ("--input", arguments.input, "--output", tokenizer, "--vocab_size", arguments.vocab_size, "--keep_accents", "false")
        run(arguments, [job(work, "tokenizer", "tokenizer", *make)], at_once=1)
    shares = {"training.steps": 1, "schedule.total_steps": 1, "schedule.warmup_steps": 10} if arguments.steps else {}
    steps = [(field, str(arguments.steps // share)) for field, share in shares.items()]
    length = load_config(arguments.config, [("data.path", str(work)), *steps]).model.max_position_embeddings
    from_text = ("--input", arguments.input, "--tokenizer", tokenizer, "--max_seq_length", length)
    from_text += ("--dupe_factor", arguments.dupe_factor)
    prepare = [
        job(work, f"prepare_{name}", "prepare", *from_text, *options, "--output", data[name])
        for name, options in objectives.items()
    ]
    run(arguments, prepare, at_once=1)

    of_launch += [word for field, value in steps for word in (f"--{field}", value)]
    of_launch += ["--config", arguments.config, "--num_procs", 1, "--logging.wandb", "disabled"]
    runs, exports = ({name: work / kind / name for name in objectives} for kind in ("runs", "exports"))
    run(
        arguments,
        [job(work, f"launch_{name}", "launch", "--data", data[name], "--output", runs[name], *of_launch) for name in runs],
    )
    missing = [name for name in exports if not exports[name].is_dir()]
    run(arguments, [job(work, f"export_{name}", "export", "--run", runs[name], "--output", exports[name]) for name in missing])
    comparison = work / f"evaluate_{'_'.join(objectives)}.json"
    of_evaluate = ("--model", *runs.values(), "--data", data[next(iter(objectives))], "--output", comparison)
    evaluate = [] if comparison.is_file() else [job(work, "evaluate", "evaluate", *of_evaluate)]
    tunings = [(arm, rate) for arm in arguments.arms for rate in arguments.learning_rates if not is_tuned(arguments, arm, rate)]
    run(arguments, [*evaluate, *(finetune(arguments, arm, rate) for arm, rate in tunings)])

    results = {arm: best_rate(arguments, arm) for arm in arguments.arms}
    write_json(work / f"results_{rows_and_epochs(arguments)}.json", results)
    print_table(results, naive_bayes(arguments), dict(zip(objectives, held_out(comparison), strict=True)))


def job(work: Path, name: str, *command: object) -> Job:
    """`albert ...`, its output in WORK/logs/NAME.log."""
    return Job(name, [*ALBERT, *map(str, command)], work / "logs" / f"{name}.log")


def run(arguments: argparse.Namespace, jobs: list[Job], at_once: int | None = None) -> None:
    """All of them, `--jobs` at once; one that fails ends the program when all have ended."""
    ended = run_jobs(jobs, at_once or arguments.jobs, lambda each: print(f"{each.job.name}: exit code {each.code}", flush=True))
    if faults := [f"{each.job.name}: {fault_of(each)}" for each in ended if each.code]:
        raise UserError("\n".join(faults))


def finetune(arguments: argparse.Namespace, arm: str, rate: float) -> Job:
    output = tuned(arguments, arm, rate)
    paths = labelled_files(arguments)
    files = ["--train", train_file(arguments), "--validation", paths["dev"], "--test", paths["test"]]
    start = ("--model", arguments.work / "exports" / "albert", "--random_weights", "true")
    if arm != "random":
        start = ("--model", arguments.work / "exports" / arm)
    how = ("--num_seeds", arguments.num_seeds, "--epochs", arguments.epochs, "--learning_rate", rate)
    return job(arguments.work, f"finetune_{output.name}", "finetune", *start, *files, *how, "--output", output)


def tuned(arguments: argparse.Namespace, arm: str, rate: float) -> Path:
    return arguments.work / "finetuned" / f"{arm}_{rows_and_epochs(arguments)}_{rate:g}"


def rows_and_epochs(arguments: argparse.Namespace) -> str:
    return f"{arguments.train_rows or 'all'}_{arguments.epochs}"


def is_tuned(arguments: argparse.Namespace, arm: str, rate: float) -> bool:
    """Whether all of its seeds are done."""
    results = tuned(arguments, arm, rate) / "results.json"
    return results.is_file() and json.loads(results.read_text()).get("num_seeds_done") == arguments.num_seeds


def labelled_files(arguments: argparse.Namespace) -> dict[str, Path]:
    return {name: arguments.labelled / f"{name}.jsonl" for name in ("train", "dev", "test")}


def train_file(arguments: argparse.Namespace) -> Path:
    """The rows to train on: the same for all."""
    return arguments.work / f"train_{arguments.train_rows}.jsonl" if arguments.train_rows else labelled_files(arguments)["train"]


def draw_rows(arguments: argparse.Namespace) -> None:
    rows = read_rows(labelled_files(arguments)["train"])
    drawn = random.Random(0).sample(rows, min(arguments.train_rows, len(rows)))
    train_file(arguments).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in drawn), encoding="utf-8")


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:  # ends a line at \n alone, as JSON lines do
        return [json.loads(line) for line in lines if line.strip()]


def best_rate(arguments: argparse.Namespace, arm: str) -> dict[str, Any]:
    """results.json of the learning rate with the best mean on the validation rows."""
    found = []
    for rate in arguments.learning_rates:
        result = json.loads((tuned(arguments, arm, rate) / "results.json").read_text())
        found.append({"learning_rate": rate} | result)
    return max(found, key=lambda result: result["scores"]["validation"]["accuracy"]["mean"])


def held_out(comparison: Path) -> list[dict[str, Any]]:
    """Figures of the runs on the held-out text, in their order."""
    return [column for column in json.loads(comparison.read_text())["columns"] if column.get("kind") == "run"]


def naive_bayes(arguments: argparse.Namespace) -> dict[str, float]:
    """Accuracy by split of a multinomial naive Bayes over lower-cased words, of the same rows."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    parts = {}
    for name, path in (labelled_files(arguments) | {"train": train_file(arguments)}).items():
        rows = read_rows(path)
        parts[name] = [row["text"] for row in rows], [row["label"] for row in rows]
    model = make_pipeline(CountVectorizer(), MultinomialNB()).fit(*parts["train"])
    return {name: float(model.score(*parts[name])) for name in ("dev", "test")}


def print_table(results: dict[str, Any], words: dict[str, float], pretraining: dict[str, Any]) -> None:
    """Markdown."""
    print("\n| start | masked-LM loss | accuracy | sentence order | learning rate | dev | test, mean | std | each seed |")
    print("|---|---|---|---|---|---|---|---|---|")
    for arm, result in results.items():
        figures = pretraining.get(arm)
        cells = [ARMS[arm], *(("", "", "") if figures is None else quality(figures, has_order=arm != "no_sentence_order"))]
        accuracy = {split: result["scores"][split]["accuracy"] for split in ("validation", "test")}
        seeds = [seed["scores"]["test"]["accuracy"] for seed in result["seeds"]]
        deviation = accuracy["test"]["std"]
        spread = "-" if deviation is None else f"{deviation:.3f}"
        cells += [f"{result['learning_rate']:g}", f"{accuracy['validation']['mean']:.3f}", f"**{accuracy['test']['mean']:.3f}**"]
        print(f"| {' | '.join([*cells, spread, ' '.join(f'{seed:.3f}' for seed in seeds)])} |")
    print(f"| naive Bayes over words | | | | | {words['dev']:.3f} | **{words['test']:.3f}** | | |")


def quality(figures: dict[str, Any], *, has_order: bool) -> tuple[str, str, str]:
    masked, order = figures["masked_lm"], figures["sentence_order"]
    return f"{masked['loss']:.3f}", f"{masked['accuracy']:.3f}", f"{order['accuracy']:.3f}" if has_order else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
