"""`--input` values in, a sorted list of single inputs out.

A value is a file, folder, glob, URL or `hf:NAME[:CONFIG[:SPLIT]]`, each also as LABEL=VALUE.

The order decides the number of an input, and that number is part of a document's identity: it must not change when the
corpus moves. So inputs are sorted by their path relative to the folder, file or glob that was given, never by where that lies.
"""

import errno
import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from tokenizer.errors import UserError
from tokenizer.faults import Faults, printable
from tokenizer.storage import is_url, list_url

SUFFIXES = {
    ".txt": "txt", ".txt.gz": "txt", ".txt.zst": "txt",
    ".jsonl": "jsonl", ".jsonl.gz": "jsonl", ".jsonl.zst": "jsonl",
    ".parquet": "parquet",
}  # fmt: skip
SUPPORTED = "supported: " + ", ".join(SUFFIXES) + ", folders, globs, URLs such as s3://BUCKET/FOLDER, and hf:NAME[:CONFIG[:SPLIT]]"

_LABELLED = re.compile(r"([A-Za-z0-9_.-]+)=(.+)", re.DOTALL)

SortKey = tuple[str, ...]


class Input(NamedTuple):
    """One file, or one split of a `datasets` dataset."""

    source: str
    """The path or URL as the user will recognise it, or the whole `hf:` string."""
    kind: Literal["txt", "jsonl", "parquet", "hf"]
    name: str
    """Path relative to the argument that gave it, as valid text on one line: does not depend on where the corpus lies."""
    label: str
    """Which source of a mixed corpus it belongs to; "" where none was given."""


def resolve_inputs(inputs: Sequence[str], *, faults: Faults | None = None) -> list[Input]:
    """Every file and dataset that `inputs` stand for, once, in the order that numbers them.

    Sorted by the path relative to the argument (of a file: its name; of a glob: what follows its last plain folder), then by the
    position of the argument. In folders and globs, hidden files and files of other types are passed over. `LABEL=INPUT` gives
    all that INPUT stands for a label, unless a file of the whole name exists (`./a=b/*.txt` is never taken for a label).

    Args:
        inputs: files, folders, globs, URLs, `hf:` names.
        faults: what to do with inputs that are missing, of unknown type or unreadable; None: stop.

    Raises:
        UserError: such an input, if `faults` says stop; nothing given or nothing left; one input under two labels.
    """
    if not inputs:
        raise UserError(f"--input: no corpus given ({SUPPORTED}).")
    faults = faults or Faults()
    found: dict[str, tuple[SortKey, int, Input]] = {}
    for position, given in enumerate(inputs):
        label, argument = _split_label(given)
        for relative, source in _expand(argument, faults):
            name = printable("/".join(relative))
            if source == argument and argument.startswith("hf:") and not is_url(argument):
                identity, kind = source, "hf"
            else:
                try:
                    identity, kind = _identity(source), SUFFIXES[_suffix(source)]
                except UserError as error:
                    faults.report(name, error, str(error).removeprefix(f"{printable(source)}: "))
                    continue
            if identity in found and found[identity][2].label != label:
                labels = " and ".join(f"label {one!r}" if one else "no label" for one in (found[identity][2].label, label))
                raise UserError(f"{printable(source)}: given under {labels}. Give each input under one label.")
            found.setdefault(identity, (relative, position, Input(source, kind, name, label)))
    if not found:
        raise UserError(f"--input: nothing is left, all {faults.num} inputs are at fault. The first: {faults.listed[0]}")
    return [item for _, _, item in sorted(found.values(), key=lambda entry: entry[:2])]


def _split_label(given: str) -> tuple[str, str]:
    match = _LABELLED.fullmatch(given)
    return ("", given) if match is None or os.path.lexists(given) else (match[1], match[2])


def _expand(argument: str, faults: Faults) -> Iterator[tuple[SortKey, str]]:
    """(sort key, source) of everything one argument stands for; a fault if that is nothing."""
    entries, num_before = 0, faults.num
    try:
        for entry in _entries(argument, faults):
            entries += 1
            yield entry
        if not entries and faults.num == num_before:
            raise UserError(f"{printable(argument)}: no file of a known type here ({SUPPORTED}).")
    except UserError as error:
        faults.report(_base_name(argument), error, str(error).removeprefix(f"{printable(argument)}: "))


def _entries(argument: str, faults: Faults) -> Iterator[tuple[SortKey, str]]:
    if is_url(argument):
        for relative, url in list_url(argument):
            if _suffix(url):
                yield relative, url
    elif argument.startswith("hf:"):
        name, *rest = argument[3:].split(":")
        if not name or len(rest) > 2:
            raise UserError(f"{argument}: expected hf:NAME, hf:NAME:CONFIG or hf:NAME:CONFIG:SPLIT. Check --input.")
        yield (Path(name).name, *rest), argument
    elif os.path.isdir(argument):
        yield from _walk(argument, argument, faults)
    elif os.path.lexists(argument):
        if _suffix(argument) is None:
            mend = (
                "Rename or convert it."
                if not argument.lower().endswith(".json")
                else ("One object a line, named .jsonl, is needed; a JSON array is converted by: jq -c '.[]' FILE > FILE.jsonl")
            )
            raise UserError(f"{printable(argument)}: unknown type of file ({SUPPORTED}). {mend}")
        yield (os.path.basename(argument),), argument
    elif glob.has_magic(argument):
        yield from _matches(argument, faults)
    else:
        raise UserError(f"{printable(argument)}: no such file or folder. Check --input ({SUPPORTED}).")


def _matches(pattern: str, faults: Faults) -> Iterator[tuple[SortKey, str]]:
    parts = Path(pattern).parts
    num_plain = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base = os.path.join(os.curdir, *parts[:num_plain])
    for match in glob.iglob(pattern, recursive=True):
        if not os.path.isdir(match):
            if _suffix(match):
                yield Path(os.path.relpath(match, base)).parts, match
        elif "**" not in parts:  # with ** the files below are matches of their own
            yield from _walk(match, base, faults)


def _walk(folder: str, base: str, faults: Faults, above: frozenset[str] = frozenset()) -> Iterator[tuple[SortKey, str]]:
    """Supported files below `folder`, through links to folders too (a link to a folder above is passed over)."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        reason = f"cannot be read ({error.strerror}). Check its permissions."
        name = printable(os.path.relpath(folder, base)) if folder != base else _base_name(folder)
        faults.report(name, UserError(f"{printable(folder)}: {reason}"), reason)
        return
    for path in (os.path.join(folder, name) for name in names):
        if os.path.isdir(path):
            yield from _walk(path, base, faults, above | {real})
        elif _suffix(path):
            yield Path(os.path.relpath(path, base)).parts, path


def _identity(source: str) -> str:
    """What makes two sources the same file. Raises UserError unless it is a file that can be opened."""
    if is_url(source):
        return source
    shown = printable(source)
    try:
        mode = os.stat(source).st_mode
        if stat.S_ISREG(mode):  # opening a pipe would wait for its writer
            open(source, "rb").close()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"{shown}: a link that leads back to itself. Mend or remove the link.") from error
        if os.path.islink(source) and error.errno == errno.ENOENT:
            target = printable(os.readlink(source))
            raise UserError(f"{shown}: a link to {target}, which does not exist. Mend or remove the link.") from error
        raise UserError(f"{shown}: cannot be read ({error.strerror}). Check --input and the file's permissions.") from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{shown}: not a regular file. The corpus is read several times, so pipes and devices cannot be used.")
    return os.path.abspath(source)


def _base_name(argument: str) -> str:
    return printable(os.path.basename(argument.rstrip("/")) or argument)


def _suffix(path: str) -> str | None:
    name = os.path.basename(path).lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default=None)
