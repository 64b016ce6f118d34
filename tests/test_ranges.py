"""Ranges: the documents of all of them are those of the whole, for any cut; what a range reads, and how much memory it takes."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from prepared import BUNDLED

from tokenizer import lines, sections
from tokenizer.corpus import Document, Faults, Input, Range, read_documents, read_range, resolve_inputs, split_inputs
from tokenizer.errors import UserError

WHITE = [" ", "\t", "\r", "\x0b", "\x1c", "\u00a0", "\u0085", "\u1680", "\u2003", "\u2028", "\u3000"]
ALMOST_WHITE = ["\u3001", "\u200b", "\u2089", "\ufeff"]  # their UTF-8 has bytes of white space in it
TOKENS = [token.encode() for token in ["\n", "\n\n", "\r\n", "a", "é", "বর্ণ", "😀", *WHITE, *ALMOST_WHITE]]
BAD = [b"\xff", b"\x00", b"\xe3\x80"]


def check_faults(inputs: list[Input], range_bytes: int, faults: Faults, bad_lines: list[tuple[int, int]]) -> None:
    """Left out, a bad line is told by its byte; where it ends the work, by its number."""
    assert [fault["location"] for fault in faults.listed] == [f"{inputs[0].name} byte {offset}" for _, offset in bad_lines][:100]
    assert faults.num == len(bad_lines)
    if bad_lines:
        with pytest.raises(UserError) as caught:
            read_all(inputs, range_bytes)
        assert str(caught.value).startswith(f"{inputs[0].source}:{bad_lines[0][0]}: ")


def read_all(inputs: list[Input], range_bytes: int, faults: Faults | None = None) -> list[Document]:
    ranges = split_inputs(inputs, range_bytes)
    return [document for part in ranges for document in read_range(inputs, part, faults=faults)]


def reference(raw: bytes) -> tuple[list[tuple[int, str]], list[tuple[int, int]]]:
    """(offset, text) of the documents of a .txt file and (number, offset) of its bad lines, the plain way: all lines at once."""
    offset = 3 if raw.startswith(b"\xef\xbb\xbf") else 0
    documents: list[tuple[int, list[str]]] = []
    bad_lines = []
    is_open = False
    for number, line in enumerate(raw[offset:].split(b"\n"), start=1):
        text = line.decode("utf-8", "replace").removesuffix("\r")
        if text and not text.isspace():
            if not is_open:
                documents.append((offset, []))
            is_open = True
            try:
                if b"\0" in line:
                    raise ValueError
                line.decode()
                documents[-1][1].append(text)
            except ValueError:
                bad_lines.append((number, offset))
        else:
            is_open = False
        offset += len(line) + 1
    return [(start, "\n".join(texts)) for start, texts in documents if texts], bad_lines


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.sampled_from(TOKENS + BAD), max_size=60).map(b"".join),
    st.booleans(),
    st.integers(1, 80),
    st.sampled_from([4096, 8]),
)
@example(b"abc  \n\nd", False, 4, 4096)
@example(b"a\n\xe3\x80\x80\nb", False, 3, 4096)
@example(b"\n\nb", True, 1, 4096)
def test_any_cut_of_a_txt_file_gives_the_documents_of_the_whole(tmp_path_factory, raw, has_bom, range_bytes, look_back):
    assume(raw.count(0) < 2)  # more may be taken for UTF-16
    raw = b"\xef\xbb\xbf" * has_bom + raw
    path = tmp_path_factory.getbasetemp() / "any_cut.txt"
    path.write_bytes(raw)
    inputs = resolve_inputs([str(path)])
    expected, bad_lines = reference(raw)
    faults = Faults("skip")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "HEAD_SIZE", look_back)
        documents = read_all(inputs, range_bytes, faults)
        check_faults(inputs, range_bytes, faults, bad_lines)
    assert [(document.offset, document.text) for document in documents] == expected


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.text(st.sampled_from("aé\n 😀\u3000\u0085"), max_size=30).map(lambda text: json.dumps({"text": text})),
            st.text(st.sampled_from("aé 😀\u3000\u0085"), max_size=30).map(lambda t: json.dumps({"text": t}, ensure_ascii=False)),
            st.sampled_from(["", " \t", "\u3000", "\u0085\r", '{"text": "cut', '{"text": 1}', "[]"]),
        )
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\n", "\n\n"]),
    st.booleans(),
    st.integers(1, 80),
)
def test_any_cut_of_a_jsonl_file_gives_the_documents_of_the_whole(tmp_path_factory, rows, newline, end, has_bom, range_bytes):
    path = tmp_path_factory.getbasetemp() / "any_cut.jsonl"
    raw = b"\xef\xbb\xbf" * has_bom + (newline.join(rows) + end).encode()
    path.write_bytes(raw)
    expected, bad_lines = [], []
    offset = 3 * has_bom
    for number, row in enumerate(rows, start=1):
        if row and not row.isspace():
            try:
                text = json.loads(row)["text"]
                if text.strip():
                    expected.append((offset, text))
            except (ValueError, TypeError, AttributeError):
                bad_lines.append((number, offset))
        offset += len((row + newline).encode())
    faults = Faults("skip")
    inputs = resolve_inputs([str(path)])
    documents = read_all(inputs, range_bytes, faults)
    assert [(document.offset, document.text) for document in documents] == expected
    check_faults(inputs, range_bytes, faults, bad_lines)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(TOKENS + BAD), max_size=120).map(b"".join), st.integers(1, 80))
def test_long_lines_and_sections_do_not_depend_on_the_cut(tmp_path_factory, raw, range_bytes):
    path = tmp_path_factory.getbasetemp() / "long.txt"
    path.write_bytes(raw)
    inputs = resolve_inputs([str(path)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "LONG_LINE", 16)
        patch.setattr(lines, "BLOCK_SIZE", 16)
        patch.setattr(lines, "HEAD_SIZE", 8)
        patch.setattr(sections, "SECTION_CHARS", 10)
        seen = []
        for size in (range_bytes, 1 << 30):
            faults = Faults("skip")
            seen.append((read_all(inputs, size, faults), faults.listed))
        assert seen[0] == seen[1]
        patch.setattr(lines, "BLOCK_SIZE", 7)
        assert read_all(inputs, 1 << 30, Faults("skip")) == seen[0][0]


@pytest.mark.parametrize("char", ["a", "é", "ব", "😀"])
def test_the_fragments_of_a_long_line_are_cut_between_characters(tmp_path, monkeypatch, char):
    monkeypatch.setattr(lines, "LONG_LINE", 16)
    monkeypatch.setattr(lines, "BLOCK_SIZE", 16)
    path = tmp_path / "a.txt"
    for length in range(60):
        text = f"{char * length}e\r\nb\r{char * length}\n{char * length}"
        path.write_text(text, encoding="utf-8", newline="")
        (document,) = read_documents([str(path)])
        assert document.text == text.replace("\r\n", "\n").removesuffix("\n")


@settings(deadline=None, max_examples=300)
@given(st.text(st.sampled_from("aé😀\n \t\u3000"), max_size=200))
def test_the_sections_of_a_document_are_its_text(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "SECTION_CHARS", 12)
        parts = list(sections.cut_sections(text))
    assert "".join(parts) == text
    assert all(len(part) <= 12 for part in parts)
    assert all(len(part) > 6 for part in parts[:-1])


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("aaaa\n\nbb\ncc dd ee", "aaaa\n\nbb\n"),
        ("aaaaa\nbbb cc dd", "aaaaa\nbbb "),
        ("aaaaaaa\n\nb\nc dd", "aaaaaaa\n\n"),
        ("aaaaaaa\nb c dd", "aaaaaaa\n"),
        ("aaaaaa bb ccc", "aaaaaa bb "),
        ("aaaaaa bb  cc", "aaaaaa bb  "),
        ("aaa  aaaaaaaaa", "aaa  aaaaaaa"),
        ("aaaaaaaaaaaaaa", "aaaaaaaaaaaa"),
    ],
)
def test_a_section_ends_at_the_best_border_in_its_second_half(monkeypatch, text, first):
    monkeypatch.setattr(sections, "SECTION_CHARS", 12)
    assert next(sections.cut_sections(text)) == first


def test_white_space_is_what_python_takes_for_it(tmp_path):
    path = tmp_path / "a.txt"
    white = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace() and chr(code) != "\n"]
    assert set(WHITE) <= set(white)
    path.write_text("".join(f"a\n{char}\n" for char in white) + "".join(white) + "\n", encoding="utf-8", newline="")
    assert [document.text for document in read_documents([str(path)])] == ["a"] * len(white)


# What the ranges are


def test_ranges_are_in_order_tile_the_corpus_and_know_their_size(tmp_path):
    (tmp_path / "a.txt").write_text("x" * 250)
    (tmp_path / "b.txt").write_text("")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n'))
    (tmp_path / "d.jsonl").write_text('{"text": "x"}\n' * 10)
    size = os.path.getsize(tmp_path / "c.jsonl.gz")
    assert split_inputs(resolve_inputs([str(tmp_path)]), 100) == [
        Range(0, 0, 100, 100), Range(0, 100, 200, 100), Range(0, 200, 250, 50),
        Range(1, 0, 0, 0),
        Range(2, 0, size, 3 * size),
        Range(3, 0, 100, 100), Range(3, 100, 140, 40),
    ]  # fmt: skip


def test_row_groups_of_parquet_are_gathered(tmp_path):
    rows = [f"{'row ' * 50}{number}" for number in range(1000)]
    table = pyarrow.table({"id": list(range(1000)), "text": rows})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=90, use_dictionary=False)
    inputs = resolve_inputs([str(tmp_path)])
    ranges = split_inputs(inputs, 40_000)
    assert [part[:3] for part in ranges] == [(0, begin, min(begin + 180, 1000)) for begin in range(0, 1000, 180)]
    assert all(part.num_bytes == pytest.approx(207 * (part.end - part.begin), rel=0.05) for part in ranges[:-1]), "and page heads"
    for range_bytes in (1, 40_000, 1 << 30):
        documents = read_all(inputs, range_bytes)
        assert [(document.offset, document.text) for document in documents] == list(enumerate(rows))


def test_a_dataset_is_cut_by_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [f"row {number}" for number in range(100)]
    (tmp_path / "train.jsonl").write_text("".join(f'{{"text": "{row}"}}\n' for row in rows))
    inputs = resolve_inputs([f"hf:{tmp_path}"])
    ranges = split_inputs(inputs, 400)
    assert len(ranges) > 2
    assert [document.text for part in ranges for document in read_range(inputs, part)] == rows


def test_real_text_cut_small_is_the_real_text(tmp_path):
    path = tmp_path / "sotu.txt"
    path.write_bytes(gzip.decompress(BUNDLED.read_bytes()))
    whole = [(document.offset, document.text) for document in read_documents([str(BUNDLED)])]
    assert [(document.offset, document.text) for document in read_all(resolve_inputs([str(path)]), 10_007)] == whole


# Tables that change between planning and reading


def parquet_of(path: Path, rows: list[str]) -> list[Input]:
    pyarrow.parquet.write_table(pyarrow.table({"text": rows}), path, row_group_size=10)
    return resolve_inputs([str(path)])


@pytest.mark.parametrize("mode", ["fail", "skip"])
def test_a_range_of_a_table_that_is_gone_or_damaged_is_reported(tmp_path, mode):
    inputs = parquet_of(tmp_path / "a.parquet", [f"row {number}" for number in range(30)])
    parts = split_inputs(inputs, 1)
    assert len(parts) == 3
    for damage, expected in ((os.unlink, "cannot be read (No such file"), (lambda path: path.write_bytes(b"x"), "as parquet")):
        damage(tmp_path / "a.parquet")
        faults = Faults(mode)
        if mode == "fail":
            with pytest.raises(UserError) as caught:
                list(read_range(inputs, parts[1]))
            assert expected in str(caught.value)
        else:
            assert list(read_range(inputs, parts[1], faults=faults)) == []
            assert expected in faults.listed[0]["reason"]


def test_a_table_that_could_not_be_opened_when_the_work_was_shared_out_is_read_whole_if_it_can_be_later(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "a.parquet").write_bytes(b"rubbish")
    inputs = resolve_inputs([str(tmp_path / "a.parquet"), f"hf:{tmp_path / 'dataset'}"])
    parts = split_inputs(inputs, 1)
    assert [part.input_index for part in parts] == [0, 1]
    rows = [f"row {number}" for number in range(30)]
    parquet_of(tmp_path / "a.parquet", rows)
    (tmp_path / "dataset").mkdir()
    parquet_of(tmp_path / "dataset" / "train.parquet", rows)
    for part in parts:
        assert [document.text for document in read_range(inputs, part)] == rows


# Reading no more than needed


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="reads /proc/self/io")
def test_faults_in_every_range_do_not_read_the_file_again_and_again(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes((b'{"text": ""}\n' * 1000 + b"bad\n") * 1200)
    inputs = resolve_inputs([str(path)])

    def num_read() -> int:
        return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])

    faults, before = Faults("skip"), num_read()
    assert read_all(inputs, 1 << 20, faults) == []
    assert faults.num == 1200
    # 15 ranges of a megabyte, each read to the end of the block that holds its end; counting newlines would read 8 times the file.
    assert num_read() - before < 3 * path.stat().st_size


# Memory

MEASURE = r"""
import re, sys
from pathlib import Path
from tokenizer.corpus import read_documents
small, big = sys.argv[1:]
list(read_documents([small]))
def peak():
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
num_chars = 0
for document in read_documents([big]):
    num_chars += len(document.text)
print(num_chars, peak() - before)
"""


def grown(tmp_path: Path, path: Path) -> tuple[int, float]:
    """(characters read, MB by which the peak of resident memory grew over that of a small file)."""
    small = tmp_path / f"small{''.join(path.suffixes)}"
    raw = b'{"text": "x"}\n' if ".jsonl" in path.name else b"x\n"
    small.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    command = [sys.executable, "-c", MEASURE, str(small), str(path)]
    num_chars, kilobytes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return int(num_chars), int(kilobytes) / 1024


SENTENCES = b"A short sentence, and one more of them. "
HUGE = {
    "line": SENTENCES * 1_300_000,
    "word": b"a" * 50_000_000,
    "emoji": "😀".encode() * 12_500_000,
    "document": (SENTENCES + b"\n") * 1_200_000,
    "blanks": b"x" + b" " * 50_000_000 + b"y",
    "blank lines": b"x" + b"\n" * 5_000_000 + b"y",
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("what", HUGE)
@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_memory_is_bounded_whatever_the_length_of_a_line_or_document(tmp_path, what, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(HUGE[what], 1) if suffix.endswith("gz") else HUGE[what])
    num_chars, megabytes = grown(tmp_path, path)
    whole = HUGE[what].decode().removesuffix("\n")
    expected = {"blanks": 2 + (1 << 20) - 1, "blank lines": 2}.get(what, len(whole))
    assert num_chars == pytest.approx(expected, abs=1 << 20 if what == "blanks" else 0)
    # A block, a long line and a section, each of a megabyte (4 MB where a character takes 4 bytes) in two or three copies: 12 to
    # 30 MB were seen. Held whole, the input alone takes 50.
    assert megabytes < 40
