"""Rows of a data folder in; the numbers and histograms of `albert inspect` out, with a bounded number of rows in memory."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from data_prep.instances import Columns
from data_prep.summary import Figure, ratio
from data_prep.words import piece_classes, word_starts
from tokenizer.special_tokens import CLS_ID, FIRST_ORDINARY_ID, MASK_ID, SEP_ID, UNK_ID

MAX_ROWS = 200_000
"""Rows are shuffled, so the first ones stand for all: at 200,000 a share is right within a quarter of a percentage point."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Counts over some rows. A histogram's index is the value, its entry the number of rows or runs."""

    num_rows: int
    lengths: np.ndarray
    """int64 [max_seq_length + 1], rows by length in pieces."""
    runs: np.ndarray
    """int64 [max_seq_length + 1], runs of neighbouring pieces to predict, by the number of words in them."""
    masked_percent: np.ndarray
    """int64 [101], rows by the share of their pieces to predict, in whole per cent."""
    unknown_percent: np.ndarray
    """int64 [101], rows by the share of their pieces that are <unk>, in per cent, rounded up."""
    order_labels: dict[int, int]
    """Rows by label: 0, 1, -100."""
    fates: dict[str, int]
    """Pieces to predict by what stands in their place: mask, random or kept."""
    piece_counts: np.ndarray
    """int64 [vocabulary], pieces of the text, each before it was masked; [CLS] and [SEP] are 0."""


def gather_statistics(batches: Iterable[Columns], pieces: list[str], max_seq_length: int, mask_unit: str) -> Statistics:
    """Statistics over all rows of `batches`. pieces: id -> piece. mask_unit: under `piece`, each piece counts as a word."""
    classes = piece_classes(pieces, FIRST_ORDINARY_ID)
    lengths, runs = np.zeros((2, max_seq_length + 1), np.int64)
    masked_percent, unknown_percent = np.zeros((2, 101), np.int64)
    order_labels, fates = dict.fromkeys((0, 1, -100), 0), dict.fromkeys(("mask", "random", "kept"), 0)
    piece_counts = np.zeros(len(pieces), np.int64)
    for batch in batches:
        originals, starts = batch.originals(), batch.row_starts[:-1]
        row_lengths = np.diff(batch.row_starts)
        lengths += np.bincount(row_lengths, minlength=len(lengths))[: len(lengths)]
        masked_percent += np.bincount(np.rint(100 * np.diff(batch.label_starts) / row_lengths).astype(np.int64), minlength=101)
        unknown = np.add.reduceat(originals == UNK_ID, starts, dtype=np.int64)
        unknown_percent += np.bincount(-(-100 * unknown // row_lengths), minlength=101)
        for label in order_labels:
            order_labels[label] += int(np.count_nonzero(batch.order_labels == label))
        there = batch.ids[batch.masked]
        num_masked = int(np.count_nonzero(there == MASK_ID))
        num_kept = int(np.count_nonzero(there == batch.labels))
        for fate, number in {"mask": num_masked, "kept": num_kept, "random": len(there) - num_masked - num_kept}.items():
            fates[fate] += number
        words = np.ones(len(originals), np.bool_) if mask_unit == "piece" else word_starts(originals, starts, classes)
        runs += np.bincount(words_of_runs(batch.masked, words), minlength=len(runs))
        piece_counts += np.bincount(originals, minlength=len(pieces))
    piece_counts[[CLS_ID, SEP_ID]] = 0
    return Statistics(
        num_rows=int(lengths.sum()),
        lengths=lengths,
        runs=runs,
        masked_percent=masked_percent,
        unknown_percent=unknown_percent,
        order_labels=order_labels,
        fates=fates,
        piece_counts=piece_counts,
    )


def words_of_runs(masked: np.ndarray, words: np.ndarray) -> np.ndarray:
    """int64 [runs]: words in each run of neighbouring indices; part of a word counts as one.

    masked: int64, ascending; [CLS] and [SEP] are never in it, so that no run crosses a segment. words: bool, starts of words.
    """
    begins = np.diff(masked, prepend=-2) != 1
    if not len(masked):
        return np.zeros(0, np.int64)
    return np.add.reduceat(words[masked] | begins, np.flatnonzero(begins), dtype=np.int64)


def figures(statistics: Statistics) -> list[Figure]:
    """The statistics in a few numbers."""
    num_targets, num_runs = sum(statistics.fates.values()), int(statistics.runs.sum())
    values = np.arange(len(statistics.lengths))
    text_pieces = int(statistics.piece_counts.sum())
    return [
        Figure("rows", statistics.num_rows, ",d"),
        *(
            Figure(f"length_of_{share:.0%}_of_rows_at_most", quantile(statistics.lengths, share), ",d")
            for share in (0.05, 0.5, 0.95)
        ),
        Figure("runs_of_words_to_predict", num_runs, ",d"),
        Figure("words_in_a_run_on_average", ratio(int(statistics.runs @ values), num_runs), ".2f"),
        Figure("predicted_pieces_that_are_[MASK]", ratio(statistics.fates["mask"], num_targets), ".1%"),
        Figure("predicted_pieces_that_are_random", ratio(statistics.fates["random"], num_targets), ".1%"),
        Figure("predicted_pieces_that_are_kept", ratio(statistics.fates["kept"], num_targets), ".1%"),
        Figure("unknown_share_of_text_pieces", ratio(int(statistics.piece_counts[UNK_ID]), text_pieces), ".2%"),
        Figure("vocabulary_that_occurs", ratio(np.count_nonzero(statistics.piece_counts), len(statistics.piece_counts) - 4), ".1%"),
    ]


def quantile(histogram: np.ndarray, share: float) -> int | None:
    """Smallest value that `share` of the entries do not exceed."""
    return int(np.searchsorted(np.cumsum(histogram), share * histogram.sum())) if histogram.sum() else None


def most_frequent(statistics: Statistics, num: int) -> list[tuple[int, int]]:
    """(piece id, count) of the `num` most frequent pieces, at least one occurrence each."""
    order = np.argsort(-statistics.piece_counts, kind="stable")[:num]
    return [(int(piece), int(statistics.piece_counts[piece])) for piece in order if statistics.piece_counts[piece]]
