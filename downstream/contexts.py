"""What questions about a text share: texts encoded once, features made when they are asked for, whole contexts held out."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from downstream.held_out import draw_held_out, separate

SPECIAL = 3
"""Pieces that `pair` adds."""
CHUNK = 1000
"""Texts given to the tokenizer at once, whose encodings take many times what is kept of them."""


class Part(Protocol):
    """A split as it was read: a NamedTuple with rows that have a `context`."""

    source: str
    rows: list[Any]

    def _replace(self, **fields: Any) -> "Part": ...


class Pieces(NamedTuple):
    """A text without special pieces."""

    ids: list[int]
    offsets: np.ndarray
    """(pieces, 2): the characters, from and to, that each stands for."""


class Features:
    """Those of a split, as Trainer takes them: one is made each time it is asked for."""

    def __init__(self, rows: Sequence[Any], make: Callable[[Any], dict[str, Any]], lengths: list[int]):
        """lengths: pieces of each, by which those that train together are chosen."""
        self.rows, self.make, self.lengths = rows, make, lengths

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.make(self.rows[number])


def encode_all(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, Pieces]:
    """Each different text, once."""
    different, found = list(dict.fromkeys(texts)), {}
    for begin in range(0, len(different), CHUNK):
        chunk = different[begin : begin + CHUNK]
        encoded = tokenizer(chunk, add_special_tokens=False, return_offsets_mapping=True)
        for text, ids, offsets in zip(chunk, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            found[text] = Pieces(ids, np.array(offsets, dtype=np.int32).reshape(-1, 2))
    return found


def pair(first: list[int], second: list[int], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """[CLS] first [SEP] second [SEP], as the tokenizer lays out a pair of texts."""
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    ids = [cls, *first, sep, *second, sep]
    return {
        "input_ids": ids,
        "token_type_ids": [0] * (len(first) + 2) + [1] * (len(second) + 1),
        "attention_mask": [1] * len(ids),
    }


def hold_out(train: Part, seed: int) -> dict[str, Part]:
    """`train` and `validation` from one: a tenth of the contexts, each with all questions about it, is held out.

    Raises:
        UserError: there are fewer than ten contexts.
    """
    different = list(dict.fromkeys(row.context for row in train.rows))
    chosen = {different[number] for number in draw_held_out(len(different), seed, train.source, "contexts")}
    rows = separate(train.rows, (row.context in chosen for row in train.rows))
    print(f"validation: {len(rows['validation']):,} of the questions of --train, held out with their contexts")
    return {split: train._replace(rows=found) for split, found in rows.items()}
