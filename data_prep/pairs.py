"""Whole sentences -> sentence pairs with an order, compiled. In: the pieces of a batch of documents. Out: unmasked rows.

An instance is two runs of pieces, A and B, given by their borders in the pieces, plus a label; `lay_out` writes it as a row.
Masks are drawn later, over rows in their final order (data_prep/masks.py).

ALBERT paper, section 3.1 (sentence-order prediction); google-research/albert, create_pretraining_data.py. Where this
differs (no sentence is cut to fill an instance, short targets are drawn per instance, a lone sentence carries no order),
docs/decisions.md has the reasons.
"""

import numpy as np

from data_prep.compiled import compiled
from data_prep.random_streams import PAIRS, SHUFFLE, below, next_u64, start, uniform
from data_prep.schema import NO_LABEL
from tokenizer.special_tokens import CLS_ID, SEP_ID

SOP, NSP, NONE = 0, 1, 2
OBJECTIVES = {"sop": SOP, "nsp": NSP, "none": NONE}

A_BEGIN, A_END, B_BEGIN, B_END, LABEL, DOCUMENT, COPY, NUM_UNITS = range(8)
"""Columns of the table of instances. B_BEGIN = B_END: one segment."""

BEGIN, END, IS_PART = range(3)
"""Columns of the table of units: whole sentences, and the parts of sentences longer than the budget."""

NUM_TRIES = 10
"""Draws of a start for another document's sentences (nsp) before the instance goes without."""


def text_budget(max_seq_length: int, pair_objective: str) -> int:
    """Text pieces an instance can hold beside [CLS] and its [SEP]s."""
    return max_seq_length - (2 if pair_objective == "none" else 3)


@compiled
def cut_units(sentence_starts, document_starts, starts_word, budget):
    """Sentences as units that fit the budget; only one longer than the budget is cut, at the last word start that fits.

    A word longer than the budget is cut where the budget ends. Nothing is lost: units tile the pieces.

    sentence_starts: int64 [sentences + 1], index of each sentence's first piece, then the number of pieces.
    document_starts: int64 [documents + 1], index of each document's first sentence, then the number of sentences.
    starts_word: bool [pieces].
    Returns int64 [units, 3] (BEGIN, END, IS_PART) and int64 [documents + 1], index of each document's first unit.
    """
    num_pieces = sentence_starts[-1]
    units = np.empty((len(sentence_starts) + 2 * (num_pieces // budget + 1), 3), np.int64)
    first_units = np.zeros(len(document_starts), np.int64)
    num_units = 0
    for document in range(len(document_starts) - 1):
        for sentence in range(document_starts[document], document_starts[document + 1]):
            begin, sentence_end = sentence_starts[sentence], sentence_starts[sentence + 1]
            is_part = int(sentence_end - begin > budget)
            while begin < sentence_end:
                end = min(begin + budget, sentence_end)
                if end < sentence_end:
                    while end > begin and not starts_word[end]:
                        end -= 1
                    if end == begin:
                        end = begin + budget
                if num_units == len(units):
                    units = np.concatenate((units, np.empty_like(units)))
                units[num_units] = begin, end, is_part
                num_units += 1
                begin = end
        first_units[document + 1] = num_units
    return units[:num_units].copy(), first_units


@compiled
def pair(units, first_units, identities, seed, copies, budget, short_seq_prob, objective):
    """Instances of all documents and copies, documents in order, the copies of one document together.

    units, first_units: from `cut_units`. identities: int64 [documents, 3], (input index, offset, section) of each document; those
    with one (input index, offset) are sections of one document. copies: int64 [documents, 2], first and end of the copies of each.
    budget: text pieces an instance may hold. objective: SOP, NSP or NONE.

    - Target length: the budget, or with probability short_seq_prob uniform in [2, budget].
    - Units are added while the total fits the budget, until it reaches the target and two are in (NONE: one).
    - SOP packs half of the copies from the document's end. A sentence that did not fit, so a long one, opens the next
      instance: packed from the front alone, the longer of A and B came first in 60 % of the pairs of length 64.
    - A takes the first a_end ~ U[1, n - 1] of n units, B the rest. SOP swaps them with p = 0.5 (label 1, else 0).
    - One unit, or a part of a cut sentence among several: label -100. Such parts keep their order, in two segments.
    - NSP: with p = 0.5, and for a lone sentence, B is whole sentences of another document of the batch (label 1), and the
      sentences that were to be B open the next instance. Where no other document helps: label -100.

    Returns int64 [instances, 8]. Under SOP and NONE the instances of one copy tile the pieces of its document.
    """
    table = np.empty((np.sum(np.diff(first_units) * (copies[:, 1] - copies[:, 0])), 8), np.int64)
    row = 0
    for document in range(len(first_units) - 1):
        for copy in range(copies[document, 0], copies[document, 1]):
            state = start(seed, PAIRS, copy, identities[document, 0], identities[document, 1], identities[document, 2])
            first, last = first_units[document], first_units[document + 1]
            from_end = objective == SOP and uniform(state) < 0.5
            while first < last:
                target = budget if uniform(state) >= short_seq_prob else 2 + below(state, budget - 1)
                num = num_fitting(units, first, last, from_end, budget, target, 1 if objective == NONE else 2)
                low, high = (last - num, last) if from_end else (first, first + num)
                first, last = (first, low) if from_end else (high, last)
                begin, end = units[low, BEGIN], units[high - 1, END]
                middle = low + 1 + below(state, num - 1) if num > 1 else high
                border = units[middle - 1, END]
                has_part = np.any(units[low:high, IS_PART])
                table[row] = begin, border, border, end, NO_LABEL, document, copy, num
                if objective == NONE:
                    table[row, :4] = begin, end, end, end
                elif objective == SOP and num > 1 and not has_part:
                    table[row, LABEL] = 0
                    if uniform(state) < 0.5:
                        table[row, : LABEL + 1] = border, end, begin, border, 1
                elif objective == NSP and not has_part:
                    if num > 1 and uniform(state) < 0.5:
                        table[row, LABEL] = 0
                    else:
                        size = border - begin
                        others = borrow(state, units, first_units, identities, document, budget - size, target - size)
                        other_begin, other_end = others
                        if other_end > other_begin:
                            table[row, B_BEGIN : LABEL + 1] = other_begin, other_end, 1
                            table[row, NUM_UNITS] = max(2, num)
                            first = middle
                row += 1
    return table[:row].copy()


@compiled
def num_fitting(units, first, last, from_end, budget, target, min_units):
    """How many of the units first .. last - 1, from the front or the end, fit the budget; stops at the target with min_units in."""
    length = 0
    for num in range(last - first):
        unit = last - 1 - num if from_end else first + num
        length += units[unit, END] - units[unit, BEGIN]
        if length > budget:
            return num
        if length >= target and num + 1 >= min_units:
            return num + 1
    return last - first


@compiled
def borrow(state, units, first_units, identities, document, room, target):
    """Borders of a run of whole sentences of a random other document that fits into `room` pieces; (0, 0) if none is found."""
    num_others = len(first_units) - 2
    for _ in range(NUM_TRIES if num_others > 0 else 0):
        other = below(state, num_others)
        other += int(other >= document)
        first, last = first_units[other], first_units[other + 1]
        if first == last or np.all(identities[other, :2] == identities[document, :2]):
            continue
        first += below(state, last - first)
        for unit in range(first, min(last, first + room)):
            if units[unit, IS_PART]:
                last = unit
                break
        num = num_fitting(units, first, last, False, room, target, 1)
        if num > 0:
            return units[first, BEGIN], units[first + num - 1, END]
    return 0, 0


@compiled
def row_keys(table, identities, seed):
    """uint64 [instances]: where each belongs in the final order, uniform at random, a function of (seed, copy, document)."""
    keys = np.empty(len(table), np.uint64)
    state = start(0, 0, 0, 0, 0, 0)
    for row in range(len(table)):
        document, copy = table[row, DOCUMENT], table[row, COPY]
        if row == 0 or document != table[row - 1, DOCUMENT] or copy != table[row - 1, COPY]:
            state = start(seed, SHUFFLE, copy, identities[document, 0], identities[document, 1], identities[document, 2])
        keys[row] = next_u64(state)
    return keys


@compiled
def lay_out(pieces, table):
    """Rows `[CLS] A [SEP] B [SEP]` or `[CLS] A [SEP]` end to end.

    pieces: any integer type, kept. Returns ids, int64 [instances + 1] starts of the rows in them, and uint16 [instances], index
    in its row of B's first piece, 0 where there is no B.
    """
    lengths = table[:, A_END] - table[:, A_BEGIN] + table[:, B_END] - table[:, B_BEGIN] + 3 - (table[:, B_BEGIN] == table[:, B_END])
    row_starts = np.zeros(len(table) + 1, np.int64)
    row_starts[1:] = np.cumsum(lengths)
    ids = np.empty(row_starts[-1], pieces.dtype)
    segment_b_starts = np.zeros(len(table), np.uint16)
    for row in range(len(table)):
        place = row_starts[row]
        ids[place] = CLS_ID
        place = append(ids, place + 1, pieces, table[row, A_BEGIN], table[row, A_END])
        if table[row, B_BEGIN] < table[row, B_END]:
            segment_b_starts[row] = place - row_starts[row]
            append(ids, place, pieces, table[row, B_BEGIN], table[row, B_END])
    return ids, row_starts, segment_b_starts


@compiled
def append(ids, place, pieces, begin, end):
    """Write pieces[begin:end] and [SEP] at `place`; returns the place after them."""
    for index in range(begin, end):
        ids[place + index - begin] = pieces[index]
    place += end - begin
    ids[place] = SEP_ID
    return place + 1
