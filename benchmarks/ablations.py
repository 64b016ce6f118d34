"""The ablations of the ALBERT paper at a small budget: a corpus in, a table per question out (docs/ablations.md).

    python -m benchmarks.ablations [--tables embedding sharing order masks depth width baseline] [--steps N | --hours H] [--jobs N]

In the repository. WORK gets tokenizer/ and data/NAME (taken as they are if they are there), and for each budget a folder with a
run for each row and seed, logs/, evaluations/, results.json and results.md. Given again, it goes on: finished runs stay, unfinished
ones go on from their newest checkpoint, failed ones are tried again. Any field of the run config can follow as
--section.field VALUE; it holds for all rows.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ablation_jobs import Ended, Job, fault_of, run_jobs
from benchmarks.ablation_report import write_report
from benchmarks.ablation_rows import CONFIGS, DATA, REFERENCE, TABLES, Row
from pretrain.config import RunConfig, differences, load_config
from tokenizer.errors import UserError

BUNDLED = Path(__file__).parent.parent / "data_prep" / "bundled" / "sotu_1961_2026.txt.gz"
ALBERT = [sys.executable, "-m", "launch"]
NO_END = 1_000_000
"""Steps that no run reaches before its hours are over."""


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 done, 1 some runs failed (the others are in the tables), 2 something to mend, 130 interrupted."""
    options, overrides = parse(arguments)
    try:
        return Ablations(options, overrides).run()
    except UserError as error:
        print(f"ablations: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ablations: interrupted; the same command goes on", file=sys.stderr)
        return 130


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[tuple[str, str]]]:
    """The options, and fields of the run config with their values."""
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
    budget.add_argument("--hours", type=float, help="training time of each run in place of a number of steps (training.max_hours)")
    parser.add_argument("--jobs", type=count, default=1, help="runs at once, on the same device (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a GPU if there is one")
    parser.add_argument("--max_instances", type=count, default=20_000, help="held-out instances that models are judged on, at most")
    options, rest = parser.parse_known_args(arguments)
    overrides = []
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not re.fullmatch(r"--\w+\.\w+", name) or not (equals or rest):
            parser.error(f"unrecognized: {name}; fields of the run config are given as --section.field VALUE")
        overrides.append((name.removeprefix("--"), value if equals else rest.pop(0)))
    return options, overrides


def count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {number}")
    return number


class Ablations:
    """The runs of the tables that are wanted, at one budget."""

    def __init__(self, options: argparse.Namespace, overrides: list[tuple[str, str]]):
        import torch

        on_gpu = options.device != "cpu" and torch.cuda.is_available()
        if options.device == "cuda" and not on_gpu:
            raise UserError("--device cuda: PyTorch sees no GPU here. Give cpu or auto.")
        self.options, self.device = options, "cuda" if on_gpu else "cpu"
        self.device_name = torch.cuda.get_device_name() if on_gpu else "CPU"
        self.tables = {name: TABLES[name] for name in options.tables}
        self.rows = {row.run: row for table in self.tables.values() for row in table.rows}
        self.overrides = [("precision.device", self.device), *budget(options), *overrides]
        if not on_gpu:
            self.overrides.insert(0, ("precision.dtype", "fp32"))
        steps = self.config(next(iter(self.rows.values())), 0).training.steps
        self.folder = options.work / (f"hours_{options.hours:g}" if options.hours else f"steps_{steps}")

    def run(self) -> int:
        self.prepare()
        if self.options.prepare_only:
            return 0
        failures = {} if self.options.report_only else self.train()
        failures |= self.evaluate()
        write_report(self)
        for name, fault in failures.items():
            print(f"failed: {name}: {fault}", flush=True)
        return 1 if failures else 0

    def prepare(self) -> None:
        """Tokenizer and data folders, those that are not there.

        Raises:
            UserError: one could not be made.
        """
        tokenizer = self.options.work / "tokenizer"
        if not (tokenizer / "manifest.json").exists() and not self.has_data("sop"):
            vocabulary = ["--output", str(tokenizer), "--vocab_size", str(self.options.vocab_size)]
            self.make("tokenizer", ["tokenizer", "--input", *self.options.input, *vocabulary])
        wanted = {row.data for row in self.rows.values()}
        wanted |= {name for table in self.tables.values() for name in (*table.masked_lm_on, *table.order_on)}
        for name in DATA:
            if name in wanted | {"sop"} and not self.has_data(name):
                self.make(f"data-{name}", self.prepare_command(name))

    def has_data(self, name: str) -> bool:
        return (self.data(name) / "manifest.json").exists()

    def data(self, name: str) -> Path:
        return self.options.work / "data" / name

    def prepare_command(self, name: str) -> list[str]:
        changes = [*DATA[name], "--output", str(self.data(name)), "--compression", self.options.compression]
        if "--mask_unit" in changes:
            return ["prepare", "--remask", str(self.data("sop")), *changes]
        length = self.config(Row("", REFERENCE), 0).model.max_position_embeddings
        copies = ["--dupe_factor", str(self.options.dupe_factor), "--validation_fraction", "0.04", "--dedup", "exact"]
        source = ["--input", *self.options.input, "--tokenizer", str(self.options.work / "tokenizer")]
        return ["prepare", *source, *changes, "--max_seq_length", str(length), *copies]

    def make(self, name: str, arguments: list[str]) -> None:
        print(f"making {name}", flush=True)
        (self.options.work / "data").mkdir(parents=True, exist_ok=True)
        log = self.options.work / "logs" / f"{name}.log"
        [ended] = run_jobs([Job(name, [*ALBERT, *arguments], log)], 1, lambda ended: None)
        if ended.code:
            raise UserError(f"{name} could not be made: {fault_of(ended)}")

    def config(self, row: Row, seed: int) -> RunConfig:
        """As `albert launch` will have it."""
        overrides = [("data.path", json.dumps(str(self.data(row.data).absolute()))), *self.overrides, ("training.seed", str(seed))]
        return load_config(CONFIGS / f"{row.config}.yaml", overrides)

    def run_folder(self, row: Row, seed: int) -> Path:
        return self.folder / row.run / f"seed-{seed}"

    def seeds(self) -> range:
        return range(self.options.seeds)

    def train(self) -> dict[str, str]:
        """Start what is not done, the rows of seed 0 first; what failed, with its fault."""
        failures, jobs = {}, []
        for seed in self.seeds():
            for row in self.rows.values():
                folder, name = self.run_folder(row, seed), f"{row.run} seed {seed}"
                config = self.config(row, seed)
                if not (folder / "DONE").exists():
                    jobs.append(Job(name, self.launch_command(row, seed, folder), self.folder / "logs" / f"{row.run}-{seed}.log"))
                elif changed := differences(load_config(folder / "config.yaml"), config):
                    failures[name] = f"{folder} was run with another config ({'; '.join(changed)}). Choose another --work"
        total = len(self.seeds()) * len(self.rows)
        print(
            f"{total} runs, {total - len(jobs)} of them there already, {self.options.jobs} at once on {self.device_name}",
            flush=True,
        )
        ended: list[Ended] = []

        def tell(one: Ended) -> None:
            ended.append(one)
            outcome = "done" if one.code == 0 else f"FAILED with exit code {one.code} ({one.job.log})"
            print(f"[{len(ended)}/{len(jobs)}] {one.job.name}: {outcome}, {one.seconds:.0f} s", flush=True)

        return failures | {one.job.name: fault_of(one) for one in run_jobs(jobs, self.options.jobs, tell) if one.code}

    def launch_command(self, row: Row, seed: int, folder: Path) -> list[str]:
        folder.parent.mkdir(parents=True, exist_ok=True)
        where = ["--config", str(CONFIGS / f"{row.config}.yaml"), "--data", str(self.data(row.data)), "--output", str(folder)]
        fields = [part for name, value in (*self.overrides, ("training.seed", str(seed))) for part in (f"--{name}", value)]
        return [*ALBERT, "launch", *where, "--num_procs", "1", *fields]

    def evaluate(self) -> dict[str, str]:
        """Every finished run on the held-out instances that its tables are judged on, a file for each data folder and seed; what
        failed, with its fault."""
        jobs = []
        for name, seed, runs in self.evaluations():
            output = self.evaluation(name, seed)
            if runs and not is_current(output, runs):
                models = ["--model", *map(str, runs), "--data", str(self.data(name)), "--output", str(output)]
                options = ["--device", self.device, "--max_instances", str(self.options.max_instances)]
                log = self.folder / "logs" / f"evaluate-{output.stem}.log"
                jobs.append(Job(f"evaluation of seed {seed} on {name}", [*ALBERT, "evaluate", *models, *options], log))
        (self.folder / "evaluations").mkdir(parents=True, exist_ok=True)
        ended = run_jobs(jobs, self.options.jobs, lambda ended: None)
        return {one.job.name: fault_of(one) for one in ended if one.code}

    def evaluations(self) -> list[tuple[str, int, list[Path]]]:
        """Data folder, seed, and the finished runs to be judged there."""
        rows_on: dict[str, dict[str, Row]] = {}
        for table in self.tables.values():
            for name in (*table.masked_lm_on, *table.order_on):
                rows_on.setdefault(name, {}).update({row.run: row for row in table.rows})
        folders = [
            (name, seed, [self.run_folder(row, seed) for row in rows.values()])
            for name, rows in rows_on.items()
            for seed in self.seeds()
        ]
        return [(name, seed, [path for path in paths if (path / "DONE").exists()]) for name, seed, paths in folders]

    def evaluation(self, data: str, seed: int) -> Path:
        return self.folder / "evaluations" / f"{data}-{seed}.json"


def budget(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Overrides for --steps or --hours."""
    if options.hours is not None:
        steps = [("training.steps", str(NO_END)), ("schedule.total_steps", str(NO_END))]
        return [("training.max_hours", str(options.hours)), *steps]
    if options.steps is None:
        return []
    steps = options.steps
    names = {"training.steps": steps, "schedule.total_steps": steps, "schedule.warmup_steps": steps // 10}
    return [(name, str(value)) for name, value in names.items()]


def is_current(evaluation: Path, runs: list[Path]) -> bool:
    """Whether the file is there, of at least these runs, and not older than they."""
    if not evaluation.exists():
        return False
    judged = {column.get("path") for column in json.loads(evaluation.read_text())["columns"]}
    newest = max((run / "DONE").stat().st_mtime for run in runs)
    return {str(run) for run in runs} <= judged and evaluation.stat().st_mtime > newest


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
