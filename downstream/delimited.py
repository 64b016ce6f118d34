"""Tables of labelled data: .tsv without quoting, as in GLUE, and .csv with it."""

import csv
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from downstream.text_files import Reading, Row
from tokenizer.errors import UserError

TABLES = (".tsv", ".csv")
QUOTED = re.compile('"(?:[^"]|"")*"')
"""A cell between quotes, each one in it doubled."""
UNQUOTED = (
    "A .tsv is read without quoting, as those of GLUE are; "
    "if a spreadsheet or pandas wrote it, save it as .csv, which is read with it."
)


class TableRow(NamedTuple):
    """A row as it was read."""

    first: int
    last: int
    """Numbers of its lines, from 1."""
    cells: list[str]
    line: str
    """The last of them with its end."""
    fault: str = ""
    """Why it has no cells."""


def read_table(file: TextIO, path: Path, kind: str, reading: Reading) -> list[Row]:
    """A blank line is an empty text where there is one column, as predictions go by the number of the row; else it is nothing."""
    found = tsv_rows(file) if kind == ".tsv" else csv_rows(file, path)
    header = list(reading.names) or read_header(found, path)
    refuse_twins(header, path, reading)
    rows, of_other_width, torn_lines, is_torn = [], 0, 0, False
    for row in found:
        is_torn = bool(row.fault) or (is_torn and row.line.count('"') % 2 == 1)  # the rest of a torn row closes its quote
        if not is_torn and len(row.cells) == len(header):
            rows.append(dict(zip(header, row.cells, strict=True)))
        elif row.cells == [""]:
            continue
        elif reading.on_error != "skip":
            mend = "Mend it, or leave such rows out with --on_error skip." if reading.on_error == "stop" else "Mend it."
            raise UserError(f"{path}, {what_is_wrong(row, header, kind, reading)}{mend}")
        elif is_torn:
            torn_lines += row.last - row.first + 1
        else:
            of_other_width += 1
    if of_other_width:
        print(f"{path}: {of_other_width:,} rows with another number of columns than {len(header)} left out")
    if torn_lines:
        print(f"{path}: {torn_lines:,} lines with misplaced quotes left out")
    if kind == ".tsv":
        tell_quotes(rows, path)
    return rows


def read_header(found: Iterator[TableRow], path: Path) -> list[str]:
    """The first row that is not blank; none of an empty file."""
    row = next((row for row in found if row.cells != [""]), None)
    if row is None:
        return []
    if row.fault:
        raise UserError(f"{path}, line {row.last}: {row.fault}Mend it.")
    return row.cells


def tsv_rows(file: TextIO) -> Iterator[TableRow]:
    for number, line in enumerate(file, 1):
        yield TableRow(number, number, line.rstrip("\r\n").split("\t"), line)


def csv_rows(file: TextIO, path: Path) -> Iterator[TableRow]:
    """After a row that is none it goes on with the next line.

    Raises:
        UserError: a cell is not closed, which takes the rest of the file.
    """
    last, is_at_end = "", False

    def lines() -> Iterator[str]:
        nonlocal last, is_at_end
        for line in file:
            last = line
            yield line
        is_at_end = True

    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(lines(), strict=True)
    while True:
        first = reader.line_num + 1
        try:
            cells, fault = next(reader) or [""], ""
        except StopIteration:
            return
        except csv.Error as error:
            if is_at_end:
                raise UserError(f'{path}, line {first}: in this row begins a cell with " that no other " ends. Mend it.') from error
            cells, fault = [], f'cannot be read ({error}). A " in a cell between quotes is doubled. '
        yield TableRow(first, reader.line_num, cells, last, fault)


def what_is_wrong(row: TableRow, header: Sequence[str], kind: str, reading: Reading) -> str:
    if row.fault:
        begin = f", of a row that begins in line {row.first}" if row.first < row.last else ""
        return f"line {row.last}{begin}: {row.fault}"
    why = guess_why(row.cells, row.line, kind)
    return f"line {row.last}: has {len(row.cells)} columns, expected {len(header)} ({reading.quote(header)}). {why}"


def guess_why(cells: list[str], line: str, kind: str) -> str:
    """A row has another number of columns."""
    if line.endswith("\r"):
        return "It ends with a lone carriage return, which may belong to a text. "
    if kind == ".tsv" and any(cell.startswith('"') for cell in cells):
        return f"{UNQUOTED} "
    return ""


def refuse_twins(names: Sequence[str], path: Path, reading: Reading) -> None:
    """Raises a UserError where several columns have one name; those without a name cannot be asked for."""
    if twins := [name for name, number in Counter(names).items() if name and number > 1]:
        where = "in --columns" if reading.names else "in the header; if that is a row, give --columns NAMES"
        raise UserError(f"{path}: several columns have the same name ({reading.quote(twins)}). Give each its own {where}.")


def tell_quotes(rows: list[Row], path: Path) -> None:
    """Say it where cells look as if a program that quotes had written them: quotes in them are doubled, or all rows have some."""
    quoted = [[cell for cell in row.values() if QUOTED.fullmatch(cell)] for row in rows]
    if any('""' in cell[1:-1] for cells in quoted for cell in cells) or (rows and all(quoted)):
        print(f'{path}: {sum(map(len, quoted)):,} cells begin and end with ", which belongs to them. {UNQUOTED}')
