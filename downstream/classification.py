"""Classes or numbers for a text or a pair of texts."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from downstream.finetune_options import FinetuneOptions
from downstream.labelled import Columns, Labelled, read_labelled
from downstream.scores import classification_scores, regression_scores
from downstream.task import Scores, Task
from tokenizer.errors import UserError

HELD_OUT = 10
"""One of so many rows of --train, where there is no --validation."""


def make_task(options: FinetuneOptions, tokenizer: PreTrainedTokenizerBase) -> Task:
    """From --train, --validation and --test.

    Raises:
        UserError: a file, a column or a label is not as it should be.
    """
    wanted, how = Columns(options.text, options.text_pair, options.label), {"names": options.columns, "on_error": options.on_error}
    parts = {
        split: read_labelled(source, split, wanted, labelled=split != "test", **how)
        for split in ("train", "validation", "test")
        if (source := getattr(options, split))
    }
    columns = parts["train"].columns
    print(f"text: {columns.text}, {f'pair: {columns.text_pair}, ' if columns.text_pair else ''}label: {columns.label}")
    if "validation" not in parts:
        parts |= hold_out(parts["train"], options.seed)
        print(f"validation: {len(parts['validation'].rows):,} of the rows of --train, held out")
    figures = ("pearson", "spearman") if options.task == "regression" else ("accuracy",)
    return build_task("", parts, tokenizer, options.max_seq_length, figures, regression=options.task == "regression")


def hold_out(train: Labelled, seed: int) -> dict[str, Labelled]:
    """`train` and `validation` from one."""
    chosen = set(np.random.default_rng(seed).permutation(len(train.rows))[: len(train.rows) // HELD_OUT].tolist())
    if not chosen:
        raise UserError(f"{train.source}: {len(train.rows)} rows are too few to hold a tenth out; give --validation.")
    return {
        split: train._replace(rows=[row for number, row in enumerate(train.rows) if (number in chosen) == held_out])
        for split, held_out in (("train", False), ("validation", True))
    }


def build_task(
    name: str,
    parts: dict[str, Labelled],
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int | None,
    figures: tuple[str, ...],
    *,
    regression: bool,
) -> Task:
    """figures: those whose mean is the score. Raises as `make_task`."""
    labelled = {split: part.labels() for split, part in parts.items() if part.columns.label}
    if regression:
        config: dict[str, Any] = {"num_labels": 1, "problem_type": "regression"}
        values = {split: [to_number(label, parts[split].source) for label in labels] for split, labels in labelled.items()}
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
        tokenizer=tokenizer,
        splits=splits,
        sources={split: part.source for split, part in parts.items()},
        auto_class="AutoModelForSequenceClassification",
        config=config,
        score=with_mean(scores, figures),
        answers=answers,
    )


def number_classes(classes: list[str], labelled: dict[str, list[str]], parts: dict[str, Labelled]) -> dict[str, int]:
    """Raises a UserError where there is one class alone, or a split has a label that `train` has not."""
    if len(classes) < 2:
        raise UserError(f"{parts['train'].source}: all rows have the label {classes[0]!r}; there is nothing to learn.")
    for split, labels in labelled.items():
        if unknown := sorted(set(labels) - set(classes)):
            raise UserError(f"{parts[split].source}: has labels that --train does not have: {', '.join(unknown[:5])}.")
    return {label: number for number, label in enumerate(classes)}


def with_mean(scores: Callable[[np.ndarray, np.ndarray], Scores], figures: tuple[str, ...]) -> Callable[..., Scores]:
    """`score` beside the others: the mean of `figures`."""

    def score(outputs: np.ndarray, labels: np.ndarray) -> Scores:
        found = scores(outputs, labels)
        return {"score": float(np.mean([found[name] for name in figures]))} | found

    return score


def to_number(label: str, source: str) -> float:
    try:
        value = float(label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{source}: expected numbers to predict, found {label!r}. Classes need --task classification.")
    return value


def in_order(label: str) -> tuple[int, Any]:
    """Numbers by their value, before all else."""
    return (0, int(label)) if label.isdecimal() else (1, label)
