"""By what each `--task` is built."""

from collections.abc import Callable, Iterator

from transformers import PreTrainedTokenizerBase

from downstream import classification, multiple_choice, question_answering, similarity, token_classification
from downstream.finetune_options import FinetuneOptions, Kind
from downstream.task import Task

Build = Callable[[FinetuneOptions, PreTrainedTokenizerBase, int, bool], Iterator[Task]]
"""Options, tokenizer, pieces of a feature at most, and whether no error may quote what a file holds -> tasks, each encoded when its
turn comes; all files are read before the first.

Raises:
    UserError: a file or a label is not as it should be.
"""

BUILD: dict[Kind, Build] = {
    "classification": classification.build,
    "regression": classification.build,
    "similarity": similarity.build,
    "token_classification": token_classification.build,
    "glue": classification.build_glue,
    "question_answering": question_answering.build,
    "multiple_choice": multiple_choice.build,
}
