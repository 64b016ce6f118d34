"""`albert finetune`: an exported encoder and labelled text -> a model for `transformers.pipeline`, and how good it is.

Several seeds give a mean and a standard deviation; the model that is kept is that of the seed with the best validation score. After
each seed the folder is written anew, so that what stops a later one costs that one alone; before that, after each better epoch.
"""

import json
import re
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from downstream.finetune_options import FinetuneOptions
from downstream.glue import GLUE, scores_of_seeds
from tokenizer.errors import UserError
from tokenizer.files import check_output_folder, disk_errors, replace_folder, write_json, write_text
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
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "spiece.model",
    "vocab.txt",  # WordPiece, as many Chinese ALBERTs have it
)
"""What a tokenizer is made of, as far as it is there."""
CONTENT = "|".join(map(re.escape, ("config.json", "model.safetensors", *TOKENIZER_FILES, RESULTS, PROVENANCE_NAME)))
CONTENT += r"|(predictions|na_prob)_(test|dev_mismatched|test_matched|test_mismatched)\.(tsv|json|conll)"
CONTENT += r"|modules\.json|sentence_bert_config\.json|1_Pooling"
"""Regular expression of the names in a folder with a fine-tuned model."""
GLUE_CONTENT = "|".join((re.escape(RESULTS), *GLUE, *(rf"\.{name}\.(tmp|old)-[0-9a-f]+" for name in GLUE)))
"""The same of a folder with those of GLUE's tasks; one that was killed may have left a part."""


def finetune(options: FinetuneOptions) -> None:
    """Train with each seed, write the folder, print the table.

    Raises:
        UserError: an option, a file or a label is not as it should be, or a library of the extra `finetune` is missing.
    """
    options.check()
    is_glue, session = options.task == "glue", open_session()
    content = GLUE_CONTENT if is_glue else CONTENT
    check_output_folder(options.output, marker=RESULTS, what="fine-tuned model", content=content, in_place=is_glue)
    private = is_private_tokenizer(options.model)
    with words_withheld(private):
        refuse_missing_libraries("transformers", "accelerate", "sklearn", "scipy", "seqeval")
        results = []
        for task in read_tasks(options, private=private):
            if is_glue and not (options.output / RESULTS).exists():  # the mark of its folder, should the first task be killed
                write_results(options.output, over_tasks(results))
            for result in run_seeds(task, options, session):
                if is_glue:
                    write_results(options.output, over_tasks([*results, result]))
            results.append(result)
            print_table(results[-1:])
            tell_constant(results[-1], options)
    if is_glue:
        print_table(results, over_tasks(results)["score"])
    print(f"written to {options.output}")


def over_tasks(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Content of results.json of GLUE: that of each task, in GLUE's order, and the mean over them."""
    scores = scores_of_seeds(results)
    return {"score": spread(scores) if scores else None, "tasks": results}


def write_results(folder: Path, results: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RESULTS, results)


def refuse_missing_libraries(*names: str) -> None:
    if missing := [name for name in names if find_spec(name) is None]:
        raise UserError(f"{', '.join(missing)} cannot be imported: pip install 'albert-pretraining[finetune]'")


def read_tasks(options: FinetuneOptions, *, private: bool) -> "Iterator[Task]":
    """Those that were asked for.

    Raises:
        UserError: as `downstream.hf_folder.open_tokenizer`, `check_device` and `downstream.tasks.Build`.
    """
    from downstream.hf_folder import open_tokenizer
    from downstream.tasks import BUILD
    from downstream.train import check_device

    check_device(options.device, options.dtype)
    tokenizer, positions = open_tokenizer(options.model)
    if options.max_seq_length is not None and options.max_seq_length > positions:
        raise UserError(f"--max_seq_length {options.max_seq_length}: the model takes {positions} pieces at most.")
    yield from BUILD[options.task](options, tokenizer, options.max_seq_length or positions, private)


def run_seeds(task: "Task", options: FinetuneOptions, session: Record) -> Iterator[dict[str, Any]]:
    """After each seed the content of results.json, which lies in the task's folder with the best model so far."""
    from downstream.train import train

    runs, output = [], options.output / task.name
    keeps_epochs = not has_seeds(output)

    def write(tried: "list[Trained]", num_done: int) -> dict[str, Any]:
        result = summarize(task, tried, options, num_done)
        with replace_folder(output) as temporary:
            write_model(temporary, task, best_of(tried), result, options, session)
        return result

    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seed, options.seed + options.num_seeds):
            keep = (lambda run: write([run], 0)) if keeps_epochs and not runs else None  # no epoch replaces a seed that is done
            runs.append(train(task, options, seed, Path(folder), keep))
            kept = best_of(runs)
            runs = [run if run is kept else run._replace(model=None, outputs={}) for run in runs]  # one model in memory
            result = write(runs, len(runs))
            if options.num_seeds > 1:
                print(f"{len(runs)} of {options.num_seeds} seeds are in {output}", flush=True)
            yield result


def has_seeds(folder: Path) -> bool:
    """Whether a former command's model is there, of a seed that was done."""
    try:
        return json.loads((folder / RESULTS).read_text(encoding="utf-8"))["num_seeds_done"] > 0
    except FileNotFoundError:
        return False
    except (ValueError, LookupError, TypeError):  # who knows what it is of
        return True


def write_model(
    folder: Path, task: "Task", kept: "Trained", result: dict[str, Any], options: FinetuneOptions, session: Record
) -> None:
    """Model, tokenizer as it was, predictions, figures, record."""
    with disk_errors(folder / "model.safetensors"):
        kept.model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        if (options.model / name).is_file():
            shutil.copyfile(options.model / name, folder / name)
    for split, outputs in kept.outputs.items():
        for name, text in task.predictions(split, outputs, kept.scores["validation"]).items():
            write_text(folder / name, text)
    for name, text in task.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_text(folder / name, text)
    write_json(folder / RESULTS, result)
    record = new_record(
        "finetune",
        (options.output / task.name).absolute(),
        dict(session),
        options={name: str(value) if isinstance(value, Path) else value for name, value in asdict(options).items()},
        parents=[parent("model", options.model, "model.safetensors")],
        inputs=task.inputs,
    )
    outputs = record_outputs(folder, sorted(str(path.relative_to(folder)) for path in folder.rglob("*")))
    if result["num_seeds_done"]:
        close_session(record, 0, outputs)
    else:  # it goes on
        record["outputs"] = list(outputs)
    write_record(folder, record)


def best_of(runs: "list[Trained]") -> "Trained":
    return max(runs, key=lambda run: run.scores["validation"]["score"])


def summarize(task: "Task", runs: "list[Trained]", options: FinetuneOptions, num_done: int) -> dict[str, Any]:
    """Content of results.json: figures of each seed, and their spread. num_done: seeds that are through, 0 in the first."""
    splits = {
        split: {name: spread([run.scores[split][name] for run in runs]) for name in figures}
        for split, figures in runs[0].scores.items()
    }
    kept = best_of(runs)
    seeds = [{"seed": run.seed, "epoch": run.epoch, "constant": run.constant, "scores": run.scores} for run in runs]
    return {"task": task.name or options.task, "rows": task.num_rows} | {
        "num_seeds": options.num_seeds,
        "num_seeds_done": num_done,
        "kept_seed": kept.seed,
        "kept_scores": kept.scores,
        "scores": splits,
        "seeds": seeds,
    }


def spread(values: list[float]) -> dict[str, float | None]:
    """Mean and standard deviation over seeds, None for one seed."""
    return {"mean": statistics.mean(values), "std": statistics.stdev(values) if len(values) > 1 else None}


def print_table(results: list[dict[str, Any]], score: dict[str, float | None] | None = None) -> None:
    """A row for each figure of each split: mean and standard deviation over the seeds. score: over the tasks, for a row below."""
    of_glue = results[0]["task"] in GLUE
    table = Table(*(["task"] if of_glue else []), "split", "rows", "figure", "mean", "std", "seeds")
    for result in results:
        for split, figures in result["scores"].items():
            for name, figure in figures.items():
                cells = split, f"{result['rows'][split]:,}", name, *as_cells(figure), str(len(result["seeds"]))
                table.add_row(*([result["task"]] if of_glue else []), *cells)
    if score:
        table.add_section()
        table.add_row(f"all {len(results)}", "validation", "", "score", *as_cells(score), str(len(results[0]["seeds"])))
    Console().print(table)


def as_cells(figure: dict[str, float | None]) -> tuple[str, str]:
    return f"{figure['mean']:.4f}", "" if figure["std"] is None else f"{figure['std']:.4f}"


def tell_constant(result: dict[str, Any], options: FinetuneOptions) -> None:
    """Print which seeds, if any, gave all validation rows the same class, and what to do about it."""
    if seeds := [each["seed"] for each in result["seeds"] if each["constant"]]:
        way = "higher" if options.learning_rate < 1e-3 else "lower"
        print(
            f"{result['task']}, seed {', '.join(map(str, seeds))}: the model gives all validation rows the same class; "
            f"it has learnt nothing beyond the most frequent one. Give a {way} --learning_rate "
            f"(now {options.learning_rate:g}; small models want 2e-4 to 1e-3) or more --epochs and --patience "
            f"(now {options.epochs} and {options.patience})."
        )
