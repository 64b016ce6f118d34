"""Text that others wrote, made safe to show: it could move the cursor of a terminal, or turn the direction of a line."""

from data_prep.words import JOINERS


def printable(text: object) -> str:
    """`str(text)` with control characters, terminal escapes, direction marks and half surrogates spelt out, such as `\\x1b`."""
    return "".join(
        char if char.isprintable() or char in JOINERS else char.encode("unicode_escape").decode("ascii") for char in str(text)
    )
