"""A tokenizer folder in, sentences to ids: the ids that `AutoTokenizer` gives for the exported folder, but never a special one.

Plain text can spell `[MASK]`, and normalisation turns `＜pad＞`, `<PAD>` or `‹ṔAD>` into `<pad>`. So ids are checked after
encoding, and a word that yields a forbidden id is encoded again with its brackets apart.
"""

import os
from pathlib import Path

import numpy as np

from tokenizer.chain import build_chain, build_guarded_chain, load_chain
from tokenizer.files import sha256_of_files
from tokenizer.special_tokens import FORBIDDEN_TEXT_IDS

_FORBIDDEN = frozenset(FORBIDDEN_TEXT_IDS)
_BRACKETS_APART = str.maketrans({bracket: f" {bracket} " for bracket in "[]<>"})


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
        self._chain = build_chain(*recipe)
        self._guarded_chain = build_guarded_chain(*recipe)
        self.pieces: list[str] = [piece for piece, _ in recipe[0]]
        """id -> piece."""
        self.vocab_size: int = len(self.pieces)
        self.sha256: str = sha256_of_files(folder / "tokenizer.json", folder / "tokenizer_config.json")
        self.num_guarded_words: int = 0
        """Words encoded with their brackets apart so far."""

    def encode(self, sentences: list[str]) -> list[np.ndarray]:
        """Ids of each sentence, int32 [pieces], without [CLS] and [SEP]; no id is in FORBIDDEN_TEXT_IDS, whatever the text.

        Where the chain itself yields no such id, these are its ids, bit for bit.

        Raises:
            TypeError: a sentence holds half a surrogate pair, which is no text (`read_documents` never yields one).
        """
        arrays = []
        for sentence, encoding in zip(sentences, self._chain.encode_batch_fast(sentences, add_special_tokens=False), strict=True):
            ids = encoding.ids
            arrays.append(np.array(ids if _FORBIDDEN.isdisjoint(ids) else self._encode_guarded(sentence), np.int32))
        return arrays

    def _encode_guarded(self, sentence: str) -> list[int]:
        """Word by word, so that only the words at fault are changed."""
        ids: list[int] = []
        words = sentence.split()
        for word, encoding in zip(words, self._chain.encode_batch_fast(words, add_special_tokens=False), strict=True):
            word_ids = encoding.ids
            if not _FORBIDDEN.isdisjoint(word_ids):
                apart = self._chain.normalizer.normalize_str(word).translate(_BRACKETS_APART)
                word_ids = self._guarded_chain.encode(apart, add_special_tokens=False).ids
                self.num_guarded_words += 1
            ids += word_ids
        return ids
