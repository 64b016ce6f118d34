"""Instances -> rows with n-gram masks, compiled. In: pieces and the table of instances. Out: the columns of a shard.

Masked-LM targets are n-grams of whole words: ALBERT paper, section 4.1, p(n) = (1/n) / sum(1/k), and
google-research/albert, create_masked_lm_predictions. Unlike there, an n-gram never crosses [SEP], and random replacements
are never special tokens.
"""

from typing import NamedTuple

import numpy as np

from data_prep.compiled import compiled
from data_prep.pairs import A_BEGIN, A_END, B_BEGIN, B_END, COPY, DOCUMENT
from data_prep.random_streams import MASKS, below, start, uniform
from tokenizer.special_tokens import CLS_ID, FIRST_ORDINARY_ID, MASK_ID, SEP_ID

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1
"""Of the pieces to predict: replaced by [MASK], replaced by a random piece; the rest is kept (BERT paper, section 3.1)."""


class Rows(NamedTuple):
    """Columns of all rows end to end."""

    input_ids: np.ndarray
    """int32 [pieces of all rows]: `[CLS] A [SEP] B [SEP]` or `[CLS] A [SEP]`, masks applied."""
    row_starts: np.ndarray
    """int64 [rows + 1] into input_ids."""
    segment_b_starts: np.ndarray
    """int64 [rows], 0 where there is no B."""
    positions: np.ndarray
    """int64 [predictions of all rows], ascending within a row."""
    labels: np.ndarray
    """int32 like positions."""
    position_starts: np.ndarray
    """int64 [rows + 1] into positions and labels."""


def prediction_counts(max_seq_length: int, mask_ratio: float, max_predictions: int) -> np.ndarray:
    """int64 [max_seq_length + 1]: pieces to predict in a row of each length, [CLS] and [SEP] counted in. Rounds half to even."""
    return np.array([min(max_predictions, max(1, round(mask_ratio * length))) for length in range(max_seq_length + 1)])


def ngram_weights(max_ngram: int) -> np.ndarray:
    """float64 [max_ngram], cumulative sums of 1/n."""
    return np.cumsum(1.0 / np.arange(1, max_ngram + 1))


@compiled
def mask(pieces, starts_word, table, identities, seed, counts, weights, vocab_size):
    """Lay out every instance and mask it; the random stream is that of (seed, "masks", copy, document).

    pieces: int32, starts_word: bool, like each other. table: int64 [instances, 8] from `pairs.pair`, the instances of one
    document and copy together. identities: int64 [documents, 2]. counts: from `prediction_counts`. weights: from
    `ngram_weights`. starts_word all true masks single pieces; weights of length 1 masks single words.
    Returns Rows.
    """
    num_rows = len(table)
    lengths = table[:, A_END] - table[:, A_BEGIN] + table[:, B_END] - table[:, B_BEGIN] + 3 - (table[:, B_BEGIN] == table[:, B_END])
    row_starts = np.zeros(num_rows + 1, np.int64)
    row_starts[1:] = np.cumsum(lengths)
    input_ids = np.empty(row_starts[-1], np.int32)
    segment_b_starts = np.zeros(num_rows, np.int64)
    max_predictions = counts[lengths].sum() if num_rows else 0
    positions, labels = np.empty(max_predictions, np.int64), np.empty(max_predictions, np.int32)
    position_starts = np.zeros(num_rows + 1, np.int64)
    words = np.empty((len(counts), 3), np.int64)
    state = start(0, 0, 0, 0, 0)
    num = 0
    for row in range(num_rows):
        document, copy = table[row, DOCUMENT], table[row, COPY]
        if row == 0 or document != table[row - 1, DOCUMENT] or copy != table[row - 1, COPY]:
            state = start(seed, MASKS, copy, identities[document, 0], identities[document, 1])
        ids = input_ids[row_starts[row] : row_starts[row + 1]]
        ids[0] = CLS_ID
        position, num_words = add_segment(ids, 1, pieces, starts_word, table[row, A_BEGIN], table[row, A_END], words, 0)
        begin, end = table[row, B_BEGIN], table[row, B_END]
        if begin < end:
            segment_b_starts[row] = position
            position, num_words = add_segment(ids, position, pieces, starts_word, begin, end, words, num_words)
        covered = cover(state, words[:num_words], len(ids), counts[len(ids)], weights)
        for position in range(len(ids)):
            if covered[position]:
                positions[num], labels[num] = position, ids[position]
                ids[position] = replacement(state, ids[position], vocab_size)
                num += 1
        position_starts[row + 1] = num
    return Rows(input_ids, row_starts, segment_b_starts, positions[:num].copy(), labels[:num].copy(), position_starts)


WORD_BEGIN, WORD_END, SEGMENT_STOP = range(3)
"""Columns of the words of a row: its positions, and the index of the first word that is not of its segment."""


@compiled
def add_segment(ids, position, pieces, starts_word, begin, end, words, num_words):
    """Append pieces[begin:end] and [SEP] to the row, and its words to `words`; returns the new end of both.

    A segment starts a word even where a word longer than the budget was cut.
    """
    first_word = num_words
    for index in range(begin, end):
        if index == begin or starts_word[index]:
            words[num_words, WORD_BEGIN] = position
            num_words += 1
        words[num_words - 1, WORD_END] = position + 1
        ids[position] = pieces[index]
        position += 1
    words[first_word:num_words, SEGMENT_STOP] = num_words
    ids[position] = SEP_ID
    return position + 1, num_words


@compiled
def cover(state, words, length, num_predictions, weights):
    """bool [length]: the pieces to predict, at most num_predictions, in n-grams of whole words.

    Each word in random order is a candidate start: n is drawn by 1/n among those its segment has room for, shrinks to what
    is left of the budget, and the candidate is skipped if it would touch a covered word. If every word is longer than the
    budget, a run of pieces inside one random word is covered, so no row is without a target.
    """
    covered = np.zeros(length, np.bool_)
    left = num_predictions
    order = shuffled(state, len(words))
    for word in order:
        if left == 0:
            break
        begin, end, stop = words[word]
        n = draw_ngram_length(state, weights, min(len(weights), stop - word))
        while n > 0 and words[word + n - 1, WORD_END] - begin > left:
            n -= 1
        if n == 0:
            continue
        end = words[word + n - 1, WORD_END]
        if not np.any(covered[begin:end]):
            covered[begin:end] = True
            left -= end - begin
    if left == num_predictions:
        begin, end, _ = words[order[0]]
        begin += below(state, end - begin - num_predictions + 1)
        covered[begin : begin + num_predictions] = True
    return covered


@compiled
def shuffled(state, size):
    """0 .. size - 1 in random order (Fisher and Yates)."""
    order = np.arange(size)
    for index in range(size - 1, 0, -1):
        other = below(state, index + 1)
        order[index], order[other] = order[other], order[index]
    return order


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
    return piece
