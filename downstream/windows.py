"""Contexts that are too long, in windows that overlap, each beside the question; and the best span of all windows of a question."""

import unicodedata
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit
from transformers import PreTrainedTokenizerBase

from downstream.contexts import SPECIAL, Pieces, pair
from downstream.squad import Question


class Example(NamedTuple):
    """A question and its context in pieces."""

    row: Question
    question: list[int]
    context: Pieces


class Window(NamedTuple):
    """Pieces `begin` to `end` (not included) of the context of the example with that number."""

    number: int
    begin: int
    end: int


class Spans(NamedTuple):
    """What a model makes of each question."""

    answers: list[str]
    """The best span, literally as in the context."""
    na_prob: np.ndarray
    """(questions,): probability that there is no answer, if the best span is the only other choice."""


def cut_windows(examples: list[Example], max_seq_length: int, stride: int) -> list[Window]:
    """stride: pieces that neighbouring windows share."""
    windows = []
    for number, example in enumerate(examples):
        size, room, begin = len(example.context.ids), max_seq_length - SPECIAL - len(example.question), 0
        while begin + room < size:
            windows.append(Window(number, begin, begin + room))
            begin += room - stride
        windows.append(Window(number, begin, size))
    return windows


def feature(window: Window, example: Example, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """With the places of the first piece of the first answer and of its last, both 0 ([CLS]) where the window does not hold it all;
    without them where nobody says whether there is an answer."""
    encoded = pair(example.question, example.context.ids[window.begin : window.end], tokenizer)
    row = example.row
    if row.answers is None:
        return encoded
    first, last = (0, -1) if row.start is None else pieces_of(row.start, row.start + len(row.answers[0]), example.context.offsets)
    shift = len(example.question) + 2 - window.begin
    inside = window.begin <= first <= last < window.end
    return encoded | {"start_positions": (first + shift) * inside, "end_positions": (last + shift) * inside}


def pieces_of(begin: int, end: int, offsets: np.ndarray) -> tuple[int, int]:
    """The first and the last piece that stand for any of these characters; the last before the first where there are none."""
    return int(np.searchsorted(offsets[:, 1], begin, side="right")), int(np.searchsorted(offsets[:, 0], end, side="left")) - 1


def best_spans(
    logits: tuple[np.ndarray, np.ndarray], windows: list[Window], examples: list[Example], max_answer_length: int
) -> Spans:
    """logits: of the first and of the last piece, each (windows, pieces). Of no answer they are those at [CLS], in the window where
    they are least: an answer in one window is an answer."""
    starts, ends = (np.nan_to_num(each, posinf=1e9, neginf=-1e9) for each in logits)
    answers, best, null = [""] * len(examples), np.full(len(examples), -np.inf), np.full(len(examples), np.inf)
    for window, start, end in zip(windows, starts, ends, strict=True):
        number, begin, size = window.number, len(examples[window.number].question) + 2, window.end - window.begin
        null[number] = min(null[number], start[0] + end[0])
        score, first, last = best_span(start[begin : begin + size], end[begin : begin + size], max_answer_length)
        if score > best[number]:
            row, _, context = examples[number]
            best[number] = score
            answers[number] = literal(
                row.context, context.offsets[window.begin + first, 0], context.offsets[window.begin + last, 1]
            )
    return Spans(answers, expit(null - best))


def best_span(start: np.ndarray, end: np.ndarray, max_answer_length: int) -> tuple[float, int, int]:
    """Highest sum of the logits of a first piece and a last one, of spans of at most so many pieces, and these two."""
    found = []
    for more in range(min(max_answer_length, len(start))):
        sums = start[: len(start) - more] + end[more:]
        first = int(sums.argmax())
        found.append((float(sums[first]), first, first + more))
    return max(found, key=lambda span: span[0])


def literal(context: str, begin: int, end: int) -> str:
    """These characters, and the marks upon the last of them."""
    while end < len(context) and unicodedata.combining(context[end]):
        end += 1
    return context[begin:end].strip()
