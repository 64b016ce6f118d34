"""Classes or numbers for a text or a pair of texts."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from downstream.finetune_options import FinetuneOptions
from downstream.glue import GLUE, read_glue
from downstream.held_out import draw_held_out, separate
from downstream.labelled import Columns, Labelled, Reading, read_labelled
from downstream.scores import classification_scores, is_constant, regression_scores
from downstream.task import Scores, Task, as_table, records_of
from tokenizer.errors import UserError


def build(options: FinetuneOptions, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, private: bool) -> Iterator[Task]:
    """See `downstream.tasks.Build`."""
    regression = options.task == "regression"
    figures = ("pearson", "spearman") if regression else ("accuracy",)
    yield build_task("", read_parts(options, private=private), tokenizer, max_seq_length, figures, regression=regression)


def build_glue(options: FinetuneOptions, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, private: bool) -> Iterator[Task]:
    """See `downstream.tasks.Build`."""
    for name, parts in read_glue(options, private=private).items():
        yield build_task(name, parts, tokenizer, max_seq_length, GLUE[name].figures, regression=GLUE[name].regression)


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


def build_task(
    name: str,
    parts: dict[str, Labelled],
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int,
    figures: tuple[str, ...],
    *,
    regression: bool,
) -> Task:
    """figures: those whose mean is the score.

    Raises:
        UserError: a label is missing, or not as it should be.
    """
    labelled = {split: part.labels() for split, part in parts.items() if part.columns.label}
    if regression:
        config: dict[str, Any] = {"num_labels": 1, "problem_type": "regression"}
        values = {split: to_numbers(labels, parts[split]) for split, labels in labelled.items()}
        scores, answers = regression_scores, lambda outputs: [round(value, 4) for value in outputs.reshape(-1).tolist()]
    else:
        classes = sorted(set(labelled["train"]), key=in_order)
        number_of = number_classes(classes, labelled, parts)
        config = {"num_labels": len(classes), "id2label": dict(enumerate(classes)), "label2id": number_of}
        config["problem_type"] = "single_label_classification"
        values = {split: [number_of[label] for label in labels] for split, labels in labelled.items()}
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
        is_constant=lambda outputs, labels: not regression and is_constant(outputs.argmax(-1), labels),
    )


def number_classes(classes: list[str], labelled: dict[str, list[str]], parts: dict[str, Labelled]) -> dict[str, int]:
    """Raises a UserError where there is one class alone, or a split has a label that `train` has not."""
    quote = parts["train"].reading.quote
    if len(classes) < 2:
        raise UserError(f"{parts['train'].source}: all rows have the same label ({quote(classes)}); there is nothing to learn.")
    for split, labels in labelled.items():
        if unknown := sorted(set(labels) - set(classes)):
            raise UserError(f"{parts[split].source}: has labels that --train does not have ({quote(unknown)}).")
    return {label: number for number, label in enumerate(classes)}


def to_numbers(labels: list[str], part: Labelled) -> list[float]:
    numbers = []
    for row, label in enumerate(labels, 1):
        try:
            number = float(label)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            words = part.reading.quote([label])
            raise UserError(f"{part.source}, row {row}: expected a number to predict ({words}). Classes: --task classification.")
        numbers.append(number)
    return numbers


def with_mean(scores: Callable[[np.ndarray, np.ndarray], Scores], figures: tuple[str, ...]) -> Callable[..., Scores]:
    """`score` beside the others: the mean of `figures`."""

    def score(split: str, outputs: np.ndarray, labels: np.ndarray, validation: Scores | None) -> Scores:
        found = scores(outputs, labels)
        return {"score": float(np.mean([found[name] for name in figures]))} | found

    return score


def in_order(label: str) -> tuple[int, Any]:
    """Numbers by their value, before all else; then by how they are written."""
    if not label.isdecimal():
        return 1, label
    digits = "".join(str(int(digit)) for digit in label).lstrip("0")
    return 0, (len(digits), digits, label)  # as by int(), which refuses very long ones
