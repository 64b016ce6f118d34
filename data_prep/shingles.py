"""A text in, the minima of its hashed 5-grams of words out: datatrove's MinHash, for every script and without a download.

datatrove splits words with spaCy and a dozen packages more. Near-duplicates need no such care: here a word is what stands between
spaces, and each character in scripts that put none.
"""

from functools import cache

import numpy as np
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WordTokenizer

from data_prep.words import UNSPACED, char_class

CONFIG = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8, seed=1, hash_config=HashConfig(hash_fc="sha1"))
"""Two documents that share four fifths of their 5-grams are found in 92 % of cases, three fifths: 21 %. sha1, because datatrove
0.10 hands strings to xxhash, which takes only bytes from version 4 on."""

SHINGLES_AT_ONCE = 1024
"""0.9 MB in each step of numpy's; all shingles of a long document at once would be gigabytes."""


def minima(text: str) -> np.ndarray:
    """uint64 [14, 8], or [0] where the text has no words. Lower case, without digits' values, punctuation and accents."""
    step = signature_step()
    shingles = step.get_shingles(text)
    starts = range(0, len(shingles), SHINGLES_AT_ONCE)
    parts = [np.array(step.get_signature(shingles[start : start + SHINGLES_AT_ONCE]), np.uint64) for start in starts]
    return np.min(parts, axis=0) if parts else np.empty(0, np.uint64)


@cache
def signature_step() -> MinhashDedupSignature:
    return MinhashDedupSignature("memory://never-written", CONFIG, language=Words())


class Words(WordTokenizer):
    """Spaced scripts at spaces, others at every character."""

    def word_tokenize(self, text: str) -> list[str]:
        """At least enough for one 5-gram, if there is a word at all, so that equal short documents are found."""
        words = (text if text.isascii() else text.translate(_SPACED)).split()
        return words + [""] * (CONFIG.n_grams - len(words)) if words else words

    sent_tokenize = span_tokenize = word_tokenize  # datatrove wants them, nothing calls them


class _Spaced(dict):
    """For str.translate; holds the characters met."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = f" {char} " if char_class(char) == UNSPACED else char
        return self[code]


_SPACED = _Spaced()
