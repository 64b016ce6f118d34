"""`--input` values in, a sorted list of single inputs out: files, folders, globs, and `hf:NAME[:CONFIG[:SPLIT]]`.

The order decides the number of an input, and that number is part of a document's identity: it must not change when the
corpus moves. So inputs are sorted by their path relative to the folder, file or glob that was given, never by where that lies.
"""

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from tokenizer.errors import UserError

SUFFIXES = {
    ".txt": "txt", ".txt.gz": "txt", ".txt.zst": "txt",
    ".jsonl": "jsonl", ".jsonl.gz": "jsonl", ".jsonl.zst": "jsonl",
    ".parquet": "parquet",
}  # fmt: skip
SUPPORTED = "supported: " + ", ".join(SUFFIXES) + ", folders, globs, and hf:NAME[:CONFIG[:SPLIT]]"

SortKey = tuple[str, ...]


class Input(NamedTuple):
    """One file, or one split of a `datasets` dataset."""

    source: str
    """The path as the user will recognise it, or the whole `hf:` string."""
    kind: Literal["txt", "jsonl", "parquet", "hf"]


def resolve_inputs(inputs: Sequence[str]) -> list[Input]:
    """Every file and dataset that `inputs` stand for, once, in the order that numbers them.

    Sorted by the path relative to the argument (of a file: its name; of a glob: what follows its last plain folder), then by the
    position of the argument. In folders and globs, hidden files and files of other types are passed over.

    Raises:
        UserError: nothing given, or an argument is missing, of an unsupported type, unreadable, or stands for no file.
    """
    if not inputs:
        raise UserError(f"--input: no corpus given ({SUPPORTED}).")
    found: dict[str, tuple[SortKey, int, Input]] = {}
    for position, argument in enumerate(inputs):
        entries = list(_expand(argument))
        if not entries:
            raise UserError(f"{argument}: no file of a known type here ({SUPPORTED}).")
        for relative, source in entries:
            if source.startswith("hf:"):
                identity, kind = source, "hf"
            else:
                _check_file(source)
                identity, kind = os.path.abspath(source), SUFFIXES[_suffix(source)]
            found.setdefault(identity, (relative, position, Input(source, kind)))
    return [item for _, _, item in sorted(found.values(), key=lambda entry: entry[:2])]


def _expand(argument: str) -> Iterator[tuple[SortKey, str]]:
    """(sort key, source) of everything one argument stands for."""
    if argument.startswith("hf:"):
        name, *rest = argument[3:].split(":")
        if not name or len(rest) > 2:
            raise UserError(f"--input {argument}: expected hf:NAME, hf:NAME:CONFIG or hf:NAME:CONFIG:SPLIT.")
        yield (Path(name).name, *rest), argument
    elif os.path.isdir(argument):
        yield from _walk(argument, argument)
    elif os.path.lexists(argument):
        if _suffix(argument) is None:
            raise UserError(f"{argument}: unknown type of file ({SUPPORTED}). Rename or convert it.")
        yield (os.path.basename(argument),), argument
    elif glob.has_magic(argument):
        yield from _matches(argument)
    else:
        raise UserError(f"{argument}: no such file or folder. Check --input ({SUPPORTED}).")


def _matches(pattern: str) -> Iterator[tuple[SortKey, str]]:
    parts = Path(pattern).parts
    num_plain = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base = os.path.join(os.curdir, *parts[:num_plain])
    for match in glob.iglob(pattern, recursive=True):
        if not os.path.isdir(match):
            if _suffix(match):
                yield Path(os.path.relpath(match, base)).parts, match
        elif "**" not in parts:  # with ** the files below are matches of their own
            yield from _walk(match, base)


def _walk(folder: str, base: str, above: frozenset[str] = frozenset()) -> Iterator[tuple[SortKey, str]]:
    """Supported files below `folder`, through links to folders too (a link to a folder above is passed over)."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}). Check its permissions.") from error
    for path in (os.path.join(folder, name) for name in names):
        if os.path.isdir(path):
            yield from _walk(path, base, above | {real})
        elif _suffix(path):
            yield Path(os.path.relpath(path, base)).parts, path


def _check_file(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if os.path.islink(path):
            raise UserError(f"{path}: a link to {os.readlink(path)}, which does not exist. Mend or remove the link.") from error
        raise UserError(f"{path}: cannot be read ({error.strerror}). Check --input.") from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: not a regular file. The corpus is read several times, so pipes and devices cannot be used.")


def _suffix(path: str) -> str | None:
    name = os.path.basename(path).lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default=None)
