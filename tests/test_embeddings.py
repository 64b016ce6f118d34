"""Embeddings of texts, pages ranked by them, and the README's first lines of Python."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
import transformers

from downstream.embeddings import BATCH_PIECES, LEAST_FILL, batches, embed_texts, load_encoder, normalize
from downstream.pages import Page, cut_passages, read_html, read_pages
from downstream.rank import main, rank
from tests.readme import python_of
from tokenizer.errors import UserError

TEXTS = ["Peace.", "", "The state of the union is strong, and the budget has grown. " * 9, "Our economy works well.", "Tax \u200b"]


def test_embeddings_are_means_over_the_pieces_in_the_order_of_the_texts(model):
    encoder, tokenizer = load_encoder(model)
    found = embed_texts(TEXTS, encoder, tokenizer)
    assert (found.shape, found.dtype) == ((5, 32), np.float32)
    plain = transformers.AlbertModel.from_pretrained(model).eval()
    for text, vector in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            hidden = plain(**tokenizer(text, truncation=True, max_length=64, return_tensors="pt")).last_hidden_state
        np.testing.assert_allclose(vector, hidden[0].mean(0).numpy(), atol=1e-5)  # fp32, other shapes of products
    short = embed_texts(TEXTS, encoder, tokenizer, max_seq_length=8)
    assert np.abs(short[2] - found[2]).max() > 1e-3
    np.testing.assert_allclose(short[0], found[0], atol=1e-5)
    assert embed_texts([], encoder, tokenizer).shape == (0, 32)


def test_embeddings_do_not_ask_for_a_pooler(model, tmp_path, capsys):
    shutil.copytree(model, tmp_path / "masked")
    transformers.AlbertForMaskedLM.from_pretrained(model).save_pretrained(tmp_path / "masked")
    found = [embed_texts(TEXTS, *load_encoder(folder)) for folder in (model, tmp_path / "masked")]
    assert np.array_equal(*found)
    assert capsys.readouterr().out == ""


def test_batches_hold_every_row_once_and_little_padding():
    lengths = np.random.default_rng(0).integers(2, 512, 3000).tolist() + [BATCH_PIECES + 1] * 2
    found = list(batches(lengths))
    assert sorted(number for batch in found for number in batch) == list(range(len(lengths)))
    padded = [max(lengths[number] for number in batch) * len(batch) for batch in found]
    assert [len(batch) for batch in found[:2]] == [1, 1]
    assert max(padded[2:]) <= BATCH_PIECES
    assert sum(padded) < sum(lengths) / LEAST_FILL
    assert len(found) < 1.2 * sum(lengths) / BATCH_PIECES + 40
    assert list(batches([])) == []


def test_a_vector_of_zeros_has_no_direction_and_no_nan():
    np.testing.assert_allclose(normalize(np.array([[3, 4], [0, 0]], np.float32)), [[0.6, 0.8], [0, 0]])


PAGE = """<!doctype html><html><head><title>Tax &amp; budget</title><style>p {color: red}</style>
<script>var budget = "<p>hidden</p>";</script></head><body><h1>The bud<b>get</b></h1><p>Spending fell,<br>and
  taxes&nbsp;rose.<svg><title>chart</title></svg><noscript>off</noscript></p><ul><li>one<li>two</ul></body></html>"""


def test_html_gives_what_a_reader_sees():
    assert read_html(PAGE) == ("Tax & budget", "The budget\nSpending fell,\nand taxes rose.\none\ntwo")
    assert read_html("no <i>mark</i>up & <") == ("", "no markup & <")
    assert read_html("<p>open <script>alert(1)") == ("", "open")
    assert read_html("a<![if !IE]>b<![endif]>c<![<&x>d") == ("", "abcd")
    assert read_html("a<![ open")[1].startswith("a")


@pytest.fixture
def pages(tmp_path):
    """Three kinds of file, five pages."""
    (tmp_path / "budget.html").write_text(PAGE)
    filler = "The treaty with our friends overseas brings lasting peace. " * 20
    rows = [
        {"url": "https://a.example/schools", "text": f"{filler}Teachers and schools need better pay. {filler}"},
        {"url": "https://a.example/empty", "text": " "},
        {"text": "", "html": "<title>Farms</title><p>Farmers sell wheat and corn abroad."},
    ]
    (tmp_path / "pages.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "notes.txt").write_text("Roads and bridges.\nThey are old.\n\nSoldiers came home.\n")
    return [str(tmp_path / name) for name in ("budget.html", "pages.jsonl", "notes.txt")]


def test_pages_come_from_every_kind_of_file(pages):
    found = read_pages(pages, private=False)
    names = ["Tax & budget", "https://a.example/schools", "Farms", f"{pages[2]} byte 0", f"{pages[2]} byte 34"]
    assert [page.name for page in found] == names
    assert found[2].text == "Farmers sell wheat and corn abroad."
    assert found[3].text == "Roads and bridges.\nThey are old."


def test_a_broken_table_of_pages_is_to_be_mended(tmp_path):
    (tmp_path / "pages.tsv").write_text("name\ttext\na\tb\tc\n")
    with pytest.raises(UserError, match=r"pages.tsv, line 2: has 3 columns, expected 2 .* Mend it\.$"):
        read_pages([str(tmp_path / "pages.tsv")], private=False)


def test_a_page_says_its_encoding_or_is_utf_8(tmp_path):
    path = tmp_path / "page.html"
    for encoding, declared in (("utf-8", ""), ("utf-8-sig", ""), ("utf-16", ""), ("windows-1251", '<meta charset="windows-1251">')):
        path.write_bytes(f"{declared}<p>Привет".encode(encoding))
        assert read_pages([str(path)], private=False) == [Page(str(path), "Привет")]
    for name in ("utf-16", "nonsense", "unicode_escape", "rot13", "utf-7"):  # not true where it can be read; no browser's
        path.write_bytes(f"<meta charset={name}><p>née \\x41 +AGE-".encode())
        assert read_pages([str(path)], private=False) == [Page(str(path), "née \\x41 +AGE-")]


@pytest.mark.parametrize(
    ("label", "content", "text"),
    [
        ("gb2312", b"\xe9F\xb5\xc4", "镕的"),  # the first is in GBK alone, as in many names of people
        ("GBK", b"\x81\x30\x84\x36", "¥"),  # in GB18030 alone
        ("big5", b"\xa4\xa4\xf9\xd6", "中碁"),
        ("shift_jis", b"\x87\x40\xfb\xfc", "①髙"),
        ("x-sjis", b"\x87\x40", "①"),
        ("euc-kr", b"\x8cc\xb9\xe6", "똠방"),
        ("ks_c_5601-1987", b"\x8cc", "똠"),
        ("iso-8859-1", b"\x93a\x94 \x80", "“a” €"),
        ("us-ascii", b"\x93\xe9", "“é"),
        ("ISO-8859-9", b"\x80 \xfd", "€ ı"),
        ("windows-874", b"\x85 \xa1", "… ก"),
        ("tis-620", b"\xa1\x93", "ก“"),
        ("x-cp1251", b"\xcf\xf0", "Пр"),
        ("koi8-r", b"\xf0\xd2", "Пр"),
    ],
)
def test_names_of_encodings_mean_what_browsers_read_with_them(label, content, text, tmp_path, capsys):
    path = tmp_path / "page.html"
    path.write_bytes(f'<meta http-equiv="Content-Type" content="text/html; charset={label}"><p>'.encode() + content)
    assert read_pages([str(path)], private=False) == [Page(str(path), text)]
    assert capsys.readouterr().out == ""


def test_a_page_that_is_not_all_in_its_encoding_ends_no_ranking_and_is_told(pages, tmp_path, capsys):
    for name, content, text in (
        ("a.html", b"<p>caf\xe9 here", "caf\ufffd here"),
        ("b.html", b"<meta charset=gb2312><p>\xb5\xc4 \xff.", "的 \ufffd."),
        ("c.html", b"\xff\xfe<\x00p\x00>\x00a\x00b", "a\ufffd"),
    ):
        (tmp_path / name).write_bytes(content)
        found = read_pages([str(tmp_path / name), *pages], private=False)
        assert (found[0].text, len(found)) == (text, 6)
        assert f"{tmp_path / name}: is not all text in the encoding" in capsys.readouterr().out


def test_passages_overlap_and_cover_the_page(model):
    _, tokenizer = load_encoder(model)
    text = " ".join(f"Number {number} is a number." for number in range(60))
    found = list(cut_passages([Page("empty", "\u200b"), Page("numbers", text)], tokenizer, 32))
    assert {passage.page for passage in found} == {1}
    assert all(len(passage.ids) <= 32 for passage in found)
    ends = [(text.index(passage.text), text.index(passage.text) + len(passage.text)) for passage in found]
    assert (ends[0][0], ends[-1][1]) == (0, len(text))
    for (begin, end), (following, _) in zip(ends, ends[1:], strict=False):
        assert begin < following < end


def test_the_page_whose_passage_has_the_words_of_the_query_comes_first(model, pages):
    hits = rank(model, "Teachers and schools need better pay.", pages, passage_length=16)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len(hits) == 5
    assert hits[0].page == "https://a.example/schools"
    assert "schools" in hits[0].passage  # random weights: words alone count
    assert rank(model, "Farmers sell wheat and corn abroad.", pages, passage_length=16)[0].page == "Farms"


def test_the_command_shows_the_best_pages_and_says_what_is_wrong(model, pages, capsys):
    command = ["--model", str(model), "--input", *pages, "--top", "2", "--query"]
    assert main([*command, "Soldiers came home."]) == 0
    output = capsys.readouterr()
    assert re.fullmatch(r"1\. .*notes.txt byte 34  1\.0000\n   Soldiers came home\.\n2\. .*\n   .*\n", output.out)
    assert output.err == ""
    for query in (" ", "\udcff"):  # the second as Python reads a byte that is not UTF-8
        assert main([*command, query]) == 2
        assert capsys.readouterr().err == "rank: --query: is empty, or not in UTF-8.\n"
    assert main([*command, "a", "--top", "0"]) == 2


def test_wrong_inputs_of_rank_are_said(model, pages, tmp_path, monkeypatch):
    (tmp_path / "empty.html").write_text("<script>1</script>")
    (tmp_path / "blank.txt").write_text("\u200b")
    (tmp_path / "rows.jsonl").write_text('{"zebrafinch": 1}')
    for source, message in (
        (tmp_path / "empty.html", "no page with text in it"),
        (tmp_path / "blank.txt", "all pages are blank to the tokenizer"),
        (tmp_path / "absent.html", "cannot be read"),
        (tmp_path / "absent.txt", "absent.txt"),
        (tmp_path / "rows.jsonl", "row 1: expected a text as text, or as html, found zebrafinch"),
    ):
        with pytest.raises(UserError, match=message):
            rank(model, "a", [str(source)], 16)
    with pytest.raises(UserError, match="found 1 not shown"):
        rank(model, "a", [str(tmp_path / "rows.jsonl")], 16, private=True)
    with pytest.raises(UserError, match="--passage_length: expected 8 to 64 pieces"):
        rank(model, "a", pages, 65)
    for folder, message in ((tmp_path, "has no model.safetensors"), (tmp_path / "absent", "absent: there is no such folder")):
        with pytest.raises(UserError, match=message):
            rank(folder, "a", pages, 16)
    monkeypatch.setattr("downstream.finetune.find_spec", lambda name: None)
    with pytest.raises(UserError, match="transformers cannot be imported"):
        rank(model, "a", pages, 16)


def test_the_lines_of_python_in_the_readme_run(model, tmp_path, monkeypatch, capsys):
    shutil.copytree(model, tmp_path / "work" / "hf")
    monkeypatch.chdir(tmp_path)
    for lines in python_of("The export"):
        exec(lines, {})
    output = capsys.readouterr().out
    assert "torch.Size([2, 32])" in output
    assert "torch.Size([2, 3])" in output
