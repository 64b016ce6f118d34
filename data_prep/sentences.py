"""One document's text in, its sentences out: non-empty strings with single spaces inside and none at the ends.

Sentences come from sentencex. It holds what stands in quotes together, and everything after a list marker such as `•` or
`(1)` up to the next one: a stray quote or a list that is over gives it a "sentence" of 90,000 characters. Long sentences
are therefore looked at again with quotes, brackets and markers hidden from it.
"""

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencex

from tokenizer.errors import UserError

PARAGRAPH_BREAK = re.compile(r"\n[^\S\n]*\n\s*")

OTHER_SPACES = [chr(code) for code in range(0x3001) if chr(code).isspace() and chr(code) != " "]
"""All of Unicode's. Each is replaced by itself, which is several times as fast as splitting at all and joining."""

WINDOW, SMALL_WINDOW = 1 << 14, 1 << 11
"""Characters given to sentencex at a time: its time grows with the square of the text where no space follows the sentences (64 k of
Chinese go at 0.9 MB/s, 2 k at 24) and of runs of quotes. Small where spaces are rare, as they are in scripts without them."""

LONG = 300
"""Characters. Twice the usual sentence: what is right stays as it was, since hiding quotes rarely finds another end in it."""

OPENING = re.compile(r" [^\w ]+(?=[\w ])")
"""Marks before a word or alone: opening quotes and brackets, bullets, dashes; with the space before them."""

CLOSING = re.compile(r"[\"'”’»)\]](?<=[^ \"'”’»)\]].)[\"'”’»)\]]*(?![^ ])")
"""Quotes and brackets that close after a word or a full stop. The look-behind keeps a run from being tried at each place in it."""

NOT_IN_A_WORD = "\"'“”‘’„‚«»‹›()[]{}"
"""Around the last word of a sentence."""


def split(text: str, *, language: str, presegmented: bool, abbreviations: frozenset[str] = frozenset()) -> list[str]:
    """Sentences of `text`, in order; every non-space character lands in exactly one.

    presegmented: a newline ends a sentence, nothing else does. Otherwise sentencex decides by the rules of `language`, and
    a blank line ends a sentence too, while a single newline is a space (lines of wrapped text are no sentences).
    abbreviations: words that end no sentence, from `read_abbreviations`; without effect on presegmented text and at a blank line.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if presegmented:
        return [line for part in text.split("\n") if (line := _single_spaces(part))]
    sentences: list[str] = []
    for paragraph in PARAGRAPH_BREAK.split(text):
        parts = _split_paragraph(_single_spaces(paragraph), language)
        sentences += _join_abbreviated(parts, abbreviations) if abbreviations else parts
    return sentences


def read_abbreviations(path: Path) -> tuple[str, ...]:
    """The words of a file that holds one a line, such as `Dkt.`; in its order, blank lines left out.

    Raises:
        UserError: the file cannot be read, is not UTF-8, holds no word, or more than one word in a line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"--abbreviations {path}: not UTF-8 at byte {error.start}. Convert it: iconv -f WINDOWS-1252 -t UTF-8 FILE > utf8.txt"
        ) from error
    except OSError as error:
        raise UserError(f"--abbreviations {path}: cannot be read ({error.strerror or error}). Check the path.") from error
    for number, line in enumerate(lines, start=1):
        if len(line.split()) > 1:
            raise UserError(f"--abbreviations {path}:{number}: expected one word in a line, such as Dkt., found {line.strip()!r}.")
    words = tuple(line.strip() for line in lines if line.strip())
    if not words:
        raise UserError(f"--abbreviations {path}: it is empty. Expected abbreviations, one in a line, such as Dkt.")
    return words


def split_long(sentence: str, language: str) -> list[str]:
    """Cut where sentencex would cut if there were no quotes, brackets and list markers. The cuts lose no character.

    sentence: with single spaces.
    """
    hidden = OPENING.sub(lambda match: " " + "_" * (len(match[0]) - 1), f" {sentence}")[1:]
    hidden = CLOSING.sub(lambda match: " " * len(match[0]), hidden)
    parts, begin = [], 0
    for part in sentencex.segment(language, hidden):
        parts.append(sentence[begin : begin + len(part)])
        begin += len(part)
    return [*parts, sentence[begin:]]


def _split_paragraph(paragraph: str, language: str) -> Iterator[str]:
    """Window by window. Each begins with the first sentence that ends in the last eighth of the one before, because there a
    quotation that goes on looks like one without an end. A WINDOW in which no sentence ends is cut off."""
    begin, size = 0, 0
    while begin < len(paragraph):
        if not size:
            size = WINDOW if paragraph.count(" ", begin, begin + WINDOW) * 32 >= WINDOW else SMALL_WINDOW
        window = paragraph[begin : begin + size]
        wholes = sentencex.segment(language, window)
        parts = [part for whole in wholes for part in ([whole] if len(whole) <= LONG else split_long(whole, language))]
        parts = _join_decimals(parts)
        if begin + size < len(paragraph):
            ends = itertools.accumulate(map(len, parts))
            certain = [part for part, end in zip(parts, ends, strict=True) if end <= size - size // 8]
            if not certain and size < WINDOW:
                size = WINDOW
                continue
            parts = certain or parts[:-1] or [window[: window.rfind(" ") + 1] or window]
        yield from (sentence for part in parts if (sentence := part.strip()))
        begin += sum(map(len, parts))
        size = 0


def _join_decimals(parts: list[str]) -> list[str]:
    """Parts, with the spaces after them. sentencex knows 3.5, but takes ३.५, ৩.৫ and ３．５ for two sentences each."""
    joined: list[list[str]] = []
    end = ""
    for part in filter(None, parts):
        if end[-1:] in (".", "．") and end[:1].isdecimal() and part[:1].isdecimal():
            joined[-1].append(part)
        else:
            joined.append([part])
        end = part[-2:]
    return ["".join(group) for group in joined]


def _join_abbreviated(sentences: Iterable[str], abbreviations: frozenset[str]) -> Iterator[str]:
    """Sentences, joined with the next where the last word, quotes and brackets taken off, is an abbreviation."""
    pending: list[str] = []
    for sentence in sentences:
        pending.append(sentence)
        if sentence[sentence.rfind(" ") + 1 :].strip(NOT_IN_A_WORD) not in abbreviations:
            yield " ".join(pending)
            pending = []
    if pending:
        yield " ".join(pending)


def _single_spaces(text: str) -> str:
    for space in OTHER_SPACES:
        text = text.replace(space, " ")
    while "  " in text:
        text = text.replace("  ", " ")
    return text.strip(" ")
