"""Sentences, for pairs: abbreviations, and texts on which a splitter could hang."""

import pytest

from data_prep.sentences import WINDOW, read_abbreviations, split
from tokenizer.errors import UserError

SWAHILI = frozenset(["Bw.", "Bi.", "Dkt.", "n.k."])


def sentences_of(text: str, abbreviations: frozenset[str] = frozenset(), language: str = "sw") -> list[str]:
    return split(text, language=language, presegmented=False, abbreviations=abbreviations)


def test_swahili_is_split_after_bw_unless_told_otherwise():
    """Should the first assertion fail, sentencex has learnt Swahili, and another language is needed here."""
    text = "Nilimwona Bw. Juma sokoni. Alikuwa na Bi. Asha."
    assert len(sentences_of(text)) == 4
    assert sentences_of(text, SWAHILI) == ["Nilimwona Bw. Juma sokoni.", "Alikuwa na Bi. Asha."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Aliuliza (Bw. Juma) nini? Hakujibu.", ["Aliuliza (Bw. Juma) nini?", "Hakujibu."]),
        ("“Bw. Juma yupo?” aliuliza Dkt. Ali. Hayupo.", ["“Bw. Juma yupo?” aliuliza Dkt. Ali.", "Hayupo."]),
        ("Cheo chake ni “Dkt.” Jina ni Ali. Basi.", ["Cheo chake ni “Dkt.” Jina ni Ali.", "Basi."]),
        ("Walikuja Bw. Dkt. Bi. Watu. Wote.", ["Walikuja Bw. Dkt. Bi. Watu.", "Wote."]),
        ("Aliona ukobw. Kisha akaenda.", ["Aliona ukobw.", "Kisha akaenda."]),
        ("Walileta maji n.k. Bw.", ["Walileta maji n.k. Bw."]),
        ("Aliandika Bw.\n\nJuma alisoma.", ["Aliandika Bw.", "Juma alisoma."]),
        ("Aliandika Bw.\nJuma. Alisoma.", ["Aliandika Bw. Juma.", "Alisoma."]),
    ],
)
def test_an_abbreviation_ends_no_sentence_but_a_blank_line_does(text, expected):
    assert sentences_of(text, SWAHILI) == expected


def test_abbreviations_inside_long_sentences_with_quotes_hold_too():
    text = "• Alisema, (" + "neno " * 100 + "na Bw. Juma alikuja. Kisha " + "neno " * 100 + "na Bi. Asha aliondoka). Mwisho."
    with_list, without = sentences_of(text, SWAHILI), sentences_of(text)
    assert not any(sentence.endswith(("Bw.", "Bi.")) for sentence in with_list)
    assert any(sentence.endswith("Bw.") for sentence in without)
    assert " ".join(with_list) == " ".join(without) == text


def test_a_file_of_abbreviations_is_read_in_order(tmp_path):
    path = tmp_path / "swahili.txt"
    path.write_bytes("\ufeffBw.\r\n\n  Dkt. \nд-р\n".encode())
    assert read_abbreviations(path) == ("Bw.", "Dkt.", "д-р")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "it is empty"),
        (b" \n\n", "it is empty"),
        (b"Bw.\nna\xefve", "not UTF-8 at byte 6"),
        (b"Bw.\nBw. Juma\n", ":2: expected one word in a line, such as Dkt., found 'Bw. Juma'"),
    ],
)
def test_a_file_of_abbreviations_that_cannot_be_used_is_named(tmp_path, content, expected):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_abbreviations(path)
    assert f"--abbreviations {path}" in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("दाम ३.५० रुपये है। १५.०८.१९४७ को।", "hi", ["दाम ३.५० रुपये है।", "१५.०८.१९४७ को।"]),
        ("দাম ৩.৫০ টাকা। মোট ১.২.৩ কিমি।", "bn", ["দাম ৩.৫০ টাকা।", "মোট ১.২.৩ কিমি।"]),
        ("السعر ٣.٥ ريال. نعم.", "ar", ["السعر ٣.٥ ريال.", "نعم."]),
        ("价格３．５元。好。", "zh", ["价格３．５元。", "好。"]),
        ("পৃষ্ঠা ৩. ৫ জন।", "bn", ["পৃষ্ঠা ৩.", "৫ জন।"]),
        ("यह है.३ लोग। क.५।", "hi", ["यह है.", "३ लोग।", "क.", "५।"]),
    ],
)
def test_a_decimal_of_any_digits_is_not_cut(text, language, expected):
    """A point after a digit and before one, without a space, ends no sentence; other points stay what sentencex takes them for."""
    assert sentences_of(text, language=language) == expected
    assert sentences_of("क" * 300 + " " + text, language=language)[1:] == expected[1:]


def test_danda_and_double_danda_end_sentences_whatever_the_language():
    text = "ধর্মক্ষেত্রে কুরুক্ষেত্রে। মামকাঃ পাণ্ডবাশ্চৈব॥ কিমকুর্বত?"
    for language in ("bn", "hi", "sa", "as", "en", "sw"):
        assert sentences_of(text, language=language) == ["ধর্মক্ষেত্রে কুরুক্ষেত্রে।", "মামকাঃ পাণ্ডবাশ্চৈব॥", "কিমকুর্বত?"]


UNITS = {
    "no_sentence_end": "word ",
    "one_word": "x",
    "list_markers": "• item ",
    "numbered_list": "(1) a ",
    "straight_quotes": '"',
    "spaced_quotes": '" ',
    "opening_quotes": "“a ",
    "closing_quotes": 'a") ',
    "mixed_quotes": "”»x",
    "dashes": "- ",
    "dots": ".",
    "spaced_dots": ". ",
    "decimals": "३.",
    "newlines": "\n",
    "newlines_and_spaces": "\n  x",
    "spaces": " ",
    "abbreviations": "Bw. ",
    "chinese_sentences": "我们今天来到这里，是为了讨论国家的现状。",
    "japanese_quotes": "「はい。」",
}


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_a_million_signs_are_split_in_linear_time_and_none_is_lost(unit):
    """A step that takes the square of the length would take minutes to hours here, sentencex on a whole text among them."""
    text = (unit * (1_000_000 // len(unit) + 1))[:1_000_000]
    sentences = sentences_of(text, SWAHILI)
    assert "".join(sentences).replace(" ", "") == "".join(text.split())


def test_windows_cut_no_sentence():
    """Sentences that are longer and shorter than a window's margin, around every place where a window can end."""
    expected = [f"{'Neno ' + 'neno ' * (number * 37 % 150)}la {number}." for number in range(400)]
    text = " ".join(expected)
    assert len(text) > 5 * WINDOW
    assert sentences_of(text) == expected
    chinese = [f"{'我们今天' * (number * 7 % 30 + 1)}第{number}句。" for number in range(1500)]
    assert len("".join(chinese)) > 5 * WINDOW
    assert sentences_of("".join(chinese), language="zh") == chinese


def test_a_quotation_across_the_end_of_a_window_is_held_together():
    quotation = '"Ninakuja kesho. Wewe utakuja lini? Nijibu haraka."'
    filler = "Neno moja tu. "
    for number in range(0, 60, 7):  # characters of the quotation that the window holds
        before = filler * ((WINDOW - 100) // len(filler))
        before += "Neno" + "o" * (WINDOW - number - len(before) - 6) + ". "
        assert len(before) == WINDOW - number
        assert quotation in sentences_of(before + quotation + " " + filler * 400)


def test_other_white_space_becomes_single_spaces():
    assert sentences_of("a\u00a0b\u2003\u2028c\t\td \u3000 e\x1c\x85f.\r\n\r\ng\r\rh", language="en") == ["a b c d e f.", "g", "h"]
    assert split("a\u00a0b\r\n \u3000\nc\t d", language="en", presegmented=True) == ["a b", "c d"]
