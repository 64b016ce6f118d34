"""A .jsonl record over a megabyte in, fragment by fragment; its text out, as it comes. The record is never held whole.

Long strings are taken out of the record as they are read: what is left, its skeleton, is parsed when it is complete. So a fault
after the text shows when the text has been handed on, as in a long line of a .txt file.
"""

import json
import re
from collections.abc import Callable, Iterator

IN_STRING = re.compile(
    r"""(?:[^"\\]++                                                        # plain
        |\\[^u]                                                            # \n, \" and the like
        |\\u(?![dD][89abAB]).{4}
        |\\u[dD][89abAB].{2}(?:\\u.{4}|(?=[^\\])|(?=\\[^u]))               # the first half of a pair never ends a part
        )*+""",
    re.DOTALL | re.VERBOSE,
)
"""From inside a JSON string to its closing quote, or as far as what there is can be decoded by itself."""

LONG_STRING = 1 << 16
"""Characters; a shorter string stays in the skeleton. A key must be shorter, or its beginning counts."""

KEPT = 1000
"""Characters of a long string that is not the text."""


def read_long_record(fragments: Iterator[str], text_field: str, text_of_record: Callable[[str], str]) -> Iterator[str]:
    """Parts of the text of one record.

    fragments: the line, cut anywhere between characters. text_of_record: checks a record and gives its text, for all but
    long strings.

    Raises:
        ValueError: a long string is not JSON, or holds half a surrogate pair. What `text_of_record` raises.
    """
    skeleton: list[str] = []
    buffer, place = "", 0
    is_inside = is_long = is_text = was_text = False
    for fragment in fragments:
        buffer, place = buffer[place:] + fragment, 0
        while place < len(buffer):
            if not is_inside:
                quote = buffer.find('"', place)
                skeleton.append(buffer[place : quote if quote >= 0 else len(buffer)])
                place = quote + 1 if quote >= 0 else len(buffer)
                is_inside, is_long = quote >= 0, False
                continue
            end = IN_STRING.match(buffer, place).end()
            content, is_closed = buffer[place:end], buffer[end : end + 1] == '"'
            if not is_long and len(content) < LONG_STRING:
                if not is_closed:
                    break  # what there is of it waits for more
                skeleton.append(f'"{content}"')
            else:
                if not is_long:
                    is_text = _is_value_of("".join(skeleton), text_field)
                    was_text = was_text or is_text
                    # Of others, keys perhaps, the beginning is kept for messages.
                    skeleton.append('""' if is_text else json.dumps(json.loads(f'"{content}"')[:KEPT]))
                is_long = True
                if is_text:
                    part = json.loads(f'"{content}"')
                    part.encode("utf-8")  # a UnicodeEncodeError is a ValueError
                    yield part
            place, is_inside = end + is_closed, not is_closed
            if not is_closed:
                break
    if is_inside:
        skeleton.append('"')  # never closed: parsing says so
    text = text_of_record("".join(skeleton))
    if not was_text:
        yield text


def _is_value_of(beginning: str, field: str) -> bool:
    """Whether what comes next is the value of this field of the record itself, not of an object inside it."""
    try:
        record = json.loads(f'{beginning}""}}')
    except ValueError:
        return False
    return isinstance(record, dict) and list(record)[-1:] == [field]
