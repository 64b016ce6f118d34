"""Bad input, alone and among good files: stopped with file and line, or left out and counted; never a hang, never silent loss."""

import gzip
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow
import pyarrow.parquet
import pytest

from tokenizer.corpus import Faults, read_documents, read_range, resolve_inputs, split_inputs
from tokenizer.errors import UserError

LINES = "".join(f"This is line number {number} of the text.\n" for number in range(20_000)).encode()
SENTENCE = "One sentence. "
LONG = len("one\n") + (2 << 20) + len("\nthree")  # the megabytes before the one with the fault


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """A reader that waits for a pipe would wait for ever."""

    def stop(signum: int, frame: object) -> None:
        raise TimeoutError("the reader hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


class Case(NamedTuple):
    name: str
    make: bytes | Callable[[Path], object]
    """Content, or what makes the file."""
    texts: list[str] | Callable[[str], bool]
    """What is left in skip mode: documents, or a check of all their text."""
    num_faults: int = 0
    place: str = ""
    """Behind the name, of the first fault, where it ends the work: "" or ":LINE"."""
    reason: str = ""

    def place_left_out(self) -> str:
        """Where it is left out: the first byte of the line, or of the part of a long line."""
        if not self.place:
            return ""
        lines = self.make.split(b"\n")
        line = int(self.place[1:]) - 1
        start = sum(len(before) + 1 for before in lines[:line])
        long_part = max(lines[line].find(0), 0) >> 20 << 20
        return f" byte {start + long_part}"


def begins_lines(text: str) -> bool:
    return LINES.decode().startswith(text) and len(text) > len(LINES) / 2


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def jsonl(*rows: str) -> bytes:
    return "".join(row + "\n" for row in ('{"text": "first"}', *rows, '{"text": "last"}')).encode()


GZ = gzip.compress(LINES, mtime=0)
CORRUPT = GZ[: len(GZ) // 2] + bytes([GZ[len(GZ) // 2] ^ 255]) + GZ[len(GZ) // 2 + 1 :]

GOOD = {
    "0_bytes": Case("b.txt", b"", []),
    "only_blank_lines": Case("b.txt", "\n \n\t\r\n\u3000\n\u00a0".encode(), []),
    "50_mb_line": Case("b.txt", (SENTENCE * 3_600_000).encode(), lambda text: text == SENTENCE * 3_600_000),
    "50_mb_record": Case("b.jsonl", json.dumps({"text": SENTENCE * 3_600_000}).encode(), lambda text: text == SENTENCE * 3_600_000),
    "5_mb_word": Case("b.txt", b"a word:\n" + b"w" * 5_000_000 + b"\n", lambda text: text == "a word:\n" + "w" * 5_000_000),
    "crlf": Case("b.txt", b"one\r\ntwo\r\n\r\nthree\r\n", ["one\ntwo", "three"]),
    "lone_cr": Case("b.txt", b"one\rtwo\r\rthree\n", ["one\rtwo\r\rthree"]),
    "unicode_line_ends": Case("b.txt", "a\u2028b\u0085c\u2029d".encode(), ["a\u2028b\u0085c\u2029d"]),
    "unicode_line_ends_in_json": Case("b.jsonl", '{"text": "a\u2028b\u0085c"}'.encode(), ["a\u2028b\u0085c"]),
    "unseen_script": Case("b.txt", "𐎠𐎼𐎹𐎠 𞤀𞤣𞤤𞤢𞤥\n\nꦲꦏ꧀ꦱꦫ".encode(), ["𐎠𐎼𐎹𐎠 𞤀𞤣𞤤𞤢𞤥", "ꦲꦏ꧀ꦱꦫ"]),
    "one_sentence_documents": Case("b.txt", b"One.\n\nTwo.\n\nThree.\n", ["One.", "Two.", "Three."]),
    "one_word": Case("b.txt", b"word", ["word"]),
}

BAD = {
    "nuls": Case("b.txt", b"one\nt\0wo\nthree\n\nfour", ["one\nthree", "four"], 1, ":2", "zero byte at byte 5"),
    "only_nuls": Case("b.txt", b"\0" * 5_000_000, [], 1, ":1", "zero byte at byte 0"),
    "nul_in_a_long_line": Case("b.txt", b"one\n" + b"w" * 3_000_000 + b"\0\nthree", lambda text: len(text) == LONG, 1, ":2", ""),
    "invalid_utf8": Case("b.txt", b"one\n\ntwo \xe9\nthree\n", ["one", "three"], 1, ":3", "not UTF-8 at byte 9 (0xe9)"),
    "utf8_cut_short": Case("b.txt", b"one\ntwo \xe2\x82", ["one"], 1, ":2", "not UTF-8"),
    "invalid_utf8_in_json": Case("b.jsonl", jsonl("?").replace(b"?", b'{"text": "\xe9"}'), ["first", "last"], 1, ":2", "not UTF-8"),
    "utf_16": Case("b.txt", "one\n\ntwo".encode("utf-16"), [], 1, "", "iconv -f UTF-16"),
    "utf_16_be": Case("b.jsonl", "\ufeffone\n\ntwo".encode("utf-16-be"), [], 1, "", "iconv -f UTF-16"),
    "utf_16_le_no_mark": Case("b.txt", ("one\n\ntwo\n" * 5000).encode("utf-16-le"), [], 1, "", "iconv -f UTF-16LE"),
    "utf_16_be_no_mark": Case("b.txt.gz", gzip.compress("один\n\nдва\n".encode("utf-16-be") * 9), [], 1, "", "f UTF-16BE"),
    "utf_16_chinese_no_mark": Case("b.txt", "兒童用眼过度\n\n看书\n".encode("utf-16-le"), [], 1, "", "iconv -f UTF-16LE"),
    "utf_32": Case("b.txt", "one\n\ntwo".encode("utf-32"), [], 1, "", "iconv -f UTF-32"),
    "truncated_gz": Case("b.txt.gz", GZ[:-10_000], begins_lines, 1, "", "cut short"),
    "gz_without_its_trailer": Case("b.txt.gz", GZ[:-8], lambda text: text + "\n" == LINES.decode(), 1, "", "cut short"),
    "corrupt_gz": Case("b.txt.gz", CORRUPT, lambda text: len(text) > 1e5, 1, "", "damaged"),
    "rubbish_behind_gz": Case("b.txt.gz", GZ + b"rubbish", lambda text: text + "\n" == LINES.decode(), 1, "", "damaged"),
    "text_named_gz": Case("b.txt.gz", b"plain text", [], 1, "", "begins otherwise. If it is plain text, take the ending off"),
    "nothing_named_gz": Case("b.jsonl.gz", b"", [], 1, "", "is empty"),
    "gz_named_txt": Case("b.txt", GZ, [], 1, "", "Give the file the ending .gz"),
    "truncated_jsonl": Case("b.jsonl", jsonl()[:-5], ["first"], 1, ":2", 'not JSON (Unterminated string'),
    "no_text": Case("b.jsonl", jsonl('{"body": "x"}', "{}"), ["first", "last"], 2, ":2", "no field `text`. There are: body."),
    "text_not_a_string": Case("b.jsonl", jsonl('{"text": 7}'), ["first", "last"], 1, ":2", "must be a string, found int"),
    "lone_surrogate": Case("b.jsonl", jsonl('{"text": "x\\ud800"}'), ["first", "last"], 1, ":2", "half a surrogate pair"),
    "array_named_json": Case("b.json", b'[{"text": "x"}]', [], 1, "", "jq -c '.[]' FILE > FILE.jsonl"),
    "array_named_jsonl": Case("b.jsonl", b'[{"text": "x"}]', [], 1, ":1", "found a list"),
    "array_on_many_lines": Case("b.jsonl", b'[\n{"text": "x"}\n]\n', ["x"], 2, ":1", "jq -c '.[]' FILE > FILE.jsonl"),
    "unknown_type": Case("b.csv", b"x", [], 1, "", "unknown type"),
    "missing": Case("b.txt", lambda path: None, [], 1, "", "no such file"),
    "dangling_link": Case("b.txt", lambda path: path.symlink_to("gone"), [], 1, "", "a link to gone, which does not exist"),
    "link_loop": Case("b.txt", loop, [], 1, "", "a link that leads back to itself"),
    "fifo": Case("b.txt", os.mkfifo, [], 1, "", "not a regular file"),
    "folder_named_txt": Case("b.txt", os.mkdir, [], 1, "", "no file of a known type"),
    "rubbish_named_parquet": Case("b.parquet", b"rubbish", [], 1, "", "cannot be read as parquet"),
}  # fmt: skip


def make(folder: Path, case: Case) -> Path:
    path = folder / case.name
    if callable(case.make):
        case.make(path)
    else:
        path.write_bytes(case.make)
    return path


def check(documents: list, expected: list[str] | Callable[[str], bool]) -> None:
    texts = [document.text for document in documents]
    assert expected("".join(texts)) if callable(expected) else texts == expected


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("mode", ["fail", "skip"])
def test_odd_but_good_input_is_read_whole(tmp_path, name, mode):
    case = GOOD[name]
    path = make(tmp_path, case)
    faults = Faults(mode)
    if case.texts == []:
        with pytest.raises(UserError, match="the corpus is empty"):
            list(read_documents([str(path)], faults=faults))
    else:
        check(list(read_documents([str(path)], faults=faults)), case.texts)
    assert faults.num == 0


@pytest.mark.parametrize("name", BAD)
def test_bad_input_stops_with_file_and_line(tmp_path, name):
    case = BAD[name]
    path = make(tmp_path, case)
    (tmp_path / "a.txt").write_text("good")
    for inputs in ([path], [path, tmp_path / "a.txt"]):
        with pytest.raises(UserError) as caught:
            list(read_documents(list(map(str, inputs))))
        assert str(caught.value).startswith(f"{path}{case.place}: ")
        assert case.reason in str(caught.value)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_left_out_alone_counted_and_listed(tmp_path, name):
    case = BAD[name]
    path = make(tmp_path, case)
    (tmp_path / "a.txt").write_text("good before")
    (tmp_path / "c.txt").write_text("good behind")
    faults = Faults("skip")
    documents = list(read_documents([str(path), str(tmp_path / "a.txt"), str(tmp_path / "c.txt")], faults=faults))
    assert (documents[0].text, documents[-1].text) == ("good before", "good behind")
    check(documents[1:-1], case.texts)
    assert faults.num == len(faults.listed) == case.num_faults
    assert faults.listed[0]["location"] == f"{case.name}{case.place_left_out()}"
    assert case.reason in faults.listed[0]["reason"]
    assert str(tmp_path) not in str(faults.listed), "no path of this machine"


@pytest.mark.parametrize("name", [name for name, case in BAD.items() if not callable(case.make) and len(case.make) < 1e6])
def test_each_fault_is_reported_once_however_the_file_is_cut(tmp_path, name):
    path = make(tmp_path, BAD[name])
    (tmp_path / "a.txt").write_text("good")
    seen = []
    for range_bytes in (1 << 30, 1000, 37):
        faults = Faults("skip")
        inputs = resolve_inputs([str(path), str(tmp_path / "a.txt")], faults=faults)
        ranges = split_inputs(inputs, range_bytes)
        documents = [document for part in ranges for document in read_range(inputs, part, faults=faults)]
        seen.append((documents, faults.num, faults.listed))
    assert seen[0] == seen[1] == seen[2]


def test_only_a_hundred_faults_are_listed(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\n" * 1000 + b"good")
    faults = Faults("skip")
    assert [document.text for document in read_documents([str(tmp_path)], faults=faults)] == ["good"]
    assert (faults.num, len(faults.listed)) == (1000, 100)
    assert faults.listed[99]["location"] == "a.txt byte 198"


def test_nothing_left_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"nothing is left.*no\.txt"):
        read_documents([str(tmp_path / "no.txt")], faults=Faults("skip"))
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"the corpus is empty.*1 faults were left out"):
        list(read_documents([str(tmp_path)], faults=Faults("skip")))


@pytest.fixture
def unreadable() -> Iterator[Path]:
    """A folder with one good file, one without permissions and one folder without; for root, who reads all, as another user."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "a.txt").write_text("good")
        (folder / "b.txt").write_text("closed")
        (folder / "c").mkdir()
        (folder / "b.txt").chmod(0)
        (folder / "c").chmod(0)
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)
        except OSError:  # as in a user namespace with one user
            pytest.skip("root cannot become another user here")
        try:
            yield folder
        finally:
            os.seteuid(user)
            (folder / "c").chmod(0o755)


def test_unreadable_files_and_folders_are_named_or_left_out(unreadable):
    with pytest.raises(UserError, match=r"b\.txt: cannot be read \(Permission denied\)"):
        read_documents([str(unreadable / "b.txt")])
    with pytest.raises(UserError, match=r"c: cannot be read \(Permission denied\)"):
        read_documents([str(unreadable / "c")])
    faults = Faults("skip")
    assert [document.text for document in read_documents([str(unreadable)], faults=faults)] == ["good"]
    assert [fault["location"] for fault in faults.listed] == ["b.txt", "c"]


def test_faults_of_inputs_of_one_name_are_told_apart_by_their_labels(tmp_path):
    for label in ("wiki", "books"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.txt").write_bytes(b"good\n\n\xff")
        (tmp_path / label / "b.txt").symlink_to("gone")
    faults = Faults("skip")
    inputs = [f"{label}={tmp_path / label}" for label in ("wiki", "books")] + ["web=nowhere"]
    assert len(list(read_documents(inputs, faults=faults))) == 2
    expected = ["wiki=b.txt", "books=b.txt", "web=nowhere", "wiki=a.txt byte 6", "books=a.txt byte 6"]
    assert [fault["location"] for fault in faults.listed] == expected


def test_names_of_fields_are_cut_in_messages(tmp_path):
    name = "k" * 3_000_000
    (tmp_path / "a.jsonl").write_text(json.dumps({name: 1}))
    pyarrow.parquet.write_table(pyarrow.table({name: ["x"], "text": [{name: 1}]}), tmp_path / "b.parquet")
    for path, field in (("a.jsonl", "text"), ("b.parquet", "text"), ("b.parquet", "body")):
        with pytest.raises(UserError, match="kkk") as caught:
            list(read_documents([str(tmp_path / path)], text_field=field))
        assert len(str(caught.value)) < 700


ODD_NAMES = [
    "a b.txt",
    "quo\"te's.txt",
    "new\nline.txt",
    os.fsdecode(b"caf\xe9 \xff.txt"),
    "😀.txt",
    "a=b.txt",
    "-n.txt",
    "%s{x}.txt",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_file_names_are_read_and_shown_on_one_line_of_valid_text(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"good\n\n\xff")
    for argument in (name, str(tmp_path / name), str(tmp_path), f"{tmp_path}/*.txt", "*.txt", "."):
        faults = Faults("skip")
        (document,) = read_documents([argument], faults=faults)
        assert document.text == "good"
        (item,) = resolve_inputs([argument])
        assert item.label == ""
        for shown in (item.name, document.location, faults.listed[0]["location"]):
            assert shown.encode("utf-8").decode().isprintable()
        with pytest.raises(UserError) as caught:
            list(read_documents([argument]))
        assert str(caught.value).encode("utf-8").decode().isprintable()
        assert f"{item.name}:3: not UTF-8" in str(caught.value)
