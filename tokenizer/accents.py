"""Counts of characters in; out, how much of the text is in scripts that stripping marks would destroy.

`keep_accents=False` decomposes every character and drops the marks: हिन्दी -> हनद, বাংলা -> বল, กำลัง -> กาลง, йод -> иод, が -> か,
tiếng -> tieng. Not in the list are scripts whose unmarked text is ordinary spelling (Hebrew, Greek), and Latin but for Vietnamese.
"""

import unicodedata
from collections import Counter

from tokenizer.letters import is_letter_or_mark

SCRIPTS = frozenset([
    "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA",
    "THAI", "LAO", "TIBETAN", "MYANMAR", "KHMER", "JAVANESE", "BALINESE", "SUNDANESE", "THAANA", "ARABIC",
    "CYRILLIC", "HIRAGANA", "KATAKANA",
])  # fmt: skip
"""First words of Unicode names: vowels of Brahmic scripts, hamza, й ё ї, voicing of kana are all marks once decomposed."""

VIETNAMESE = frozenset(chr(code) for code in range(0x1EA0, 0x1EFA)) | frozenset("ƠơƯư\u0309\u031b\u0323")
"""Letters, and marks of decomposed letters, that hardly any other language writes and that are frequent in this one."""

LARGEST_SHARE = 0.01
"""Of all letters and marks."""


def endangered_share(counts: Counter[str]) -> tuple[float, list[str]]:
    """Share in 0..1 of letters and marks in endangered scripts, and the scripts' names, most frequent first.

    `counts` maps each character of the raw text to its number.
    """
    num_letters = 0
    scripts: Counter[str] = Counter()
    for character, count in counts.items():
        if not is_letter_or_mark(character):
            continue
        num_letters += count
        script = unicodedata.name(character, "").split(" ", 1)[0]
        if script in SCRIPTS:
            scripts[script.capitalize()] += count
        elif character in VIETNAMESE:
            scripts["Vietnamese"] += count
    return scripts.total() / max(1, num_letters), [script for script, _ in scripts.most_common()]
