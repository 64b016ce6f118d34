"""Files of labelled data as they lie on disk: their kind, their text in UTF-8, the JSON in them."""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tokenizer.errors import UserError

GZIP = ".gz"

Row = dict[str, Any]


class Reading(NamedTuple):
    """How files are read."""

    names: Sequence[str] = ()
    """Of the columns of tables without a header line."""
    on_error: str = "stop"
    """What becomes of rows with another number of columns: `stop`, `skip`, or `mend`, a `stop` where none may be left out."""
    private: bool = False
    """Whether no error may quote what a file holds."""

    def quote(self, words: Iterable[str]) -> str:
        words = list(words)
        return f"{len(words)} not shown" if self.private else ", ".join(words[:8]) + (", ..." if len(words) > 8 else "")


def kind_of(path: Path) -> str:
    """The suffix in small letters, such as .tsv, of a file that may be .gz."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix == GZIP else suffix


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A file in UTF-8, maybe .gz.

    Raises:
        UserError: it cannot be opened, or not be read to where the reader went.
    """
    opened = gzip.open if path.suffix.lower() == GZIP else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x}"
        raise UserError(f'{path}: is not in UTF-8 ({byte}), as Excel\'s "Unicode text" is not. Save it as UTF-8.') from error
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{path}: cannot be read ({reason}).") from error


def read_json(path: Path) -> Any:
    """The one JSON value of a file, maybe .gz.

    Raises:
        UserError: it cannot be read, or is none.
    """
    with open_text(path) as file:
        try:
            return json.load(file)
        except UnicodeDecodeError:  # a ValueError, too
            raise
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: is no JSON ({error}).") from error


def is_text(found: Any) -> bool:
    """A string without the half characters that JSON can hold (lone surrogates), which no tokenizer takes."""
    return isinstance(found, str) and not re.search("[\ud800-\udfff]", found)
