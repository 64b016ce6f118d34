"""Words, for masking, in every script: what the pieces of a vocabulary make of a sentence against what a reader makes of it."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from data_prep.masks import mask, ngram_weights, prediction_counts
from data_prep.words import LETTER, MARK, UNSPACED, char_class, piece_classes, word_starts
from tokenizer.encoder import Encoder
from tokenizer.options import TokenizerOptions
from tokenizer.special_tokens import CLS_ID, FIRST_ORDINARY_ID, SEP_ID
from tokenizer.train import train_tokenizer

SPACED = {
    "english": [
        "The old lighthouse keeper didn|'|t answer|,| although he had heard every word|.",
        "In 1984 she paid £|12|.|50 for a well|-|worn book |(|and a map|)|.",
        '|"|Who|\'|s there|?|"| asked the naïve traveller at 10|:|45|.',
    ],
    "german": [
        "Die größten Straßenbahnbetriebe fahren übermorgen nicht|.",
        "Am 3|.| Oktober 1990 kostete das Brötchen 0|,|35 DM|;| heute kostet es mehr|.",
        "Äpfel|,| Öl und Übermut|:| so fing |„|das Märchen|“| an|.",
    ],
    "russian": [
        "Мы собрались сегодня|,| чтобы обсудить положение страны|.",
        "Ёжик выпил йод|,| а его объём вырос на 25|%|.",
        "Съёмка началась в 1937 году|;| подъезд был пуст|.",
    ],
    "hindi": [
        "हिन्दी भारत की एक प्रमुख भाषा है|।",
        "विद्यार्थियों ने १५ अगस्त १९४७ को राष्ट्रध्वज फहराया|।",
        "क्या तुम्हें कृष्ण|,| ज्ञान और श्रद्धा का अर्थ मालूम है|?",
    ],
    "bengali": [
        "আমার সোনার বাংলা|,| আমি তোমায় ভালোবাসি|।",
        "চিরদিন তোমার আকাশ|,| তোমার বাতাস|,| আমার প্রাণে বাজায় বাঁশি|।",
        "১৯৫২ সালের ২১ ফেব্রুয়ারি ছাত্ররা রাস্তায় নেমেছিল|।",
    ],
    "mixed": [
        "Das Wort हिन्दी heißt auf Russisch хинди|,| auf Bengalisch হিন্দি|.",
        "Windows|10| läuft auf dem Raumschiff |„|Союз|-|7|“| und kostet €|49|.",
    ],
}
"""A word ends at a space and at a bar; the bars are no part of the text."""

UNSPACED_TEXT = {
    "chinese": [
        "我们今天来到这里，是为了讨论国家的现状。",
        "天命之謂性，率性之謂道，修道之謂教。道也者，不可須臾離也。",
        "一九四九年以后，人民生活越来越好！",
    ],
    "japanese": [
        "私たちは今日、国の状況について話し合うためにここに集まりました。",
        "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
        "がぎぐげご、パピプペポ、コーヒーを飲む人々。",
    ],
    "thai": [
        "ภาษาไทยเป็นภาษาที่มีระดับเสียงของคำแน่นอน",
        "น้ำกำลังไหลลงสู่แม่น้ำใหญ่ ผู้คนยืนดูอยู่ริมฝั่ง",
        "วันนี้อากาศดีมาก เด็กๆ จึงออกไปวิ่งเล่นข้างนอก",
    ],
}

DIGITS_AND_LATIN = [
    ("2024年GDP增长了", ["2024", "GDP"]),
    ("第 12 回 NHK の放送", ["12", "NHK"]),
    ("ปี ๒๕๖๗ ใช้ WiFi ได้", ["๒๕๖๗", "WiFi"]),
]
"""Spaced words inside unspaced text, whole however many pieces they take."""


@pytest.fixture(scope="module", params=[350, 420], ids=["short_pieces", "long_pieces"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A vocabulary of all sentences, cased, with every character: a small one that spells nearly all, and the largest there is."""
    folder = tmp_path_factory.mktemp("scripts")
    texts = [text.replace("|", "") for sentences in SPACED.values() for text in sentences]
    texts += [text for sentences in UNSPACED_TEXT.values() for text in sentences] + [text for text, _ in DIGITS_AND_LATIN]
    (folder / "a.txt").write_text("\n".join(texts * 3), encoding="utf-8")
    options = {"lower_case": False, "character_coverage": 1.0, "vocab_size": request.param}
    train_tokenizer(TokenizerOptions(input=[str(folder / "a.txt")], output=Path(folder / "out"), **options))
    return Encoder(folder / "out")


def each(sentences: dict[str, list[str]]) -> list:
    return [pytest.param(text, id=f"{name}-{number}") for name, texts in sentences.items() for number, text in enumerate(texts)]


def words_of(encoder: Encoder, sentences: list[str]) -> list[str]:
    """The words that masks would take, as text."""
    encoded = encoder.encode(sentences)
    starts = np.cumsum([0, *map(len, encoded[:-1])])
    classes = piece_classes(encoder.pieces, FIRST_ORDINARY_ID)
    words: list[str] = []
    for piece, is_start in zip(np.concatenate(encoded), word_starts(np.concatenate(encoded), starts, classes), strict=True):
        if is_start:
            words.append("")
        words[-1] += encoder.pieces[piece].replace("▁", "")
    return words


def as_normalised(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


@pytest.mark.parametrize("sentence", each(SPACED))
def test_words_of_spaced_scripts_are_those_that_a_reader_would_mark(encoder, sentence):
    expected = [word for part in sentence.split(" ") for word in part.split("|") if word]
    assert words_of(encoder, [sentence.replace("|", "")]) == [as_normalised(word) for word in expected]


def test_words_of_many_sentences_are_those_of_each(encoder):
    sentences = [text.replace("|", "") for texts in SPACED.values() for text in texts] + sum(UNSPACED_TEXT.values(), [])
    assert words_of(encoder, sentences) == [word for sentence in sentences for word in words_of(encoder, [sentence])]


@pytest.mark.parametrize("sentence", each(UNSPACED_TEXT))
def test_in_unspaced_scripts_each_piece_is_a_word_unless_it_begins_with_a_mark(encoder, sentence):
    expected: list[str] = []
    (ids,) = encoder.encode([sentence])
    for text in "".join(encoder.pieces[number] + "|" for number in ids).replace("▁|", "▁").rstrip("|").split("|"):
        if unicodedata.category(text[0])[0] == "M":
            expected[-1] += text
        else:
            expected.append(text.removeprefix("▁"))
    words = words_of(encoder, [sentence])
    assert words == expected
    assert "".join(words) == as_normalised(sentence).replace(" ", "")
    # A word is as long as the longest piece and the marks upon it: nothing runs together.
    assert max(map(len, words)) <= 6


@pytest.mark.parametrize(("sentence", "whole"), DIGITS_AND_LATIN, ids=["chinese", "japanese", "thai"])
def test_digit_runs_and_latin_words_inside_unspaced_text_are_whole(encoder, sentence, whole):
    assert set(whole) < set(words_of(encoder, [sentence]))


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["▁か", "\u3099", "く"], ["か\u3099", "く"]),
        (["▁ก", "ั", "น", "่"], ["กั", "น่"]),
        (["▁কা", "\u09c7", "জ", "\u200d", "য"], ["কা\u09c7জ\u200dয"]),
        (["▁می", "\u200c", "خواهم"], ["می\u200cخواهم"]),
        (["▁7", "\u0301", "5", "a"], ["7\u03015", "a"]),
        (["▁", "☺", "\ufe0f", "☺"], ["☺\ufe0f", "☺"]),
        (["▁", "\u0301", "a", "b", "."], ["\u0301ab", "."]),
        (["▁年", "\u0301", "x", "x"], ["年\u0301", "xx"]),
        (["▁x", "\u0301", "年"], ["x\u0301", "年"]),
    ],
)
def test_a_mark_belongs_to_the_word_before_it(pieces, expected):
    """Pieces as a vocabulary may have them."""
    classes = piece_classes(pieces, 0)
    starts = word_starts(np.arange(len(pieces), dtype=np.int32), np.array([0]), classes)
    words = "".join(f"|{piece}" if start else piece for piece, start in zip(pieces, starts, strict=True)).replace("▁", "")
    assert words.split("|")[1:] == expected


def test_marks_never_start_a_word(encoder):
    texts = [text.replace("|", "") for sentences in (SPACED | UNSPACED_TEXT).values() for text in sentences]
    decomposed = [unicodedata.normalize("NFD", text) for text in texts]
    for word in words_of(encoder, texts + decomposed):
        assert unicodedata.category(word[0])[0] != "M", word


def test_classes_of_characters_follow_unicode():
    assert {char_class(char) for char in "aßдहবاא한ʼª"} == {LETTER}
    assert {char_class(char) for char in "字々あアーกຂကབ"} == {UNSPACED}
    assert {char_class(char) for char in "\u0301\u093f\u09c7\u0e31\u3099\u200d\u200c\ufe0f"} == {MARK}


@pytest.mark.parametrize("language", [*SPACED, *UNSPACED_TEXT])
def test_masked_runs_are_whole_words(encoder, language):
    first, second = [text.replace("|", "") for text in (SPACED | UNSPACED_TEXT)[language]][:2]
    a, b = encoder.encode([first, second])
    row = np.array([CLS_ID, *a, SEP_ID, *b, SEP_ID], np.uint16)
    classes = piece_classes(encoder.pieces, FIRST_ORDINARY_ID)
    starts = np.concatenate(
        [[True], word_starts(a, np.array([0]), classes), [True], word_starts(b, np.array([0]), classes), [True]]
    )
    words = np.cumsum(starts)
    num_masked = 0
    for seed in range(50):
        counts = prediction_counts(len(row), 0.5, len(row))  # no word is longer than half of the row
        edges = np.array([0, len(row)], np.int64), np.array([len(a) + 2])
        targets = mask(row.copy(), *edges, (0, 0), seed, classes, counts, ngram_weights(3), encoder.vocab_size)
        covered = np.isin(np.arange(len(row)), targets.positions)
        assert all(covered[words == word].all() or not covered[words == word].any() for word in words)
        num_masked += covered.sum()
    assert num_masked > 50 * 0.3 * len(row)
