"""Sentences of words, each with a tag, from CoNLL files, .jsonl files and datasets."""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import dropwhile
from pathlib import Path
from typing import NamedTuple

from downstream.delimited import refuse_twins
from downstream.labelled import HF, named_split, names_in, read_dataset, read_file
from downstream.text_files import Reading, Row, is_text, kind_of, open_text
from tokenizer.errors import UserError
from tokenizer.input_records import record_dataset, record_file
from tokenizer.provenance import Record

WORDS = ("tokens", "words")
TAGS = ("tags", "ner_tags", "pos_tags", "upos", "labels")
"""Usual names in rows."""
DOCUMENT = "-DOCSTART-"
"""First cell of the line before a document of CoNLL-2003."""
CONLL_U = ".conllu"


class Sentence(NamedTuple):
    words: list[str]
    tags: list[str] | None
    """None where the file has none."""


class Tagged(NamedTuple):
    """A split as it was read."""

    source: str
    record: Record
    """For provenance.json."""
    words: str
    """Name or number, from 1, of the column of words."""
    tags: str | None
    sentences: list[Sentence]
    reading: Reading


def read_tagged(source: str, split: str, words: str | None, tags: str | None, reading: Reading, *, labelled: bool) -> Tagged:
    """words, tags: names or numbers of the columns; None: the usual ones. labelled: whether there must be tags. Where they need not
    be and are not, it is said.

    Raises:
        UserError: the source is missing, empty or damaged, a column is not there, a sentence has more words than tags, or some have
            tags and others not.
    """
    is_dataset = source.startswith(HF)
    source = named_split(source, split) if is_dataset else source
    if has_rows(source):
        rows = read_dataset(source, reading) if is_dataset else read_file(Path(source), reading)
        found = pick_columns(rows, words, tags, source, reading, labelled=labelled)
    else:
        found = read_conll(Path(source), words, tags, reading, labelled=labelled)
    word_column, tag_column, sentences = found
    if not sentences:
        raise UserError(f"{source}: holds no sentences.")
    if tag_column is None:
        print(f"{source}: no tags{f' in the column {tags}' if tags else ''}; it gets predictions, but no figures")
    record = record_dataset(source) if is_dataset else record_file(source)
    return Tagged(source, record, word_column, tag_column, sentences, reading)


def has_rows(source: str) -> bool:
    """Whether columns have names of their own, or numbers as in CoNLL files."""
    return source.startswith(HF) or kind_of(Path(source)) == ".jsonl"


Found = tuple[str, str | None, list[Sentence]]
"""Column of words, that of tags, sentences."""


def pick_columns(rows: list[Row], words: str | None, tags: str | None, source: str, reading: Reading, *, labelled: bool) -> Found:
    """From rows that hold lists."""
    there = names_in(rows)
    word_column = next((name for name in ((words,) if words else WORDS) if name in there), None)
    tag_column = next((name for name in ((tags,) if tags else TAGS) if name in there), None)
    faults = [] if word_column or not rows else [f"no column {words or ' or '.join(WORDS)}; give --text NAME"]
    if labelled and tag_column is None and rows:
        faults.append(f"no column {tags or ' or '.join(TAGS)}; give --label NAME")
    if faults:
        raise UserError(f"{source}: {'; '.join(faults)}. It has: {reading.quote(there)}.")
    if not labelled:
        refuse_empty(rows, word_column, source)
        tag_column = tag_column if have_tags(rows, tag_column, source) else None
    numbered = list(enumerate(rows, 1))
    if labelled and reading.on_error == "skip":
        numbered = [(number, row) for number, row in numbered if row.get(word_column) == [] or not lacks_tags(row.get(tag_column))]
        if len(numbered) < len(rows):
            print(f"{source}: {len(rows) - len(numbered):,} rows without tags left out")
    sentences = [sentence_of(row, word_column, tag_column, f"{source}, row {number}") for number, row in numbered]
    full = [sentence for sentence in sentences if sentence.words]
    if len(full) < len(sentences):
        print(f"{source}: {len(sentences) - len(full):,} rows without words left out")
    return word_column or "", tag_column, full


def refuse_empty(rows: list[Row], word_column: str | None, source: str) -> None:
    """Raises a UserError where a row has no words: its prediction would be a blank line, which readers take for nothing."""
    for number, row in enumerate(rows, 1):
        if row.get(word_column) == []:
            raise UserError(f"{source}, row {number}: has no words. Take such rows out: predictions go by the number of the row.")


def have_tags(rows: list[Row], tag_column: str | None, source: str) -> bool:
    """Whether rows that may be without have tags.

    Raises:
        UserError: some have tags and others not.
    """
    without = [number for number, row in enumerate(rows, 1) if lacks_tags(row.get(tag_column))]
    if 0 < len(without) < len(rows):
        raise UserError(
            f"{source}, row {without[0]}: has no tags as {tag_column}, as {len(without):,} of {len(rows):,} rows. "
            "Fill them in, or leave them out of all rows for predictions without figures."
        )
    return not without


def lacks_tags(tags: object) -> bool:
    """-1 in a dataset, as in tests whose tags are kept back, has become None."""
    return not tags or (isinstance(tags, list) and None in tags)


def sentence_of(row: Row, word_column: str, tag_column: str | None, place: str) -> Sentence:
    words, tags = row.get(word_column), row.get(tag_column) if tag_column else None
    if not isinstance(words, list) or not all(map(is_text, words)):
        raise UserError(f"{place}: expected a list of words as {word_column}.")
    if tag_column is None:
        return Sentence(words, None)
    if not isinstance(tags, list) or not all(isinstance(tag, (str, int)) and tag != "" and is_text(str(tag)) for tag in tags):
        mend = " Give them, or leave such rows out with --on_error skip." if lacks_tags(tags) else ""
        raise UserError(f"{place}: expected a list of tags as {tag_column}.{mend}")
    if len(tags) != len(words):
        raise UserError(f"{place}: has {len(words)} words and {len(tags)} tags.")
    return Sentence(words, [str(tag) for tag in tags])


def read_conll(path: Path, words: str | None, tags: str | None, reading: Reading, *, labelled: bool) -> Found:
    """A line for each word, columns separated by tabs, or else by white space; a blank line ends a sentence (Tjong Kim Sang & De
    Meulder, arXiv cs/0306050, section 2.1). Of a .conllu file the columns FORM and UPOS, without comments, ranges and empty nodes.

    Before a sentence, lines that begin with # may be comments: see `without_comments`.
    """
    suffix = kind_of(path)
    if suffix in (".csv", ".parquet", ".json"):
        raise UserError(f"{path}: expected a CoNLL file, a .jsonl file, maybe .gz, or {HF}NAME.")
    refuse_twins(reading.names, path, reading)
    with open_text(path) as file:
        groups = group_lines(file.read().split("\n"), is_conll_u=suffix == CONLL_U)  # a word may hold other ends of lines
    widths = Counter((cells[0].startswith("#"), len(cells)) for group in groups for _, cells in group)
    width = max(widths, key=lambda key: (not key[0], widths[key]), default=(False, 0))[1]
    word_column, tag_column = find_numbers(path, width, words, tags, suffix, reading, labelled=labelled)
    sentences, skipped = [], 0
    for group in without_comments(groups, width, path):
        needed = [word_column] if tag_column is None else [word_column, tag_column]
        wrong = next((at for at, cells in group if len(cells) != width or not all(cells[column] for column in needed)), None)
        if wrong and reading.on_error == "stop":
            raise UserError(
                f"{path}, line {wrong}: expected {width} columns, as most lines have, and in them a word and its tag. "
                "Mend it, or leave such sentences out with --on_error skip."
            )
        skipped += wrong is not None
        if group and not wrong:
            tags_here = None if tag_column is None else [cells[tag_column] for _, cells in group]
            sentences.append(Sentence([cells[word_column] for _, cells in group], tags_here))
    if skipped:
        print(f"{path}: {skipped:,} sentences left out for lines without word and tag in {width} columns")
    return str(word_column + 1), None if tag_column is None else str(tag_column + 1), sentences


Group = list[tuple[int, list[str]]]
"""Numbers, from 1, and cells of the lines of a sentence."""


def group_lines(lines: Iterable[str], *, is_conll_u: bool) -> list[Group]:
    groups: list[Group] = [[]]
    for number, line in enumerate(lines, 1):
        line = line.strip(" \t\r")
        cells = [cell.strip(" ") for cell in line.split("\t")] if "\t" in line else re.split(" +", line)
        if not line or cells[0] == DOCUMENT:
            groups.append([])
        elif not is_conll_u or re.fullmatch(r"\d+", cells[0]):
            groups[-1].append((number, cells))
    return [group for group in groups if group]


def without_comments(groups: list[Group], width: int, path: Path) -> list[Group]:
    """Before a sentence, a line that begins with # is a comment if it has another number of columns than most (GermEval 2014).

    So it is, and told, if it has as many, but # alone as the first, and no line of a word has any of the others in that column:
    `# newdoc` in a file of two columns, unlike `# O`. The tag that Penn's treebank gives to # is # itself.
    """
    seen = {pair for group in groups for _, cells in group if not cells[0].startswith("#") for pair in enumerate(cells[1:])}

    def is_like_words(cells: list[str]) -> bool:
        return cells[0] != "#" or width == 1 or "#" in cells[1:] or any(pair in seen for pair in enumerate(cells[1:]))

    def is_word(line: tuple[int, list[str]]) -> bool:
        return not line[1][0].startswith("#") or (len(line[1]) == width and is_like_words(line[1]))

    found = [list(dropwhile(lambda line: not is_word(line), group)) for group in groups]
    lines = (line for group, words in zip(groups, found, strict=True) for line in group[: len(group) - len(words)])
    if wide := sum(len(cells) == width for _, cells in lines):
        print(f"{path}: {wide:,} lines with # and {width} columns before a sentence taken as comments")
    return found


def find_numbers(
    path: Path, width: int, words: str | None, tags: str | None, suffix: str, reading: Reading, *, labelled: bool
) -> tuple[int, int | None]:
    """Numbers, from 0, of the columns of words and tags in a file of `width` columns; None for tags that are not there and need not
    be: of such a file --columns may name that of the tags, too."""
    if not width or (width == 1 and not labelled):
        return 0, None
    num_columns = len(reading.names) or width
    file_lacks_tags = not labelled and width == num_columns - 1
    if width != num_columns and not file_lacks_tags:
        raise UserError(f"{path}: has {width} columns, but --columns names {num_columns}.")
    needed = labelled or file_lacks_tags
    word_column, tag_column = numbers_asked_for(path, num_columns, words, tags, suffix, reading, tags_needed=needed)
    return (word_column - (tag_column < word_column), None) if file_lacks_tags else (word_column, tag_column)


def numbers_asked_for(
    path: Path, num_columns: int, words: str | None, tags: str | None, suffix: str, reading: Reading, *, tags_needed: bool
) -> tuple[int, int | None]:
    """Numbers, from 0, of the columns of words and tags among so many; None for tags that are not needed, where their number is
    beyond the last, or that of the words."""

    def number_of(asked: str, option: str) -> int:
        if asked in reading.names:
            return reading.names.index(asked)
        if asked.isdecimal() and 1 <= int(asked) <= num_columns:
            return int(asked) - 1
        names = f", or one of --columns ({', '.join(reading.names)})" if reading.names else ""
        raise UserError(f"{path}: no column {asked}; give {option} a number from 1 to {num_columns}{names}.")

    default_words, default_tags = ("2", "4") if suffix == CONLL_U else ("1", str(num_columns))
    is_beyond = tags is not None and tags.isdecimal() and int(tags) > num_columns
    word_column = number_of(words or default_words, "--text")
    tag_column = None if is_beyond and not tags_needed else number_of(tags or default_tags, "--label")
    if tag_column != word_column:
        return word_column, tag_column
    if tags_needed:
        place = f"{word_column + 1} of {num_columns}"
        raise UserError(f"{path}: words and tags would be the same column, {place}; give --label NUMBER.")
    return word_column, None
