"""Documents in, the lines that SentencePiece learns from out, drawn evenly from the whole corpus and normalised, with counts.

SentencePiece could draw them itself, but its draw differs from process to process, whatever seed is set (0.2.3).
In memory are the sample, whose size is checked as it grows, and a table of words, so that each is normalised and counted once.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tokenizers.normalizers import Normalizer

from tokenizer.accents import LARGEST_SHARE, endangered_share
from tokenizer.corpus import Document
from tokenizer.errors import UserError
from tokenizer.memory import check_growing_sample

MAX_LINE_BYTES = 4192
"""SentencePiece passes over longer lines without a word (its max_sentence_length), so they are cut."""

NUM_SHOWN_LINES = 10

FIRST_CHECK = 1 << 16
"""Lines in the sample when its memory is first looked at; then whenever they have doubled."""

MAX_TABLE_CHARACTERS, WORD_OVERHEAD = 1 << 23, 50
"""Of the words in the table, each counted with so many more: some 45 MB. Then the table is emptied."""

LONG_WORD = 12
"""Characters that a word of a line has on average where the line is not taken word by word: scripts without spaces."""

LETTERS_LIKE_MARKS = "\u0e33\u0eb3\uff9e\uff9f"
"""Letters to Python, but to the normalizer they belong to the character before them, as marks do."""

NORMALISED_AT_ONCE = 1 << 16
"""Characters. The normalizer takes some 40 bytes for each."""

_NOT_FOR_TRAINING = str.maketrans("\0\u2585", "  ")
"""SentencePiece passes over a whole line that holds one of these (the second is its sign for unknown)."""


@dataclass(kw_only=True)
class Sample:
    """What one pass over the corpus gives."""

    lines: list[bytes] = field(default_factory=list)
    """Normalised UTF-8 lines for training."""
    shown: list[str] = field(default_factory=list)
    """Ten raw lines."""
    num_documents: int = 0
    num_lines: int = 0
    """Lines with text in the corpus, before long ones are cut."""
    character_counts: Counter[str] = field(default_factory=Counter)
    """Characters of the whole corpus after normalisation, without white space."""


def draw_sample(
    documents: Iterable[Document], normalizer: Normalizer, *, keep_accents: bool, sample_size: int, seed: int
) -> Sample:
    """At most `sample_size` lines; the same documents, size and seed give the same lines in the same order.

    Raises:
        UserError: `keep_accents` is false and the text needs its marks; the sample needs more memory for training than there is; or
            what reading the documents raises.
    """
    sample = Sample()
    raw_counts: Counter[str] = Counter()
    words = _Words(normalizer, sample.character_counts, None if keep_accents else raw_counts)
    training_random, shown_random = random.Random(f"training {seed}"), random.Random(f"shown {seed}")
    num_parts, next_check = 0, FIRST_CHECK
    for document in documents:
        sample.num_documents += document.section == 0
        for line in document.text.split("\n"):
            normalised = words.normalise(line)
            if not normalised:
                continue
            sample.num_lines += 1
            _keep(sample.shown, line, sample.num_lines, NUM_SHOWN_LINES, shown_random)
            for part in cut_line(normalised.encode("utf-8")):
                num_parts += 1
                _keep(sample.lines, part, num_parts, sample_size, training_random)
                if num_parts == next_check <= sample_size:
                    check_growing_sample(sample.lines, sample_size)
                    next_check *= 2
    words.count()
    share, scripts = endangered_share(raw_counts)
    if share > LARGEST_SHARE:
        raise UserError(
            f"--keep_accents false: {share:.1%} of the letters are {', '.join(scripts[:5])}, where marks carry meaning and "
            f"stripping them destroys words (at most {LARGEST_SHARE:.0%} is let through). Use --keep_accents true."
        )
    return sample


class _Words:
    """What normalisation makes of each word, and how often it came; the counts of characters follow from that in `count`."""

    def __init__(self, normalizer: Normalizer, character_counts: Counter[str], raw_counts: Counter[str] | None) -> None:
        self._normalizer = normalizer
        self._normalised: dict[str, str] = {}
        self._num: Counter[str] = Counter()
        self._num_characters = 0
        self._character_counts, self._raw_counts = character_counts, raw_counts

    def normalise(self, line: str) -> str:
        """The line after normalisation, with single spaces; counted.

        Words end at U+0020 alone and are normalised with the space before them, to which a mark belongs that has no letter: so the
        outcome is that of the whole line.
        """
        words = line.split(" ")
        begins_with_mark = line[:1] > "\x7f" and (not line[0].isalpha() or line[0] in LETTERS_LIKE_MARKS)
        if begins_with_mark or len(line) > LONG_WORD * len(words):
            normalised = "".join(map(self._normalizer.normalize_str, cut_text(line))).translate(_NOT_FOR_TRAINING)
            normalised = " ".join(normalised.split())
            self._character_counts.update(normalised.replace(" ", ""))
            if self._raw_counts is not None:
                self._raw_counts.update(line)
            return normalised
        if self._num_characters > MAX_TABLE_CHARACTERS:
            self.count()
        self._num.update(words)
        for word in set(words).difference(self._normalised):
            self._num_characters += len(word) + WORD_OVERHEAD
            normalised = self._normalizer.normalize_str(f" {word}").translate(_NOT_FOR_TRAINING)
            self._normalised[word] = " ".join(normalised.split())
        return " ".join(filter(None, map(self._normalised.__getitem__, words)))

    def count(self) -> None:
        """Count the characters of the words so far, and forget the words."""
        for word, number in self._num.items():
            for character in self._normalised[word].replace(" ", ""):
                self._character_counts[character] += number
        if self._raw_counts is not None:
            for word, number in self._num.items():
                for character in word:
                    self._raw_counts[character] += number
        self._num.clear()
        self._normalised.clear()
        self._num_characters = 0


def cut_text(text: str) -> Iterator[str]:
    """The text in parts of at most NORMALISED_AT_ONCE characters, cut after a white space where there is one."""
    start = 0
    while len(text) - start > NORMALISED_AT_ONCE:
        part = text[start : start + NORMALISED_AT_ONCE]
        last_word = "" if part[-1].isspace() else part.rsplit(None, 1)[-1]
        part = part[: len(part) - len(last_word)] or part
        yield part
        start += len(part)
    yield text[start:]


def cut_line(line: bytes) -> Iterator[bytes]:
    """The UTF-8 line in parts of at most MAX_LINE_BYTES, cut at spaces where there are any, else between characters."""
    start = 0
    while len(line) - start > MAX_LINE_BYTES:
        end = line.rfind(b" ", start + 1, start + MAX_LINE_BYTES + 1)
        if end < 0:
            end = start + MAX_LINE_BYTES
            while line[end] & 0xC0 == 0x80:  # inside a character
                end -= 1
        yield line[start:end]
        start = end + (line[end] == 0x20)
    if start < len(line):
        yield line[start:]


def _keep(kept: list, item: object, number: int, size: int, source: random.Random) -> None:
    """Reservoir sampling (Vitter's algorithm R): after item `number`, counted from 1, each is kept with equal probability."""
    if number <= size:
        kept.append(item)
    elif (place := source.randrange(number)) < size:
        kept[place] = item
