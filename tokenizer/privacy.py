"""A private corpus (`--private true`): whether a tokenizer was trained on one, and errors that nobody foresaw, without their words.

Messages of ours ask `Faults.quote` before they quote. An exception of a library may hold any text that the library was given.
"""

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenizer.errors import UserError


class WithheldError(Exception):
    """Stands for an unforeseen error: its type, and where it came from, line by line."""


def is_private_tokenizer(folder: Path) -> bool:
    """What manifest.json says, or tokenizer_config.json in an export, which has no manifest; false where neither does, as in a
    downloaded ALBERT. The encoder says what is wrong with a damaged file."""
    return any(_says_private(folder / name) for name in ("manifest.json", "tokenizer_config.json"))


def _says_private(path: Path) -> bool:
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("private") is True
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def words_withheld(private: bool) -> Iterator[None]:
    """Inside, unforeseen exceptions become a WithheldError if `private`; those for the user and of the system pass."""
    try:
        yield
    except Exception as error:
        of_system = isinstance(error, OSError) and error.errno is not None
        if not private or of_system or isinstance(error, (UserError, WithheldError)):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        places = "".join(f"\n  {frame.filename}:{frame.lineno}, in {frame.name}" for frame in frames)
        raise WithheldError(f"{type(error).__name__} (its words are not shown: the corpus is private), at{places}") from None
