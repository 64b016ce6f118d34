"""Signs without a width that spelling needs, and marks in every form, come through the vocabulary and back out of transformers."""

import pytest
from tokenizers.normalizers import Precompiled

from tokenizer.charsmap import charsmap, nmt_nfkc, with_identity
from tokenizer.encoder import Encoder
from tokenizer.options import TokenizerOptions
from tokenizer.special_tokens import UNK_ID
from tokenizer.train import train_tokenizer

SENTENCES = {
    "persian": "او می\u200cخواهد کتاب\u200cها را بخواند و نمی\u200cتواند.",
    "persian verbs": "می\u200cکند می\u200cرود می\u200cشود می\u200cآید می\u200cگوید",
    "bengali": "উদ্\u200cঘাটন হল, র\u200d্যাব এল। দুঃখ ও ক্ষমা, চাঁদ আর বৃষ্টি।",
    "bengali, vowel signs in two parts": "ক\u09c7\u09be ক\u09c7\u09d7।",
    "hindi": "क्\u200dष और क्ष, ज़रूरत, पढ़ना, हँसी, दुःख॥",
    "sinhala": "ශ්\u200dරී ලංකාව",
    "malayalam": "അവന്\u200d വന്നു",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joiners")
    (folder / "a.txt").write_text("\n".join(SENTENCES.values()) * 20, encoding="utf-8")
    options = {"vocab_size": 100, "character_coverage": 1.0}
    train_tokenizer(TokenizerOptions(input=[str(folder / "a.txt")], output=folder / "tokenizer", **options))
    return folder / "tokenizer"


@pytest.mark.parametrize("text", SENTENCES.values(), ids=SENTENCES)
def test_text_comes_back_with_its_joiners_and_marks(folder, text):
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(folder)
    ids = loaded(text, add_special_tokens=False)["input_ids"]
    assert Encoder(folder).encode([text])[0].tolist() == ids
    assert UNK_ID not in ids
    assert loaded.decode(ids) == loaded.backend_tokenizer.normalizer.normalize_str(text)
    assert [sign for sign in loaded.decode(ids) if sign in "\u200c\u200d"] == [sign for sign in text if sign in "\u200c\u200d"]


def test_a_non_joiner_parts_no_word(folder):
    encoder = Encoder(folder)
    pieces = [encoder.pieces[number] for number in encoder.encode(["می\u200cخواهد"])[0]]
    assert sum(piece.startswith("▁") for piece in pieces) == 1
    assert any("\u200c" in piece and piece != "\u200c" for piece in encoder.pieces), "pieces are learnt across it"


def test_sentencepiece_alone_keeps_them_too(folder):
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    assert model.decode(model.encode(SENTENCES["persian"])) == SENTENCES["persian"]


def test_no_other_character_is_normalised_otherwise_than_by_nmt_nfkc():
    ours, theirs = Precompiled(charsmap()), Precompiled(nmt_nfkc())
    characters = [chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000]
    differing = [char for char in characters if ours.normalize_str(char) != theirs.normalize_str(char)]
    assert differing == ["\u200c"]
    assert ours.normalize_str("a\u200c\u200c \u200b\u00a0ﷺ") == "a\u200c\u200c   " + theirs.normalize_str("ﷺ")


@pytest.mark.parametrize("character", ["a", "\u200d", "ª", "\U0001f600"])
def test_a_character_without_a_rule_of_its_own_is_refused(character):
    """ª has one, and others for it with a mark."""
    with pytest.raises(ValueError, match="no rule for"):
        with_identity(nmt_nfkc(), character)
