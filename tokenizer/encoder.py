"""A tokenizer folder in, sentences to ids: the ids that `AutoTokenizer` gives for the exported folder, but never a special one.

Plain text can spell `[MASK]`, and normalisation turns `＜pad＞`, `<PAD>` or `‹ṔAD>` into `<pad>`. So ids are checked after
encoding, and a word that yields a forbidden id is encoded again with its brackets apart.
"""

import itertools
import os
from pathlib import Path

import numpy as np

from tokenizer.chain import build_chain, build_guarded_chain, load_chain
from tokenizer.files import sha256_of_files
from tokenizer.special_tokens import FORBIDDEN_TEXT_IDS

_BRACKETS_APART = str.maketrans({bracket: f" {bracket} " for bracket in "[]<>"})


class Encoder:
    """The tokenizer of data preparation. Make it with `Encoder.load`, once in each process."""

    def __init__(self, folder: Path) -> None:
        recipe = load_chain(folder)
        self._chain = build_chain(*recipe)
        self._guarded_chain = build_guarded_chain(*recipe)
        self.pieces: list[str] = [piece for piece, _ in recipe[0]]
        """id -> piece."""
        self.vocab_size: int = len(self.pieces)
        self.sha256: str = sha256_of_files(Path(folder) / "tokenizer.json", Path(folder) / "tokenizer_config.json")
        """Over tokenizer.json, then tokenizer_config.json."""
        self.num_guarded_words: int = 0
        """Words encoded with their brackets apart so far."""
        self._is_forbidden_V = np.zeros(self.vocab_size, dtype=bool)
        self._is_forbidden_V[list(FORBIDDEN_TEXT_IDS)] = True

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """Load a folder made by `albert tokenizer`, or a downloaded ALBERT folder with tokenizer.json.

        The chain is rebuilt from vocabulary, charsmap, do_lower_case and keep_accents, as AlbertTokenizer.from_pretrained does.
        Unless TOKENIZERS_PARALLELISM is set, it is set to false: encoding runs in worker processes, one thread each.

        Raises:
            UserError: a file is missing, or this is not an ALBERT tokenizer with the special tokens in place.
        """
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return cls(Path(folder))

    def encode(self, sentences: list[str]) -> list[np.ndarray]:
        """Ids of each sentence, int32 [pieces], without [CLS] and [SEP]; no id is in FORBIDDEN_TEXT_IDS, whatever the text.

        Where the chain itself yields no such id, these are its ids, bit for bit.

        Raises:
            TypeError: a sentence holds half a surrogate pair, which is no text (`read_documents` never yields one).
        """
        ids = [encoding.ids for encoding in self._chain.encode_batch_fast(sentences, add_special_tokens=False)]
        ends = np.cumsum([len(sentence_ids) for sentence_ids in ids], dtype=np.int64)
        num_ids = int(ends[-1]) if sentences else 0
        flat = np.fromiter(itertools.chain.from_iterable(ids), dtype=np.int32, count=num_ids)
        arrays = np.split(flat, ends[:-1]) if sentences else []
        for number in np.unique(np.searchsorted(ends, np.flatnonzero(self._is_forbidden_V[flat]), side="right")):
            arrays[number] = np.array(self._encode_guarded(sentences[number]), dtype=np.int32)
        return arrays

    def _encode_guarded(self, sentence: str) -> list[int]:
        """Word by word, so that only the words at fault are changed."""
        words = sentence.split()
        encoded = [encoding.ids for encoding in self._chain.encode_batch_fast(words, add_special_tokens=False)]
        for number, word_ids in enumerate(encoded):
            if not set(FORBIDDEN_TEXT_IDS).isdisjoint(word_ids):
                normalised = self._chain.normalizer.normalize_str(words[number])
                apart = normalised.translate(_BRACKETS_APART)
                encoded[number] = self._guarded_chain.encode(apart, add_special_tokens=False).ids
                self.num_guarded_words += 1
        return list(itertools.chain.from_iterable(encoded))
