"""Text that others wrote, made safe to show: it could move the cursor of a terminal, or turn the direction of a line."""

from collections.abc import Iterable
from itertools import islice

JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiner: format characters that stand inside words of Arabic and Indic scripts."""

MOST_NAMES, MOST_CHARACTERS = 20, 200
"""Of a list of names in a message: a name may be as long as its file."""


def printable(text: object) -> str:
    """`str(text)` on one line of valid text: controls, terminal escapes, newlines, direction marks and half surrogates (bytes of a
    path that are not UTF-8) are spelt out, such as `\\x1b`."""
    return "".join(
        char if char.isprintable() or char in JOINERS else char.encode("unicode_escape").decode("ascii") for char in str(text)
    )


def names_of(names: Iterable[str]) -> str:
    """Names of fields for a message, as far as there is room."""
    shown = printable(", ".join(islice(names, MOST_NAMES)))
    return shown if len(shown) <= MOST_CHARACTERS else shown[:MOST_CHARACTERS] + "..."
