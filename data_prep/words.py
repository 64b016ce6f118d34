"""Where whole words start, for masking. In: the vocabulary, then pieces of documents. Out: a flag per piece.

A piece that begins with `▁` starts a word; so does a piece that cannot continue one. A piece continues the word of the
piece before it only if that one is a bare `▁`, if letter meets letter or digit meets digit of a spaced script, or if it begins
with a mark. So a digit run is one word, each punctuation mark is one, and in scripts without spaces each piece is one.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np

from data_prep.compiled import compiled
from tokenizer.printable import JOINERS

SPACE = "▁"
"""SentencePiece's mark of a space before the piece."""

OTHER, LETTER, DIGIT, UNSPACED, MARK, BARE = 0, 1, 2, 3, 4, 255
"""Classes of characters. OTHER holds punctuation, symbols and the pieces of special tokens; BARE stands for no character at all."""

UNSPACED_SCRIPTS = frozenset(
    ["CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH", "HENTAIGANA", "BOPOMOFO", "TANGUT", "NUSHU"]
    + ["THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE", "BALINESE", "TAI", "NEW"]  # NEW TAI LUE
)
"""First words of the Unicode names of characters whose scripts put no spaces between words."""


def char_class(char: str) -> int:
    """OTHER, LETTER, DIGIT, UNSPACED or MARK."""
    category = unicodedata.category(char)
    if category[0] == "M" or char in JOINERS:
        return MARK
    if category[0] == "N":
        return DIGIT
    if category[0] != "L":
        return OTHER
    return UNSPACED if unicodedata.name(char, "").split(" ")[0] in UNSPACED_SCRIPTS else LETTER


def piece_classes(pieces: Sequence[str], num_special: int) -> np.ndarray:
    """uint8 array [vocabulary, 3] for `word_starts`: begins with `▁`; class of the first character after it; class of the last one
    that is no mark (MARK if all are).

    The first `num_special` pieces are OTHER, whatever they are spelt like.
    """
    table = np.zeros((len(pieces), 3), np.uint8)
    for index, piece in enumerate(pieces):
        if index >= num_special:
            classes = [char_class(char) for char in piece.removeprefix(SPACE)] or [BARE]
            last = next((item for item in reversed(classes) if item != MARK), MARK)
            table[index] = piece.startswith(SPACE), classes[0], last
    return table


@compiled
def word_starts(pieces, sentence_starts, classes):
    """bool [pieces]. sentence_starts: int64, index of each sentence's first piece. classes: from `piece_classes`."""
    starts = np.zeros(len(pieces), np.bool_)
    starts[:1] = True
    for index in sentence_starts:
        starts[index] = True
    before = OTHER  # class of the character before the piece, marks passed over
    for index in range(len(pieces)):
        space, first, last = classes[pieces[index]]
        if space == 1:
            starts[index] = True
        elif not starts[index]:
            starts[index] = not (before == BARE or first == MARK or (before == first and first in (LETTER, DIGIT)))
        if last != MARK:
            before = last
        elif starts[index]:  # marks without a letter
            before = LETTER
    return starts
