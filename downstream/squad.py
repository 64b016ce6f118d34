"""Questions about paragraphs, in the JSON of SQuAD v1.1 and v2.0 as it is published."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from downstream.text_files import Reading, is_text, kind_of, read_json
from tokenizer.errors import UserError
from tokenizer.input_records import record_file
from tokenizer.provenance import Record


class Question(NamedTuple):
    """A question as it was read."""

    id: str
    context: str
    question: str
    answers: list[str] | None
    """All that are right; empty where the context holds none; None where nothing is said, as in a test without labels."""
    start: int | None
    """Character of the context at which the first answer begins; None where it is not there."""


class Questions(NamedTuple):
    """A split as it was read."""

    source: str
    record: Record
    """For provenance.json."""
    rows: list[Question]


def read_squad(source: str, split: str, reading: Reading) -> Questions:
    """A .json file, maybe .gz. In `train` the first answer of each question lies where `answer_start` says; `test` may be without
    answers.

    Raises:
        UserError: the file cannot be read, or is not as published; the message names the place in it.
    """
    if kind_of(Path(source)) != ".json":
        raise UserError(f"{source}: expected the .json of SQuAD, maybe .gz.")
    rows, misplaced, unlabelled = [], [], []
    for place, context, entry in entries(read_json(Path(source)), source):
        row = read_question(entry, context, place)
        if row.answers is None:
            unlabelled.append(place)
        if split == "train" and row.answers and row.start is None:
            misplaced.append(place)
        else:
            rows.append(row)
    if unlabelled and (split != "test" or len(unlabelled) < len(rows)):
        raise UserError(f'{unlabelled[0]}answers: there is none. Questions that have no answer say "is_impossible": true.')
    if misplaced and reading.on_error == "stop":
        raise UserError(
            f"{misplaced[0]}answers[0]: its text is not in the context at answer_start, as in {len(misplaced):,} questions. "
            "Mend them, or leave them out with --on_error skip."
        )
    if misplaced:
        print(f"{source}: {len(misplaced):,} questions whose answer is not at answer_start left out")
    if not rows:
        raise UserError(f"{source}: holds no questions.")
    if len({row.id for row in rows}) < len(rows):
        raise UserError(f"{source}: some questions have the same id, by which predictions are told apart.")
    return Questions(source, record_file(source), rows)


def entries(content: Any, source: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """For each question the place, which goes before the name of a field, its context and its object."""
    for in_data, article in objects(content, "data", f"{source}: "):
        for in_article, paragraph in objects(article, "paragraphs", in_data):
            context = text_of(paragraph, "context", in_article)
            for place, entry in objects(paragraph, "qas", in_article):
                yield place, context, entry


def read_question(entry: dict[str, Any], context: str, place: str) -> Question:
    found = list(objects(entry, "answers", place)) if "answers" in entry else []
    answers, start = [text_of(answer, "text", at) for at, answer in found], None
    if entry.get("is_impossible", False) and answers:
        raise UserError(f"{place}is_impossible: is true, and yet there are answers.")
    if found:
        at = found[0][1].get("answer_start")
        start = at if isinstance(at, int) and at >= 0 and context.startswith(answers[0], at) else None
    labelled = bool(answers) or entry.get("is_impossible", False)
    return Question(text_of(entry, "id", place), context, text_of(entry, "question", place), answers if labelled else None, start)


def objects(content: Any, name: str, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Those of a list, each with its place."""
    found = content.get(name) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise UserError(f"{place}{name}: expected a list of objects, as in the published SQuAD.")
    yield from ((f"{place}{name}[{number}].", item) for number, item in enumerate(found))


def text_of(content: dict[str, Any], name: str, place: str) -> str:
    found = content.get(name)
    if not is_text(found) or not found.strip():
        raise UserError(f"{place}{name}: expected a text.")
    return found
