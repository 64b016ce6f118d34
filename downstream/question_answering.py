"""Answers that are spans of a context, as in SQuAD v1.1 and, where some questions have none, v2.0.

The way of BERT (Devlin et al., arXiv 1810.04805, sections 4.2 and 4.3): two logits a piece say where an answer begins and where it
ends, those of [CLS] that there is none. Of the spans of all windows the one with the highest sum is the answer, unless the
probability of none, by a softmax over that sum and the one at [CLS], is above a threshold that is chosen on `validation`.
"""

import json
from collections.abc import Iterator

import numpy as np
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from downstream.contexts import SPECIAL, Features, encode_all, hold_out
from downstream.finetune_options import FinetuneOptions
from downstream.squad import Question, Questions, read_squad
from downstream.squad_scores import answer_scores, best_threshold
from downstream.task import Arrays, Scores, Task, records_of
from downstream.text_files import Reading
from downstream.windows import Example, Spans, best_spans, cut_windows, feature
from tokenizer.errors import UserError

MAX_QUESTION = 64
"""Pieces of a question, or a third of the window where that is less; the rest is cut off."""
DOC_STRIDE = 128
"""Default of --doc_stride, or a third of the window where that is less."""


def build(options: FinetuneOptions, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, private: bool) -> Iterator[Task]:
    """See `downstream.tasks.Build`."""
    max_question = min(MAX_QUESTION, max_seq_length // 3)
    room = max_seq_length - SPECIAL - max_question
    stride = min(DOC_STRIDE, max_seq_length // 3) if options.doc_stride is None else options.doc_stride
    if stride >= room:
        raise UserError(
            f"--doc_stride {stride}: windows of {max_seq_length} pieces have room for {room} of the context beside a question of "
            f"{max_question}; give less than {room}, or a larger --max_seq_length."
        )
    parts = read_parts(options, private=private)
    unanswerable = has_unanswerable(parts)
    examples = encode(parts, tokenizer, max_question)
    windows = {split: cut_windows(examples[split], max_seq_length, stride) for split in parts}

    def features(split: str) -> Features:
        lengths = [SPECIAL + len(examples[split][window.number].question) + window.end - window.begin for window in windows[split]]
        return Features(windows[split], lambda window: feature(window, examples[split][window.number], tokenizer), lengths)

    def spans(split: str, outputs: Arrays) -> Spans:
        return best_spans(outputs, windows[split], examples[split], options.max_answer_length)

    yield Task(
        name="",
        splits={split: features(split) for split in parts},
        num_rows={split: len(part.rows) for split, part in parts.items()},
        collate=DataCollatorWithPadding(tokenizer),
        inputs=records_of(parts),
        auto_class="AutoModelForQuestionAnswering",
        config={"num_labels": 2},
        score=lambda split, outputs, labels, validation: score(
            spans(split, outputs), parts[split].rows, validation, unanswerable=unanswerable
        ),
        predictions=lambda split, outputs, validation: answer_files(
            split, spans(split, outputs), parts[split].rows, validation.get("na_threshold")
        ),
    )


def read_parts(options: FinetuneOptions, *, private: bool) -> dict[str, Questions]:
    """`train`, `validation` and maybe `test`.

    Raises:
        UserError: a file is not as it should be.
    """
    reading = Reading(on_error=options.on_error, private=private)
    train = read_squad(options.train, "train", reading)
    if options.validation:
        parts = {"train": train, "validation": read_squad(options.validation, "validation", reading)}
    else:
        parts = hold_out(train, options.seed)
    if options.test:
        parts["test"] = read_squad(options.test, "test", reading)
    return parts


def has_unanswerable(parts: dict[str, Questions]) -> bool:
    """Whether some questions for training have no answer.

    Raises:
        UserError: none has, but some of another split.
    """
    found = [split for split, part in parts.items() if any(row.answers == [] for row in part.rows)]
    if not found or found[0] == "train":
        return bool(found)
    source = parts[found[0]].source
    if source == parts["train"].source:
        raise UserError(
            f"{source}: all questions without an answer are among those held out. Give --validation, or another --seed."
        )
    raise UserError(f"{source}: some questions have no answer, but none of --train is such.")


def encode(parts: dict[str, Questions], tokenizer: PreTrainedTokenizerBase, max_question: int) -> dict[str, list[Example]]:
    """Questions of more than `max_question` pieces are cut off.

    Raises:
        UserError: nothing is left of a context.
    """
    rows = [row for part in parts.values() for row in part.rows]
    contexts = encode_all((row.context for row in rows), tokenizer)
    questions = {text: pieces.ids for text, pieces in encode_all((row.question for row in rows), tokenizer).items()}
    for part in parts.values():
        if lost := sum(not contexts[row.context].ids for row in part.rows):
            raise UserError(f"{part.source}: of the contexts of {lost:,} questions the tokenizer keeps nothing; leave them out.")
    if long := sum(len(ids) > max_question for ids in questions.values()):
        print(f"{long:,} questions have more than {max_question} pieces, and are cut off there")
    return {
        split: [Example(row, questions[row.question][:max_question], contexts[row.context]) for row in part.rows]
        for split, part in parts.items()
    }


def score(spans: Spans, rows: list[Question], validation: Scores | None, *, unanswerable: bool) -> Scores:
    """Exact match and F1, which is the score; with unanswerable questions also F1 of either kind, and the threshold: that of
    `validation`, or, for itself, the one of the highest F1."""
    golds = [row.answers for row in rows]
    found, more = answer_scores(spans.answers, golds, unanswerable=unanswerable), {}
    if unanswerable:
        has_answer = np.array([bool(gold) for gold in golds])
        of_none = (~has_answer).astype(float)  # even where "" would do for an answer without words, as in evaluate-v2.0.py
        threshold = validation["na_threshold"] if validation else best_threshold(spans.na_prob, found["f1"], of_none)
        found = {name: np.where(spans.na_prob > threshold, of_none, values) for name, values in found.items()}
        kinds = {"has_answer_f1": has_answer, "no_answer_f1": ~has_answer}
        more = {name: float(found["f1"][kind].mean()) for name, kind in kinds.items() if kind.any()} | {"na_threshold": threshold}
    figures = {name: float(values.mean()) for name, values in found.items()}
    return {"score": figures["f1"]} | figures | more


def answer_files(split: str, spans: Spans, rows: list[Question], threshold: float | None) -> dict[str, str]:
    """What the published evaluations read, by the ids of questions: answers, and with a threshold the probabilities of none."""
    files = {"predictions": spans.answers}
    if threshold is not None:
        answered = (spans.na_prob <= threshold).tolist()
        answers = [answer if yes else "" for answer, yes in zip(spans.answers, answered, strict=True)]
        files = {"predictions": answers, "na_prob": spans.na_prob.tolist()}
    names = [row.id for row in rows]
    return {
        f"{kind}_{split}.json": json.dumps(dict(zip(names, values, strict=True)), indent=2, ensure_ascii=False) + "\n"
        for kind, values in files.items()
    }
