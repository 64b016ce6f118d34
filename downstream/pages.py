"""Web pages and other documents in; names, visible text, and passages of it out."""

import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from downstream.labelled import TABLES, TEXTS, read_file
from downstream.page_encoding import decode_page
from downstream.text_files import Reading, is_text, kind_of
from tokenizer.corpus import read_documents
from tokenizer.errors import UserError
from tokenizer.faults import Faults

HTML = (".html", ".htm")
NAMES = ("url", "title", "name", "id")
"""Fields of a row that may name its page."""

UNSEEN = {"script", "style", "template", "noscript", "title"}
"""Elements whose text no reader of the page sees in it."""
INLINE = {
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins", "kbd", "label", "mark", "q",
    "s", "samp", "small", "span", "strong", "sub", "sup", "time", "u", "var", "wbr",
}  # fmt: skip
"""Elements within a line; any other one ends it (HTML, "phrasing content")."""


class Page(NamedTuple):
    name: str
    text: str


class Passage(NamedTuple):
    page: int
    """Number of its page."""
    text: str
    ids: list[int]
    """Its pieces, with [CLS] and [SEP]."""


def read_pages(inputs: Sequence[str], *, private: bool) -> list[Page]:
    """A page for an .html file, for a row of a .jsonl, .tsv or .csv file (field `text`, or `html`; named by `url` or `title`), and
    for a document of anything else that `albert prepare` reads. Pages without text are left out.

    Raises:
        UserError: an input is missing, damaged or of another kind, or there is no page with text.
    """
    pages = [page for source in inputs for page in read_source(source, private=private) if page.text.strip()]
    if not pages:
        raise UserError(f"--input {' '.join(inputs)}: no page with text in it.")
    return pages


def read_source(source: str, *, private: bool) -> Iterator[Page]:
    if Path(source).suffix.lower() in HTML:
        title, text = read_html(decode_page(source))
        yield Page(title or source, text)
    elif kind_of(Path(source)) in (*TABLES, ".jsonl"):
        for number, row in enumerate(read_file(Path(source), Reading(on_error="mend", private=private)), 1):
            yield page_of(row, f"{source}, row {number}", private=private)
    else:
        for document in read_documents([source], faults=Faults(private=private)):
            yield Page(document.location, document.text)


def page_of(row: dict[str, Any], place: str, *, private: bool) -> Page:
    fields = [name for name in (*TEXTS, "html") if is_text(row.get(name))]
    if not fields:
        there = Reading(private=private).quote(row) or "nothing"
        raise UserError(f"{place}: expected a text as {TEXTS[0]}, or as html, found {there}.")
    field = next((name for name in fields if row[name].strip()), fields[0])
    title, text = read_html(row[field]) if field == "html" else ("", row[field])
    name = next((str(row[name]) for name in NAMES if row.get(name)), "")
    return Page(name or title or place, text)


def read_html(html: str) -> tuple[str, str]:
    """Title and visible text, a line for each block, white space collapsed."""
    reader = VisibleText()
    reader.feed(html)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.text).split("\n"))
    return " ".join("".join(reader.title).split()), "\n".join(filter(None, lines))


class VisibleText(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []
        self.title: list[str] = []
        self.unseen: list[str] = []
        """Elements of UNSEEN that are open."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in UNSEEN:
            self.unseen.append(tag)
        elif tag not in INLINE:
            self.text.append("\n")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in INLINE:
            self.text.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.unseen:
            del self.unseen[self.unseen.index(tag) :]
        elif tag not in INLINE:
            self.text.append("\n")

    def handle_data(self, data: str) -> None:
        if self.unseen == ["title"] and not self.text_seen():
            self.title.append(data)
        elif not self.unseen:
            self.text.append(re.sub(r"\s+", " ", data))

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        """`<![...>` is a comment (HTML, "Markup declaration open state"); Python 3.11 raises an AssertionError for many."""
        return self.parse_bogus_comment(i, 0)

    def text_seen(self) -> bool:
        """A <title> behind visible text is one of a drawing."""
        return any(not text.isspace() for text in self.text)


def cut_passages(pages: Sequence[Page], tokenizer: PreTrainedTokenizerBase, length: int) -> Iterator[Passage]:
    """Passages of `length` pieces, [CLS] and [SEP] included, each beginning in the middle of the one before."""
    for number, page in enumerate(pages):
        encoded = tokenizer(
            [page.text],
            truncation=True,
            max_length=length,
            stride=(length - 2) // 2,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            if inner := offsets[1:-1]:
                yield Passage(number, page.text[inner[0][0] : inner[-1][1]], ids)
