"""The tokenizer that prepares data is the tokenizer that is exported, and text never yields a special id."""

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared import BUNDLED
from tokenizers.normalizers import Sequence

from tokenizer import special_tokens
from tokenizer.accents import endangered_share
from tokenizer.chain import parse_model
from tokenizer.corpus import Document, read_documents
from tokenizer.encoder import Encoder
from tokenizer.errors import UserError
from tokenizer.options import TokenizerOptions
from tokenizer.sample import MAX_LINE_BYTES, cut_line, draw_sample
from tokenizer.special_tokens import FORBIDDEN_TEXT_IDS
from tokenizer.train import train_tokenizer

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden" / "tokenizer"

SCRIPTS = {
    "bengali": "আমার সোনার বাংলা, আমি তোমায় ভালোবাসি। চিরদিন তোমার আকাশ, তোমার বাতাস, আমার প্রাণে বাজায় বাঁশি।",
    "hindi": "हिन्दी भारत की एक प्रमुख भाषा है। यह देवनागरी लिपि में लिखी जाती है, और करोड़ों लोग इसे बोलते हैं।",
    "thai": "ภาษาไทยเป็นภาษาที่มีระดับเสียงของคำแน่นอน น้ำกำลังไหลลงสู่แม่น้ำใหญ่",
    "chinese": "我们今天来到这里，是为了讨论国家的现状。经济正在增长，人民生活越来越好！",
    "japanese": "私たちは今日、国の状況について話し合うためにここに集まりました。がぎぐげご、パピプペポ、ﾊﾝｶｸ。",
    "korean": "우리는 오늘 나라의 상태에 대하여 이야기하려고 여기에 모였습니다. 한국어 자모: ㄱㄴㄷ",
    "russian": "Мы собрались сегодня, чтобы обсудить положение страны. Ёжик и йод, объём и подъезд — съёмка.",
    "arabic": "اجتمعنا اليوم لمناقشة حالة البلاد، والاقتصادُ ينمو. إنَّ الآمال كبيرةٌ، والشؤون كثيرة.",
    "vietnamese": "Tiếng Việt là ngôn ngữ của người Việt. Hôm nay chúng ta họp để bàn về tình hình đất nước và kinh tế.",
    "greek": "Συγκεντρωθήκαμε σήμερα για να συζητήσουμε την κατάσταση της χώρας. Ὀδυσσεύς, ΣΊΣΥΦΟΣ.",
    "hebrew": "התאספנו היום כדי לדון במצב המדינה. בְּרֵאשִׁית בָּרָא אֱלֹהִים.",
    "german": "Größere Übungen, süße Äpfel und STRASSE: naïve Façade in Zürich kostet 7,50 € bzw. £5.",
    "turkish": "İstanbul'da ışıl ışıl bir gün; DİYARBAKIR'a gidiyoruz, çünkü ölçü şart.",
}

CONFIGS = {"lower": (True, True), "cased": (False, True), "english": (True, False), "cased_english": (False, False)}


def bundled_text(num_documents: int) -> str:
    documents = [document.text for document in read_documents([str(BUNDLED)])]
    return "\n\n".join(documents[:: len(documents) // num_documents][:num_documents])


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten addresses; other scripts are under 1 % of the letters, so that accents may be stripped too."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text(bundled_text(10) + "\n\n" + "\n\n".join(SCRIPTS.values()) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def folders(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tokenizer for each pair of the two switches."""
    root = tmp_path_factory.mktemp("tokenizers")
    for name, (lower_case, keep_accents) in CONFIGS.items():
        train_tokenizer(
            TokenizerOptions(
                input=[str(corpus)],
                output=root / name,
                vocab_size=1200,
                lower_case=lower_case,
                keep_accents=keep_accents,
                character_coverage=1.0,
            )  # fmt: skip
        )
    return {name: root / name for name in CONFIGS}


@pytest.fixture(scope="session")
def parity_lines() -> list[str]:
    return [line for text in (bundled_text(4), *SCRIPTS.values()) for line in text.split("\n")] + list(SCRIPTS.values())


NASTY = (
    list("aAbBéÉſßẞİıΣσςǅŉ.,-()\"'`–£€7٣,³½[]<>＜＞［］‹›|/\\▁▅")
    + ["``", "''", "[MASK]", "[CLS]", "[SEP]", "<pad>", "<PAD>", "<unk>", "＜pad＞", "［MASK］", "[mask]", "MASK", "7,", "e.g."]
    + list("\t\n\r \u00a0\u0085\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000\u180e\u200b\u2060\ufeff\x00\x01\x1c\x1f\x7f\xad")
    + list("\u0300\u0301\u0307\u0323\u0338\u20dd\u0345\u0591\u064b\u093f\u09c7")
    + list("\u09be\u0e33\u0e31\u3099\uff9e\u1ab0\u200c\u200d\ufe0f")
    + list("한ᄒ\u1161\u11abㄱカﾊがぱ々中國〇①㎏℡ﬁﷺ℃Å\u2126ͅ𝔸𝒜😀👩‍🚀🇺🇸\ue000\ufffd\uffff\U0010ffff\U000e0041")
    + ["\u0c15\u0c4d\u0c37", "ক্ষ", "หำ", "क़", "\u0958", "\u1e9e", "\u0130", "\u0390", "\ufb1d", "\u2f00", "\U0002f800"]
)  # fmt: skip


def fuzzed_strings(number: int, seed: int) -> list[str]:
    """Strings of nasty characters, ordinary letters, and any code point."""
    source = random.Random(seed)

    def unit() -> str:
        kind = source.random()
        if kind < 0.6:
            return source.choice(NASTY)
        if kind < 0.75:
            return source.choice(["the ", "state", "Union", " of", "বাংলা", "हिन्दी", "йод", "\u0301", " "])
        if kind < 0.9:
            return chr(
                source.choice([0x80, 0x300, 0x600, 0x900, 0xE00, 0x1100, 0x1E00, 0x2000, 0x3000, 0xFB00, 0xFF00])
                + source.randrange(256)
            )
        code = source.randrange(0x110000 - 0x800)
        return chr(code if code < 0xD800 else code + 0x800)

    return ["".join(unit() for _ in range(source.randrange(1, 24))) for _ in range(number)]


# Parity


@pytest.mark.parametrize("loader", ["AutoTokenizer", "AlbertTokenizer"])
@pytest.mark.parametrize("name", CONFIGS)
def test_encoding_equals_transformers_on_real_and_fuzzed_text(folders, parity_lines, name, loader):
    transformers = pytest.importorskip("transformers")
    theirs = getattr(transformers, loader).from_pretrained(folders[name])
    ours = Encoder(folders[name])
    lines = parity_lines + fuzzed_strings(3000, seed=sorted(CONFIGS).index(name))
    expected = theirs(lines, add_special_tokens=False)["input_ids"]
    mismatches, num_special = [], 0
    for line, their_ids, our_ids in zip(lines, expected, ours.encode(lines), strict=True):
        if set(FORBIDDEN_TEXT_IDS) & set(their_ids):
            num_special += 1
            assert not set(FORBIDDEN_TEXT_IDS) & set(our_ids.tolist())
        elif their_ids != our_ids.tolist():
            mismatches.append(line)
    assert mismatches == []
    assert num_special > 50, "the fuzz must reach the guard"


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_rebuilds_the_very_chain_of_tokenizer_json(folders, name):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AlbertTokenizer.from_pretrained(folders[name])
    rebuilt = json.loads(theirs.backend_tokenizer.to_str())
    written = json.loads((folders[name] / "tokenizer.json").read_text(encoding="utf-8"))
    for part in ("normalizer", "pre_tokenizer", "model", "post_processor", "decoder", "added_tokens"):
        assert rebuilt[part] == written[part], part
    assert rebuilt == written
    assert theirs.model_input_names == ["input_ids", "token_type_ids", "attention_mask"]
    assert theirs.model_max_length == 512
    assert theirs("a", "b")["token_type_ids"] == [0] * (len(theirs.tokenize("a")) + 2) + [1] * (len(theirs.tokenize("b")) + 1)
    assert (theirs.mask_token_id, theirs.pad_token_id, theirs.cls_token_id, theirs.sep_token_id) == (4, 0, 2, 3)


def test_a_tokenizer_saved_by_transformers_loads_and_encodes_the_same(folders, parity_lines, tmp_path):
    transformers = pytest.importorskip("transformers")
    transformers.AlbertTokenizer.from_pretrained(folders["cased"]).save_pretrained(tmp_path)
    saved, ours = Encoder(tmp_path), Encoder(folders["cased"])
    for theirs, mine in zip(saved.encode(parity_lines), ours.encode(parity_lines), strict=True):
        np.testing.assert_array_equal(theirs, mine)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"])) | st.from_regex(r"[\[<＜［](?i:mask|pad|cls|sep)[\]>＞］]"), max_size=6
    )
)
def test_any_text_at_all_yields_the_ids_of_the_chain_or_is_guarded(words):
    encoder = Encoder(GOLDEN)
    sentence = "".join(words)
    direct = encoder._chain.encode(sentence, add_special_tokens=False).ids
    (ids,) = encoder.encode([sentence])
    assert not set(FORBIDDEN_TEXT_IDS) & set(ids.tolist())
    if not set(FORBIDDEN_TEXT_IDS) & set(direct):
        assert ids.tolist() == direct
        assert encoder.num_guarded_words == 0


# The guard


GUARDED = {
    "lower": ["[MASK]", "<pad>", "<PAD>", "＜pad＞", "＜PaD＞", "[[CLS]]", "glued[SEP]word", "[CLS][SEP]"],
    "cased": ["[MASK]", "<pad>", "＜pad＞", "［MASK］", "[［CLS］]", "glued［SEP］word"],
    "english": ["[MASK]", "<PAD>", "＜pad＞", "<ṔAD>", "<p\u0301ad>"],
}


@pytest.mark.parametrize(("name", "word"), [(name, word) for name, words in GUARDED.items() for word in words])
def test_words_that_spell_special_tokens_are_encoded_with_brackets_apart(folders, name, word):
    encoder = Encoder(folders[name])
    before, middle, after, alone = encoder.encode(["the state of", f"the state of {word} the union", "the union", word])
    assert encoder.num_guarded_words == 2, "once in each sentence that holds it"
    assert not np.isin(np.concatenate([middle, alone]), FORBIDDEN_TEXT_IDS).any()
    assert middle.tolist() == before.tolist() + alone.tolist() + after.tolist(), "words around it are left as they are"
    normalised = encoder._chain.normalizer.normalize_str(word)
    apart = re.sub(r"([\[\]<>])", r" \1 ", normalised)
    if encoder._chain.normalizer.normalize_str(apart) == apart.lower() or name == "cased":
        assert alone.tolist() == encoder._chain.encode(apart, add_special_tokens=False).ids
    assert "".join(encoder.pieces[number] for number in alone).count("▁") >= 3


def test_harmless_brackets_are_not_counted(folders):
    encoder = Encoder(folders["lower"])
    encoder.encode(["[mask] (see [1]) <p> pad > 3 <unk> [MASK ] M[ASK]"])
    assert encoder.num_guarded_words == 0


def test_odd_sentences_encode(folders):
    encoder = Encoder(folders["lower"])
    assert encoder.encode([]) == []
    odd = ["", " \u3000\u2028\u0085", "\u0301", "\u0301 \u09c7x", "\x00", "\ufeff", "[MASK]", ""]
    encoded = encoder.encode(odd)
    assert [ids.dtype for ids in encoded] == [np.dtype(np.int32)] * len(odd)
    assert [len(encoded[number]) for number in (0, 1, 7)] == [0, 0, 0]
    assert len(encoder.encode(["x" * 5_000_000])[0]) > 0
    (huge,) = encoder.encode(["state[MASK]" * 20_000])
    assert not np.isin(huge, FORBIDDEN_TEXT_IDS).any()
    assert encoder.num_guarded_words == 2
    with pytest.raises(TypeError):
        encoder.encode(["\ud800"])


def test_one_encoder_counts_and_describes(folders):
    encoder = Encoder(str(folders["lower"]))
    manifest = json.loads((folders["lower"] / "manifest.json").read_text(encoding="utf-8"))
    assert encoder.vocab_size == len(encoder.pieces) == manifest["vocab_size"] == 1200
    assert encoder.sha256 == manifest["tokenizer_sha256"]
    assert encoder.sha256 != Encoder(folders["cased"]).sha256


# The vocabulary


@pytest.mark.parametrize("name", CONFIGS)
def test_fixed_ids_are_those_of_albert(folders, name):
    expected = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "(", ")", '"', "-", ".", "–", "£", "€"]
    assert Encoder(folders[name]).pieces[:13] == expected
    assert expected[5:] == special_tokens.USER_DEFINED_SYMBOLS
    pieces, charsmap = parse_model((folders[name] / "spiece.model").read_bytes())
    assert [piece for piece, _ in pieces] == Encoder(folders[name]).pieces
    assert len(charsmap) > 100_000


def test_pieces_of_digit_and_comma_are_out_of_reach(folders):
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    for piece, score in (("7,", -5.0), (",", -4.0), ("a,", -3.0), ("7", -2.0), ("٣,", -1.0)):
        proto.pieces.add(piece=piece, score=score)
    assert [score for _, score in parse_model(proto.SerializeToString())[0]] == [-105, -4, -3, -2, -101]


def test_the_vocabulary_is_learnt_from_normalised_text(folders):
    assert not any(re.search("[A-Z]", piece) for piece in Encoder(folders["lower"]).pieces[13:])
    assert any(re.search("[A-Z]", piece) for piece in Encoder(folders["cased"]).pieces[13:])
    assert "é" not in "".join(Encoder(folders["english"]).pieces)
    assert "ế" in "".join(Encoder(folders["lower"]).pieces)
    assert "й" in "".join(Encoder(folders["lower"]).pieces)


def test_the_same_text_gives_the_same_bytes_from_another_place_and_process(corpus, folders, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "renamed.txt").write_bytes(corpus.read_bytes())
    code = (
        "from pathlib import Path; from tokenizer.options import TokenizerOptions; from tokenizer.train import train_tokenizer;"
        f"train_tokenizer(TokenizerOptions(input=[{str(tmp_path / 'other')!r}], output=Path({str(tmp_path / 'out')!r}),"
        "vocab_size=1200, character_coverage=1.0))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)
    names = ["manifest.json", "spiece.model", "tokenizer.json", "tokenizer_config.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*names, "provenance.json"])
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (folders["lower"] / name).read_bytes(), name


def test_a_sample_of_the_lines_is_drawn_by_the_seed_alone(corpus, tmp_path):
    """In other processes too: SentencePiece's own draw would differ from process to process."""
    code = (
        "import sys; from pathlib import Path; from tokenizer.options import TokenizerOptions;"
        "from tokenizer.train import train_tokenizer;"
        f"train_tokenizer(TokenizerOptions(input=[{str(corpus)!r}], output=Path(sys.argv[1]), seed=int(sys.argv[2]),"
        "vocab_size=400, input_sentence_size=300, character_coverage=0.99))"
    )

    def train(name: str, seed: int) -> bytes:
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name), str(seed)], check=True, cwd=ROOT, capture_output=True)
        return (tmp_path / name / "spiece.model").read_bytes()

    first, again, other = train("a", 0), train("b", 0), train("c", 1)
    assert first == again
    assert first != other


def test_the_sample_is_even():
    documents = [Document(0, number, f"{2 * number}\n{2 * number + 1}", "here") for number in range(500)]
    draws = [draw_sample(documents, Sequence([]), keep_accents=True, sample_size=101, seed=seed).lines for seed in range(40)]
    assert all(len(set(lines)) == 101 for lines in draws)
    numbers = np.array([[int(line) for line in lines] for lines in draws])
    # mean of 4,040 uniform draws from 0..999: standard error 288.7 / sqrt(4040) = 4.5; five of them
    assert abs(numbers.mean() - 499.5) < 23
    assert 0.4 < (numbers < 500).mean() < 0.6


@pytest.mark.parametrize(
    "line",
    [
        "word " * 5000,
        "字" * 5000,
        "x" * 10_000 + " " + "é" * 10_000,
        "short",
        "a " * 2096,
        "é" * 2096,
        "b" + "😀" * 3000,
        "x" * 4193,
    ],
)
def test_long_lines_are_cut_and_nothing_is_lost(line):
    line = line.strip()
    parts = [part.decode() for part in cut_line(line.encode())]
    assert all(0 < len(part.encode()) <= MAX_LINE_BYTES for part in parts)
    assert "".join(parts).replace(" ", "") == line.replace(" ", "")
    words = {word for word in line.split() if len(word.encode()) <= MAX_LINE_BYTES}
    assert words <= {word for part in parts for word in part.split()}


def test_words_of_long_lines_and_of_lines_with_reserved_signs_are_learnt(tmp_path):
    lines = ["common words here"] * 50 + ["zebra " * 2000, "quokka\0 " * 20, "▅ walrus " * 20]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in lines))
    train_tokenizer(
        TokenizerOptions(input=[str(tmp_path / "a.jsonl")], output=tmp_path / "out", vocab_size=34, character_coverage=1.0)
    )
    letters = set("".join(Encoder(tmp_path / "out").pieces[13:]))
    assert set("zqw") <= letters


def test_ten_real_lines_are_printed_before_and_after(corpus, tmp_path, capfd):
    options = TokenizerOptions(input=[str(corpus)], output=tmp_path / "out", vocab_size=600, character_coverage=0.99)
    manifest = train_tokenizer(options)
    captured = capfd.readouterr()
    assert captured.err == "", "SentencePiece is silent"
    assert "10 lines of the corpus, before and after:" in captured.out
    pairs = re.findall(r"^  (.+)\n  (.+)\n\n", captured.out, re.MULTILINE)
    assert len(pairs) == 10
    text = " ".join(corpus.read_text(encoding="utf-8").split())
    encoder = Encoder(tmp_path / "out")
    for raw, pieces in pairs:
        assert raw in text
        assert pieces.split(" ") == [encoder.pieces[number] for number in encoder.encode([raw])[0]]
    assert manifest["num_documents"] == 10 + len(SCRIPTS)
    assert manifest["num_lines"] == sum(bool(line.strip()) for line in corpus.read_text(encoding="utf-8").split("\n"))
    assert 0 < manifest["num_unknown_characters"] < manifest["num_characters"] / 50


def test_what_cannot_be_read_is_left_out_counted_and_listed_if_asked_for(tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes(b"the state of the union\n\n\xff is strong\n\x00\n")
    options = {"input": [f"web={tmp_path}"], "vocab_size": 24}
    with pytest.raises(UserError, match=r"a\.txt:3: not UTF-8"):
        train_tokenizer(TokenizerOptions(output=tmp_path / "out", **options))
    manifest = train_tokenizer(TokenizerOptions(output=tmp_path / "out", on_error="skip", **options))
    assert (manifest["num_documents"], manifest["num_faults"]) == (1, 2)
    assert [fault["location"] for fault in manifest["faults"]] == ["web=a.txt byte 24", "web=a.txt byte 36"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
    assert "left out: 2 (manifest.json lists them). The first: web=a.txt byte 24: not UTF-8" in capsys.readouterr().out
    (tmp_path / "a.txt").write_text("the state of the union")
    assert train_tokenizer(TokenizerOptions(output=tmp_path / "out", **options))["faults"] == []
    assert "left out" not in capsys.readouterr().out


def test_lines_of_the_corpus_are_shown_as_text_only(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("the \x1b[31mstate\u202e of the union\n" * 5, encoding="utf-8")
    options = {"input": [str(tmp_path / "a.txt")], "vocab_size": 30, "character_coverage": 1.0, "lower_case": False}
    train_tokenizer(TokenizerOptions(output=tmp_path / "out", **options))
    printed = capsys.readouterr().out
    assert "the \\x1b[31mstate\\u202e of the union" in printed
    assert all(line.isprintable() for line in printed.split("\n"))


# Accents


@pytest.mark.parametrize("script", ["bengali", "hindi", "thai", "vietnamese", "russian", "arabic", "japanese"])
def test_stripping_marks_that_carry_meaning_is_refused(tmp_path, script):
    (tmp_path / "a.txt").write_text((SCRIPTS[script] + "\n") * 3, encoding="utf-8")
    options = {"input": [str(tmp_path / "a.txt")], "output": tmp_path / "out", "vocab_size": 60}
    with pytest.raises(UserError, match="--keep_accents false: .* of the letters are") as caught:
        train_tokenizer(TokenizerOptions(keep_accents=False, **options))
    assert "Use --keep_accents true" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("script", ["german", "greek", "hebrew", "turkish", "chinese", "korean"])
def test_scripts_whose_unmarked_text_is_ordinary_may_be_stripped(script):
    from collections import Counter

    assert endangered_share(Counter(SCRIPTS[script])) == (0.0, [])


def test_one_percent_is_the_border():
    from collections import Counter

    assert endangered_share(Counter({"a": 99, "ক": 1, " ": 900, "7": 50})) == (0.01, ["Bengali"])
    assert endangered_share(Counter({"ё": 3, "ạ": 1}))[1] == ["Cyrillic", "Vietnamese"]
    assert endangered_share(Counter()) == (0.0, [])


# Bad input


def refused(tmp_path: Path, text: str | bytes = "the state of the union is strong\n", **options: object) -> str:
    """The message; checks that nothing stands under the final name, nor beside it."""
    path = tmp_path / "in" / "a.txt"
    path.parent.mkdir()
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    values = {"input": [str(path)], "output": tmp_path / "work" / "out", "vocab_size": 30} | options
    with pytest.raises(UserError) as caught:
        train_tokenizer(TokenizerOptions(**values))
    assert list((tmp_path / "work").glob("*")) + list((tmp_path / "work").glob(".*")) == []
    return str(caught.value)


def test_a_vocabulary_too_large_for_the_text_names_the_largest_that_works(tmp_path):
    message = refused(tmp_path, vocab_size=30000)
    assert "--vocab_size 30000: too large for this text" in message
    largest = int(re.search(r"Use --vocab_size (\d+) or less", message)[1])
    path = tmp_path / "in" / "a.txt"
    assert train_tokenizer(TokenizerOptions(input=[str(path)], output=tmp_path / "ok", vocab_size=largest))["vocab_size"] == largest


def test_a_vocabulary_too_small_for_the_characters_names_the_smallest(tmp_path):
    message = refused(tmp_path, "".join(chr(0x4E00 + number) for number in range(500)), vocab_size=100)
    assert "too small" in message
    assert re.search(r"alone need 5\d\d pieces", message)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a.txt: the corpus is empty"),
        ("\x01\x02", "no text is left after normalisation"),
        (b"abc\x00", "a.txt:1: a zero byte"),
        (b"good\n\nna\xefve", "a.txt:3: not UTF-8 at byte 8"),
    ],
)
def test_a_bad_corpus_is_refused_in_the_readers_words(tmp_path, text, expected):
    assert expected in refused(tmp_path, text)


def test_all_bad_options_are_listed_at_once(tmp_path):
    bad = {"vocab_size": 13, "character_coverage": 3.0, "input_sentence_size": 0, "seed": -1, "text_field": ""}
    bad |= {"input": [], "on_error": "ignore"}
    message = refused(tmp_path, **bad)
    for name in bad:
        assert f"--{name} is {bad[name]!r}, but must be" in message


@pytest.mark.parametrize("names", [["notes.txt"], ["manifest.json", "train-00000.arrow"], ["spiece.model", "model.safetensors"]])
def test_an_output_that_holds_something_else_is_left_alone(corpus, tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        train_tokenizer(TokenizerOptions(input=[str(corpus)], output=tmp_path, vocab_size=500))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "mine")


def test_an_earlier_tokenizer_is_replaced(tmp_path):
    (tmp_path / "a.txt").write_text("the state of the union is strong\n")
    for vocab_size in (26, 28):
        train_tokenizer(TokenizerOptions(input=[str(tmp_path / "a.txt")], output=tmp_path / "out", vocab_size=vocab_size))
    assert Encoder(tmp_path / "out").vocab_size == 28
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "out"]


def test_an_interrupt_leaves_nothing_and_is_not_swallowed(corpus, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("tokenizer.train.read_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(TokenizerOptions(input=[str(corpus)], output=tmp_path / "out", vocab_size=50))
    assert list(tmp_path.iterdir()) == []


# Folders that are read


def test_the_golden_folder_of_format_1_is_read_and_encodes_as_ever():
    encoder = Encoder(GOLDEN)
    assert encoder.sha256 == json.loads((GOLDEN / "manifest.json").read_text())["tokenizer_sha256"]
    (ids,) = encoder.encode(["The state of the ﬁne\u3000［MASK］ is (strong)."])
    expected = "▁ t h e ▁state ▁ o f ▁ t h e ▁ f i n e ▁ <unk> a s <unk> ▁ is ▁ ( s t r o n g ) ."
    assert " ".join(encoder.pieces[number] for number in ids) == expected
    assert ids[:8].tolist() == [13, 16, 15, 14, 19, 13, 17, 18]
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 16_384


def spoilt(folder: Path, name: str, change) -> Path:
    """A copy of the golden folder with one file changed (None removes it)."""
    for path in GOLDEN.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    if change is None:
        (folder / name).unlink()
    elif isinstance(change, str):
        (folder / name).write_text(change)
    else:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("tokenizer.json", None, "tokenizer.json: not there"),
        ("tokenizer_config.json", None, "tokenizer_config.json: not there"),
        ("tokenizer.json", '{"half": ', "not JSON"),
        ("tokenizer.json", "[]", "expected a JSON object"),
        ("tokenizer.json", lambda content: content["model"].update(type="BPE"), "expected an ALBERT tokenizer"),
        ("tokenizer.json", lambda content: content["model"]["vocab"].pop(0), "expected <pad> at id 0, found <unk>"),
        (
            "tokenizer.json",
            lambda content: content["model"].update(vocab=[["<pad>", 0.0]]),
            "expected <unk> at id 1, found nothing",
        ),
        ("tokenizer.json", lambda content: content["model"].update(vocab=["<pad>"]), "not a list of (piece, score)"),
        ("tokenizer.json", lambda content: content.update(normalizer=None), "no `Precompiled` normalizer"),
        ("tokenizer_config.json", lambda content: content.update(tokenizer_class="BertTokenizer"), "found BertTokenizer"),
        ("manifest.json", lambda content: content.update(format_version=7), "format_version is 7, but this release reads 1 to 1"),
        ("manifest.json", "{}", "format_version is None"),
    ],
)
def test_a_folder_that_is_no_tokenizer_of_ours_is_refused(tmp_path, name, change, expected):
    with pytest.raises(UserError) as caught:
        Encoder(spoilt(tmp_path, name, change))
    assert expected in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_folder_without_manifest_is_read_as_a_downloaded_one_is(tmp_path):
    assert Encoder(spoilt(tmp_path, "manifest.json", None)).sha256 == Encoder(GOLDEN).sha256


def test_the_ground_floor_needs_neither_transformers_nor_torch():
    code = (
        "import sys, tokenizer.train, tokenizer.options, tokenizer.encoder, tokenizer.corpus;"
        "bad = {'transformers', 'torch', 'datasets', 'deepspeed'} & set(sys.modules); sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    light = "import sys, tokenizer.options; sys.exit(str({'numpy', 'tokenizers', 'sentencepiece'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", light], cwd=ROOT, capture_output=True, text=True).stderr.strip() == "set()"
