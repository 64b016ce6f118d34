"""Masks: whole words inside one segment, as many as the formula says, replaced 80/10/10, and the text can be restored."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.masks import draw_ngram_length, mask, ngram_weights, prediction_counts
from data_prep.pairs import A_BEGIN, A_END, B_BEGIN, B_END, SOP, cut_units, lay_out, pair
from data_prep.random_streams import MASKS, start
from data_prep.words import LETTER, word_starts
from tokenizer.special_tokens import CLS_ID, FIRST_ORDINARY_ID, MASK_ID, SEP_ID

VOCAB_SIZE = 500

SINGLE = np.zeros((0, 3), np.uint8)
"""Classes of pieces under which each piece is a word."""

MIXED = np.full((VOCAB_SIZE, 3), LETTER, np.uint8)
MIXED[:, 0] = np.random.default_rng(0).random(VOCAB_SIZE) < 0.6
"""Three pieces in five begin with a space, the others go on with the word before."""


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
    return np.stack([np.zeros(number, np.int64), np.arange(number), np.zeros(number, np.int64)], axis=1)


def masked(pieces, table, counts, max_ngram, *, classes=SINGLE, seed=0, stream=(0, 0)):
    """(input_ids, segment_b_start, positions, labels) of each row of the table."""
    ids, row_starts, segment_b_starts = lay_out(pieces.astype(np.uint16), table)
    weights = ngram_weights(max_ngram)
    targets = mask(ids, row_starts, segment_b_starts, stream, seed, classes, counts, weights, VOCAB_SIZE)
    assert len(targets.position_starts) == len(table) + 1
    rows = []
    for number in range(len(table)):
        chosen = slice(targets.position_starts[number], targets.position_starts[number + 1])
        row_ids = ids[row_starts[number] : row_starts[number + 1]]
        rows.append((row_ids, segment_b_starts[number], targets.positions[chosen].astype(np.int64), targets.labels[chosen]))
    return rows


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
    starts_word = word_starts(pieces, sentence_starts[:-1], MIXED)
    identities = identities_of(len(lengths))
    units, first_units = cut_units(sentence_starts, document_starts, starts_word, max_length - 3)
    copies = np.array([(0, 2)] * len(lengths), np.int64)
    table = pair(units, first_units, identities, seed, copies, max_length - 3, 0.1, SOP)
    counts = prediction_counts(max_length, ratio, most)
    rows = masked(pieces, table, counts, max_ngram, classes=MIXED, seed=seed)
    for (ids, b_start, positions, labels), row in zip(rows, table, strict=True):
        a, b = pieces[row[A_BEGIN] : row[A_END]], pieces[row[B_BEGIN] : row[B_END]]
        word_a, word_b = MIXED[a, 0] == 1, MIXED[b, 0] == 1
        expected = [CLS_ID, *a, SEP_ID, *b, SEP_ID] if len(b) else [CLS_ID, *a, SEP_ID]
        assert b_start == (len(a) + 2 if len(b) else 0)
        restored = ids.copy()
        restored[positions] = labels
        np.testing.assert_array_equal(restored, expected)

        num = min(most, max(1, round(ratio * len(ids))))
        assert 1 <= len(positions) <= num
        assert (np.diff(positions) > 0).all()

        word_a[0] = True
        word_b[:1] = True
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
    num_masked = [len(positions) for _, _, positions, _ in masked(pieces, table, counts, 1)]
    assert num_masked == [min(77, max(1, round(0.15 * length))) for length in lengths]
    assert num_masked[-1] == 77
    assert prediction_counts(128, 0.15, 20)[[1, 10, 30, 128]].tolist() == [1, 2, 4, 19]  # 1.5 -> 2 and 4.5 -> 4: half to even


@pytest.mark.parametrize(("max_ngram", "shares"), [(3, [6 / 11, 3 / 11, 2 / 11]), (2, [2 / 3, 1 / 3]), (1, [1.0])])
def test_ngram_lengths_are_drawn_by_one_over_n(max_ngram, shares):
    state = start(0, MASKS, 0, 0, 0, 0)
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
    covered = np.zeros((num_rows, length), bool)
    for number, (_, _, positions, _) in enumerate(masked(pieces, table, counts, max_ngram, seed=1)):
        covered[number, positions] = True
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
    shown = np.concatenate([ids[positions] for ids, _, positions, _ in masked(pieces, table, counts, 3)]).astype(np.int64)
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


def test_masks_depend_on_seed_split_and_number_of_the_row_alone():
    table = table_of([(20, 20)] * 3)
    pieces = np.arange(120) + FIRST_ORDINARY_ID
    counts = prediction_counts(64, 0.15, 10)

    def positions(table, **where):
        return [row[2].tolist() for row in masked(pieces, table, counts, 3, **where)]

    assert positions(table)[2] == positions(table[2:], stream=(0, 2))[0]
    assert positions(table) != positions(table, seed=1)
    assert positions(table) != positions(table, stream=(1, 0))
    assert positions(table) == positions(table[::-1])
