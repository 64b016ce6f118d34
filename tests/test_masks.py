"""Masks: whole words inside one segment, as many as the formula says, replaced 80/10/10, and the text can be restored."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.masks import draw_ngram_length, mask, ngram_weights, prediction_counts
from data_prep.pairs import A_BEGIN, A_END, B_BEGIN, B_END, LABEL, SOP, cut_units, pair
from data_prep.random_streams import MASKS, start
from tokenizer.special_tokens import CLS_ID, FIRST_ORDINARY_ID, MASK_ID, SEP_ID

VOCAB_SIZE = 500


def five_sigma(share, number):
    """Five standard deviations of a share seen in `number` independent draws."""
    return 5 * math.sqrt(share * (1 - share) / number)


def table_of(segments):
    """A table of instances, each of a document of its own, for [(pieces in A, pieces in B)]."""
    table = np.zeros((len(segments), 8), np.int64)
    begin = 0
    for number, (a_size, b_size) in enumerate(segments):
        table[number] = begin, begin + a_size, begin + a_size, begin + a_size + b_size, 0, number, 0, 2
        begin += a_size + b_size
    return table


def identities_of(number):
    return np.stack([np.zeros(number, np.int64), np.arange(number)], axis=1)


def rows_of(rows):
    """(input_ids, segment_b_start, positions, labels) of each row."""
    for number in range(len(rows.row_starts) - 1):
        ids = rows.input_ids[rows.row_starts[number] : rows.row_starts[number + 1]]
        chosen = slice(rows.position_starts[number], rows.position_starts[number + 1])
        yield ids, rows.segment_b_starts[number], rows.positions[chosen], rows.labels[chosen]


@given(
    st.lists(st.lists(st.integers(1, 30), max_size=10), min_size=1, max_size=4),
    st.integers(8, 60),
    st.integers(1, 4),
    st.floats(0.02, 0.5),
    st.integers(1, 20),
    st.integers(0, 99),
)
@settings(max_examples=200, deadline=None)
def test_rows_restore_to_the_text_and_cover_whole_words_within_the_budget(lengths, max_length, max_ngram, ratio, most, seed):
    random = np.random.default_rng(seed)
    sizes = np.array([size for document in lengths for size in document], np.int64)
    sentence_starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    document_starts = np.concatenate([[0], np.cumsum([len(document) for document in lengths])]).astype(np.int64)
    pieces = random.integers(FIRST_ORDINARY_ID, VOCAB_SIZE, sentence_starts[-1]).astype(np.int32)
    starts_word = random.random(len(pieces)) < 0.6
    starts_word[sentence_starts[:-1]] = True
    identities = identities_of(len(lengths))
    units, first_units = cut_units(sentence_starts, document_starts, starts_word, max_length - 3)
    table = pair(units, first_units, identities, seed, 2, max_length - 3, 0.1, SOP)
    counts = prediction_counts(max_length, ratio, most)
    rows = mask(pieces, starts_word, table, identities, seed, counts, ngram_weights(max_ngram), VOCAB_SIZE)
    assert len(rows.row_starts) == len(table) + 1
    for (ids, b_start, positions, labels), row in zip(rows_of(rows), table, strict=True):
        a, b = pieces[row[A_BEGIN] : row[A_END]], pieces[row[B_BEGIN] : row[B_END]]
        word_a, word_b = starts_word[row[A_BEGIN] : row[A_END]].copy(), starts_word[row[B_BEGIN] : row[B_END]].copy()
        expected = [CLS_ID, *a, SEP_ID, *b, SEP_ID] if len(b) else [CLS_ID, *a, SEP_ID]
        assert b_start == (len(a) + 2 if len(b) else 0)
        restored = ids.copy()
        restored[positions] = labels
        np.testing.assert_array_equal(restored, expected)

        num = min(most, max(1, round(ratio * len(ids))))
        assert 1 <= len(positions) <= num
        assert (np.diff(positions) > 0).all()

        word_a[0] = True
        starts = [True, *word_a, True, *word_b, True] if len(b) else [True, *word_a, True]
        words = np.cumsum(starts)
        covered = np.isin(np.arange(len(ids)), positions)
        text_words = [
            words == word for word in set(words[np.isin(np.arange(len(ids)), [0, len(a) + 1, len(ids) - 1], invert=True)])
        ]
        assert not covered[[0, len(a) + 1, len(ids) - 1]].any()
        if min(np.sum(word) for word in text_words) <= num:
            assert all(covered[word].all() or not covered[word].any() for word in text_words)
        else:
            assert len(positions) == num
            assert positions[-1] - positions[0] == num - 1


def test_single_pieces_fill_the_number_of_the_formula_exactly():
    lengths = range(3, 513)
    table = table_of([(length - 2, 0) for length in lengths])
    pieces = np.full(table[-1, A_END], 7, np.int32)
    counts = prediction_counts(512, 0.15, 77)
    rows = mask(pieces, np.ones(len(pieces), bool), table, identities_of(len(table)), 0, counts, ngram_weights(1), VOCAB_SIZE)
    masked = np.diff(rows.position_starts)
    assert masked.tolist() == [min(77, max(1, round(0.15 * length))) for length in lengths]
    assert masked[-1] == 77
    assert prediction_counts(128, 0.15, 20)[[1, 10, 30, 128]].tolist() == [1, 2, 4, 19]  # 1.5 -> 2 and 4.5 -> 4: half to even


@pytest.mark.parametrize(("max_ngram", "shares"), [(3, [6 / 11, 3 / 11, 2 / 11]), (2, [2 / 3, 1 / 3]), (1, [1.0])])
def test_ngram_lengths_are_drawn_by_one_over_n(max_ngram, shares):
    state = start(0, MASKS, 0, 0, 0)
    weights = ngram_weights(3)
    draws = np.array([draw_ngram_length(state, weights, max_ngram) for _ in range(60_000)])
    assert draws.min() >= 1
    assert draws.max() <= max_ngram
    for n, share in enumerate(shares, 1):
        assert abs(np.mean(draws == n) - share) <= five_sigma(share, len(draws))


def masked_once(segments, num_rows, num_predictions, max_ngram):
    """Masks of `num_rows` rows alike, words of one piece: bool [rows, length]."""
    table = table_of([segments] * num_rows)
    pieces = np.full(table[-1, B_END], 7, np.int32)
    length = sum(segments) + 3
    counts = np.full(length + 1, num_predictions)
    rows = mask(pieces, np.ones(len(pieces), bool), table, identities_of(num_rows), 1, counts, ngram_weights(max_ngram), VOCAB_SIZE)
    covered = np.zeros((num_rows, length), bool)
    covered[np.repeat(np.arange(num_rows), np.diff(rows.position_starts)), rows.positions] = True
    return covered


def test_one_ngram_has_the_length_it_was_drawn_with():
    # A budget of 3 in a long row: the first n-gram has n as drawn, so one run of 3 shows how often n = 3 came first or
    # smaller ones met; runs of exactly three adjacent pieces must at least be as common as p(3).
    covered = masked_once((60, 60), 20_000, 3, 3)
    assert (covered.sum(1) == 3).all()
    positions = np.nonzero(covered)[1].reshape(-1, 3)
    in_one_run = np.mean(positions[:, 2] - positions[:, 0] == 2)
    # 2/11, and by chance neighbours: 1 + 2 (either order) or 1 + 1 + 1 side by side, under 4 % of the rest for 120 words.
    assert 2 / 11 - five_sigma(2 / 11, 20_000) < in_one_run < 2 / 11 + 0.04
    # Exactly two adjacent: first n = 2 (3/11), or 1 then 2 or more, shrunk to the 2 that are left (6/11 x 5/11); plus chance.
    two = np.mean((np.diff(positions, axis=1) == 1).sum(1) == 1)
    expected = 3 / 11 + 6 / 11 * 5 / 11
    assert abs(two - expected) < five_sigma(expected, 20_000) + 0.04


def test_an_ngram_never_runs_from_a_into_b():
    # A is one word, B is six, two are masked, n is at most 2. If n-grams could cross the border, "A and the first word of B"
    # would be common; as they cannot, B's first five words are alike, given that A's is masked. (B's last word is masked
    # alone more often: no longer n-gram starts there.)
    covered = masked_once((1, 6), 30_000, 2, 2)
    with_a = covered[covered[:, 1]][:, 3:9]
    assert (with_a.sum(1) == 1).all()
    first_five = with_a[~with_a[:, 5]]
    for word in range(5):
        assert abs(np.mean(first_five[:, word]) - 1 / 5) < five_sigma(1 / 5, len(first_five))


def test_pieces_are_masked_randomised_and_kept_80_10_10_and_random_ones_are_ordinary():
    size, num_rows = 509, 2000
    table = table_of([(size, 0)] * num_rows)
    pieces = np.full(table[-1, A_END], 7, np.int32)
    counts = prediction_counts(512, 0.15, 77)
    starts_word = np.ones(len(pieces), bool)
    rows = mask(pieces, starts_word, table, identities_of(num_rows), 0, counts, ngram_weights(3), VOCAB_SIZE)
    shown = np.concatenate([ids[positions] for ids, _, positions, _ in rows_of(rows)])
    assert len(shown) > 150_000
    chance = 0.1 / (VOCAB_SIZE - FIRST_ORDINARY_ID)  # A random piece may be the piece itself.
    assert abs(np.mean(shown == MASK_ID) - 0.8) < five_sigma(0.8, len(shown))
    assert abs(np.mean(shown == 7) - 0.1 - chance) < five_sigma(0.1, len(shown))
    random = shown[(shown != MASK_ID) & (shown != 7)]
    assert random.min() >= FIRST_ORDINARY_ID
    assert random.max() < VOCAB_SIZE
    middle = (FIRST_ORDINARY_ID + VOCAB_SIZE) // 2
    assert abs(np.mean(random < middle) - 0.5) < five_sigma(0.5, len(random)) + 1 / VOCAB_SIZE
    assert len(set(random.tolist())) > 0.9 * VOCAB_SIZE


def test_every_word_is_masked_about_equally_often():
    covered = masked_once((30, 30), 20_000, 9, 3)
    shares = covered[:, np.r_[1:31, 32:62]].mean(0)
    assert abs(shares.mean() - 0.15) < 1e-9
    # The ends of a segment lie in fewer n-grams than its middle (as in the reference), so only the middle is alike.
    assert np.abs(shares[3:27] - shares[3:27].mean()).max() < five_sigma(0.15, 20_000)
    assert shares.min() > 0.08


def test_masks_depend_on_seed_copy_and_document_alone():
    table = table_of([(20, 20)] * 3)
    pieces = np.arange(120, dtype=np.int32) + FIRST_ORDINARY_ID
    starts_word = np.ones(120, bool)
    counts, weights = prediction_counts(64, 0.15, 10), ngram_weights(3)

    def positions(table, seed=0):
        rows = mask(pieces, starts_word, table, identities_of(3), seed, counts, weights, VOCAB_SIZE)
        return [row[2].tolist() for row in rows_of(rows)]

    assert positions(table)[2] == positions(table[2:])[0]
    assert positions(table) != positions(table, seed=1)
    other_copy = table.copy()
    other_copy[:, LABEL + 2] = 1
    assert positions(table) != positions(other_copy)
