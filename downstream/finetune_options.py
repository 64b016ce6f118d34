"""Options of `albert finetune`. No heavy import: the command line is built from this dataclass."""

import math
import os
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Literal

from tokenizer.errors import UserError

Kind = Literal[
    "classification", "regression", "similarity", "token_classification", "glue", "question_answering", "multiple_choice"
]

COLUMNS_OF = ("classification", "regression", "similarity", "token_classification")
ONLY_FOR: dict[str, tuple[Kind, ...]] = {
    "glue_folder": ("glue",),
    "text": COLUMNS_OF,
    "text_pair": ("classification", "regression", "similarity"),
    "label": COLUMNS_OF,
    "columns": COLUMNS_OF,
    "on_error": (*COLUMNS_OF, "glue", "question_answering"),
    "doc_stride": ("question_answering",),
    "max_answer_length": ("question_answering",),
}
"""Options that go with some tasks alone."""


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """Options of `albert finetune`."""

    model: Path
    """Folder that `albert export` wrote, or any Hugging Face ALBERT folder with safetensors."""
    output: Path
    """Folder to write: the fine-tuned model of the best seed, which loads in `transformers`, and results.json."""
    task: Kind = "classification"
    """`classification` or `regression` of a text or a pair of texts; `similarity` of two texts by the cosine of their embeddings;
    `token_classification`: a tag for each word; `glue`: all of its tasks that --glue_folder holds; `question_answering` as in
    SQuAD, v1.1 or v2.0; `multiple_choice` as in RACE."""
    train: str | None = None
    """Labelled texts: a .tsv, .csv or .jsonl file in UTF-8, maybe .gz, or hf:NAME[:CONFIG[:SPLIT]] for a dataset of `datasets`. A
    .tsv is read without quoting, as those of GLUE are, so quotes stay in its texts; a .csv is read with quoting, as spreadsheets
    and pandas write it. Of token_classification: a CoNLL file (of any other ending), or .jsonl or a dataset with a list of words
    and one of tags in each row. Of question_answering: the .json of SQuAD, maybe .gz. Of multiple_choice: a folder as RACE/train,
    or a .jsonl file, maybe .gz."""
    validation: str | None = None
    """As --train, to choose the best epoch by; default: a tenth of --train, drawn with --seed (of questions: of their contexts)."""
    test: str | None = None
    """As --train, looked at once, after the training; where no row has a label there are no figures. Its predictions are written
    to predictions_test.tsv, of question_answering to predictions_test.json, of token_classification to predictions_test.conll."""
    glue_folder: Path | None = None
    """For --task glue: a folder with CoLA, SST-2, MRPC and so on, each with train.tsv, dev.tsv and maybe test.tsv."""
    text: str | None = None
    """Column of the text; default: the first of text, sentence, sentence1, question, question1, premise that is there.
    Of words in a CoNLL file: its number, from 1, or its name in --columns; default: the first. In rows: tokens, or words."""
    text_pair: str | None = None
    """Column of the second text; default: text_pair, sentence2, question2, hypothesis, or none of them."""
    label: str | None = None
    """Column of the label or the number to predict; default: label, or score.
    Of tags in a CoNLL file: its number or name; default: the last. In rows: tags, ner_tags, pos_tags, upos, or labels."""
    columns: list[str] = field(default_factory=list)
    """Names of the columns of .tsv and .csv files without a header line, and of CoNLL files."""
    on_error: Literal["stop", "skip"] = "stop"
    """`skip` leaves out rows of a .tsv or .csv file with another number of columns than its header or misplaced quotes, and rows
    without a label or tags, but not of --test, whose predictions go by the number of the row; sentences of a CoNLL file with such
    lines; questions for training whose answer is not at answer_start. It counts them."""
    num_seeds: int = 1
    """Runs with seeds of their own (head, order, dropout); several give a mean and a standard deviation."""
    seed: int = 0
    """The first of them."""
    epochs: int = 3
    """Passes over --train, at most; 0 with --task similarity measures the embeddings as they are, without training."""
    patience: int = 2
    """Stop after so many epochs in a row without a better validation score; the best epoch's weights are kept anyhow."""
    batch_size: int = 32
    """Texts of an optimizer step; of question_answering windows, of multiple_choice questions with all of their options."""
    micro_batch_size: int | None = None
    """Of them, those in memory at once: a part of --batch_size without remainder, which a small GPU has room for; default: all."""
    learning_rate: float = 5e-5
    """Peak, after a tenth of the steps; linear to zero. Small models want more: 2e-4 to 1e-3."""
    weight_decay: float = 0.01
    """Of AdamW."""
    max_seq_length: int | None = None
    """Pieces of an input, pair and special pieces included, at most; default: what the model takes."""
    doc_stride: int | None = None
    """Of question_answering: pieces that neighbouring windows of a long context share; default: 128, or a third of the window where
    that is less."""
    max_answer_length: int = 30
    """Of question_answering: pieces of an answer, at most."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto is a GPU where there is one."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of matrix products."""
    random_weights: bool = False
    """Start from random weights of the same shape, to see what pretraining brings."""

    def check(self) -> None:
        """Raise one UserError with a line for each fault."""
        faults = []
        may_be_0 = ("seed", "weight_decay", *(("epochs",) if self.task == "similarity" else ()))
        for name in ("num_seeds", "epochs", "patience", "batch_size", "learning_rate", "max_answer_length"):
            if name not in may_be_0 and not 0 < getattr(self, name) < math.inf:
                faults.append(f"--{name}: must be above 0, found {getattr(self, name)}")
        for name in may_be_0:
            if not 0 <= getattr(self, name) < math.inf:
                faults.append(f"--{name}: must be at least 0, found {getattr(self, name)}")
        if self.micro_batch_size is not None and (self.micro_batch_size < 1 or self.batch_size % self.micro_batch_size):
            faults.append(f"--micro_batch_size {self.micro_batch_size}: must divide --batch_size {self.batch_size}")
        if self.seed + self.num_seeds > 1 << 32:
            faults.append("--seed: must be below 2^32 for each run")
        if self.max_seq_length is not None and self.max_seq_length < 8:
            faults.append(f"--max_seq_length: must be at least 8, found {self.max_seq_length}")
        if self.doc_stride is not None and self.doc_stride < 0:
            faults.append(f"--doc_stride: must be at least 0, found {self.doc_stride}")
        for option in fields(self):
            default = option.default if option.default_factory is MISSING else option.default_factory()
            kinds = ONLY_FOR.get(option.name, (self.task,))
            if self.task not in kinds and getattr(self, option.name) != default:
                faults.append(f"--{option.name}: goes with --task {' or '.join(kinds)} alone")
        if self.task == "glue":
            if given := [name for name in ("train", "validation", "test") if getattr(self, name)]:
                faults.append(f"--{', --'.join(given)}: --task glue has files of its own")
            if self.glue_folder is None:
                faults.append("--glue_folder: is missing; give the folder that holds CoLA, SST-2 and so on")
        elif self.train is None and (self.epochs or self.task != "similarity"):
            faults.append("--train: is missing; give a file of labelled texts")
        elif self.train is None and self.validation is None:
            faults.append("--validation: is missing; give the pairs to measure")
        if not self.model.is_dir():
            faults.append(f"--model: {self.model} is no folder; give one that `albert export` wrote")
        if Path(os.path.realpath(self.model)).is_relative_to(os.path.realpath(self.output)):
            faults.append(f"--output: {self.output} would be replaced, and --model {self.model} with it; choose another --output")
        if faults:
            raise UserError("\n".join(faults))
