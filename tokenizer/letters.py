"""Texts in, their letters and marks counted out, and how many of these normalisation wipes out.

Stripped of accents, Hindi and Thai lose every other sign, English and French none: é is a letter before and after, whether it came
composed or not. So signs are counted after composition (NFC), one by one: what counts as lost leaves no letter or mark at all.
"""

import unicodedata

import numpy as np
from tokenizers.normalizers import Normalizer

_UNKNOWN, _OTHER, _LETTER, _VANISHING = -1, 0, 1, 2


class LetterCounter:
    """Remembers the kind of every character it has met (1.1 MB)."""

    def __init__(self, normalizer: Normalizer) -> None:
        self._normalizer = normalizer
        self._kinds = np.full(0x110000, _UNKNOWN, np.int8)

    def count(self, texts: list[str]) -> np.ndarray:
        """int64 [texts, 2]: letters and marks (Unicode L* and M*), and those of them that vanish."""
        composed = [unicodedata.normalize("NFC", text) for text in texts]
        codes = np.frombuffer("".join(composed).encode("utf-32-le"), np.uint32)
        kinds = self._kinds[codes]
        unknown = kinds == _UNKNOWN
        if unknown.any():
            for code in np.unique(codes[unknown]):
                self._kinds[code] = self._kind(chr(code))
            kinds = self._kinds[codes]
        ends = np.cumsum([0, *map(len, composed)])
        return np.stack([np.diff(_sums(kinds >= _LETTER)[ends]), np.diff(_sums(kinds == _VANISHING)[ends])], axis=1)

    def _kind(self, character: str) -> int:
        if not _has_letter(character):
            return _OTHER
        return _LETTER if _has_letter(self._normalizer.normalize_str(character)) else _VANISHING


def is_letter_or_mark(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


def _has_letter(text: str) -> bool:
    return any(map(is_letter_or_mark, text))


def _sums(flags: np.ndarray) -> np.ndarray:
    """int64 [flags + 1]: sum of all flags before each place."""
    return np.concatenate([[0], np.cumsum(flags)])
