"""Unmasked rows in their final order -> n-gram masks, compiled. In: rows end to end. Out: the same with masks, and the targets.

Masked-LM targets are n-grams of whole words: ALBERT paper, section 4.1, p(n) = (1/n) / sum(1/k), and
google-research/albert, create_masked_lm_predictions. Unlike there, an n-gram never crosses [SEP], and random replacements
are never special tokens.
"""

from typing import NamedTuple

import numpy as np

from data_prep.compiled import compiled
from data_prep.random_streams import MASKS, below, start, uniform
from data_prep.words import word_starts
from tokenizer.special_tokens import FIRST_ORDINARY_ID, MASK_ID

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1
"""Of the pieces to predict: replaced by [MASK], replaced by a random piece; the rest is kept (BERT paper, section 3.1)."""


class Targets(NamedTuple):
    """What is to be predicted, all rows end to end."""

    positions: np.ndarray
    """uint16 [predictions of all rows], index in the row, ascending within it."""
    labels: np.ndarray
    """The original pieces there; the type of the ids."""
    position_starts: np.ndarray
    """int64 [rows + 1] into positions and labels."""


def prediction_counts(max_seq_length: int, mask_ratio: float, max_predictions: int) -> np.ndarray:
    """int64 [max_seq_length + 1]: pieces to predict in a row of each length, [CLS] and [SEP] counted in. Rounds half to even."""
    return np.array([min(max_predictions, max(1, round(mask_ratio * length))) for length in range(max_seq_length + 1)])


def ngram_weights(max_ngram: int) -> np.ndarray:
    """float64 [max_ngram], cumulative sums of 1/n."""
    return np.cumsum(1.0 / np.arange(1, max_ngram + 1))


@compiled
def mask(ids, row_starts, segment_b_starts, stream, seed, classes, counts, weights, vocab_size):
    """Mask the rows in place; the random numbers of a row are those of (seed, "masks", split, number of the row in the split).

    ids: uint16 or uint32 [pieces of all rows]; row_starts: int64 [rows + 1]; segment_b_starts: [rows], from `pairs.lay_out`.
    stream: (number of the split, number of the first row). classes: from `words.piece_classes`; of length 0: mask single pieces.
    counts: from `prediction_counts`. weights: from `ngram_weights`; of length 1: mask single words.
    Returns Targets.
    """
    num_rows = len(row_starts) - 1
    room = 0
    for row in range(num_rows):
        room += counts[row_starts[row + 1] - row_starts[row]]
    positions, labels = np.empty(room, np.uint16), np.empty(room, ids.dtype)
    position_starts = np.zeros(num_rows + 1, np.int64)
    words, order = np.empty((len(counts), 3), np.int64), np.empty(len(counts), np.int64)
    covered = np.zeros(len(counts), np.bool_)
    split, first_row = stream
    num = 0
    for row in range(num_rows):
        row_ids = ids[row_starts[row] : row_starts[row + 1]]
        length, border = len(row_ids), np.int64(segment_b_starts[row])
        num_words = add_words(words, 0, row_ids, 1, (border if border else length) - 1, classes)
        if border:
            num_words = add_words(words, num_words, row_ids, border, length - 1, classes)
        state = start(seed, MASKS, split, first_row + row, 0, 0)
        cover(state, covered[:length], words[:num_words], order[:num_words], counts[length], weights)
        for position in range(length):
            if covered[position]:
                covered[position] = False
                positions[num], labels[num] = position, row_ids[position]
                row_ids[position] = replacement(state, row_ids[position], vocab_size)
                num += 1
        position_starts[row + 1] = num
    return Targets(positions[:num], labels[:num], position_starts)


WORD_BEGIN, WORD_END, SEGMENT_STOP = range(3)
"""Columns of the words of a row: its positions, and the index of the first word that is not of its segment."""


@compiled
def add_words(words, num_words, row_ids, begin, end, classes):
    """Append the words of the segment row_ids[begin:end]; returns the new number. A segment starts a word, wherever it was cut."""
    first_word = num_words
    starts = word_starts(row_ids[begin:end], np.zeros(1, np.int64), classes) if len(classes) else np.ones(end - begin, np.bool_)
    for index in range(begin, end):
        if starts[index - begin]:
            words[num_words, WORD_BEGIN] = index
            num_words += 1
        words[num_words - 1, WORD_END] = index + 1
    words[first_word:num_words, SEGMENT_STOP] = num_words
    return num_words


@compiled
def cover(state, covered, words, order, num_predictions, weights):
    """Set `covered`, bool [length], at the pieces to predict: at most num_predictions, in n-grams of whole words.

    Each word in random order is a candidate start: n is drawn by 1/n among those its segment has room for, shrinks to what
    is left of the budget, and the candidate is skipped if it would touch a covered word. If every word is longer than the
    budget, a run of pieces inside one random word is covered, so no row is without a target. order: int64 [words], scratch.
    """
    left = num_predictions
    for number in range(len(words)):
        order[number] = number
    for number in range(len(words)):
        if left == 0:
            break
        other = number + below(state, len(words) - number)  # Fisher and Yates, no further than needed
        order[number], order[other] = order[other], order[number]
        word = order[number]
        begin = words[word, WORD_BEGIN]
        n = draw_ngram_length(state, weights, min(len(weights), words[word, SEGMENT_STOP] - word))
        while n > 0 and words[word + n - 1, WORD_END] - begin > left:
            n -= 1
        if n == 0:
            continue
        end = words[word + n - 1, WORD_END]
        if not np.any(covered[begin:end]):
            covered[begin:end] = True
            left -= end - begin
    if left == num_predictions:
        begin, end = words[order[0], WORD_BEGIN], words[order[0], WORD_END]
        begin += below(state, end - begin - num_predictions + 1)
        covered[begin : begin + num_predictions] = True


@compiled
def draw_ngram_length(state, weights, limit):
    """n in 1 .. limit with probability proportional to 1/n. weights: from `ngram_weights`, at least `limit` long."""
    point = uniform(state) * weights[limit - 1]
    n = 1
    while point >= weights[n - 1]:
        n += 1
    return n


@compiled
def replacement(state, piece, vocab_size):
    """What stands in the row for a piece to predict."""
    draw = uniform(state)
    if draw < MASK_SHARE:
        return MASK_ID
    if draw < MASK_SHARE + RANDOM_SHARE:
        return FIRST_ORDINARY_ID + below(state, vocab_size - FIRST_ORDINARY_ID)
    return np.int64(piece)
