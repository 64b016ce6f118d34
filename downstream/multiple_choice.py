"""One of several options for a question about a text: as in RACE (Lai et al., arXiv 1704.04683), or in .jsonl.

An option is scored as the pair of the context, and the question with the option (Liu et al., arXiv 1907.11692, section 5.3).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from downstream.choices import GROUPS, LETTERS, Choice, Choices, read_choices
from downstream.contexts import SPECIAL, Features, Pieces, encode_all, hold_out, pair
from downstream.finetune_options import FinetuneOptions
from downstream.task import Scores, Task, as_table, records_of
from downstream.text_files import Reading
from tokenizer.errors import UserError


def build(options: FinetuneOptions, tokenizer: PreTrainedTokenizerBase, max_seq_length: int, private: bool) -> Iterator[Task]:
    """See `downstream.tasks.Build`."""
    parts = read_parts(options, private=private)
    check_number_of_options(parts)
    rows = [row for part in parts.values() for row in part.rows]
    pieces = encode_all((text for row in rows for text in (row.context, row.question, *row.options)), tokenizer)
    tell_what_is_cut(rows, pieces, max_seq_length - SPECIAL)

    def features(part: Choices) -> Features:
        lengths = [min(max_seq_length, SPECIAL + whole_length(row, pieces)) for row in part.rows]
        return Features(part.rows, lambda row: feature(row, pieces, tokenizer, max_seq_length), lengths)

    def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return collate_options(features, tokenizer)

    def predictions(split: str, outputs: np.ndarray, validation: Scores) -> dict[str, str]:
        part, chosen = parts[split], outputs.argmax(-1).tolist()
        names = [row.id for row in part.rows]
        return as_table(split, [LETTERS[number] for number in chosen] if part.letters else chosen, names)

    yield Task(
        name="",
        splits={split: features(part) for split, part in parts.items()},
        num_rows={split: len(part.rows) for split, part in parts.items()},
        collate=collate,
        inputs=records_of(parts),
        auto_class="AutoModelForMultipleChoice",
        config={},
        score=lambda split, outputs, labels, validation: score(outputs, labels, [row.group for row in parts[split].rows]),
        predictions=predictions,
    )


def read_parts(options: FinetuneOptions, *, private: bool) -> dict[str, Choices]:
    """`train`, `validation` and maybe `test`.

    Raises:
        UserError: a file is not as it should be.
    """
    reading = Reading(private=private)
    train = read_choices(options.train, reading, labelled=True)
    if options.validation:
        parts = {"train": train, "validation": read_choices(options.validation, reading, labelled=True)}
    else:
        parts = hold_out(train, options.seed)
    if options.test:
        parts["test"] = read_choices(options.test, reading, labelled=False)
    return parts


def check_number_of_options(parts: dict[str, Choices]) -> None:
    """Raise a UserError unless all questions have the same: batches are rectangles."""
    number = len(parts["train"].rows[0].options)
    for part in parts.values():
        for row in part.rows:
            if len(row.options) != number:
                raise UserError(
                    f"{part.source}, question {row.id}: has {len(row.options)} options, but the first for training has {number}. "
                    "All questions need the same number."
                )


def fit_pair(context: list[int], question: list[int], option: list[int], room: int) -> tuple[list[int], list[int]]:
    """Both sides of the pair, of `room` pieces together: the end of the context gives way, then that of the question, then that of
    the option."""
    option = option[:room]
    question = question[: room - len(option)]
    return context[: room - len(option) - len(question)], [*question, *option]


def feature(row: Choice, pieces: dict[str, Pieces], tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> dict[str, Any]:
    """Each field a list over the options, and the label where it is known."""
    context, question = pieces[row.context].ids, pieces[row.question].ids
    pairs = [
        pair(*fit_pair(context, question, pieces[option].ids, max_seq_length - SPECIAL), tokenizer=tokenizer)
        for option in row.options
    ]
    encoded: dict[str, Any] = {name: [each[name] for each in pairs] for name in pairs[0]}
    return encoded if row.label is None else encoded | {"labels": row.label}


def whole_length(row: Choice, pieces: dict[str, Pieces]) -> int:
    """Pieces of context, question and the longest option."""
    longest = max(len(pieces[option].ids) for option in row.options)
    return len(pieces[row.context].ids) + len(pieces[row.question].ids) + longest


def tell_what_is_cut(rows: list[Choice], pieces: dict[str, Pieces], room: int) -> None:
    """Print how many questions, with their longest option, leave a context too little room, or none."""
    contexts, alone = 0, 0
    for row in rows:
        whole = whole_length(row, pieces)
        contexts += whole > room
        alone += whole - len(pieces[row.context].ids) > room
    if contexts:
        print(f"{contexts:,} of {len(rows):,} questions: the end of the context is cut off (--max_seq_length)")
    if alone:
        print(f"{alone:,} of them: question and option alone are too long; no context is left, and the question is cut off, too")


def collate_options(features: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """Each field (questions, options, pieces), padded to the longest; labels (questions,) where there are any."""
    names = [name for name in features[0] if name != "labels"]
    flat = [{name: one[name][number] for name in names} for one in features for number in range(len(one["input_ids"]))]
    padded = tokenizer.pad(flat, return_tensors="pt")
    batch = {name: padded[name].view(len(features), -1, padded[name].shape[-1]) for name in names}
    return batch | ({"labels": torch.tensor([one["labels"] for one in features])} if "labels" in features[0] else {})


def score(logits: np.ndarray, labels: np.ndarray, groups: list[str]) -> Scores:
    """Accuracy, which is the score, and that of each of RACE's groups. logits: (questions, options)."""
    right = logits.argmax(-1) == labels
    of_group = {name: np.array([group == name for group in groups]) for name in GROUPS}
    more = {f"accuracy_{name}": float(right[mask].mean()) for name, mask in of_group.items() if mask.any()}
    return {"score": float(right.mean()), "accuracy": float(right.mean())} | more
