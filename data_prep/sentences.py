"""One document's text in, its sentences out: non-empty strings with single spaces inside and none at the ends.

Sentences come from sentencex. It holds what stands in quotes together, and everything after a list marker such as `•` or
`(1)` up to the next one: a stray quote or a list that is over gives it a "sentence" of 90,000 characters. Long sentences
are therefore looked at again with quotes, brackets and markers hidden from it.
"""

import re

import sentencex

PARAGRAPH_BREAK = re.compile(r"\n[^\S\n]*\n\s*")

LONG = 300
"""Characters. Twice the usual sentence: what is right stays as it was, since hiding quotes rarely finds another end in it."""

OPENING = re.compile(r"(?<!\S)[^\w\s]+(?=\s|\w)")
"""Marks before a word or alone: opening quotes and brackets, bullets, dashes."""

CLOSING = re.compile(r"(?<=[^\s\"'”’»)\]])[\"'”’»)\]]+(?!\S)")
"""Quotes and brackets that close after a word or a full stop."""


def split(text: str, *, language: str, presegmented: bool) -> list[str]:
    """Sentences of `text`, in order; every non-space character lands in exactly one.

    presegmented: a newline ends a sentence, nothing else does. Otherwise sentencex decides by the rules of `language`, and
    a blank line ends a sentence too, while a single newline is a space (lines of wrapped text are no sentences).
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if presegmented:
        parts = text.split("\n")
    else:
        # Paragraph by paragraph: sentencex copies the whole text more than once.
        paragraphs = (" ".join(paragraph.split()) for paragraph in PARAGRAPH_BREAK.split(text))
        wholes = (whole for paragraph in paragraphs if paragraph for whole in sentencex.segment(language, paragraph))
        parts = [part for whole in wholes for part in ([whole] if len(whole) <= LONG else split_long(whole, language))]
    return [sentence for part in parts if (sentence := " ".join(part.split()))]


def split_long(sentence: str, language: str) -> list[str]:
    """Cut where sentencex would cut if there were no quotes, brackets and list markers. The cuts lose no character."""
    hidden = OPENING.sub(lambda match: "_" * len(match[0]), sentence)
    hidden = CLOSING.sub(lambda match: " " * len(match[0]), hidden)
    parts, begin = [], 0
    for part in sentencex.segment(language, hidden):
        parts.append(sentence[begin : begin + len(part)])
        begin += len(part)
    return [*parts, sentence[begin:]]
