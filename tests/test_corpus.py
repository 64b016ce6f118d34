"""Documents: what is one, its identity, and what bad input is told."""

import glob
import gzip
import json
import os
import struct
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from backports import zstd
from prepared import BUNDLED

from tokenizer.corpus import Document, Input, read_documents, resolve_inputs
from tokenizer.errors import UserError

TEXT = "Erste Zeile – ä\nzweite\u2028Zeile\n\n \t\u3000\n  যুক্ত\nবর্ণ\n\n\nend without newline"


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode() if isinstance(content, str) else content
    if path.suffix == ".gz":
        raw = gzip.compress(raw)
    elif path.suffix == ".zst":
        raw = zstd.compress(raw)
    path.write_bytes(raw)
    return str(path)


def read(*inputs: object, **options: str) -> list[Document]:
    return list(read_documents([str(item) for item in inputs], **options))


def texts(*inputs: object, **options: str) -> list[str]:
    return [document.text for document in read(*inputs, **options)]


def refusal(*inputs: object, **options: str) -> str:
    with pytest.raises(UserError) as caught:
        read(*inputs, **options)
    return str(caught.value)


# What is a document


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst", "A.TXT"])
def test_a_blank_line_or_the_end_of_the_file_ends_a_document(tmp_path, name):
    documents = read(write(tmp_path / name, TEXT))
    assert [document.text for document in documents] == [
        "Erste Zeile – ä\nzweite\u2028Zeile",
        "  যুক্ত\nবর্ণ",
        "end without newline",
    ]
    assert documents[1].location == f"{tmp_path / name} byte 41"


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst"])
def test_offsets_are_bytes_of_the_decompressed_stream(tmp_path, name):
    raw = ("\ufeff" + TEXT).encode()
    documents = read(write(tmp_path / name, raw))
    assert len(documents) == 3
    for document in documents:
        assert raw[document.offset :].startswith(document.text.encode())
    assert documents[0].offset == 3, "after the byte order mark"


def test_offsets_are_true_across_blocks_and_in_real_text():
    raw = gzip.decompress(BUNDLED.read_bytes())
    documents = read(BUNDLED)
    assert len(documents) == 75
    assert all(raw[document.offset :].startswith(document.text.encode()) for document in documents)


def test_a_line_longer_than_many_blocks_is_one_line(tmp_path):
    text = "é" * 3_000_000
    first, *sections, last = read(write(tmp_path / "a.txt.gz", f"x\n\n{text}\n\ny"))
    assert (first.text, last.text, last.section) == ("x", "y", 0)
    assert [(document.offset, document.section) for document in sections] == [(3, 0), (3, 1), (3, 2)]
    assert "".join(document.text for document in sections) == text


def test_windows_line_ends_are_not_part_of_the_text(tmp_path):
    raw = b"one\r\ntwo\r\n\r\nthree\r\n"
    documents = read(write(tmp_path / "a.txt", raw))
    assert [(document.offset, document.text) for document in documents] == [(0, "one\ntwo"), (12, "three")]


def test_only_newlines_end_a_line(tmp_path):
    odd = "a\u2028b\u0085c\x0bd\x0ce\x1cf\rg"
    assert texts(write(tmp_path / "a.txt", odd + "\n")) == [odd]
    assert texts(write(tmp_path / "a.jsonl", json.dumps({"text": odd}, ensure_ascii=False))) == [odd]


def test_several_compressed_frames_are_one_stream(tmp_path):
    skippable = struct.pack("<II", 0x184D2A50, 4) + b"abcd"
    (tmp_path / "a.txt.zst").write_bytes(zstd.compress(b"on") + skippable + zstd.compress(b"e\n\ntwo\n"))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"thr") + gzip.compress(b"ee"))
    assert texts(tmp_path) == ["one", "two", "three"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_one_json_line_is_a_document_and_its_first_byte_the_offset(tmp_path, name):
    lines = ['{"text": "one\\n\\nstill one", "id": 1}', '{"text": "  \\n"}', "", '{"id": 2, "text": "\\ud83d\\ude00"}']
    documents = read(write(tmp_path / name, "\n".join(lines)))
    assert [(document.offset, document.text) for document in documents] == [(0, "one\n\nstill one"), (56, "😀")]
    assert documents[1].location == f"{tmp_path / name} byte 56"


@pytest.mark.parametrize("kind", [pyarrow.string(), pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())])
def test_one_parquet_row_is_a_document_and_its_row_the_offset(tmp_path, kind):
    rows = [f"row {number}" for number in range(1000)]
    rows[3], rows[4] = None, " \n"
    table = pyarrow.table({"id": list(range(1000)), "body": pyarrow.array(rows).cast(kind)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=300)
    documents = read(tmp_path / "a.parquet", text_field="body")
    assert [document.offset for document in documents] == [0, 1, 2, *range(5, 1000)]
    assert documents[-1].text == "row 999"
    assert documents[-1].location == f"{tmp_path / 'a.parquet'} row 999"


def test_a_dataset_is_read_through_datasets(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path / "local" / "train.jsonl", '{"text": "one"}\n{"text": ""}\n{"text": "two"}\n')
    write(tmp_path / "local" / "test.jsonl", '{"text": "three"}\n')
    name = f"hf:{tmp_path / 'local'}"
    assert [(document.offset, document.text) for document in read(name)] == [(0, "one"), (2, "two")]
    assert read(name)[1].location == f"{name} row 2"
    assert texts(f"{name}:default:test") == ["three"]
    assert texts(f"{name}::test") == ["three"]
    assert "no column `body`" in refusal(name, text_field="body")
    assert "could not load" in refusal(f"{name}:default:nosuchsplit")
    assert "expected hf:NAME" in refusal("hf:a:b:c:d")


# Which inputs, and their numbers


def test_inputs_are_numbered_by_relative_path_wherever_the_corpus_lies(tmp_path):
    for root in ("z/moved", "a"):
        for name in ("b/2.txt", "b/1.txt", "c.jsonl", "a.txt", "B.txt.gz", "a/x.txt"):
            write(tmp_path / root / name, '{"text": "x"}' if name.endswith("jsonl") else name)
    seen = [
        [(document.input_index, document.offset, document.text) for document in read(tmp_path / root)] for root in ("z/moved", "a")
    ]
    assert seen[0] == seen[1]
    assert [text for _, _, text in seen[0]] == ["B.txt.gz", "a/x.txt", "a.txt", "b/1.txt", "b/2.txt", "x"]
    assert [index for index, _, _ in seen[0]] == list(range(6))


def test_the_order_of_arguments_does_not_matter_but_for_equal_names(tmp_path):
    first, second = write(tmp_path / "z" / "a.txt", "first"), write(tmp_path / "a" / "b.txt", "second")
    assert texts(first, second) == texts(second, first) == ["first", "second"]
    twin = write(tmp_path / "a" / "a.txt", "twin")
    assert texts(first, twin) == ["first", "twin"]


def test_a_file_given_twice_is_read_once(tmp_path):
    path = write(tmp_path / "a.txt", "x")
    assert texts(path, tmp_path, tmp_path / "*.txt") == ["x"]


def test_a_file_under_two_paths_is_read_once_under_the_first_of_its_names(tmp_path):
    path = write(tmp_path / "d" / "b.txt", "x")
    (tmp_path / "d" / "a.txt").symlink_to("b.txt")
    (tmp_path / "e").symlink_to("d")
    for inputs in ([tmp_path], [f"{tmp_path}/*"], [f"{tmp_path}/**"], [path, tmp_path / "e"], [tmp_path / "e", path]):
        assert texts(*inputs) == ["x"]
        assert [item.name.removeprefix("d/") for item in resolve_inputs(list(map(str, inputs)))] == ["a.txt"]
    assert texts(f"file://{path}", path) == texts(f"file://{tmp_path}/d/*", path) == ["x"]
    assert resolve_inputs([f"label=file://{path}"]) == [Input(path, "txt", "b.txt", "label")]


@pytest.mark.parametrize(
    "pattern", ["**", "**/*.txt", "**/d/*", "*/**", "**/**/c.txt", "d/**/c*", "**/.h/*", "**/.*", "d*/**/?.txt", "a.txt/**", "**/d"]
)
def test_globs_with_two_stars_take_what_glob_finds(tmp_path, monkeypatch, pattern):
    for name in ("a.txt", "d/b.txt", "d/d/c.txt", "d/.h/c.txt", ".h/e.txt", "d/e/.i.txt", "de/f/c.txt", "g/c.csv"):
        write(tmp_path / name, name)
    monkeypatch.chdir(tmp_path)
    expected = {name for name in glob.glob(pattern, recursive=True) if name.endswith(".txt")}
    for prefix in ("", f"{tmp_path}/", "./"):
        if expected:
            assert set(texts(prefix + pattern)) == expected
        else:
            assert "no file of a known type" in refusal(prefix + pattern)


def test_globs_with_two_stars_end_where_links_lead_back_up(tmp_path):
    write(tmp_path / "d" / "a.txt", "x")
    for name in ("one", "two", "three"):  # glob follows each up to the 40 links that the operating system bears
        (tmp_path / "d" / name).symlink_to(tmp_path)
    assert texts(f"{tmp_path}/**") == texts(f"{tmp_path}/**/*.txt") == ["x"]


def test_globs_take_supported_files_and_folders(tmp_path):
    for name in ("a.txt", "b.csv", "d/c.txt", "d/e/f.jsonl", ".hidden.txt", "[x].txt"):
        write(tmp_path / name, '{"text": "f"}' if name.endswith("jsonl") else name)
    assert texts(f"{tmp_path}/*.txt") == ["[x].txt", "a.txt"]
    assert texts(f"{tmp_path}/**") == texts(tmp_path) == ["[x].txt", "a.txt", "d/c.txt", "f"]
    assert texts(f"{tmp_path}/d*") == ["d/c.txt", "f"]
    assert texts(f"{tmp_path}/[x].txt") == ["[x].txt"], "a name that exists is no pattern"


def test_relative_paths_and_globs_work(tmp_path, monkeypatch):
    write(tmp_path / "d" / "a.txt", "x")
    monkeypatch.chdir(tmp_path)
    assert texts("d") == texts("d/*") == texts("*/a.txt") == texts("*") == texts(".") == texts("d/a.txt") == ["x"]


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    write(tmp_path / "real" / "a.txt", "x")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "corpus" / "loop").symlink_to(tmp_path / "corpus")
    assert texts(tmp_path / "corpus") == ["x"]


def test_the_name_of_an_input_is_its_relative_path_and_the_kind_is_told_by_the_ending(tmp_path):
    for name in ("a.txt.zst", "d/b.JSONL.gz", "d/c.parquet"):
        write(tmp_path / name, "x")
    inputs = resolve_inputs([str(tmp_path), "hf:org/data:config"])
    assert [(item.name, item.kind) for item in inputs] == [
        ("a.txt.zst", "txt"), ("d/b.JSONL.gz", "jsonl"), ("d/c.parquet", "parquet"), ("data/config", "hf"),
    ]  # fmt: skip
    assert inputs[1].source == str(tmp_path / "d" / "b.JSONL.gz")


def test_inputs_can_be_labelled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("wiki/b.txt", "books/a.txt", "web=1/c.txt", "d.txt"):
        write(Path(name), "x")
    inputs = resolve_inputs(["wiki=wiki", "books=books/*.txt", "web=1", "d.txt", "x.y-z_0=hf:org/data"])
    assert [(item.name, item.label) for item in inputs] == [
        ("a.txt", "books"), ("b.txt", "wiki"), ("c.txt", ""), ("d.txt", ""), ("data", "x.y-z_0"),
    ]  # fmt: skip
    assert len(resolve_inputs(["wiki=wiki", "wiki=wiki/b.txt", "books=books"])) == 2
    with pytest.raises(UserError, match=r"wiki/b\.txt: given under label 'wiki' and label 'books'"):
        resolve_inputs(["wiki=wiki", "books=wiki/*.txt"])
    with pytest.raises(UserError, match=r"wiki/b\.txt: given under no label and label 'wiki'"):
        resolve_inputs(["wiki", "wiki=wiki"])
    with pytest.raises(UserError, match=r"nothere: no such file"):
        resolve_inputs(["wiki=nothere"])
    with pytest.raises(UserError, match=r"no label=wiki: no such file"):
        resolve_inputs(["no label=wiki"])


def test_a_file_name_that_looks_like_a_dataset_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("hf:a.txt"), "x")
    assert texts(".") == texts("*.txt") == ["x"]


def test_files_of_any_storage_of_fsspec_are_read():
    import fsspec

    fsspec.filesystem("memory").pipe({"/corpus/d/a.txt": b"one\n\ntwo", "/corpus/b.txt.gz": gzip.compress(b"three")})
    assert texts("memory://corpus") == texts("memory://corpus/**") == ["three", "one", "two"]
    assert texts("memory://corpus/d/*.txt") == ["one", "two"]
    assert "no file of a known type" in refusal("memory://nothing")


# Bad input


def test_missing_and_unknown_inputs_are_named(tmp_path):
    assert f"{tmp_path}/no.txt: no such file" in refusal(tmp_path / "no.txt")
    message = refusal(write(tmp_path / "table.csv", "x"))
    assert "table.csv: unknown type" in message
    assert ".jsonl.zst" in message
    assert "no file of a known type" in refusal(tmp_path)
    assert "no file of a known type" in refusal(tmp_path / "*.txt")
    assert "no corpus given" in refusal()


def test_a_missing_input_is_found_before_the_first_document(tmp_path):
    with pytest.raises(UserError, match=r"no\.txt"):
        read_documents([write(tmp_path / "a.txt", "x"), str(tmp_path / "no.txt")])


def test_a_dangling_link_is_named(tmp_path):
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone.txt")
    for argument in (tmp_path / "a.txt", tmp_path, tmp_path / "*.txt"):
        assert "gone.txt, which does not exist" in refusal(argument)


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.txt")
    for argument in (tmp_path / "a.txt", tmp_path, tmp_path / "*.txt"):
        assert "not a regular file" in refusal(argument)


@pytest.mark.parametrize("content", ["", "\n\n", " \t\r\n\u3000\n", "\ufeff"])
def test_an_empty_corpus_is_refused(tmp_path, content):
    assert "a.txt: the corpus is empty" in refusal(write(tmp_path / "a.txt", content))


def test_a_binary_file_is_refused_with_its_place(tmp_path):
    message = refusal(write(tmp_path / "a.txt", b"text\nmore\x00text"))
    assert "a.txt:2" in message
    assert "zero byte at byte 9" in message


def test_a_wrong_encoding_is_refused_with_its_place(tmp_path):
    message = refusal(write(tmp_path / "a.txt", "ä first\n".encode() + "naïve".encode("latin-1")))
    assert "a.txt:2: not UTF-8 at byte 11 (0xef)" in message
    assert "iconv" in message
    assert "not UTF-8" in refusal(write(tmp_path / "b.txt", b"half a character \xe2\x82"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_wide_encodings_are_recognised(tmp_path, encoding):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    message = refusal(write(tmp_path / "a.txt.gz", (mark + "hello\nthere").encode(encoding)))
    assert f"iconv -f {encoding[:6].upper()}" in message


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "plain", "trailing"])
def test_a_damaged_compressed_file_is_refused(tmp_path, suffix, damage):
    path = tmp_path / f"a.txt{suffix}"
    text = "".join(f"line {number}\n" for number in range(20_000)).encode()
    raw = gzip.compress(text) if suffix == ".gz" else zstd.compress(text, options={zstd.CompressionParameter.checksum_flag: 1})
    middle = len(raw) // 2
    path.write_bytes(
        {
            "cut": raw[:-5],
            "flipped": raw[:middle] + bytes([raw[middle] ^ 255]) + raw[middle + 1 :],
            "empty": b"",
            "plain": text,
            "trailing": raw + b"rubbish",
        }[damage]
    )
    message = refusal(path)
    assert f"{path}: " in message
    assert ("expected compressed bytes" if damage in ("empty", "plain") else "cut short or damaged") in message


def test_a_compressed_file_under_a_plain_name_is_recognised(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(gzip.compress(b"x"))
    assert "begins like gzip bytes" in refusal(path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{'text': 'x'}", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"text": "x"', "not JSON"),
        ('["x"]', "found a list"),
        ("null", "found a NoneType"),
        ('{"body": "x", "id": 1}', "no field `text`. There are: body, id."),
        ("{}", "no field `text`. The record is empty."),
        ('{"text": null}', "must be a string, found NoneType"),
        ('{"text": ["x"]}', "must be a string, found list"),
        ('{"text": "bad \\ud800 half"}', "half a surrogate pair (\\ud800) at character 4"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path, line, expected):
    message = refusal(write(tmp_path / "a.jsonl", '{"text": "good"}\n' + line + "\n"))
    assert f"{tmp_path / 'a.jsonl'}:2: " in message
    assert expected in message
    assert len(message) < 500


def test_bad_parquet_files_are_named(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"body": ["x"], "text": [1]}), tmp_path / "a.parquet")
    assert "must hold strings, found int64" in refusal(tmp_path / "a.parquet")
    message = refusal(tmp_path / "a.parquet", text_field="content")
    assert "no column `content`. There are: body, text." in message
    assert "cannot be read as parquet" in refusal(write(tmp_path / "b.parquet", b"rubbish"))
    twins = pyarrow.Table.from_arrays([pyarrow.array(["x"])] * 3, names=["text", "text", "other"])
    pyarrow.parquet.write_table(twins, tmp_path / "d.parquet")
    assert "2 columns are named `text`" in refusal(tmp_path / "d.parquet")
    assert texts(tmp_path / "d.parquet", text_field="other") == ["x"]
    latin = pyarrow.StringArray.from_buffers(1, pyarrow.py_buffer(struct.pack("<ii", 0, 2)), pyarrow.py_buffer(b"\xe4x"))
    pyarrow.parquet.write_table(pyarrow.table({"text": latin}), tmp_path / "c.parquet")
    assert "row 0: not UTF-8" in refusal(tmp_path / "c.parquet")
