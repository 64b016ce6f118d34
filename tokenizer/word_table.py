"""Words in, their records out: ids and counts, each worked out once and kept while there is room.

A record depends on its word alone, so what is kept, and when it is dropped, changes the time it takes and nothing else.
"""

from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

MAX_TABLE_BYTES = 64 << 20
"""Of memory, about; then the table is dropped and filled anew. 37 MB of English have 184,000 words, which take 30 MB."""

WORD_OVERHEAD = 130
"""Bytes that Python takes for the two objects of a word and its entry, beyond their content (126 in English)."""

LONG_WORD_BYTES = 128
"""In UTF-8. Longer words hardly come twice: mostly they are sentences of a script without spaces. They are never kept."""

CHUNK_TEXTS, CHUNK_CHARACTERS = 1024, 1 << 16
"""At most encoded at a time (one longer text goes alone): until their ids are out, the library's encodings take some kilobytes for
each text, and some hundred bytes for each character of a script without spaces."""

NUM_COUNTS = 4
LETTERS, VANISHED, GUARDED, IN_CONTEXT = range(NUM_COUNTS)
"""Columns of `Records.counts`: letters and marks; those that normalisation wipes out; words encoded with their brackets apart;
1 where the neighbours of a word may change its ids."""


class Records(NamedTuple):
    ids: pa.LargeListArray
    """Of int32, one list for each record."""
    counts: np.ndarray
    """int32 [records, NUM_COUNTS]."""


def pack(counts: list[int], ids: list[int]) -> bytes:
    """One record."""
    return array("i", counts + ids).tobytes()


def unpack(records: list[bytes]) -> Records:
    """All of them as arrays."""
    flat = np.frombuffer(b"".join(records), np.int32)
    sizes = np.fromiter(map(len, records), np.int64, len(records)) // flat.itemsize
    begins = np.cumsum(sizes) - sizes
    places = begins[:, np.newaxis] + np.arange(NUM_COUNTS)
    offsets = np.cumsum(np.concatenate([[0], sizes - NUM_COUNTS]))
    return Records(pa.LargeListArray.from_arrays(offsets, np.delete(flat, places.ravel())), flat[places])


def cut_chunks(numbers: list[int], texts: list[str]) -> Iterator[list[int]]:
    """The numbers in their order, in chunks whose texts are encoded together."""
    chunk: list[int] = []
    num_characters = 0
    for number in numbers:
        num_characters += len(texts[number])
        if len(chunk) == CHUNK_TEXTS or (chunk and num_characters > CHUNK_CHARACTERS):
            yield chunk
            chunk, num_characters = [], len(texts[number])
        chunk.append(number)
    if chunk:
        yield chunk


class WordTable:
    """Holds the records of words it has met, about MAX_TABLE_BYTES of them. `encode` makes the record of each word of a list."""

    def __init__(self, encode: Callable[[list[str]], list[bytes]]) -> None:
        self._encode = encode
        self._kept: dict[str, bytes] = {}
        self._num_bytes = 0

    def num_missing(self, words: list[str]) -> int:
        """How many of the words it does not hold."""
        return sum(word not in self._kept for word in words)

    def look_up(self, words: list[str]) -> list[bytes]:
        """The record of each word; the words should differ."""
        records = list(map(self._kept.get, words))
        missing = [place for place, record in enumerate(records) if record is None]
        for places in cut_chunks(missing, words):
            for place, record in zip(places, self._encode([words[place] for place in places]), strict=True):
                records[place] = record
                self._keep(words[place], record)
        return records

    def _keep(self, word: str, record: bytes) -> None:
        num_bytes = len(word.encode())
        if num_bytes > LONG_WORD_BYTES:
            return
        if self._num_bytes > MAX_TABLE_BYTES:
            self._kept, self._num_bytes = {}, 0
        self._kept[word] = record
        self._num_bytes += WORD_OVERHEAD + num_bytes + len(record)
