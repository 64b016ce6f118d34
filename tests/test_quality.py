"""The optional quality steps: what they leave out, what they mend, what they count, and what they say when they cannot work."""

import sys
import unicodedata
from collections import Counter
from dataclasses import replace

import pytest
from prepared import BUNDLED

from data_prep.options import PrepareOptions
from data_prep.quality import filter_documents, share_of_repeated_lines
from tokenizer.corpus import Document, read_documents
from tokenizer.errors import UserError

GERMAN = [
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "Sie sind mit Vernunft und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "Jeder hat das Recht auf Leben, Freiheit und Sicherheit der Person.",
    "Niemand darf in Sklaverei oder Leibeigenschaft gehalten werden.",
    "Niemand darf der Folter oder grausamer, unmenschlicher oder erniedrigender Behandlung unterworfen werden.",
    "Jeder hat das Recht, überall als rechtsfähig anerkannt zu werden.",
    "Alle Menschen sind vor dem Gesetz gleich und haben ohne Unterschied Anspruch auf gleichen Schutz durch das Gesetz.",
    "Jeder hat das Recht auf Bildung, und die Bildung ist unentgeltlich.",
]


@pytest.fixture(scope="module")
def english():
    """Eight paragraphs of the first address."""
    return next(read_documents([str(BUNDLED)])).text.split("\n")[1:9]


def filtered(texts, **options):
    """(texts that are left, documents left out by step, documents changed by step)."""
    dropped, changed = Counter(), Counter()
    documents = [Document(0, number, text, f"corpus row {number}") for number, text in enumerate(texts)]
    kept = list(filter_documents(iter(documents), replace(PrepareOptions(), **options), dropped, changed))
    assert [document.offset for document in kept] == sorted(document.offset for document in kept)
    assert len(kept) + dropped.total() == len(texts)
    return [document.text for document in kept], dict(dropped), dict(changed)


def test_nothing_is_left_out_or_changed_unless_asked_for(english):
    texts = [*english, "x", "a\na\na", "schÃ¶n"]
    assert filtered(texts) == (texts, {}, {})


def test_short_documents_are_left_out_and_counted():
    assert filtered(["four", "fives", " four \n", "sixsix"], min_chars=5) == (["fives", "sixsix"], {"min_chars": 2}, {})


def test_the_length_of_a_document_in_sections_is_that_of_the_whole():
    sections = [Document(0, 0, text, "corpus.txt byte 0", number) for number, text in enumerate(["long enough", "end", " "])]
    dropped = Counter()
    kept = filter_documents(iter(sections), PrepareOptions(min_chars=5), dropped)
    assert [document.text for document in kept] == ["long enough", "end"]
    assert dropped == {"min_chars": 1}


def test_documents_of_repeated_lines_are_left_out(english):
    menu = "Home\nNews\nHome\n\nNews\nHome"
    assert share_of_repeated_lines(menu) == 3 / 5
    assert share_of_repeated_lines("\n".join(english)) == 0
    assert filtered([menu, english[0]], max_repeated_lines=0.59) == ([english[0]], {"max_repeated_lines": 1}, {})
    assert filtered([menu, english[0]], max_repeated_lines=0.6) == ([menu, english[0]], {}, {})


def test_wrongly_decoded_text_is_mended_and_right_text_is_left_alone(english, capfd):
    right = [*GERMAN, *english, "學而時習之，不亦說乎？", "वह घर गया।", "“Quoted” – and ﬁne"]
    wrong = [text.encode().decode("cp1252") for text in GERMAN if not text.isascii()]
    texts, dropped, changed = filtered([*right, *wrong, "\x00\x07"], fix_unicode=True)
    assert texts == [*right, *(text for text in GERMAN if not text.isascii())]
    assert changed == {"fix_unicode": len(wrong) + 1}
    assert dropped == {"min_chars": 1}  # control characters alone: nothing is left of it
    assert capfd.readouterr() == ("", "")


def test_mended_text_is_composed_and_keeps_its_joiners():
    """Decomposed, Bengali o (কো), Yoruba and Vietnamese look the same and encode otherwise; the chain drops some of their marks."""
    decomposed = [unicodedata.normalize("NFD", text) for text in ("কো", "ẹ̀kọ́", "tiếng Việt", "한글")]
    joined = ["می\u200cخواهد", "র\u200d্যাব", "উদ্\u200cঘাটন"]
    texts, _, changed = filtered([*decomposed, *joined], fix_unicode=True)
    assert texts == [unicodedata.normalize("NFC", text) for text in decomposed] + joined
    assert changed == {"fix_unicode": len(decomposed)}


@pytest.fixture(scope="module")
def language_models(english, tmp_path_factory):
    """A tiny classifier of English and German, its quantized form, and word vectors, each as a file."""
    fasttext = pytest.importorskip("fasttext", reason="needs fastText: pip install 'albert-pretraining[quality]'")
    folder = tmp_path_factory.mktemp("models")
    lines = [f"__label__{label} {text}\n" for label, texts in (("en", english), ("de", GERMAN)) for text in texts]
    (folder / "train.txt").write_text("".join(lines * 20), encoding="utf-8")
    shape = {"dim": 4, "bucket": 300, "minn": 2, "maxn": 3, "thread": 1, "verbose": 0}
    model = fasttext.train_supervised(str(folder / "train.txt"), epoch=10, lr=0.5, **shape)
    model.save_model(str(folder / "model.bin"))
    fasttext.train_unsupervised(str(folder / "train.txt"), epoch=1, **shape).save_model(str(folder / "vectors.bin"))
    model.quantize(qnorm=True)
    model.save_model(str(folder / "model.ftz"))
    return folder


@pytest.mark.parametrize("name", ["model.bin", "model.ftz"])
def test_documents_in_other_languages_are_left_out(language_models, english, name, capfd):
    texts = [text for pair in zip(english, GERMAN, strict=True) for text in pair]
    options = {"language_model": language_models / name, "language_threshold": 0.65}
    assert filtered(texts, languages=["en"], **options) == (english, {"languages": len(GERMAN)}, {})
    assert filtered(texts, languages=["de"], **options) == (GERMAN, {"languages": len(english)}, {})
    assert filtered(texts, languages=["de", "en"], **options) == (texts, {}, {})
    assert filtered([f"{english[0]}\n{english[1]}"], languages=["en"], **options)[1] == {}
    assert capfd.readouterr() == ("", "")


def test_a_document_is_left_out_under_the_first_step_that_it_fails(language_models):
    options = {"languages": ["en"], "language_model": language_models / "model.bin", "min_chars": 10, "max_repeated_lines": 0.2}
    texts = ["Würde", "Würde und Recht\nWürde und Recht", GERMAN[0]]
    assert filtered(texts, **options) == ([], {"min_chars": 1, "max_repeated_lines": 1, "languages": 1}, {})


def refusal_of(languages, path):
    with pytest.raises(UserError) as caught:
        filtered(["text"], languages=languages, language_model=path)
    return str(caught.value)


@pytest.mark.parametrize("name", ["model.bin", "model.ftz"])
def test_a_model_cut_short_or_grown_is_refused_and_never_read(language_models, name, tmp_path):
    whole = (language_models / name).read_bytes()
    path = tmp_path / name
    for size in [*range(0, len(whole), len(whole) // 40), 1, 7, 100, len(whole) - 1]:  # fastText itself hangs at 100 bytes
        path.write_bytes(whole[:size])
        assert refusal_of(["en"], path).startswith(f"--language_model {path}: "), size
    path.write_bytes(whole + b"\0")
    assert f"{len(whole) + 1:,} bytes instead of {len(whole):,}" in refusal_of(["en"], path)


def test_what_is_no_model_is_refused(language_models, tmp_path):
    assert "cannot be read (No such file or directory)" in refusal_of(["en"], tmp_path / "absent.bin")
    assert "cannot be read (Is a directory)" in refusal_of(["en"], tmp_path)
    assert "no fastText model" in refusal_of(["en"], language_models / "train.txt")
    assert "holds word vectors" in refusal_of(["en"], language_models / "vectors.bin")
    assert "It knows: de, en." in refusal_of(["en", "fr"], language_models / "model.bin")


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    for module in ("ftfy", "fasttext", "fasttext.FastText"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"--fix_unicode: .*pip install 'albert-pretraining\[quality\]'"):
        filtered(["text"], fix_unicode=True)
    assert "pip install 'albert-pretraining[quality]'" in refusal_of(["en"], tmp_path / "other.bin")
