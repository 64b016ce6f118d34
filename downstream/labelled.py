"""Labelled texts from a file or a dataset: rows of named columns, and which column is what."""

import csv
import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tokenizer.errors import UserError
from tokenizer.tables import TableError, load_hf

TEXTS = ("text", "sentence", "sentence1", "question", "question1", "premise")
PAIRS = ("text_pair", "sentence2", "question2", "hypothesis")
LABELS = ("label", "score")
HF = "hf:"

Row = dict[str, Any]


class Columns(NamedTuple):
    """Names of columns."""

    text: str
    text_pair: str | None
    label: str | None
    """None where the texts have no labels."""


class Labelled(NamedTuple):
    """A split as it was read."""

    source: str
    columns: Columns
    rows: list[Row]

    def texts(self) -> tuple[list[str], list[str] | None]:
        """First and, where there are any, second texts.

        Raises:
            UserError: one is missing or no text.
        """
        first, second = (self.column(name) for name in (self.columns.text, self.columns.text_pair))
        for name, texts in ((self.columns.text, first), (self.columns.text_pair, second)):
            for number, text in enumerate(texts or (), 1):
                if not isinstance(text, str):
                    raise UserError(f"{self.source}, row {number}: expected a text as {name}, found {type(text).__name__}.")
        return first, second

    def labels(self) -> list[str]:
        """As texts: 1 and "1" are one label.

        Raises:
            UserError: a row has none.
        """
        for number, label in enumerate(labels := self.column(self.columns.label), 1):
            if label in (None, "") or isinstance(label, (list, dict)):
                raise UserError(f"{self.source}, row {number}: has no label in the column {self.columns.label}.")
        return [str(label) for label in labels]

    def column(self, name: str | None) -> list[Any] | None:
        return None if name is None else [row.get(name) for row in self.rows]


def read_labelled(
    source: str, split: str, wanted: Columns, *, names: Sequence[str] = (), on_error: str = "stop", labelled: bool
) -> Labelled:
    """A source with its columns. labelled: whether there must be labels; where they need not be, one row without means none has.

    Raises:
        UserError: as `read_rows` and `find_columns`.
    """
    rows = read_rows(source, split, names, on_error=on_error)
    columns = find_columns(rows, wanted, source, labelled=labelled)
    if not labelled and any(row.get(columns.label) in (None, "") for row in rows):
        columns = columns._replace(label=None)
    return Labelled(source, columns, rows)


def read_rows(source: str, split: str, names: Sequence[str] = (), *, on_error: str = "stop") -> list[Row]:
    """Rows of a .tsv (no quoting, as in GLUE), .csv or .jsonl file, maybe .gz, or of `hf:NAME[:CONFIG[:SPLIT]]`.

    split: of a dataset, where the source names none; names: of the columns, where the first line holds none; on_error: what becomes
    of rows with another number of columns, `stop` or `skip`.

    Raises:
        UserError: the source is missing, empty or of another kind; a row is damaged, named by its line.
    """
    if source.startswith(HF):
        return read_dataset(source, split)
    path = Path(source)
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind not in (".tsv", ".csv", ".jsonl"):
        raise UserError(f"{source}: expected a .tsv, .csv or .jsonl file, maybe .gz, or {HF}NAME.")
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            rows = read_json_lines(file, path) if kind == ".jsonl" else read_table(file, path, names, on_error)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{source}: cannot be read ({error}).") from error
    if not rows:
        raise UserError(f"{source}: holds no rows.")
    return rows


def read_table(file: TextIO, path: Path, names: Sequence[str], on_error: str) -> list[Row]:
    csv.field_size_limit(sys.maxsize)
    style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if ".tsv" in path.suffixes else {"strict": True}
    reader = csv.reader(file, **style)
    header = list(names) or next(reader, [])
    rows, skipped = [], 0
    for cells in reader:
        if len(cells) == len(header):
            rows.append(dict(zip(header, cells, strict=True)))
        elif cells and on_error == "skip":
            skipped += 1
        elif cells:
            raise UserError(
                f"{path}, line {reader.line_num}: has {len(cells)} columns, expected {len(header)} ({', '.join(header)}). "
                "Mend it, or leave such rows out with --on_error skip."
            )
    if skipped:
        print(f"{path}: {skipped:,} rows with another number of columns than {len(header)} left out")
    return rows


def read_json_lines(file: TextIO, path: Path) -> list[Row]:
    rows = []
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: is no JSON ({error}).") from error
        if not isinstance(row, dict):
            raise UserError(f'{path}, line {number}: expected an object, such as {{"text": ..., "label": ...}}.')
        rows.append(row)
    return rows


def read_dataset(source: str, split: str) -> list[Row]:
    """Class labels become their names; -1, as tests without labels have it, becomes None."""
    try:
        dataset = load_hf(named_split(source, split), quietly=True)
    except TableError as error:
        raise UserError(f"{source}: {error.reason.format(error.words)}") from error
    rows = dataset.to_list()
    for column, feature in dataset.features.items():
        if hasattr(feature, "int2str"):
            for row in rows:
                row[column] = feature.int2str(row[column]) if row[column] is not None and row[column] >= 0 else None
    return rows


def named_split(source: str, split: str) -> str:
    """`hf:NAME`, `hf:NAME:CONFIG` or `hf:NAME:CONFIG:SPLIT` with a split."""
    name, config, chosen = (source.removeprefix(HF).split(":") + ["", ""])[:3]
    return f"{HF}{name}:{config}:{chosen or split}"


def find_columns(rows: list[Row], wanted: Columns, source: str, *, labelled: bool) -> Columns:
    """The columns asked for, or those of the usual names. labelled: whether a label must be there.

    Raises:
        UserError: a column is not there.
    """
    there = list(rows[0])
    faults, found = [], {}
    for role, usual, needed in (("text", TEXTS, True), ("text_pair", PAIRS, False), ("label", LABELS, labelled)):
        asked = getattr(wanted, role)
        found[role] = asked or next((name for name in usual if name in there), None)
        if (asked and asked not in there and (needed or role != "label")) or (needed and found[role] is None):
            faults.append(f"no column {asked or ' or '.join(usual)}; give --{role} NAME")
        elif found[role] not in there:
            found[role] = None
    if faults:
        raise UserError(
            f"{source}: {'; '.join(faults)}. It has: {', '.join(there)}. If that is a row and not a header, give --columns NAMES."
        )
    return Columns(**found)
