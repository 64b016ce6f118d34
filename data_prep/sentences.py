"""One document's text in, its sentences out: non-empty strings with single spaces inside and none at the ends."""

import re

import sentencex

PARAGRAPH_BREAK = re.compile(r"\n[^\S\n]*\n\s*")


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
        parts = [part for paragraph in paragraphs if paragraph for part in sentencex.segment(language, paragraph)]
    return [sentence for part in parts if (sentence := " ".join(part.split()))]
