"""The ablations of the ALBERT paper at a small budget: a corpus in, a table per question out (docs/ablations.md).

    python -m benchmarks.ablations [--tables embedding sharing order masks depth width baseline] [--steps N | --hours H] [--jobs N]

In the repository. WORK gets tokenizer/ and data/NAME (taken as they are if they are there), and for each budget a folder with a
run for each row and seed, logs/, evaluations/, results.json and results.md. Given again, it goes on: finished runs stay, unfinished
ones go on from their newest checkpoint, failed ones are tried again. Any field of the run config can follow as
--section.field VALUE; it holds for all rows.
"""

import argparse
import itertools
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.ablation_jobs import ALBERT, Ended, Job, fault_of, run_jobs
from benchmarks.ablation_plan import Plan
from benchmarks.ablation_report import write_report
from benchmarks.ablation_rows import CONFIGS, DATA, TABLES, Row
from benchmarks.work_folder import bind
from tokenizer.device import choose_device
from tokenizer.errors import UserError
from tokenizer.files import as_user_error

BUNDLED = Path(__file__).parent.parent / "data_prep" / "bundled" / "sotu_1961_2026.txt.gz"
PREPARE = ["--max_seq_length", "128", "--validation_fraction", "0.04", "--dedup", "exact"]
OWN = ("--training.seed", "--data.path")
NO_END = 1_000_000
"""Steps that no run reaches before its hours are over."""


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 done, 1 some runs failed (the others are in the tables), 2 something to mend, 130 interrupted."""
    options, overrides = parse(arguments)
    try:
        device = choose_device(options.device)
        plan = make_plan(options, device.type, overrides)
        prepare(plan, options)
        if options.prepare_only:
            return 0
        failures = foreign_runs(plan)
        if not options.report_only:
            failures |= train(plan, options.jobs)
        failures |= evaluate(plan, options.jobs, device.type, options.max_instances)
        write_report(plan, describe(device))
    except (UserError, OSError) as error:
        print(f"ablations: {as_user_error(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ablations: interrupted; the same command goes on", file=sys.stderr)
        return 130
    for name, fault in failures.items():
        print(f"failed: {name}: {fault}", file=sys.stderr)
    return 1 if failures else 0


def describe(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {len(os.sched_getaffinity(0))} cores"


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[tuple[str, str]]]:
    """The options, and fields of the run config with their values."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    overrides = []
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not re.fullmatch(r"--\w+\.\w+", name) or not (equals or rest):
            parser.error(f"unrecognized: {name}; fields of the run config are given as --section.field VALUE")
        if name in OWN:
            parser.error(f"{name}: each run has its own; see --seeds and --work")
        overrides.append((name.removeprefix("--"), value if equals else rest.pop(0)))
    return options, overrides


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablations", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), help="default: all")
    parser.add_argument("--work", type=Path, default=Path("work/ablations"), help="folder for everything (default: %(default)s)")
    parser.add_argument(
        "--input", nargs="+", default=[str(BUNDLED)], help="corpus, as of `albert prepare`; default: the bundled one"
    )
    parser.add_argument("--vocab_size", type=count, default=8000, help="pieces of the tokenizer (default: %(default)s)")
    parser.add_argument("--dupe_factor", type=count, default=4, help="copies of the text, each masked anew (default: %(default)s)")
    parser.add_argument(
        "--compression", choices=("none", "zstd"), default="none", help="of the data folders (default: %(default)s)"
    )
    parser.add_argument("--prepare_only", action="store_true", help="make tokenizer and data, and train nothing")
    parser.add_argument("--report_only", action="store_true", help="train nothing: evaluate what is done, and write the tables")
    parser.add_argument(
        "--seeds", type=count, default=3, help="runs of each row, with training.seed 0, 1, ... (default: %(default)s)"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--steps", type=count, help="steps of each run; a tenth of them is warm-up (default: those of the configs)")
    budget.add_argument(
        "--hours", type=positive, help="training time of each run in place of a number of steps (training.max_hours)"
    )
    parser.add_argument("--jobs", type=count, default=1, help="runs at once, on the same device (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if there is one")
    parser.add_argument("--max_instances", type=count, default=20_000, help="held-out instances that models are judged on, at most")
    return parser


def count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {number}")
    return number


def positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0, found {text}")
    return number


def make_plan(options: argparse.Namespace, device: str, overrides: list[tuple[str, str]]) -> Plan:
    """Raise a UserError if an override does not fit."""
    of_device = [("precision.device", device), *([("precision.dtype", "fp32")] if device == "cpu" else [])]
    budget, name = [], None
    if options.hours is not None:
        budget = [("training.max_hours", options.hours), ("training.steps", NO_END), ("schedule.total_steps", NO_END)]
        name = f"hours_{options.hours:g}"
    elif steps := options.steps:
        budget = [("training.steps", steps), ("schedule.total_steps", steps), ("schedule.warmup_steps", steps // 10)]
    plan = Plan(
        work=options.work,
        budget=name or "",
        tables={name: TABLES[name] for name in options.tables},
        num_seeds=options.seeds,
        overrides=[*of_device, *((field, str(value)) for field, value in budget), *overrides],
    )
    [*_, config] = [plan.config(row, 0) for row in plan.rows.values()]  # all are read: a fault shows before anything is made
    return plan if name else replace(plan, budget=f"steps_{config.training.steps}")


def prepare(plan: Plan, options: argparse.Namespace) -> None:
    """Tokenizer and data folders, those that are not there.

    Raises:
        UserError: one could not be made, was made of another corpus, or is to be reported on and is not there.
    """
    tokenizer = plan.work / "tokenizer"
    names = [name for name in DATA if name in plan.data_names | {"sop"} and not plan.has_data(name)]
    if options.report_only:
        if names:
            raise UserError(f"{plan.work}: there is no data in it ({', '.join(names)}), so nothing to report on. See --work.")
        return
    corpus = {"input": [Path(name).name for name in options.input]}  # a file is known by its name
    bind(plan.work / "corpus.json", corpus | {name: getattr(options, name) for name in ("vocab_size", "dupe_factor")})
    if not (tokenizer / "manifest.json").exists() and any("--mask_unit" not in DATA[name] for name in names):
        where = ["--input", *options.input, "--output", str(tokenizer)]
        make(plan, "tokenizer", ["tokenizer", *where, "--vocab_size", str(options.vocab_size)])
    (plan.work / "data").mkdir(parents=True, exist_ok=True)
    for name in names:
        changes = [*DATA[name], "--output", str(plan.data(name)), "--compression", options.compression]
        if "--mask_unit" in changes:
            source = ["--remask", str(plan.data("sop"))]
        else:
            source = ["--input", *options.input, "--tokenizer", str(tokenizer), "--dupe_factor", str(options.dupe_factor), *PREPARE]
        make(plan, f"data-{name}", ["prepare", *source, *changes])


def make(plan: Plan, name: str, arguments: list[str]) -> None:
    print(f"making {name}", flush=True)
    [ended] = run_jobs([Job(name, [*ALBERT, *arguments], plan.work / "logs" / f"{name}.log")], 1, lambda ended: None)
    if ended.code:
        raise UserError(f"{name} could not be made: {fault_of(ended)}")


def foreign_runs(plan: Plan) -> dict[str, str]:
    """Those in the work folder that are done, but not as planned; they stay, and are left out of the tables."""
    return {
        name: f"{plan.run_folder(*run)} was run with another config ({'; '.join(changes)}). Choose another --work"
        for name, run in plan.runs.items()
        if (changes := plan.changes(*run))
    }


def train(plan: Plan, at_once: int) -> dict[str, str]:
    """Start what has not run, the rows of seed 0 first; what failed, with its fault."""
    jobs = [
        Job(name, launch_command(plan, row, seed), plan.folder / "logs" / f"{row.run}-{seed}.log")
        for name, (row, seed) in plan.runs.items()
        if not plan.has_run(row, seed)
    ]
    total = len(plan.runs)
    print(f"{total} runs, {total - len(jobs)} of them done before; {at_once} at once", flush=True)
    if jobs:
        plan.note_crowd(min(at_once, len(jobs)))
    numbers = itertools.count(1)

    def tell(ended: Ended) -> None:
        outcome = "done" if ended.code == 0 else f"FAILED with exit code {ended.code} ({ended.job.log})"
        print(f"[{next(numbers)}/{len(jobs)}] {ended.job.name}: {outcome}, {ended.seconds:.0f} s", flush=True)

    return {ended.job.name: fault_of(ended) for ended in run_jobs(jobs, at_once, tell) if ended.code}


def launch_command(plan: Plan, row: Row, seed: int) -> list[str]:
    folder = plan.run_folder(row, seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    where = ["--config", str(CONFIGS / f"{row.config}.yaml"), "--data", str(plan.data(row.data)), "--output", str(folder)]
    fields = [part for name, value in plan.fields(seed) for part in (f"--{name}", value)]
    return [*ALBERT, "launch", *where, "--num_procs", "1", *fields]


def evaluate(plan: Plan, at_once: int, device: str, max_instances: int) -> dict[str, str]:
    """Every finished run on the held-out instances that its tables are judged on, a file for each data folder and seed; what
    failed, with its fault."""
    (plan.folder / "evaluations").mkdir(parents=True, exist_ok=True)
    jobs = []
    for name, seed, runs in plan.evaluations():
        output = plan.evaluation(name, seed)
        if runs and not is_current(output, runs, max_instances):
            output.unlink(missing_ok=True)
            models = ["--model", *map(str, runs), "--data", str(plan.data(name)), "--output", str(output)]
            command = [*ALBERT, "evaluate", *models, "--device", device, "--max_instances", str(max_instances)]
            log = plan.folder / "logs" / f"evaluate-{output.stem}.log"
            jobs.append(Job(f"evaluation of seed {seed} on {name}", command, log))
    return {ended.job.name: fault_of(ended) for ended in run_jobs(jobs, at_once, lambda ended: None) if ended.code}


def is_current(evaluation: Path, runs: list[Path], max_instances: int) -> bool:
    """Whether the file is there, of at least these runs and of so many instances, and not older than the runs."""
    if not evaluation.exists():
        return False
    content = json.loads(evaluation.read_text(encoding="utf-8"))
    judged = {column.get("path") for column in content["columns"]}
    is_as_large = content["instances"] == min(max_instances, content["instances_of_the_split"])
    newest = max((run / "DONE").stat().st_mtime for run in runs)
    return is_as_large and {str(run) for run in runs} <= judged and evaluation.stat().st_mtime > newest


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
