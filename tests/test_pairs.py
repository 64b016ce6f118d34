"""Sentence pairs: nothing lost, budget kept, draws as the formulas say, and no way to tell the order from the ends."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.held_out import find_cutoff, lot
from data_prep.pairs import (
    A_BEGIN,
    A_END,
    B_BEGIN,
    B_END,
    BEGIN,
    COPY,
    DOCUMENT,
    END,
    IS_PART,
    LABEL,
    NSP,
    NUM_UNITS,
    OBJECTIVES,
    SOP,
    cut_units,
    lay_out,
    pair,
    row_keys,
)
from data_prep.random_streams import MASKS, PAIRS, below, next_u64, start, uniform
from data_prep.sentences import LONG, split
from data_prep.words import piece_classes, word_starts
from tokenizer.corpus import Document, read_documents
from tokenizer.errors import UserError
from tokenizer.special_tokens import CLS_ID, SEP_ID

BUNDLED = "data_prep/bundled/sotu_1961_2026.txt.gz"

sentence_lengths = st.lists(st.lists(st.integers(1, 30), max_size=12), min_size=1, max_size=5)
"""Documents as lists of sentence lengths in pieces."""


def make_documents(lengths, seed=0, word_start_share=0.6):
    """Arrays as `cut_units` takes them, for documents given by their sentences' lengths."""
    flat = np.array([size for document in lengths for size in document], np.int64)
    sentence_starts = np.concatenate([[0], np.cumsum(flat)]).astype(np.int64)
    document_starts = np.concatenate([[0], np.cumsum([len(document) for document in lengths])]).astype(np.int64)
    starts_word = np.random.default_rng(seed).random(sentence_starts[-1]) < word_start_share
    starts_word[sentence_starts[:-1]] = True
    zeros = np.zeros(len(lengths), np.int64)
    identities = np.stack([zeros, 100 * np.arange(len(lengths)), zeros], axis=1)
    return sentence_starts, document_starts, starts_word, identities


def pair_up(lengths, budget, objective=SOP, *, seed=0, copies=1, short=0.1):
    sentence_starts, document_starts, starts_word, identities = make_documents(lengths, seed)
    units, first_units = cut_units(sentence_starts, document_starts, starts_word, budget)
    return units, pair(units, first_units, identities, seed, first_to(copies, len(lengths)), budget, short, objective)


def first_to(copies, num_documents):
    """`copies` as `pair` takes them: all of each document."""
    return np.array([(0, copies)] * num_documents, np.int64)


def five_sigma(share, number):
    """Five standard deviations of a share seen in `number` independent draws: one false alarm in two million tests."""
    return 5 * math.sqrt(share * (1 - share) / number)


@given(sentence_lengths, st.integers(5, 40), st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_units_tile_the_text_and_only_sentences_over_the_budget_are_cut(lengths, budget, seed):
    sentence_starts, document_starts, starts_word, _ = make_documents(lengths, seed)
    units, first_units = cut_units(sentence_starts, document_starts, starts_word, budget)
    assert first_units[-1] == len(units)
    np.testing.assert_array_equal(units[1:, BEGIN], units[:-1, END])
    assert (units[:, END] - units[:, BEGIN] <= budget).all()
    assert not len(units) or (units[0, BEGIN] == 0 and units[-1, END] == sentence_starts[-1])
    sizes = dict(zip(sentence_starts[:-1].tolist(), np.diff(sentence_starts).tolist(), strict=True))
    whole = units[units[:, IS_PART] == 0]
    assert all(sizes[begin] == end - begin for begin, end, _ in whole.tolist())
    assert len(whole) == sum(size <= budget for size in sizes.values())
    for begin, end, _ in units[units[:, IS_PART] == 1].tolist():
        # Cut inside a word only where the word itself fills the unit.
        assert end == len(starts_word) or starts_word[end] or not starts_word[begin + 1 : end].any()


@given(sentence_lengths, st.integers(6, 40), st.sampled_from(["sop", "none"]), st.integers(0, 99), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_every_piece_is_in_every_copy_exactly_once_within_the_budget(lengths, budget, objective, seed, short):
    units, table = pair_up(lengths, budget, OBJECTIVES[objective], seed=seed, copies=3, short=short)
    document_ends = np.cumsum([sum(document) for document in lengths])
    for document, stop in enumerate(document_ends):
        for copy in range(3):
            rows = table[(table[:, DOCUMENT] == document) & (table[:, COPY] == copy)]
            # In the order of the text, whichever part stands first, and without a gap.
            next_piece = stop - sum(lengths[document])
            for row in sorted(rows.tolist(), key=lambda row: min(row[A_BEGIN], row[B_BEGIN])):
                spans = sorted([(row[A_BEGIN], row[A_END]), (row[B_BEGIN], row[B_END])])
                spans = [span for span in spans if span[0] < span[1]]
                assert spans[0][0] == next_piece
                assert len(spans) == 1 or spans[0][1] == spans[1][0]
                assert (row[LABEL] == 1) == (row[B_BEGIN] < row[A_BEGIN])
                assert spans[-1][1] - next_piece <= budget
                next_piece = spans[-1][1]
            assert next_piece == stop


@given(sentence_lengths, st.integers(6, 40), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_order_labels_need_two_whole_sentences_and_borders_lie_between_units(lengths, budget, seed):
    units, table = pair_up(lengths, budget, seed=seed)
    is_part = {begin: part for begin, _, part in units.tolist()}
    for row in table:
        low, high = min(row[A_BEGIN], row[B_BEGIN]), max(row[A_END], row[B_END])
        inside = [begin for begin in is_part if low <= begin < high]
        assert len(inside) == row[NUM_UNITS]
        assert (row[LABEL] == -100) == (len(inside) == 1 or any(is_part[begin] for begin in inside))
        assert (row[B_BEGIN] == row[B_END]) == (len(inside) == 1)
        assert row[A_BEGIN] in is_part
        assert row[B_BEGIN] == row[B_END] or row[B_BEGIN] in is_part


@given(sentence_lengths, st.integers(6, 40), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_without_short_targets_an_instance_stops_only_where_the_next_sentence_would_not_fit(lengths, budget, seed):
    units, table = pair_up(lengths, budget, seed=seed, short=0.0)
    size_after = {begin: end - begin for begin, end, _ in units.tolist()}
    size_before = {end: end - begin for begin, end, _ in units.tolist()}
    borders = {0, *np.cumsum([sum(document) for document in lengths]).tolist()}
    for document in range(len(lengths)):
        rows = table[table[:, DOCUMENT] == document]
        lows, highs = np.minimum(rows[:, A_BEGIN], rows[:, B_BEGIN]), np.maximum(rows[:, A_END], rows[:, B_END])
        from_front = [high in borders or high - low + size_after[high] > budget for low, high in zip(lows, highs, strict=True)]
        from_end = [low in borders or high - low + size_before[low] > budget for low, high in zip(lows, highs, strict=True)]
        assert all(from_front) or all(from_end)


@given(sentence_lengths, st.integers(6, 40), st.integers(0, 99))
@settings(max_examples=150, deadline=None)
def test_next_sentence_pairs_lose_nothing_and_borrow_whole_sentences_of_another_document(lengths, budget, seed):
    units, table = pair_up(lengths, budget, NSP, seed=seed)
    document_of = np.repeat(np.arange(len(lengths)), [sum(document) for document in lengths])
    seen = np.zeros(len(document_of), int)
    unit_begins, unit_ends = set(units[:, BEGIN].tolist()), set(units[:, END].tolist())
    for row in table:
        seen[row[A_BEGIN] : row[A_END]] += 1
        assert row[A_END] - row[A_BEGIN] + row[B_END] - row[B_BEGIN] <= budget
        if row[LABEL] == 1:
            assert (document_of[row[B_BEGIN] : row[B_END]] != row[DOCUMENT]).all()
            assert row[B_BEGIN] in unit_begins
            assert row[B_END] in unit_ends
        else:
            seen[row[B_BEGIN] : row[B_END]] += 1
            assert row[B_BEGIN] == row[A_END]
    assert (seen == 1).all()


def test_next_sentence_pairs_of_a_lone_document_carry_no_random_label():
    _, table = pair_up([[5] * 40], 20, NSP, copies=20)
    assert set(table[:, LABEL].tolist()) == {0, -100}


def test_next_sentence_pairs_take_nothing_from_another_section_of_the_same_document():
    sentence_starts, document_starts, starts_word, identities = make_documents([[5] * 40] * 3)
    identities[:2] = [(0, 7, 0), (0, 7, 1)]
    units, first_units = cut_units(sentence_starts, document_starts, starts_word, 20)
    table = pair(units, first_units, identities, 0, first_to(40, 3), 20, 0.1, NSP)
    borrowed = table[(table[:, LABEL] == 1) & (table[:, DOCUMENT] < 2)]
    assert len(borrowed) > 100
    assert (borrowed[:, B_BEGIN] >= 400).all()


def test_rows_are_laid_out_with_their_separators():
    _, table = pair_up([[3, 9, 4, 12, 7] * 5, [6, 2, 8] * 9, [30]], 25, copies=2)
    pieces = np.arange(175 + 144 + 30, dtype=np.uint32) + 1000
    ids, row_starts, b_starts = lay_out(pieces, table)
    assert ids.dtype == np.uint32
    assert 0 in b_starts
    for number, row in enumerate(table):
        a, b = pieces[row[A_BEGIN] : row[A_END]].tolist(), pieces[row[B_BEGIN] : row[B_END]].tolist()
        assert ids[row_starts[number] : row_starts[number + 1]].tolist() == [CLS_ID, *a, SEP_ID, *([*b, SEP_ID] if b else [])]
        assert b_starts[number] == (len(a) + 2 if b else 0)


def test_keys_are_uniform_and_those_of_a_document_do_not_depend_on_its_neighbours():
    *_, identities = make_documents([[5] * 400] * 20)
    _, table = pair_up([[5] * 400] * 20, 40, copies=10)
    keys = row_keys(table, identities, 3)
    assert len(set(keys.tolist())) == len(table)
    place = np.sort(keys) / 2.0**64
    # Kolmogorov and Smirnov: at most 1.95 / sqrt(n) but for one in a thousand
    assert np.abs(place - np.arange(len(place)) / len(place)).max() < 1.95 / np.sqrt(len(place))
    alone = table[table[:, DOCUMENT] == 7]
    np.testing.assert_array_equal(row_keys(alone, identities, 3), keys[table[:, DOCUMENT] == 7])
    assert not np.isin(row_keys(table, identities, 4), keys).any()


def test_half_of_the_next_sentence_pairs_are_of_another_document():
    _, table = pair_up([[5] * 400] * 20, 40, NSP, copies=20, short=0.0)
    # A document's last sentence may be left alone, and then B is always another document's.
    is_last = np.append(table[1:, DOCUMENT] != table[:-1, DOCUMENT], True) | np.append(table[1:, COPY] != table[:-1, COPY], True)
    labels = table[~is_last][:, LABEL]
    assert set(labels.tolist()) == {0, 1}
    assert abs(np.mean(labels) - 0.5) < five_sigma(0.5, len(labels))


def test_half_of_the_pairs_are_swapped_and_the_border_is_uniform():
    # 8 sentences of 5 pieces fill the budget: every instance but the short ones has n = 8.
    _, table = pair_up([[5] * 400] * 20, 40, copies=50, short=0.0)
    assert len(table) == 50_000
    assert abs(np.mean(table[:, LABEL]) - 0.5) < five_sigma(0.5, len(table))
    border = np.where(table[:, LABEL] == 1, table[:, B_END] - table[:, B_BEGIN], table[:, A_END] - table[:, A_BEGIN]) // 5
    for a_end in range(1, 8):
        assert abs(np.mean(border == a_end) - 1 / 7) < five_sigma(1 / 7, len(table))


def test_one_instance_in_ten_aims_at_a_length_uniform_from_two_pieces_to_the_budget():
    # Sentences of one piece: the length is the target. Long documents, so that few instances meet a document's end.
    _, table = pair_up([[1] * 20_000] * 20, 61, copies=10, short=0.1)
    is_last = np.append(table[1:, DOCUMENT] != table[:-1, DOCUMENT], True) | np.append(table[1:, COPY] != table[:-1, COPY], True)
    lengths = (table[:, A_END] - table[:, A_BEGIN] + table[:, B_END] - table[:, B_BEGIN])[~is_last]
    expected_short = 0.1 * 59 / 60
    assert abs(np.mean(lengths < 61) - expected_short) < five_sigma(expected_short, len(lengths))
    short = lengths[lengths < 61]
    assert short.min() == 2
    for edge in (10, 20, 30, 40, 50):
        share = (edge - 1) / 59
        assert abs(np.mean(short <= edge) - share) < five_sigma(share, len(short))


def test_a_document_gives_the_same_pairs_whatever_its_neighbours():
    lengths = [[3, 9, 4, 12, 7] * 5, [6, 2, 8] * 9]
    _, both = pair_up(lengths, 25, copies=4)
    _, first = pair_up(lengths[:1], 25, copies=4)
    np.testing.assert_array_equal(both[both[:, DOCUMENT] == 0], first)
    assert not np.array_equal(first[first[:, COPY] == 0][:, :5], first[first[:, COPY] == 1][:, :5])


def test_copies_can_be_made_some_at_a_time():
    lengths = [[3, 9, 4, 12, 7] * 5, [6, 2, 8] * 9, [5] * 40]
    sentence_starts, document_starts, starts_word, identities = make_documents(lengths)
    units, first_units = cut_units(sentence_starts, document_starts, starts_word, 25)

    def pairs_of(copies):
        return pair(units, first_units, identities, 0, np.array(copies, np.int64), 25, 0.1, SOP)

    whole = pairs_of([(0, 4), (0, 0), (0, 7)])
    some, rest = pairs_of([(0, 3), (0, 0), (0, 3)]), pairs_of([(3, 4), (0, 0), (3, 7)])
    np.testing.assert_array_equal(some, whole[whole[:, COPY] < 3])
    np.testing.assert_array_equal(rest, whole[whole[:, COPY] >= 3])
    assert set(whole[:, DOCUMENT].tolist()) == {0, 2}


def test_random_streams_give_the_published_numbers_and_differ_by_every_word_of_the_key():
    state = np.array([1234567], np.uint64)
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [next_u64(state) for _ in range(5)] == published
    keys = [
        (0, PAIRS, 0, 0, 0, 0),
        (1, PAIRS, 0, 0, 0, 0),
        (0, MASKS, 0, 0, 0, 0),
        (0, PAIRS, 1, 0, 0, 0),
        (0, PAIRS, 0, 1, 0, 0),
        (0, PAIRS, 0, 0, 1, 0),
        (0, PAIRS, 0, 0, 0, 1),
    ]
    assert len({int(next_u64(start(*key))) for key in keys}) == len(keys)


def test_uniform_draws_are_uniform():
    state = start(3, PAIRS, 0, 0, 0, 0)
    draws = np.array([below(state, 6) for _ in range(60_000)])
    assert all(abs(np.mean(draws == face) - 1 / 6) < five_sigma(1 / 6, len(draws)) for face in range(6))
    assert 0 <= min(uniform(state) for _ in range(1000)) < 0.02


def documents(number):
    return [Document(0, 1000 * index, "text", f"line {index}") for index in range(number)]


def test_the_held_out_share_is_as_asked_and_never_empty():
    cutoff = find_cutoff(documents(20_000), 5, 0.02)
    assert abs(np.mean([lot(5, 0, 1000 * index) < cutoff for index in range(20_000)]) - 0.02) < five_sigma(0.02, 20_000)
    for seed in range(20):
        cutoff = find_cutoff(documents(7), seed, 1e-9)
        assert sum(lot(seed, 0, 1000 * index) < cutoff for index in range(7)) == 1
    assert find_cutoff(documents(7), 0, 0) == 0
    with pytest.raises(UserError, match="too few documents"):
        find_cutoff(documents(1), 0, 0.01)


def test_the_search_for_a_held_out_document_ends_with_the_first():
    found = iter(documents(10_000))
    assert find_cutoff(found, 5, 0.02) == 0.02
    # 1 - 0.98 ** 1000 is 1 but for two in a billion
    assert len(list(found)) > 9_000


def test_sentences_keep_every_character_and_break_at_blank_lines():
    text = "Mr. Smith went home. He\nslept well!\n \nNo full stop here\n\n你好。世界！"
    assert split(text, language="en", presegmented=False) == [
        "Mr. Smith went home.",
        "He slept well!",
        "No full stop here",
        "你好。",
        "世界！",
    ]
    assert split("a b. C\r\n\r\n  d\u00a0 e \n", language="en", presegmented=True) == ["a b. C", "d e"]


def test_a_list_marker_or_a_stray_quote_does_not_swallow_the_text_after_it():
    sentence = "We have made good progress in this field over the past year. "
    for opening in ("• ", "(1) ", "(a) First, "):
        sentences = split(opening + sentence * 20, language="en", presegmented=False)
        assert len(sentences) == 20
        assert "".join("".join(sentences).split()) == "".join((opening + sentence * 20).split())
    lengths = []
    for document in read_documents([BUNDLED]):
        sentences = split(document.text, language="en", presegmented=False)
        assert "".join("".join(sentences).split()) == "".join(document.text.split())
        lengths += map(len, sentences)
    assert np.mean(np.array(lengths) > 3 * LONG) < 0.001


# The probe: do the pieces at the ends of A and B tell which of them came first?


def corpus_as_pieces(shuffle_seed=None):
    """The bundled corpus with words and marks as pieces: (ids, lengths of sentences by document, number of different pieces)."""
    ids, lengths, vocabulary = [], [], {}
    for document in read_documents([BUNDLED]):
        sentences = split(document.text.lower(), language="en", presegmented=False)
        if shuffle_seed is not None:
            np.random.default_rng(shuffle_seed).shuffle(sentences)
        lengths.append([])
        for sentence in sentences:
            words = re.findall(r"\w+|[^\w\s]", sentence)
            ids += [vocabulary.setdefault(word, len(vocabulary)) for word in words]
            lengths[-1].append(len(words))
    return np.array(ids), lengths, len(vocabulary)


def probe_accuracy(ends, labels, documents, vocab_size):
    """Naive Bayes over the pieces at the four ends, learnt on one half of the documents and tried on the other; both ways."""
    num_right = 0
    for is_train in (documents % 2 == 0, documents % 2 == 1):
        score = np.zeros(np.sum(~is_train))
        for column in ends.T:
            counts = [np.bincount(column[is_train & (labels == label)], minlength=vocab_size) + 1.0 for label in (0, 1)]
            score += np.log(counts[1] / counts[1].sum() * counts[0].sum() / counts[0])[column[~is_train]]
        num_right += np.sum((score > 0) == labels[~is_train])
    return num_right / len(labels)


def probe_pairs(ids, lengths, vocab_size, budget=61):
    """(accuracy, instances) of the probe on instances as they are prepared."""
    _, table = pair_up(lengths, budget, copies=20)
    table = table[table[:, LABEL] != -100]
    ends = ids[table[:, [A_BEGIN, A_END, B_BEGIN, B_END]] - [0, 1, 0, 1]]
    return probe_accuracy(ends, table[:, LABEL], table[:, DOCUMENT], vocab_size), len(table)


def probe_cut_pairs(ids, lengths, vocab_size, budget=61):
    """Accuracy of the probe where the sentence that overshoots is cut to fill the budget."""
    ends, labels, documents = [], [], []
    random = np.random.default_rng(0)
    first = 0
    for number, document in enumerate(lengths):
        starts = first + np.concatenate([[0], np.cumsum(document)])
        first, begin = starts[-1], starts[0]
        while begin + budget < first:
            inside = starts[(starts > begin) & (starts < begin + budget)]
            if len(inside):
                border, end = random.choice(inside), begin + budget
                order = [ids[begin], ids[border - 1], ids[border], ids[end - 1]]
                labels.append(int(random.random() < 0.5))
                ends.append(order[2:] + order[:2] if labels[-1] else order)
                documents.append(number)
            begin = starts[np.searchsorted(starts, begin + budget)]
    return probe_accuracy(np.array(ends), np.array(labels), np.array(documents), vocab_size)


def test_the_order_of_a_and_b_hardly_shows_at_their_ends():
    # What is left is language: second sentences begin with "this", "they" or "thank" more often. The next test shows that.
    corpus = corpus_as_pieces()
    accuracy, num_instances = probe_pairs(*corpus)
    assert num_instances >= 100_000
    assert accuracy < 0.52
    # The probe has teeth.
    assert probe_cut_pairs(*corpus) > 0.75


def test_the_lengths_of_a_and_b_do_not_tell_the_order():
    # Packed from the front alone the longer part comes first in 60 % of the pairs: a sentence that did not fit, so a long one,
    # opens each instance.
    _, lengths, _ = corpus_as_pieces()
    _, table = pair_up(lengths, 61, copies=20)
    table = table[table[:, LABEL] != -100]
    a_is_shorter = table[:, A_END] - table[:, A_BEGIN] < table[:, B_END] - table[:, B_BEGIN]
    # All instances of a copy of a document are packed from the same side: 75 documents x 20 copies of independent draws.
    assert (
        abs(np.mean(a_is_shorter == table[:, LABEL]) - 0.5) < five_sigma(0.5, 75 * 20) / 5
    )  # The side shifts the share by a tenth at most.


def test_the_packing_itself_tells_nothing_of_the_order():
    # With the sentences of each document shuffled no language tells the order, so whatever the probe found would be ours.
    corpus = corpus_as_pieces(shuffle_seed=1)
    accuracy, num_instances = probe_pairs(*corpus)
    assert num_instances >= 100_000
    # Copies repeat sentences, so the draws are not independent: count a quarter of them.
    assert abs(accuracy - 0.5) < five_sigma(0.5, num_instances / 4)
    assert probe_cut_pairs(*corpus) > 0.75


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (["▁the", "▁pre", "par", "ed"], 2),
        (["▁don", "'", "t", "."], 4),
        (["▁20", "25", ",", "▁covid", "19"], 4),
        (["▁", "(", "a", ")"], 3),
        (["▁हिन्द", "ी", "▁में"], 2),
        (["▁привет", "ы", "!"], 2),
        (["▁人", "工", "智能", "。"], 4),
        (["▁ประเทศ", "ไทย"], 2),
        (["▁abc", "日本", "カナ", "def"], 4),
        (["▁a", "\u200d", "b"], 1),
        (["▁x", "<unk>", "y"], 3),
    ],
)
def test_words_start_where_a_reader_of_the_script_sees_them(pieces, words):
    vocabulary = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(piece for piece in pieces if piece != "<unk>")]
    ids = np.array([vocabulary.index(piece) for piece in pieces], np.int32)
    starts = word_starts(ids, np.array([0], np.int64), piece_classes(vocabulary, 5))
    assert starts.sum() == words
