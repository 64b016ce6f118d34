"""What fine-tuning needs to know of a task; `downstream.train` takes it from there."""

from collections.abc import Callable, Iterable, Mapping
from itertools import count
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from downstream.contexts import Features
from tokenizer.provenance import Record

Scores = dict[str, float]
Arrays = np.ndarray | tuple[np.ndarray, ...]
"""Of all features of a split, in their order: what the model gives, or its labels, each padded with -100 to the longest feature."""


class Task(NamedTuple):
    """A task made ready for one model."""

    name: str
    """Of its folder in the output; empty where the output is this task's alone."""
    splits: dict[str, Dataset | Features]
    """Features, as the model takes them: `train`, `validation`, and those that are looked at afterwards, such as `test`; with
    labels where there are any."""
    num_rows: dict[str, int]
    """Of each split as it was read; a row may have several features."""
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    """Some features -> a batch."""
    inputs: list[Record]
    """What was read, for provenance.json."""
    auto_class: str
    """Class of transformers that makes the model, with a new head."""
    config: dict[str, Any]
    """Fields of the model's config: labels and kind of problem."""
    score: Callable[[str, Arrays, Arrays, Scores | None], Scores]
    """Name of a split, its outputs and labels, and what the same weights scored on `validation` (None for `validation` itself)
    -> figures by name; by `score`, the higher the better, epochs and seeds are chosen."""
    predictions: Callable[[str, Arrays, Scores], dict[str, str]]
    """Name of a split, its outputs, and what the same weights scored on `validation` -> files by name, predictions_SPLIT first."""
    is_constant: Callable[[Arrays, Arrays], bool] = lambda outputs, labels: False
    """Outputs of `validation` and its labels -> whether all get the same class, though there are several."""
    wrap: Callable[[PreTrainedModel], torch.nn.Module] = lambda model: model
    """The model -> what Trainer trains, which holds it; the model alone is saved."""
    reduce: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor] | None = None
    """Outputs and labels of a batch -> what is kept of the outputs."""
    files: Mapping[str, str] = MappingProxyType({})
    """Written beside the model: content by name."""


def records_of(parts: Mapping[str, Any]) -> list[Record]:
    """parts: splits as they were read, each with `source` and `record`. A source that gave several is named once."""
    return list({part.source: part.record for part in parts.values()}.values())


def as_table(split: str, answers: Iterable[Any], names: Iterable[Any] | None = None) -> dict[str, str]:
    """A prediction for each row -> predictions_SPLIT.tsv. names: of the rows; by default they are counted from 0."""
    lines = (f"{name}\t{answer}" for name, answer in zip(names or count(), answers, strict=False))
    return {f"predictions_{split}.tsv": "\n".join(["index\tprediction", *lines]) + "\n"}
