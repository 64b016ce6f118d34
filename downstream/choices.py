"""Questions with options, of which one is right: RACE as it is published, or .jsonl."""

from pathlib import Path
from typing import Any, NamedTuple

from downstream.labelled import read_file
from downstream.text_files import Reading, is_text, kind_of, read_json
from tokenizer.errors import UserError
from tokenizer.files import sha256_of_files
from tokenizer.input_records import record_file
from tokenizer.provenance import Record

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""How RACE names options."""
GROUPS = ("middle", "high")
"""Its kinds of schools."""


class Choice(NamedTuple):
    """A question as it was read."""

    id: str
    """For the file of predictions."""
    group: str
    """RACE's `middle` or `high`; empty elsewhere."""
    context: str
    question: str
    options: list[str]
    label: int | None
    """Number of the right option, from 0; None where it is not told."""


class Choices(NamedTuple):
    """A split as it was read."""

    source: str
    record: Record
    """For provenance.json."""
    rows: list[Choice]
    letters: bool
    """Whether options are named by letters, not by numbers from 0."""


def read_choices(source: str, reading: Reading, *, labelled: bool) -> Choices:
    """A folder of RACE's .txt files, or of its `middle` and `high`; or a .jsonl file, maybe .gz, with context, question, options
    and label. labelled: whether there must be labels.

    Raises:
        UserError: the source cannot be read, or is of another layout; the message names the place in it.
    """
    path = Path(source)
    if path.is_dir():
        rows, record = read_race(path)
    elif kind_of(path) == ".jsonl":
        found = read_file(path, reading)
        rows = [read_row(row, str(number), f"{path}, row {number + 1}: ") for number, row in enumerate(found)]
        record = record_file(path)
    else:
        raise UserError(f"{source}: expected a folder such as RACE/train, or a .jsonl file, maybe .gz.")
    if not rows:
        raise UserError(f"{source}: holds no questions.")
    unlabelled = sum(row.label is None for row in rows)
    if unlabelled and (labelled or unlabelled < len(rows)):
        raise UserError(f"{source}: {unlabelled:,} of {len(rows):,} questions do not tell the right option.")
    return Choices(source, record, rows, path.is_dir())


def read_row(row: dict[str, Any], name: str, place: str) -> Choice:
    """A line of a .jsonl file."""
    options, label = row.get("options"), row.get("label")
    check_options(options, place)
    if label in (None, -1):
        label = None
    elif type(label) is not int or not 0 <= label < len(options):
        raise UserError(f"{place}label: expected the number of the right option, from 0 to {len(options) - 1}.")
    return Choice(name, "", string_of(row, "context", place), string_of(row, "question", place), options, label)


def read_race(folder: Path) -> tuple[list[Choice], Record]:
    """In the order of the names of the files; the SHA-256 of the record is over the bytes of all of them in that order."""
    groups = [name for name in GROUPS if (folder / name).is_dir()]
    files = [path for each in (map(folder.joinpath, groups) if groups else [folder]) for path in sorted(each.glob("*.txt"))]
    if not files:
        raise UserError(f"{folder}: expected .txt files, or middle and high with such files, as in RACE/train.")
    rows = [row for path in files for row in read_article(path)]
    size = sum(path.stat().st_size for path in files)
    return rows, {"path": str(folder.absolute()), "size": size, "sha256": sha256_of_files(*files), "num_files": len(files)}


def read_article(path: Path) -> list[Choice]:
    """A text and the questions about it; `answers`, the letters of the right options, may be missing."""
    article = read_json(path)
    if not isinstance(article, dict):
        raise UserError(f"{path}: expected an object, as in the published RACE.")
    place, group = f"{path}: ", path.parent.name if path.parent.name in GROUPS else ""
    columns = [article.get(name) for name in ("questions", "options")] + [article["answers"]] * ("answers" in article)
    if not all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        raise UserError(f"{place}expected lists of the same length as questions, options and, where they are known, answers.")
    context, rows = string_of(article, "article", place), []
    for number, (question, options, *letter) in enumerate(zip(*columns, strict=True)):
        check_options(options, at := f"{place}question {number + 1}: ")
        if letter and letter[0] not in list(LETTERS[: len(options)]):
            raise UserError(f"{at}answers: expected a letter from A to {LETTERS[len(options) - 1]}.")
        label = LETTERS.index(letter[0]) if letter else None
        name = "/".join(filter(None, (group, f"{path.stem}-{number}")))
        rows.append(Choice(name, group, context, string_of({"question": question}, "question", at), options, label))
    return rows


def check_options(options: Any, place: str) -> None:
    if not (isinstance(options, list) and 2 <= len(options) <= len(LETTERS) and all(map(is_text, options))):
        raise UserError(f"{place}options: expected a list of 2 to {len(LETTERS)} texts.")


def string_of(content: dict[str, Any], name: str, place: str) -> str:
    """It may be empty."""
    if not is_text(found := content.get(name)):
        raise UserError(f"{place}{name}: expected a text.")
    return found
