"""Where whole words start, for masking. In: the vocabulary, then pieces of documents. Out: a flag per piece.

A piece that begins with `▁` starts a word; so does a piece that cannot continue one. A piece continues the word of the
piece before it only if that one is a bare `▁`, or if letter meets letter or digit meets digit of a spaced script. So a
digit run is one word, each punctuation mark is one, and in scripts without spaces each piece is one.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np

from data_prep.compiled import compiled

SPACE = "▁"
"""SentencePiece's mark of a space before the piece."""

OTHER, LETTER, DIGIT, UNSPACED = 0, 1, 2, 3
"""Classes of characters. OTHER holds punctuation, symbols and the pieces of special tokens."""

UNSPACED_SCRIPTS = frozenset(
    ["CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH", "HENTAIGANA", "BOPOMOFO", "TANGUT", "NUSHU"]
    + ["THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE", "BALINESE", "TAI", "NEW"]  # NEW TAI LUE
)
"""First words of the Unicode names of characters whose scripts put no spaces between words."""

JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiner: format characters that stand inside words of Arabic and Indic scripts."""


def char_class(char: str) -> int:
    """OTHER, LETTER, DIGIT or UNSPACED; combining marks count as letters of their script."""
    category = unicodedata.category(char)
    if category[0] == "N":
        return DIGIT
    if category[0] not in "LM" and char not in JOINERS:
        return OTHER
    return UNSPACED if unicodedata.name(char, "").split(" ")[0] in UNSPACED_SCRIPTS else LETTER


def piece_classes(pieces: Sequence[str], num_special: int) -> np.ndarray:
    """uint8 array [vocabulary, 3] for `word_starts`: begins with `▁`; class of the first and of the last character after it.

    The first `num_special` pieces are OTHER, whatever they are spelt like. A bare `▁` has the classes 255.
    """
    table = np.zeros((len(pieces), 3), np.uint8)
    for index, piece in enumerate(pieces):
        text = piece.removeprefix(SPACE)
        if index >= num_special:
            table[index] = piece != text, char_class(text[0]) if text else 255, char_class(text[-1]) if text else 255
    return table


@compiled
def word_starts(pieces, sentence_starts, classes):
    """bool [pieces]. sentence_starts: int64, index of each sentence's first piece. classes: from `piece_classes`."""
    starts = np.ones(len(pieces), np.bool_)
    for index in range(1, len(pieces)):
        space, first, _ = classes[pieces[index]]
        before = classes[pieces[index - 1], 2]
        starts[index] = space == 1 or not (before == 255 or (before == first and first in (LETTER, DIGIT)))
    for index in sentence_starts:
        starts[index] = True
    return starts
