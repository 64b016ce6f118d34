"""Long text in, sections of at most SECTION_CHARS characters out: what bounds the memory of every later step."""

from collections.abc import Iterator

SECTION_CHARS = 1 << 20
"""Characters. A longer document comes in sections, each taken for a document by the filters, sentences and pairs."""


def cut_sections(text: str) -> Iterator[str]:
    """Sections that give the text again one after the other; the last one holds what is left, 1 to SECTION_CHARS characters.

    A section ends behind the last empty line in the second half of its SECTION_CHARS characters, else behind the last newline
    there, else behind the last white space there, else it is full. So it depends on its own first SECTION_CHARS characters alone.
    """
    start = 0
    while len(text) - start > SECTION_CHARS:
        end = start + _length(text[start : start + SECTION_CHARS])
        yield text[start:end]
        start = end
    yield text[start:] if start else text


def _length(window: str) -> int:
    half = SECTION_CHARS // 2
    for separator in ("\n\n", "\n"):
        found = window.rfind(separator, half)
        if found >= 0:
            return found + len(separator)
    unfinished = window[half:].rsplit(None, 1)[-1:]  # the last word; white space behind it is the border
    if unfinished and window.endswith(unfinished[0]) and len(unfinished[0]) < len(window) - half:
        return len(window) - len(unfinished[0])
    return len(window)
