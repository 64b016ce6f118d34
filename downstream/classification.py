"""Classes or numbers for a text or a pair of texts."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from downstream.finetune_options import FinetuneOptions
from downstream.glue import GLUE, read_glue
from downstream.held_out import draw_held_out, separate
from downstream.labelled import Columns, Labelled, read_labelled
from downstream.scores import classification_scores, is_constant, regression_scores
from downstream.task import Scores, Task, as_table, records_of
from downstream.text_files import Reading
from tokenizer.errors import UserError


class Targets(NamedTuple):
    """What is to be learnt, of each split that has labels."""

    values: dict[str, list[Any]]
    """Numbers of classes, or the numbers to predict."""
    classes: list[str] | None
    """By their numbers; None for regression."""


def build(options: FinetuneOptions, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, private: bool) -> Iterator[Task]:
    """See `downstream.tasks.Build`."""
    regression = options.task == "regression"
    figures = ("pearson", "spearman") if regression else ("accuracy",)
    parts = read_parts(options, private=private)
    yield build_task("", parts, find_targets("", parts, regression=regression), tokenizer, max_seq_length, figures)


def build_glue(options: FinetuneOptions, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, private: bool) -> Iterator[Task]:
    """See `downstream.tasks.Build`. No task is trained before the labels of all are checked."""
    tasks = read_glue(options, private=private)
    targets = {name: find_targets(name, parts, regression=GLUE[name].regression) for name, parts in tasks.items()}
    for name, parts in tasks.items():
        yield build_task(name, parts, targets[name], tokenizer, max_seq_length, GLUE[name].figures)


def read_parts(options: FinetuneOptions, *, private: bool) -> dict[str, Labelled]:
    """`train` if there is one, `validation` and maybe `test`; the columns of the first hold for all.

    Raises:
        UserError: a file or a column is not as it should be.
    """
    reading = Reading(options.columns, options.on_error, private)
    wanted = Columns(options.text, options.text_pair, options.label)
    parts = {}
    if options.train:
        parts["train"] = read_labelled(options.train, "train", wanted, reading, labelled=True)
        wanted = parts["train"].columns
        if options.task == "classification":
            tell_numbers(parts["train"])
    if options.validation:
        parts["validation"] = read_labelled(
            options.validation, "validation", wanted, reading, labelled=True, decided=bool(options.train)
        )
    else:
        parts |= hold_out(parts["train"], options.seed, keep_labels=options.task == "classification")
        print(f"validation: {len(parts['validation'].rows):,} of the rows of --train, held out")
    columns = next(iter(parts.values())).columns
    print(f"text: {columns.text}, {f'pair: {columns.text_pair}, ' if columns.text_pair else ''}label: {columns.label}")
    if options.test:
        parts["test"] = read_labelled(options.test, "test", columns, reading, labelled=False, decided=True)
    return parts


def hold_out(train: Labelled, seed: int, *, keep_labels: bool) -> dict[str, Labelled]:
    """`train` and `validation` from one. keep_labels: no label's last row is held out."""
    labels = train.labels()
    if not keep_labels:
        to_numbers(labels, train)  # while rows have the numbers that they have in the file
    chosen = draw_held_out(len(labels), seed, train.source, "rows", labels if keep_labels else None)
    rows = separate(train.rows, (number in chosen for number in range(len(labels))))
    return {split: train._replace(rows=found) for split, found in rows.items()}


def find_targets(name: str, parts: dict[str, Labelled], *, regression: bool) -> Targets:
    """name: of the task, for the line that tells the classes.

    Raises:
        UserError: a label is missing, or not as it should be.
    """
    labelled = {split: part.labels() for split, part in parts.items() if part.columns.label}
    if regression:
        return Targets({split: to_numbers(labels, parts[split]) for split, labels in labelled.items()}, None)
    classes = sorted(set(labelled["train"]), key=in_order)
    check_classes(classes, labelled, parts)
    tell_classes(name, classes, parts["train"])
    number_of = {label: number for number, label in enumerate(classes)}
    return Targets({split: [number_of[label] for label in labels] for split, labels in labelled.items()}, classes)


def build_task(
    name: str,
    parts: dict[str, Labelled],
    targets: Targets,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int,
    figures: tuple[str, ...],
) -> Task:
    """figures: those whose mean is the score."""
    values, classes = targets
    if classes is None:
        config: dict[str, Any] = {"num_labels": 1, "problem_type": "regression"}
        scores, answers = regression_scores, lambda outputs: [round(value, 4) for value in outputs.reshape(-1).tolist()]
    else:
        number_of = {label: number for number, label in enumerate(classes)}
        config = {"num_labels": len(classes), "id2label": dict(enumerate(classes)), "label2id": number_of}
        config["problem_type"] = "single_label_classification"
        scores, answers = classification_scores, lambda outputs: [classes[number] for number in outputs.argmax(-1)]
    splits = {}
    for split, part in parts.items():
        encoded = tokenizer(*part.texts(), truncation=True, max_length=max_seq_length)
        splits[split] = Dataset.from_dict(dict(encoded) | ({"labels": values[split]} if split in values else {}))
    return Task(
        name=name,
        splits=splits,
        num_rows={split: len(part.rows) for split, part in parts.items()},
        collate=DataCollatorWithPadding(tokenizer),
        inputs=records_of(parts),
        auto_class="AutoModelForSequenceClassification",
        config=config,
        score=with_mean(scores, figures),
        predictions=lambda split, outputs, _: as_table(split, answers(outputs)),
        is_constant=lambda outputs, labels: classes is not None and is_constant(outputs.argmax(-1), labels),
    )


def check_classes(classes: list[str], labelled: dict[str, list[str]], parts: dict[str, Labelled]) -> None:
    """Raises a UserError where there is one class alone, or a split has a label that `train` has not."""
    quote = parts["train"].reading.quote
    if len(classes) < 2:
        raise UserError(f"{parts['train'].source}: all rows have the same label ({quote(classes)}); there is nothing to learn.")
    for split, labels in labelled.items():
        if unknown := sorted(set(labels) - set(classes)):
            raise UserError(f"{parts[split].source}: has labels that --train does not have ({quote(unknown)}).")


def tell_classes(name: str, classes: list[str], train: Labelled) -> None:
    """Which there are, which of them F1 is of, and that -1, where all are whole numbers, may be the sign of a missing label, as in
    the datasets of SNLI and GLUE."""
    f1 = "f1 is that of the second" if len(classes) == 2 else "f1 is the mean over them"
    print(f"{name and f'{name}: '}{len(classes)} classes ({train.reading.quote(classes)}); {f1}")
    values = [as_decimal(label) for label in classes]
    if values[0] == -1 and are_whole(values):
        print(f"{train.source}: one class is -1. If it stands for no label, empty it there and give --on_error skip.")


def tell_numbers(train: Labelled) -> None:
    """Print that labels look like numbers to predict: all are numbers, and some no whole ones.

    Raises:
        UserError: they do, and most have one row each, from which nothing is learnt of a class.
    """
    rows_of = Counter(train.labels())
    different = sorted(rows_of, key=in_order)
    values = [as_decimal(label) for label in different]
    if None in values or are_whole(values):
        return
    told = f"{train.source}: the labels are numbers ({train.reading.quote(different)})"
    if list(rows_of.values()).count(1) > len(different) / 2:
        raise UserError(f"{told}, and most have a row each. For a number to predict give --task regression.")
    print(f"{told}, here {len(different):,} classes. For a number to predict give --task regression.")


def to_numbers(labels: list[str], part: Labelled) -> list[float]:
    numbers = []
    for row, label in enumerate(labels, 1):
        try:
            number = float(label)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            words = part.reading.quote([label])
            where = f", row {row}" if part.reading.on_error != "skip" else ""  # rows that were left out count in the file
            raise UserError(f"{part.source}{where}: expected a number to predict ({words}). Classes: --task classification.")
        numbers.append(number)
    return numbers


def with_mean(scores: Callable[[np.ndarray, np.ndarray], Scores], figures: tuple[str, ...]) -> Callable[..., Scores]:
    """`score` beside the others: the mean of `figures`."""

    def score(split: str, outputs: np.ndarray, labels: np.ndarray, validation: Scores | None) -> Scores:
        found = scores(outputs, labels)
        return {"score": float(np.mean([found[name] for name in figures]))} | found

    return score


def in_order(label: str) -> tuple[bool, Decimal, str]:
    """Numbers by their value, before all else; then by how they are written."""
    number = as_decimal(label)
    return number is None, number or Decimal(0), label


def are_whole(values: list[Decimal | None]) -> bool:
    return all(value is not None and value == value.to_integral_value() for value in values)


def as_decimal(label: str) -> Decimal | None:
    """Exact, of any length, which a float is not and `int` refuses; None where it is none, or not finite."""
    try:
        number = Decimal(label)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
