"""GLUE as it is published (Wang et al., arXiv 1804.07461): a folder for each task, tab-separated, each with columns of its own."""

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from downstream.finetune_options import FinetuneOptions
from downstream.labelled import Columns, Labelled, read_labelled
from downstream.text_files import Reading
from tokenizer.errors import UserError


class GlueTask(NamedTuple):
    """Where a task keeps what, and the figures whose mean is its score."""

    text: str
    text_pair: str | None
    label: str
    figures: tuple[str, ...] = ("accuracy",)
    regression: bool = False
    header: tuple[str, ...] = ()
    """Names of the columns of train.tsv and dev.tsv where they have no header line."""
    validation: str = "dev"
    more: tuple[str, ...] = ("test",)
    """Files that are looked at, if they are there, after the training."""


GLUE = {
    "CoLA": GlueTask("sentence", None, "label", ("matthews",), header=("source", "label", "mark", "sentence")),
    "SST-2": GlueTask("sentence", None, "label"),
    "MRPC": GlueTask("#1 String", "#2 String", "Quality", ("accuracy", "f1")),
    "QQP": GlueTask("question1", "question2", "is_duplicate", ("accuracy", "f1")),
    "STS-B": GlueTask("sentence1", "sentence2", "score", ("pearson", "spearman"), regression=True),
    "MNLI": GlueTask(
        "sentence1", "sentence2", "gold_label", validation="dev_matched", more=("dev_mismatched", "test_matched", "test_mismatched")
    ),
    "QNLI": GlueTask("question", "sentence", "label"),
    "RTE": GlueTask("sentence1", "sentence2", "label"),
    "WNLI": GlueTask("sentence1", "sentence2", "label"),
}


SCORED = ("validation", "dev_mismatched")
"""Splits whose mean is a task's score: of MNLI both count as one task on GLUE's leaderboard."""


def scores_of_seeds(results: Iterable[dict[str, Any]]) -> list[float]:
    """For each seed that all tasks have done the mean over tasks, each by its score, as GLUE counts it: a task with several figures
    by their mean. results: as in results.json, of each task."""
    by_task = ([score_of(seed["scores"]) for seed in result["seeds"]] for result in results)
    return [statistics.mean(scores) for scores in zip(*by_task, strict=False)]


def score_of(scores: dict[str, dict[str, float]]) -> float:
    return statistics.mean(scores[split]["score"] for split in SCORED if split in scores)


def read_glue(options: FinetuneOptions, *, private: bool) -> dict[str, dict[str, Labelled]]:
    """The parts of every task whose folder is there.

    Raises:
        UserError: none is, or a file is not as published.
    """
    folder = options.glue_folder
    there = [name for name in GLUE if (folder / name / "train.tsv").is_file()]
    if not there:
        raise UserError(f"--glue_folder {folder}: expected train.tsv in one or more of {', '.join(GLUE)}.")
    return {name: read_glue_task(GLUE[name], folder / name, options.on_error, private=private) for name in there}


def read_glue_task(task: GlueTask, folder: Path, on_error: str, *, private: bool) -> dict[str, Labelled]:
    files = {"train": "train", "validation": task.validation}
    files |= {file: file for file in task.more if (folder / f"{file}.tsv").is_file()}
    wanted, parts = Columns(task.text, task.text_pair, task.label), {}
    for split, file in files.items():
        trains = split in ("train", "validation")
        reading = Reading(task.header if trains else (), on_error, private)
        parts[split] = read_labelled(str(folder / f"{file}.tsv"), split, wanted, reading, labelled=trains)
    print(f"{folder.name}: {', '.join(f'{len(part.rows):,} {split}' for split, part in parts.items())}")
    return parts
