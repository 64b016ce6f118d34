"""One range of a .txt or .jsonl file in; (byte offset, text) of its documents out."""

import json
import re
from collections.abc import Iterator

from tokenizer.faults import Faults
from tokenizer.inputs import Input
from tokenizer.lines import LineFaults, Piece, read_pieces
from tokenizer.long_records import read_long_record
from tokenizer.printable import names_of
from tokenizer.sections import cut_sections

_MAYBE_BLANK = re.compile(rb"\n([\t\x0b-\r\x1c-\x20\x80-\x8a\x9a\x9f\xa0\xa8\xa9\xaf\xc2\xe1\xe2\xe3]*+)(?=\n)")
"""A line of nothing but bytes that white space (str.isspace) is made of in UTF-8. Beyond ASCII, str.isspace has the last word."""


class _BadLineError(Exception):
    """A line or record that is left out; the message is the reason."""


def read_txt(item: Input, begin: int, end: int, text_field: str, faults: Faults) -> Iterator[tuple[int, str]]:
    """Documents of a .txt file whose first line begins in [begin, end); one over SECTION_CHARS comes in sections of one offset.

    Blank lines separate documents. A line that is not UTF-8 or holds a zero byte is reported and left out; of one over LONG_LINE
    bytes, the fragments before the fault stay. text_field is not used. Raises as `read_pieces`.
    """
    start, pieces = read_pieces(item.source, begin, look_back=True)
    lines = LineFaults(item, start, faults)
    offset = None  # of the open document; below `begin`: another range's; None: none is open
    text = ""  # what is not handed on of the open document
    is_line_bad = False
    for piece in lines.until_damage(pieces):
        if piece.offset >= end and (offset is None or offset < begin):
            return
        is_whole = piece.begins_line and piece.ends_line
        for at, line, raw, is_last in _segments(piece) if is_whole else [(piece.offset, piece.line, piece.data, False)]:
            if raw and offset is None:
                offset = at if piece.begins_line else -1
                if offset >= end:
                    return
            if raw and offset >= begin:
                if is_whole:
                    good = _join_good_lines(raw, at, line, lines)
                else:
                    is_line_bad = is_line_bad and not piece.begins_line
                    good = "" if is_line_bad else _fragment(piece, lines)
                    is_line_bad = is_line_bad or good is None
                if good:
                    *full, text = cut_sections(f"{text}\n{good}" if text and piece.begins_line else text + good)
                    for section in full:
                        yield offset, section
            if is_last:
                if text:
                    yield offset, text
                offset, text = None, ""
    if text:
        yield offset, text


def read_jsonl(item: Input, begin: int, end: int, text_field: str, faults: Faults) -> Iterator[tuple[int, str]]:
    """Texts of the records whose line begins in [begin, end); one at fault is reported and left out. Raises as `read_pieces`.

    A record over LONG_LINE bytes comes in sections of one offset; those before a fault stay.
    """
    start, pieces = read_pieces(item.source, begin, look_back=False)
    lines = LineFaults(item, start, faults)
    pieces = lines.until_damage(pieces)
    for piece in pieces:
        if piece.offset >= end:
            return
        if piece.begins_line and piece.ends_line:
            offset = piece.offset
            for line, raw in enumerate(piece.data.split(b"\n")[:-1], start=piece.line):
                if offset >= end:
                    return
                try:
                    yield offset, _text_of_record(_decode(raw, offset), text_field, faults)
                except _BadLineError as error:
                    lines.report(offset, line, str(error))
                offset += len(raw) + 1
        elif piece.begins_line:
            fragments = _fragments(piece, pieces)
            try:
                for section in _sections_of_long_record(fragments, text_field, faults):
                    yield piece.offset, section
            except _BadLineError as error:
                lines.report(piece.offset, piece.line, str(error))
                for _ in fragments:  # the rest of the line
                    pass


def _fragments(piece: Piece, pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Of one long line, this one the first."""
    yield piece
    while not piece.ends_line and (piece := next(pieces, None)):
        yield piece


def _sections_of_long_record(fragments: Iterator[Piece], text_field: str, faults: Faults) -> Iterator[str]:
    texts = (_decode(piece.data, piece.offset) for piece in fragments)
    text = ""
    try:
        for part in read_long_record(texts, text_field, lambda record: _text_of_record(record, text_field, faults)):
            *full, text = cut_sections(text + part)
            yield from full
    except ValueError as error:
        raise _BadLineError(f"not JSON, or not text ({faults.quote(error)}). Expected one object on each line.") from None
    if text:
        yield text


def _segments(piece: Piece) -> Iterator[tuple[int, int, bytes, bool]]:
    """Whole lines in; lines up to a blank one out: (offset, newlines before, bytes without the last "\\n", is one there)."""
    data = b"\n" + piece.data
    start = 0  # the newline before the next line that was not handed on
    line = piece.line
    for match in _MAYBE_BLANK.finditer(data):
        blank = match[1]
        if blank.isascii() or blank.decode("utf-8", "replace").isspace():
            yield piece.offset + start, line, data[start + 1 : match.start()], True
            line += data.count(b"\n", start, match.end())
            start = match.end()
    if start < len(data) - 1:
        yield piece.offset + start, line, data[start + 1 : -1], False


def _join_good_lines(raw: bytes, offset: int, line: int, lines: LineFaults) -> str:
    try:
        return _without_returns(_decode(raw, offset))
    except _BadLineError:
        good = []
    for number, one in enumerate(raw.split(b"\n"), start=line):
        try:
            good.append(_without_returns(_decode(one, offset)))
        except _BadLineError as error:
            lines.report(offset, number, str(error))
        offset += len(one) + 1
    return "\n".join(good)


def _fragment(piece: Piece, lines: LineFaults) -> str | None:
    """Text of a fragment of a long line; None if it is bad."""
    try:
        text = _decode(piece.data, piece.offset)
    except _BadLineError as error:
        lines.report(piece.offset, piece.line, str(error))
        return None
    return _without_returns(text.removesuffix("\n")) if piece.ends_line else text


def _without_returns(text: str) -> str:
    """Lines ended by "\\r\\n" as if by "\\n"."""
    return text.replace("\r\n", "\n").removesuffix("\r") if "\r" in text else text


def _decode(raw: bytes | bytearray, offset: int) -> str:
    """offset: of its first byte, for the message."""
    if b"\0" in raw:
        raise _BadLineError(
            f"a zero byte at byte {offset + raw.index(0)}: this is a binary file, or text that is not UTF-8 (UTF-16 is full of "
            f"zero bytes). Expected UTF-8 text: convert it (iconv -f UTF-16 -t UTF-8 FILE > utf8.txt), or leave it out of --input."
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _BadLineError(
            f"not UTF-8 at byte {offset + error.start} (0x{raw[error.start]:02x}). If you know the encoding, "
            f"convert the file: iconv -f WINDOWS-1252 -t UTF-8 FILE > utf8.txt"
        ) from None


def _text_of_record(line: str, text_field: str, faults: Faults) -> str:
    """The text of a record; "" for a blank line."""
    if not line or line.isspace():
        return ""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        start = line if len(line) <= 60 else line[:60] + "..."
        mend = " A JSON array is converted by: jq -c '.[]' FILE > FILE.jsonl" if line.startswith("[") else ""
        raise _BadLineError(f"not JSON ({error}): {faults.quote(repr(start))}. Expected one object on each line.{mend}") from None
    if not isinstance(record, dict):
        found = type(record).__name__
        raise _BadLineError(f'expected an object such as {{"{text_field}": "..."}}, found a {found}. One object a line is needed.')
    if text_field not in record:
        found = (
            f"There are: {faults.quote(names_of(record))}. Give the right one with --text_field."
            if record
            else "The record is empty."
        )
        raise _BadLineError(f"no field `{text_field}`. {found}")
    text = record[text_field]
    if not isinstance(text, str):
        raise _BadLineError(f"field `{text_field}` must be a string, found {type(text).__name__}.")
    if "\\u" in line:  # lone surrogates come from nothing but such escapes
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise _BadLineError(
                f"field `{text_field}` holds half a surrogate pair (\\u{ord(text[error.start]):04x}) at character "
                f"{error.start}, which is not text. Write the character whole, or remove it."
            ) from None
    return text
