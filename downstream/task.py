"""What fine-tuning needs to know of a task; `downstream.train` takes it from there."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from tokenizer.provenance import Record

Scores = dict[str, float]


class Task(NamedTuple):
    """A task made ready for one model."""

    name: str
    """Of its folder in the output; empty where the output is this task's alone."""
    tokenizer: PreTrainedTokenizerBase
    splits: dict[str, Dataset]
    """Encoded: `train`, `validation`, and those that are looked at afterwards, such as `test`; `labels` where there are any."""
    inputs: list[Record]
    """What was read, for provenance.json."""
    auto_class: str
    """Class of transformers that makes the model, with a new head."""
    config: dict[str, Any]
    """Fields of the model's config: labels and kind of problem."""
    score: Callable[[np.ndarray, np.ndarray], Scores]
    """Outputs and labels of a split -> figures by name; by `score`, the higher the better, epochs and seeds are chosen."""
    answers: Callable[[np.ndarray], list[Any]]
    """Outputs -> a prediction for each row, for predictions_SPLIT.tsv."""
