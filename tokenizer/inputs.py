"""`--input` values in, a sorted list of single inputs out.

A value is a file, folder, glob, URL or `hf:NAME[:CONFIG[:SPLIT]]`, each also as LABEL=VALUE.

The order decides the number of an input, and that number is part of a document's identity: it must not change when the
corpus moves. So inputs are sorted by their path relative to the folder, file or glob that was given, never by where that lies.
"""

import errno
import fnmatch
import glob
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from tokenizer.errors import UserError
from tokenizer.faults import Faults, with_label
from tokenizer.printable import printable
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
    """Every file and dataset that `inputs` stand for, once (under the first of its names), in the order that numbers them.

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
        argument = argument.removeprefix("file://")
        for relative, source in _expand(label, argument, faults):
            name = printable("/".join(relative)) or _base_name(argument)
            if source == argument and argument.startswith("hf:") and not is_url(argument):
                identity, kind = source, "hf"
            else:
                try:
                    identity, kind = _identity(source), SUFFIXES[_suffix(source)]
                except UserError as error:
                    faults.report(with_label(label, name), error, str(error).removeprefix(f"{printable(source)}: "))
                    continue
            if identity in found and found[identity][2].label != label:
                labels = " and ".join(f"label {one!r}" if one else "no label" for one in (found[identity][2].label, label))
                raise UserError(f"{printable(source)}: given under {labels}. Give each input under one label.")
            entry = (relative, position, Input(source, kind, name, label))
            found[identity] = min(found.get(identity, entry), entry, key=lambda entry: entry[:2])
    if not found:
        raise UserError(f"--input: nothing is left, all {faults.num} inputs are at fault. The first: {faults.listed[0]}")
    return [item for _, _, item in sorted(found.values(), key=lambda entry: entry[:2])]


def _split_label(given: str) -> tuple[str, str]:
    match = _LABELLED.fullmatch(given)
    return ("", given) if match is None or os.path.lexists(given) else (match[1], match[2])


def _expand(label: str, argument: str, faults: Faults) -> Iterator[tuple[SortKey, str]]:
    """(sort key, source) of everything one argument stands for; a fault if that is nothing."""
    is_empty = True
    try:
        for entry in _entries(argument):
            is_empty = False
            yield entry
        if is_empty:
            raise UserError(f"{printable(argument)}: no file of a known type here ({SUPPORTED}).")
    except UserError as error:
        reason = str(error).removeprefix(f"{printable(argument)}: ")
        faults.report(with_label(label, _base_name(argument)), error, reason)


def _entries(argument: str) -> Iterator[tuple[SortKey, str]]:
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
        yield from _walk(argument, argument)
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
        yield from _matches(argument)
    else:
        raise UserError(f"{printable(argument)}: no such file or folder. Check --input ({SUPPORTED}).")


def _matches(pattern: str) -> Iterator[tuple[SortKey, str]]:
    parts = Path(pattern).parts
    num_plain = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    base = os.path.join(os.curdir, *parts[:num_plain])
    if "**" in parts:  # not left to glob, which follows links that lead back up
        first = parts.index("**")
        hidden = any(part.startswith(".") for part in parts[first:])
        for top in glob.iglob(os.path.join(*parts[:first])) if first else [os.curdir]:
            for relative, path in _walk(top, top, hidden) if os.path.isdir(top) else ():
                if os.path.isdir(path) or _fits(relative, parts[first:]):
                    yield Path(os.path.relpath(path, base)).parts, path
        return
    for match in glob.iglob(pattern):
        if os.path.isdir(match):
            yield from _walk(match, base)
        elif _suffix(match):
            yield Path(os.path.relpath(match, base)).parts, match


def _fits(path: SortKey, pattern: SortKey) -> bool:
    """Whether a path fits a pattern as those of glob: ** stands for any folders, and no wildcard for the dot of a hidden name."""
    if pattern == ("**",):
        return bool(path) and not any(part.startswith(".") for part in path)
    if not pattern or not path:
        return pattern == path
    if pattern[0] == "**":
        return _fits(path, pattern[1:]) or (not path[0].startswith(".") and _fits(path[1:], pattern))
    is_shown = pattern[0].startswith(".") or not path[0].startswith(".")
    return is_shown and fnmatch.fnmatch(path[0], pattern[0]) and _fits(path[1:], pattern[1:])


def _walk(folder: str, base: str, hidden: bool = False, above: frozenset[str] = frozenset()) -> Iterator[tuple[SortKey, str]]:
    """Supported files below `folder`, through links to folders too (a link to a folder above is passed over).

    A folder that cannot be listed comes itself, for `_identity` to say why.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        names = sorted(name for name in os.listdir(folder) if hidden or not name.startswith("."))
    except OSError:
        yield Path(os.path.relpath(folder, base)).parts, folder
        return
    for path in (os.path.join(folder, name) for name in names):
        if os.path.isdir(path):
            yield from _walk(path, base, hidden, above | {real})
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
        elif stat.S_ISDIR(mode):
            os.listdir(source)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"{shown}: a link that leads back to itself. Mend or remove the link.") from error
        if os.path.islink(source) and error.errno == errno.ENOENT:
            target = printable(os.readlink(source))
            raise UserError(f"{shown}: a link to {target}, which does not exist. Mend or remove the link.") from error
        raise UserError(f"{shown}: cannot be read ({error.strerror}). Check --input and the file's permissions.") from error
    if not stat.S_ISREG(mode):
        raise UserError(f"{shown}: not a regular file. The corpus is read several times, so pipes and devices cannot be used.")
    return os.path.realpath(source)


def _base_name(argument: str) -> str:
    return printable(os.path.basename(argument.rstrip("/")) or argument)


def _suffix(path: str) -> str | None:
    name = os.path.basename(path).lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default=None)
