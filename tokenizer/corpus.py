"""The corpus in, documents out: text and an identity that does not depend on where the corpus lies.

Identity, for seeds and for the held-out split: (number of the input in sorted order, byte offset or row). See docs/architecture.md.
Streaming: in memory are about one section of a .txt file, one record of a .jsonl file, or one batch of rows.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tokenizer.errors import UserError, first_line
from tokenizer.faults import Faults
from tokenizer.inputs import Input, resolve_inputs
from tokenizer.lines import BadFileError, compression
from tokenizer.plain_text import read_jsonl, read_txt
from tokenizer.printable import printable
from tokenizer.ranges import Range, split_inputs
from tokenizer.sections import SECTION_CHARS, cut_sections
from tokenizer.storage import is_url, unreachable
from tokenizer.tables import read_hf, read_parquet

__all__ = [
    "SECTION_CHARS", "Document", "Faults", "Input", "Range", "read_all", "read_documents", "read_range", "resolve_inputs",
    "split_inputs",
]  # fmt: skip

_READERS = {"txt": read_txt, "jsonl": read_jsonl, "parquet": read_parquet, "hf": read_hf}
_WHOLE = 1 << 62
"""Bytes; a range of this size holds any input."""


class Document(NamedTuple):
    """One document, or one section of a document longer than SECTION_CHARS."""

    input_index: int
    """Number of its input, counted from 0 in the order of `resolve_inputs`."""
    offset: int
    """.txt and .jsonl: byte offset of its first line in the decompressed file; otherwise its row, counted from 0."""
    text: str
    """Never only white space, never a lone surrogate. .txt: its lines joined by "\\n", without the last "\\n"."""
    location: str
    """For messages: "corpus.txt byte 120" or "corpus.parquet row 7"."""
    section: int = 0
    """Counted from 0; the sections of a document have its offset, and their texts one after the other are its text."""


def read_documents(inputs: Sequence[str], *, text_field: str = "text", faults: Faults | None = None) -> Iterator[Document]:
    """Every document of the inputs, in order; documents of only white space are left out.

    A blank line or the end of the file ends a document of a .txt file; one record of .jsonl, .parquet and `hf:` is a document.
    Inputs are looked up at once, files are read as the iteration reaches them.

    Args:
        inputs: files, folders, globs, URLs, `hf:NAME[:CONFIG[:SPLIT]]` (SPLIT defaults to train), each also as LABEL=INPUT.
        text_field: field or column that holds the text of a record.
        faults: what to do with bad input; None: stop.

    Raises:
        UserError: an input is missing, of unknown type, unreadable, damaged, not UTF-8, lacks the field, and `faults` says stop;
            or no document at all.
    """
    return read_all(resolve_inputs(inputs, faults=faults), text_field=text_field, faults=faults)


def read_all(inputs: list[Input], *, text_field: str = "text", faults: Faults | None = None) -> Iterator[Document]:
    """`read_documents` of inputs that `resolve_inputs` gave."""
    num_documents = 0
    for part in split_inputs(inputs, _WHOLE):
        for document in read_range(inputs, part, text_field=text_field, faults=faults):
            num_documents += 1
            yield document
    if not num_documents:
        names = ", ".join(printable(item.source) for item in inputs[:3]) + (f" and {len(inputs) - 3} more" if inputs[3:] else "")
        left_out = f" ({faults.num} faults were left out)" if faults and faults.num else ""
        raise UserError(f"{names}: the corpus is empty, there is no document with text in it{left_out}. Check --input.")


def read_range(
    inputs: Sequence[Input], part: Range, *, text_field: str = "text", faults: Faults | None = None
) -> Iterator[Document]:
    """The documents whose first byte or row lies in a range: those of all ranges are those of the whole, however it is cut.

    Args:
        inputs: all of them, from `resolve_inputs`.
        part: one range of `split_inputs`, or any [begin, end) bytes of a plain file.
        text_field: field or column that holds the text of a record.
        faults: what to do with bad input; None: stop.

    Raises:
        UserError: as `read_documents`, but a range may be empty; or a URL cannot be read, whatever `faults` says.
    """
    item = inputs[part.input_index]
    faults = faults or Faults()
    place = f"{printable(item.source)} {'byte' if item.kind in ('txt', 'jsonl') else 'row'} "
    end = _WHOLE if compression(item.source) else part.end  # of a compressed file it counts compressed bytes
    last_offset = section = -1
    try:
        for offset, whole in _READERS[item.kind](item, part.begin, end, text_field, faults):
            if offset != last_offset:
                last_offset, section = offset, 0
            for text in cut_sections(whole):
                if text and not text.isspace():
                    yield Document(part.input_index, offset, text, f"{place}{offset}", section)
                    section += 1
    except BadFileError as error:
        if part.begin == 0:
            faults.report_in(item, "", str(error))
    except Exception as error:
        if is_url(item.source) and not isinstance(error, UserError):  # it may pass, so it is no fault of the file, to be left out
            raise unreachable(item.source, "read", error, faults.quote(first_line(error))) from error
        if not isinstance(error, OSError):
            raise
        faults.report_in(item, "", f"cannot be read ({error.strerror or faults.quote(error)}). Check the file and its permissions.")
