"""A tokenizer folder in, sentences to ids: the ids that `AutoTokenizer` gives for the exported folder, but never a special one.

Plain text can spell `[MASK]`, and normalisation turns `＜pad＞`, `<PAD>` or `‹ṔAD>` into `<pad>`. So ids are checked after
encoding, and a word that yields a forbidden id is encoded again with its brackets apart.

The chain cuts at white space and treats words alone, so each distinct word is encoded once. Two kinds of sentences go whole:
- those with a word too long to come again, or in a text of mostly new words, where going by words gains nothing;
- those with a word whose neighbours matter. The normalizer's last step replaces a grapheme cluster of up to five bytes by what
  its table holds for the shortest beginning, and a combining mark is of one cluster with the space before it (as is a sign such
  as U+0600 with the space after it): U+0344 U+0301 loses its second mark at the start of a text, and keeps it after a space.
"""

import functools
import os
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tokenizer.chain import build_chain, build_guarded_chain, load_chain
from tokenizer.files import sha256_of_files
from tokenizer.letters import LetterCounter
from tokenizer.special_tokens import FORBIDDEN_TEXT_IDS
from tokenizer.word_table import GUARDED, IN_CONTEXT, LETTERS, LONG_WORD_BYTES, VANISHED, WordTable, cut_chunks, pack, unpack

MANY_WORDS = 1000
"""In a call that has more, sentences are encoded whole if over half of the words are new: a word alone takes twice as long."""

_FORBIDDEN = frozenset(FORBIDDEN_TEXT_IDS)
_BRACKETS_APART = str.maketrans({bracket: f" {bracket} " for bracket in "[]<>"})
_ALONE = frozenset(["Lu", "Ll", "Lt", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "So", "Cc", "Zs"])
"""Unicode categories none of whose characters extends its neighbour."""
_EMPTY = pack([0, 0, 0, 0], [])


class Encoded(NamedTuple):
    """Sentences end to end."""

    pieces: np.ndarray
    """int32 [pieces of all sentences]."""
    lengths: np.ndarray
    """int64 [sentences], in pieces. 0 where normalisation leaves nothing, as of a sentence of control characters."""


class Encoder:
    """The tokenizer of data preparation, made from a folder of `albert tokenizer` or a downloaded ALBERT's tokenizer.json.

    The chain is rebuilt from vocabulary, charsmap, do_lower_case and keep_accents, as AlbertTokenizer.from_pretrained does.
    Unless TOKENIZERS_PARALLELISM is set, it is set to false: encoding runs in worker processes, one thread each.

    Raises:
        UserError: a file is missing, or this is not an ALBERT tokenizer with the special tokens in place.
    """

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        folder = Path(folder)
        recipe = load_chain(folder)
        self._chain = build_chain(recipe)
        self._guarded_chain = build_guarded_chain(recipe)
        self._letters = LetterCounter(self._chain.normalizer)
        self._table = WordTable(self._encode_words)
        self.pieces: list[str] = [piece for piece, _ in recipe.pieces]
        """id -> piece."""
        self.vocab_size: int = len(self.pieces)
        self.sha256: str = sha256_of_files(folder / "tokenizer.json", folder / "tokenizer_config.json")
        self.num_guarded_words: int = 0
        """Words encoded with their brackets apart so far."""
        self.num_letters: int = 0
        """Letters and marks (Unicode L* and M*, composed) of the text encoded so far."""
        self.num_vanished: int = 0
        """Those of them that normalisation wipes out."""

    def encode(self, sentences: list[str]) -> list[np.ndarray]:
        """`encode_flat` in pieces: ids of each sentence, int32 [pieces]."""
        pieces, lengths = self.encode_flat(sentences)
        ends = np.cumsum(lengths)
        return [pieces[begin:end] for begin, end in zip(ends - lengths, ends, strict=True)]

    def encode_flat(self, sentences: list[str]) -> Encoded:
        """Ids without [CLS] and [SEP]; no id is in FORBIDDEN_TEXT_IDS, whatever the text.

        Where the chain itself yields no such id for a sentence, these are its ids, bit for bit.

        Raises:
            TypeError: a sentence holds half a surrogate pair, which is no text (`read_documents` never yields one).
        """
        if not sentences:
            return Encoded(np.empty(0, np.int32), np.empty(0, np.int64))
        lists = pc.split_pattern(_to_arrow(sentences), " ")
        num_words = pc.list_value_length(lists).to_numpy()  # at least 1, as "" gives [""]
        starts = np.cumsum(num_words) - num_words
        dictionary = (encoded := lists.flatten().dictionary_encode()).dictionary
        words = encoded.indices.to_numpy()

        is_long = pc.binary_length(dictionary).to_numpy() > LONG_WORD_BYTES
        chosen = np.logical_or.reduceat(is_long[words], starts)
        if 2 * len(dictionary) > len(words) > MANY_WORDS and 2 * self._table.num_missing(dictionary.to_pylist()) > len(words):
            chosen[:] = True
        whole = self._encode_whole(sentences, chosen)
        # Row 0 of the records is empty; then come the words of the other sentences, then the sentences encoded whole.
        is_used = np.zeros(len(dictionary), bool)
        is_used[words[~_words_of(whole, num_words)]] = True
        rows = np.where(is_used, np.cumsum(is_used), 0)[words]
        records = [_EMPTY, *self._table.look_up(dictionary.filter(pa.array(is_used)).to_pylist())]
        ids, counts = unpack(records)
        in_context = np.logical_or.reduceat(counts[rows, IN_CONTEXT] > 0, starts)
        whole |= self._encode_whole(sentences, in_context & ~chosen)
        if whole:
            rows[_words_of(whole, num_words)] = 0
            rows[starts[list(whole)]] = len(records) + np.arange(len(whole))
            ids, counts = unpack([*records, *whole.values()])

        totals = np.bincount(rows, minlength=len(counts)) @ counts
        self.num_guarded_words += int(totals[GUARDED])
        self.num_letters += int(totals[LETTERS])
        self.num_vanished += int(totals[VANISHED])
        pieces = ids.take(pa.array(rows)).flatten().to_numpy(zero_copy_only=False, writable=True)
        return Encoded(pieces, np.add.reduceat(ids.value_lengths().to_numpy()[rows], starts))

    def _encode_whole(self, sentences: list[str], chosen: np.ndarray) -> dict[int, bytes]:
        """Records by number of the sentence, of those `chosen` (bool [sentences]) that yield no forbidden id."""
        records = {}
        numbers = np.flatnonzero(chosen).tolist()
        for chunk in cut_chunks(numbers, sentences):
            texts = [sentences[number] for number in chunk]
            encodings = self._chain.encode_batch_fast(texts, add_special_tokens=False)
            for number, encoding, counts in zip(chunk, encodings, self._letters.count(texts).tolist(), strict=True):
                ids = encoding.ids
                if _FORBIDDEN.isdisjoint(ids):
                    records[number] = pack([*counts, 0, 0], ids)
        return records

    def _encode_words(self, words: list[str]) -> list[bytes]:
        records = []
        encodings = self._chain.encode_batch_fast(words, add_special_tokens=False)
        for word, encoding, counts in zip(words, encodings, self._letters.count(words).tolist(), strict=True):
            ids, num_guarded = encoding.ids, 0
            if not _FORBIDDEN.isdisjoint(ids):
                ids, num_guarded = self._encode_guarded(word)
            records.append(pack([*counts, num_guarded, self._is_in_context(word)], ids))
        return records

    def _is_in_context(self, word: str) -> bool:
        """Whether spaces around it change how the word is normalised."""
        if _stands_alone(word[:1]) and _stands_alone(word[-1:]):
            return False
        normalise = self._chain.normalizer.normalize_str
        return normalise(f" {word} ") != f" {normalise(word)} "

    def _encode_guarded(self, word: str) -> tuple[list[int], int]:
        """Ids, and number of its parts at fault; other white space than a space may be inside."""
        ids: list[int] = []
        num_guarded = 0
        parts = word.split()
        for part, encoding in zip(parts, self._chain.encode_batch_fast(parts, add_special_tokens=False), strict=True):
            part_ids = encoding.ids
            if not _FORBIDDEN.isdisjoint(part_ids):
                apart = self._chain.normalizer.normalize_str(part).translate(_BRACKETS_APART)
                part_ids = self._guarded_chain.encode(apart, add_special_tokens=False).ids
                num_guarded += 1
            ids += part_ids
        return ids, num_guarded


@functools.lru_cache(maxsize=4096)
def _stands_alone(character: str) -> bool:
    """Whether it is sure to share no grapheme cluster with a space beside it; true of "", too.

    Some letters (Lo) do: U+0E33 and U+0EB3 extend what is before them, U+0D4E and some of the higher planes what is after them.
    """
    category = unicodedata.category(character) if character else "Zs"
    return category in _ALONE or (category == "Lo" and character < "\U00010000" and character not in "\u0d4e\u0e33\u0eb3")


def _to_arrow(sentences: list[str]) -> pa.LargeStringArray:
    try:
        return pa.array(sentences, pa.large_string())
    except UnicodeEncodeError as error:
        raise TypeError(f"expected sentences of valid Unicode, found half a surrogate pair: {error.object[:100]!r}") from error


def _words_of(numbers: dict[int, bytes], num_words: np.ndarray) -> np.ndarray:
    """bool [words of all sentences]: the words of the sentences of these numbers."""
    chosen = np.zeros(len(num_words), bool)
    chosen[list(numbers)] = True
    return np.repeat(chosen, num_words)
