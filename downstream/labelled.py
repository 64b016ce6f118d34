"""Labelled texts from a file or a dataset: rows of named columns, and which column is what."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from downstream.delimited import TABLES, read_table
from downstream.text_files import Reading, Row, is_text, kind_of, open_text
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


class Columns(NamedTuple):
    """Names of columns; None for one that is not asked for, or not there."""

    text: str | None
    text_pair: str | None
    label: str | None


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
            raise UserError(
                f"{self.source}, row {row}: has no label in the column {self.columns.label}. Fill it in, or leave such rows out "
                "with --on_error skip."
            )
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
    refuse_lists(rows, columns.label, source)
    if not labelled and not has_labels(rows, columns.label, source):
        why = f"its column {columns.label} has none" if columns.label else f"it has: {reading.quote(names_in(rows))}"
        print(f"{source}: no {columns.label or wanted.label or ' or '.join(LABELS)} ({why}); it gets predictions, but no figures")
        columns = columns._replace(label=None)
    part = Labelled(source, record, columns, rows, reading)
    part.texts()  # while rows have the numbers that they have in the file
    return part._replace(rows=with_labels(rows, columns.label, source)) if reading.on_error == "skip" else part


def with_labels(rows: list[Row], column: str | None, source: str) -> list[Row]:
    """Without those that have none, which are counted.

    Raises:
        UserError: none is left.
    """
    found = [row for row in rows if label_of(row.get(column))]
    if not found:
        raise UserError(f"{source}: no row has a label in the column {column}; give --label NAME.")
    if len(found) < len(rows):
        print(f"{source}: {len(rows) - len(found):,} rows without a label left out")
    return found


def refuse_lists(rows: list[Row], column: str | None, source: str) -> None:
    """Raises a UserError where a row has several labels, as in data for several classes at once, or an object in their place."""
    for number, row in enumerate(rows, 1):
        if isinstance(found := row.get(column), (list, dict)):
            what = "a list" if isinstance(found, list) else "an object"
            raise UserError(
                f"{source}, row {number}: expected one label in the column {column}, found {what}. "
                "A text is learnt to have one class or number; give --label NAME, of a column with one."
            )


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
    label = "" if found is None else str(found).strip()
    return label if is_text(label) else ""


def read_file(path: Path, reading: Reading) -> list[Row]:
    kind = kind_of(path)
    if kind not in (*TABLES, ".jsonl"):
        raise UserError(f"{path}: expected a .tsv, .csv or .jsonl file, maybe .gz, or {HF}NAME.")
    if reading.names and kind not in TABLES:
        raise UserError(f"{path}: its rows name their columns; leave --columns out.")
    with open_text(path) as file:
        return read_json_lines(file, path) if kind == ".jsonl" else read_table(file, path, kind, reading)


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
