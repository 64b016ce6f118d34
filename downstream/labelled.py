"""Labelled texts from a file or a dataset: rows of named columns, and which column is what."""

import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from downstream.text_files import is_text, kind_of, open_text
from tokenizer.errors import UserError
from tokenizer.faults import Faults
from tokenizer.input_records import record_dataset, record_file
from tokenizer.provenance import Record
from tokenizer.tables import TableError, load_hf

if TYPE_CHECKING:
    from datasets import ClassLabel

TEXTS = ("text", "sentence", "sentence1", "question", "question1", "premise")
PAIRS = ("text_pair", "sentence2", "question2", "hypothesis")
LABELS = ("label", "score")
HF = "hf:"
TABLES = (".tsv", ".csv")
QUOTED = re.compile('"(?:[^"]|"")*"')
"""A cell between quotes, each one in it doubled."""
UNQUOTED = (
    "A .tsv is read without quoting, as those of GLUE are; "
    "if a spreadsheet or pandas wrote it, save it as .csv, which is read with it."
)

Row = dict[str, Any]


class Columns(NamedTuple):
    """Names of columns; None for one that is not asked for, or not there."""

    text: str | None
    text_pair: str | None
    label: str | None


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


class Labelled(NamedTuple):
    """A split as it was read."""

    source: str
    record: Record
    """For provenance.json."""
    columns: Columns
    rows: list[Row]
    reading: Reading

    def texts(self) -> tuple[list[str], list[str] | None]:
        """First and, where there are any, second texts.

        Raises:
            UserError: one is missing or no text.
        """
        first, second = (self.column(name) for name in (self.columns.text, self.columns.text_pair))
        for name, texts in ((self.columns.text, first), (self.columns.text_pair, second)):
            for number, text in enumerate(texts or (), 1):
                if not is_text(text):
                    found = "half a character (a lone surrogate)" if isinstance(text, str) else type(text).__name__
                    raise UserError(f"{self.source}, row {number}: expected a text as {name}, found {found}.")
        return first, second

    def labels(self) -> list[str]:
        """As texts without white space around them: 1, "1" and "1 " are one label.

        Raises:
            UserError: a row has none.
        """
        labels = list(map(label_of, self.column(self.columns.label)))
        if "" in labels:
            row = labels.index("") + 1
            raise UserError(f"{self.source}, row {row}: has no label in the column {self.columns.label}.")
        return labels

    def column(self, name: str | None) -> list[Any] | None:
        return None if name is None else [row.get(name) for row in self.rows]


def read_labelled(source: str, split: str, wanted: Columns, reading: Reading, *, labelled: bool, decided: bool = False) -> Labelled:
    """A .tsv (no quoting, as in GLUE), .csv or .jsonl file, maybe .gz, or `hf:NAME[:CONFIG[:SPLIT]]`.

    split: of a dataset, where the source names none; labelled: whether there must be labels. Where they need not be, no row with
    one, or -1 in every row, means that there are none, which is said, and no row is skipped: predictions go by the number of the
    row. decided: see `find_columns`.

    Raises:
        UserError: the source is missing, empty or of another kind; a row is damaged, named by its line; a column or a text is not
            there; some rows have a label and others not.
    """
    reading = reading if labelled else reading._replace(on_error="mend")
    if source.startswith(HF):
        source = named_split(source, split)
        rows, record = read_dataset(source, reading), record_dataset(source)
    else:
        rows, record = read_file(Path(source), reading), record_file(source)
    if not rows:
        raise UserError(f"{source}: holds no rows.")
    columns = find_columns(rows, wanted, source, reading, labelled=labelled, decided=decided)
    if not labelled and not has_labels(rows, columns.label, source):
        why = f"its column {columns.label} has none" if columns.label else f"it has: {reading.quote(names_in(rows))}"
        print(f"{source}: no {columns.label or wanted.label or ' or '.join(LABELS)} ({why}); it gets predictions, but no figures")
        columns = columns._replace(label=None)
    part = Labelled(source, record, columns, rows, reading)
    part.texts()  # while rows have the numbers that they have in the file
    return part


def has_labels(rows: list[Row], column: str | None, source: str) -> bool:
    """Whether rows that may be without have labels; -1 in all of them, as GLUE's datasets have it, is none.

    Raises:
        UserError: some have one and others not.
    """
    labels = [label_of(row.get(column)) for row in rows]
    if "" in labels and any(labels):
        raise UserError(
            f"{source}, row {labels.index('') + 1}: has no label in the column {column}, as {labels.count(''):,} of {len(rows):,} "
            "rows. Fill them in, or empty the column for predictions without figures."
        )
    return not set(labels) <= {"", "-1", "-1.0"}


def label_of(found: Any) -> str:
    """As a text; empty where there is none."""
    label = "" if found is None or isinstance(found, (list, dict)) else str(found).strip()
    return label if is_text(label) else ""


def read_file(path: Path, reading: Reading) -> list[Row]:
    kind = kind_of(path)
    if kind not in (*TABLES, ".jsonl"):
        raise UserError(f"{path}: expected a .tsv, .csv or .jsonl file, maybe .gz, or {HF}NAME.")
    if reading.names and kind not in TABLES:
        raise UserError(f"{path}: its rows name their columns; leave --columns out.")
    with open_text(path) as file:
        return read_json_lines(file, path) if kind == ".jsonl" else read_table(file, path, kind, reading)


def read_table(file: TextIO, path: Path, kind: str, reading: Reading) -> list[Row]:
    """A blank line is an empty text where there is one column, as predictions go by the number of the row; else it is nothing."""
    lines = cells_of(file, kind)
    header = list(reading.names) or next((cells for _, cells, _ in lines if cells != [""]), [])
    refuse_twins(header, path, reading)
    rows, skipped = [], 0
    for number, cells, line in lines:
        if len(cells) == len(header):
            rows.append(dict(zip(header, cells, strict=True)))
        elif cells != [""] and reading.on_error == "skip":
            skipped += 1
        elif cells != [""]:
            raise UserError(
                f"{path}, line {number}: has {len(cells)} columns, expected {len(header)} ({reading.quote(header)}). "
                + guess_why(cells, line, kind)
                + ("Mend it, or leave such rows out with --on_error skip." if reading.on_error == "stop" else "Mend it.")
            )
    if skipped:
        print(f"{path}: {skipped:,} rows with another number of columns than {len(header)} left out")
    if kind == ".tsv":
        tell_quotes(rows, path)
    return rows


def cells_of(file: TextIO, kind: str) -> Iterator[tuple[int, list[str], str]]:
    """Of each row the number of its last line, its cells, and that line with its end."""
    if kind == ".tsv":
        yield from ((number, line.rstrip("\r\n").split("\t"), line) for number, line in enumerate(file, 1))
        return
    last = ""

    def lines() -> Iterator[str]:
        nonlocal last
        for line in file:
            last = line
            yield line

    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(lines(), strict=True)
    for cells in reader:
        yield reader.line_num, cells or [""], last


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


def read_json_lines(file: TextIO, path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number}: is no JSON ({error}).") from error
        if not isinstance(row, dict):
            raise UserError(f'{path}, line {number}: expected an object, such as {{"text": ..., "label": ...}}.')
        rows.append(row)
    return rows


def read_dataset(source: str, reading: Reading) -> list[Row]:
    """Class labels become their names, those in lists, too; -1, as tests without labels have it, becomes None."""
    if reading.names:
        raise UserError(f"{source}: its rows name their columns; leave --columns out.")
    try:
        dataset = load_hf(source, quietly=True)
    except TableError as error:
        raise UserError(f"{source}: {error.told(Faults('stop', private=reading.private))}") from error
    rows = dataset.to_list()
    for column, feature in dataset.features.items():
        each = getattr(feature, "feature", None)
        for row in rows if hasattr(feature, "int2str") else ():
            row[column] = name_of(feature, row[column])
        for row in rows if hasattr(each, "int2str") else ():
            row[column] = row[column] and [name_of(each, number) for number in row[column]]
    return rows


def name_of(label: "ClassLabel", number: int | None) -> str | None:
    return label.int2str(number) if number is not None and number >= 0 else None


def named_split(source: str, split: str) -> str:
    """`hf:NAME`, `hf:NAME:CONFIG` or `hf:NAME:CONFIG:SPLIT` with a split."""
    name, config, chosen = (source.removeprefix(HF).split(":") + ["", ""])[:3]
    return f"{HF}{name}:{config}:{chosen or split}"


def find_columns(
    rows: list[Row], wanted: Columns, source: str, reading: Reading, *, labelled: bool, decided: bool = False
) -> Columns:
    """The columns asked for, or those of the usual names; where all is decided, None asks for no column at all.

    Raises:
        UserError: one is not there, or nothing says which of several texts is meant.
    """
    there = names_in(rows)
    faults, found = [], {}
    for role, usual, needed in (("text", TEXTS, True), ("text_pair", PAIRS, False), ("label", LABELS, labelled)):
        asked = getattr(wanted, role)
        usual = () if decided else usual
        found[role] = next((name for name in ((asked,) if asked else usual) if name in there), None)
        if found[role] is None and (needed or (asked and role != "label")):
            faults.append(f"no column {asked or ' or '.join(usual)}; give --{role} NAME")
    texts = [name for name in TEXTS if name in there]
    if wanted.text is None and found["text_pair"] is None and len(texts) > 1:
        faults.append(f"columns {' and '.join(texts)}; give --text NAME, and --text_pair NAME for a pair")
    if faults:
        raise UserError(
            f"{source}: {'; '.join(faults)}. It has: {reading.quote(there)}. Is that a row, and not a header? Give --columns NAMES."
        )
    return Columns(**found)


def names_in(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
