"""What a host tells `albert doctor`: JSON in lines of its standard output, whatever else is written there.

A line is short, marked at both ends and base64 between: pdsh puts the host's name before it, srun cuts lines at 1,024 bytes, and a
login script may have said something without an end of line.
"""

import base64
import itertools
import json
import os
import re
import time
from typing import Any, NamedTuple

MARK = "@albert-doctor"
PART_SIZE = 600
"""Characters of base64 in a line."""
LINE = re.compile(rf"{MARK} (\d+) (\d+) (\d+) (\d+) ([A-Za-z0-9+/=]*)@")

_serials = itertools.count()


class Message(NamedTuple):
    number: int
    """Of the host, from 0."""
    kind: str
    said_at: float
    """Seconds since 1970 by the host's clock."""
    content: Any


def say(number: int, kind: str, content: Any = None) -> None:
    """Write a message of host `number` to standard output, past Python's buffer, so that its time is that of the writing."""
    text = base64.b64encode(json.dumps([kind, time.time(), content]).encode()).decode()
    parts = [text[start : start + PART_SIZE] for start in range(0, len(text), PART_SIZE)]
    serial = next(_serials)
    for place, part in enumerate(parts):
        os.write(1, f"{MARK} {number} {serial} {place} {len(parts)} {part}@\n".encode())


class Reader:
    """Lines in, whole messages out."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, int], dict[int, str]] = {}

    def read(self, line: str) -> Message | None:
        """The message that this line completes."""
        found = LINE.search(line)
        if found is None:
            return None
        number, serial, place, num_parts = map(int, found.groups()[:4])
        parts = self._parts.setdefault((number, serial), {})
        parts[place] = found[5]
        if len(parts) < num_parts:
            return None
        del self._parts[number, serial]
        try:
            return Message(number, *json.loads(base64.b64decode("".join(parts[place] for place in range(num_parts)))))
        except (KeyError, TypeError, ValueError):  # damaged on its way
            return None
