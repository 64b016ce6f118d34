"""The corpus in, documents out: text and an identity that does not depend on where the corpus lies.

Identity, for seeds and for the held-out split: (number of the input in sorted order, byte offset or row). See docs/architecture.md.
Streaming: in memory are one block of a file (or one record batch) and one document.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tokenizer.errors import UserError
from tokenizer.inputs import Input, resolve_inputs
from tokenizer.lines import read_lines

__all__ = ["Document", "Input", "read_documents", "resolve_inputs"]

BATCH_ROWS = 256
"""Rows of a .parquet file or a dataset held at a time."""


class Document(NamedTuple):
    """One document."""

    input_index: int
    """Number of its input, counted from 0 in the order of `resolve_inputs`."""
    offset: int
    """.txt: byte offset of its first byte in the decompressed file; otherwise its row, counted from 0."""
    text: str
    """Never only white space, never a lone surrogate. .txt: its lines joined by "\\n", without the last "\\n"."""
    location: str
    """For messages: "corpus.txt:120" (line of its first byte) or "corpus.parquet row 7"."""


def read_documents(inputs: Sequence[str], *, text_field: str = "text") -> Iterator[Document]:
    """Every document of the inputs, in order; documents of only white space are left out, their rows count.

    A blank line or the end of the file ends a document of a .txt file; one record of .jsonl, .parquet and `hf:` is a document.
    Inputs are looked up at once, files are read as the iteration reaches them.

    Args:
        inputs: files, folders, globs, `hf:NAME[:CONFIG[:SPLIT]]` (SPLIT defaults to train).
        text_field: field or column that holds the text of a record.

    Raises:
        UserError: an input is missing, of unknown type, unreadable, damaged, not UTF-8, lacks the field; or no document at all.
    """
    return _documents(resolve_inputs(inputs), text_field)


def _documents(inputs: list[Input], text_field: str) -> Iterator[Document]:
    num_documents = 0
    for index, (source, kind) in enumerate(inputs):
        read = {"jsonl": _read_jsonl, "parquet": _read_parquet, "hf": _read_hf}
        for offset, text, location in _read_txt(source) if kind == "txt" else read[kind](source, text_field):
            if text and not text.isspace():
                num_documents += 1
                yield Document(index, offset, text, location)
    if not num_documents:
        names = ", ".join(source for source, _ in inputs[:3]) + (f" and {len(inputs) - 3} more" if len(inputs) > 3 else "")
        raise UserError(f"{names}: the corpus is empty, there is no document with text in it. Check --input.")


def _read_txt(path: str) -> Iterator[tuple[int, str, str]]:
    lines: list[str] = []
    offset = number = 0
    for line in read_lines(path):
        if line.text and not line.text.isspace():
            if not lines:
                number, offset = line.number, line.offset
            lines.append(line.text)
        elif lines:
            yield offset, "\n".join(lines), f"{path}:{number}"
            lines = []
    if lines:
        yield offset, "\n".join(lines), f"{path}:{number}"


def _read_jsonl(path: str, text_field: str) -> Iterator[tuple[int, str, str]]:
    lines = (line for line in read_lines(path) if line.text and not line.text.isspace())
    for row, line in enumerate(lines):
        location = f"{path}:{line.number}"
        yield row, _text_of_json(line.text, text_field, location), location


def _text_of_json(line: str, text_field: str, location: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        start = line if len(line) <= 60 else line[:60] + "..."
        raise UserError(f"{location}: not JSON ({error}): {start!r}. Expected one object on each line.") from error
    if not isinstance(record, dict):
        raise UserError(f'{location}: expected an object such as {{"{text_field}": "..."}}, found a {type(record).__name__}.')
    if text_field not in record:
        raise UserError(f"{location}: no field `{text_field}`. {_fields_there(record)}")
    text = record[text_field]
    if not isinstance(text, str):
        raise UserError(f"{location}: field `{text_field}` must be a string, found {type(text).__name__}.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{location}: field `{text_field}` holds half a surrogate pair (\\u{ord(text[error.start]):04x}) at character "
            f"{error.start}, which is not text. Write the character whole, or remove it."
        ) from error
    return text


def _read_parquet(path: str, text_field: str) -> Iterator[tuple[int, str, str]]:
    import pyarrow.parquet
    from pyarrow import ArrowException

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as parquet ({_first_line(error)}). Fetch or write it again.") from error
    with file:
        _check_column(file.schema_arrow, text_field, path)
        try:
            batches = (batch.column(0) for batch in file.iter_batches(BATCH_ROWS, columns=[text_field], use_threads=False))
            yield from _texts_of_columns(batches, path)
        except (ArrowException, OSError) as error:
            raise UserError(f"{path}: damaged ({_first_line(error)}). Fetch or write it again.") from error


def _read_hf(source: str, text_field: str) -> Iterator[tuple[int, str, str]]:
    import datasets

    name, config, split = (source[len("hf:") :].split(":") + ["", ""])[:3]
    try:
        dataset = datasets.load_dataset(name, config or None, split=split or "train")
    except Exception as error:  # datasets raises a dozen types, from the network to the parser
        raise UserError(
            f"{source}: `datasets` could not load it ({type(error).__name__}: {_first_line(error)}). "
            f"Check the name, the configuration, the split, and the network."
        ) from error
    _check_column(dataset.features.arrow_schema, text_field, source)
    tables = dataset.select_columns([text_field]).with_format("arrow").iter(BATCH_ROWS)
    yield from _texts_of_columns((table.column(0) for table in tables), source)


def _check_column(schema: object, text_field: str, source: str) -> None:
    """`schema` is a pyarrow.Schema."""
    import pyarrow

    if text_field not in schema.names:
        raise UserError(f"{source}: no column `{text_field}`. {_fields_there(schema.names)}")
    kind = schema.field(text_field).type
    value = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if not (pyarrow.types.is_string(value) or pyarrow.types.is_large_string(value) or pyarrow.types.is_string_view(value)):
        raise UserError(f"{source}: column `{text_field}` must hold strings, found {kind}. {_fields_there(schema.names)}")


def _texts_of_columns(columns: Iterable, source: str) -> Iterator[tuple[int, str, str]]:
    """(row, text, location) of pyarrow string columns, one batch after the other; null counts as an empty document."""
    row = 0
    for column in columns:
        for value in column:
            try:
                text = value.as_py() or ""
            except UnicodeDecodeError as error:
                raise UserError(f"{source} row {row}: not UTF-8 at byte {error.start} of the text. Write it again.") from error
            yield row, text, f"{source} row {row}"
            row += 1


def _fields_there(names: Iterable[str]) -> str:
    there = ", ".join(list(names)[:20])
    return f"There are: {there}. Give the right one with --text_field." if there else "The record is empty."


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
