"""`albert finetune`: an exported encoder and labelled text -> a model for `transformers.pipeline`, and how good it is.

Several seeds give a mean and a standard deviation; the model that is kept is that of the seed with the best validation score.
"""

import re
import shutil
import statistics
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from downstream.finetune_options import FinetuneOptions
from downstream.labelled import HF, named_split
from tokenizer.errors import UserError
from tokenizer.files import check_output_folder, replace_folder, write_json, write_text
from tokenizer.input_records import record_dataset, record_file
from tokenizer.privacy import is_private_tokenizer, words_withheld
from tokenizer.provenance import (
    PROVENANCE_NAME,
    Record,
    close_session,
    new_record,
    open_session,
    parent,
    record_outputs,
    write_record,
)

if TYPE_CHECKING:
    from downstream.task import Task
    from downstream.train import Trained

RESULTS = "results.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "spiece.model")
CONTENT = "|".join(map(re.escape, ("config.json", "model.safetensors", *TOKENIZER_FILES, RESULTS, PROVENANCE_NAME)))
CONTENT += r"|predictions_\w+\.tsv|[A-Z][A-Za-z]+(-[2B])?"
"""Regular expression of the names in an output folder; GLUE's tasks among them."""


def finetune(options: FinetuneOptions) -> None:
    """Train with each seed, write the folder, print the table.

    Raises:
        UserError: an option, a file or a label is not as it should be, or a library of the extra `finetune` is missing.
    """
    options.check()
    check_output_folder(options.output, marker=RESULTS, what="fine-tuned model", content=CONTENT)
    session = open_session()
    with words_withheld(is_private_tokenizer(options.model)):
        refuse_missing_libraries()
        results = [run_task(task, options, session) for task in read_tasks(options)]
    if options.task == "glue":
        write_json(options.output / RESULTS, results)
        print_table(results)
    print(f"written to {options.output}")


def refuse_missing_libraries() -> None:
    missing = [name for name in ("transformers", "accelerate", "sklearn", "scipy") if find_spec(name) is None]
    if missing:
        raise UserError(f"{', '.join(missing)} cannot be imported: pip install 'albert-pretraining[finetune]'")


def read_tasks(options: FinetuneOptions) -> "Iterable[Task]":
    """Those that were asked for, encoded for the model.

    Raises:
        UserError: as `open_encoder`, `downstream.classification.make_task` and `downstream.glue.glue_tasks`.
    """
    from downstream.classification import make_task
    from downstream.glue import glue_tasks
    from downstream.train import open_tokenizer

    tokenizer, positions = open_tokenizer(options.model)
    if options.max_seq_length is not None and options.max_seq_length > positions:
        raise UserError(f"--max_seq_length {options.max_seq_length}: the model takes {positions} pieces at most.")
    options = replace(options, max_seq_length=options.max_seq_length or positions)
    return glue_tasks(options, tokenizer) if options.task == "glue" else [make_task(options, tokenizer)]


def run_task(task: "Task", options: FinetuneOptions, session: Record) -> dict[str, Any]:
    """Content of results.json, written with the model."""
    from downstream.train import train

    seeds = range(options.seed, options.seed + options.num_seeds)
    with tempfile.TemporaryDirectory() as folder:
        runs = [train(task, options, seed, Path(folder)) for seed in seeds]
    result = summarize(task, runs)
    with replace_folder(options.output / task.name) as temporary:
        write_model(temporary, task, runs, result, options, session)
    print_table([result])
    return result


def write_model(
    folder: Path, task: Task, runs: list[Trained], result: dict[str, Any], options: FinetuneOptions, session: Record
) -> None:
    """Model of the seed that is kept, tokenizer as it was, predictions, figures, record."""
    kept = best_of(runs)
    kept.model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (options.model / name).is_file():
            shutil.copyfile(options.model / name, folder / name)
    for split, outputs in kept.outputs.items():
        lines = (f"{number}\t{answer}" for number, answer in enumerate(task.answers(outputs)))
        write_text(folder / f"predictions_{split}.tsv", "\n".join(["index\tprediction", *lines]) + "\n")
    write_json(folder / RESULTS, result)
    record_of = {
        source: record_dataset(named_split(source, split)) if source.startswith(HF) else record_file(source)
        for split, source in task.sources.items()
    }
    record = new_record(
        "finetune",
        (options.output / task.name).absolute(),
        dict(session),
        options={name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()},
        parents=[parent("model", options.model, "model.safetensors")],
        inputs=record_of.values(),
    )
    close_session(record, 0, record_outputs(folder, sorted(path.name for path in folder.iterdir())))
    write_record(folder, record)


def best_of(runs: list[Trained]) -> Trained:
    return max(runs, key=lambda run: run.scores["validation"]["score"])


def summarize(task: Task, runs: list[Trained]) -> dict[str, Any]:
    """Content of results.json: figures of each seed, mean and standard deviation over seeds (None for one)."""
    splits = {
        split: {
            name: {
                "mean": statistics.mean(values),
                "std": statistics.stdev(values) if len(values) > 1 else None,
            }
            for name in runs[0].scores[split]
            if (values := [run.scores[split][name] for run in runs])
        }
        for split in runs[0].scores
    }
    seeds = [{"seed": run.seed, "epoch": run.epoch, "scores": run.scores} for run in runs]
    return {"task": task.name, "rows": {name: len(rows) for name, rows in task.splits.items()}} | {
        "kept_seed": best_of(runs).seed,
        "scores": splits,
        "seeds": seeds,
    }


def print_table(results: list[dict[str, Any]]) -> None:
    """A row for each figure of each split: mean and standard deviation over the seeds."""
    table = Table("task", "split", "rows", "figure", "mean", "std", "seeds")
    for result in results:
        for split, figures in result["scores"].items():
            for name, figure in figures.items():
                deviation = "" if figure["std"] is None else f"{figure['std']:.4f}"
                cells = result["task"], split, f"{result['rows'][split]:,}", name, f"{figure['mean']:.4f}", deviation
                table.add_row(*cells, str(len(result["seeds"])))
    Console().print(table)
