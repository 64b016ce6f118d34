"""Documents in, the lines that SentencePiece learns from out, drawn evenly from the whole corpus and normalised, with counts.

SentencePiece could draw them itself, but its draw differs from process to process, whatever seed is set (0.2.3).
In memory is the sample alone.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tokenizers.normalizers import Normalizer

from tokenizer.accents import LARGEST_SHARE, endangered_share
from tokenizer.corpus import Document
from tokenizer.errors import UserError

MAX_LINE_BYTES = 4192
"""SentencePiece passes over longer lines without a word (its max_sentence_length), so they are cut."""

NUM_SHOWN_LINES = 10

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
        UserError: `keep_accents` is false and the text needs its marks; or what reading the documents raises.
    """
    sample = Sample()
    raw_counts: Counter[str] = Counter()
    training_random, shown_random = random.Random(f"training {seed}"), random.Random(f"shown {seed}")
    num_parts = 0
    for document in documents:
        sample.num_documents += 1
        for line in document.text.split("\n"):
            words = normalizer.normalize_str(line).translate(_NOT_FOR_TRAINING).split()
            if not words:
                continue
            sample.num_lines += 1
            sample.character_counts.update("".join(words))
            if not keep_accents:
                raw_counts.update(line)
            _keep(sample.shown, line, sample.num_lines, NUM_SHOWN_LINES, shown_random)
            for part in cut_line(" ".join(words).encode("utf-8")):
                num_parts += 1
                _keep(sample.lines, part, num_parts, sample_size, training_random)
    share, scripts = endangered_share(raw_counts)
    if share > LARGEST_SHARE:
        raise UserError(
            f"--keep_accents false: {share:.1%} of the letters are {', '.join(scripts[:5])}, where marks carry meaning and "
            f"stripping them destroys words (at most {LARGEST_SHARE:.0%} is let through). Use --keep_accents true."
        )
    return sample


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
