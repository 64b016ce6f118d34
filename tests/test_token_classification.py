"""`albert finetune --task token_classification`: tagged words in each layout to entities, figures and a folder for `pipeline`."""

import gzip
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import transformers
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from downstream.finetune import finetune
from downstream.finetune_options import FinetuneOptions
from downstream.scores import tag_scores
from downstream.tag_schemes import is_entity_scheme, to_iob2
from downstream.tagged import Sentence, read_tagged
from downstream.text_files import Reading
from downstream.token_classification import NO_TAG, as_conll, build, encode, split_sentence
from tokenizer.errors import UserError

PEOPLE = ("Truman", "Johnson", "Carter", "John Kennedy", "Gerald Ford")
PLACES = ("China", "Europe", "New York", "America")


def sentences(count: int, seed: int) -> list[list[tuple[str, str, str]]]:
    """Word, part of speech and tag in IOB2 of each word."""
    draw, found = random.Random(seed), []
    for _ in range(count):
        sentence = []
        for kind, names in draw.sample((("PER", PEOPLE), ("LOC", PLACES)), 2):
            words = draw.choice(names).split()
            sentence += [(word, "NNP", f"{'I' if number else 'B'}-{kind}") for number, word in enumerate(words)]
            sentence.append((draw.choice(("thanks", "meets", "and")), "VB", "O"))
        found.append(sentence + [("today", "RB", "O")])
    return found


def write_conll(path, rows, header="-DOCSTART- -X- O\n\n"):
    text = "\n".join("".join(f"{' '.join(cells)}\n" for cells in sentence) for sentence in rows)
    Path(path).write_text(header + text, encoding="utf-8")
    return str(path)


@pytest.fixture
def news(tmp_path):
    counts = {"train": 200, "validation": 40, "test": 30}
    return {
        name: write_conll(tmp_path / f"{name}.txt", sentences(count, seed)) for seed, (name, count) in enumerate(counts.items())
    }


QUICK = {"task": "token_classification", "learning_rate": 3e-3, "epochs": 3, "batch_size": 16, "device": "cpu"}


def read_predictions(folder):
    blocks = (folder / "predictions_test.conll").read_text().split("\n\n")
    return [[line.split(" ") for line in block.splitlines()] for block in blocks]


def test_names_are_learnt_and_found_by_a_pipeline(model, news, tmp_path):
    finetune(FinetuneOptions(model=model, output=tmp_path / "out", **news, **QUICK))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["rows"] == {"train": 200, "validation": 40, "test": 30}
    scores = results["seeds"][0]["scores"]["test"]
    assert list(scores) == ["score", "precision", "recall", "f1", "accuracy"]
    assert scores["f1"] == scores["score"] > 0.9
    predicted = read_predictions(tmp_path / "out")
    assert [[cells[0] for cells in sentence] for sentence in predicted] == [[row[0] for row in each] for each in sentences(30, 2)]
    expected, found = ([[cells[column] for cells in sentence] for sentence in predicted] for column in (1, 2))
    assert tag_scores(expected, found, entities=True) == pytest.approx({name: scores[name] for name in scores if name != "score"})
    text = "Carter meets New York today"
    for strategy in ("simple", "first"):
        find = transformers.pipeline("token-classification", str(tmp_path / "out"), aggregation_strategy=strategy)
        groups = [(entity["entity_group"], text[entity["start"] : entity["end"]]) for entity in find(text)]
        assert {kind for kind, _ in groups} == {"PER", "LOC"}
    assert groups == [("PER", "Carter"), ("LOC", "New York")]  # later pieces of a word have learnt no tag, and `first` asks none


def test_the_same_tag_for_all_words_is_seen_beside_words_without_a_piece_and_padding(model, news, tokenizer, tmp_path):
    options = FinetuneOptions(model=model, output=tmp_path / "out", **news, **QUICK)
    (task,) = build(options, transformers.AutoTokenizer.from_pretrained(tokenizer), 64, False)
    labels = np.array([[NO_TAG, 0, 1, NO_TAG], [NO_TAG, 0, NO_TAG, NO_TAG]])
    outputs = np.array([[2, 0, 0, 3], [1, 0, NO_TAG, NO_TAG]])
    assert task.is_constant(outputs, labels)
    assert not task.is_constant(np.where(labels == 1, 1, outputs), labels)


def test_parts_of_speech_are_scored_by_accuracy_and_a_column_is_chosen(model, news, tmp_path):
    options = FinetuneOptions(model=model, output=tmp_path / "out", label="2", **news, **QUICK | {"epochs": 1})
    finetune(options)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    scores = results["seeds"][0]["scores"]["test"]
    assert list(scores) == ["score", "accuracy"]
    right = [cells[1] == cells[2] for sentence in read_predictions(tmp_path / "out") for cells in sentence]
    assert scores["accuracy"] == scores["score"] == pytest.approx(sum(right) / len(right))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == {"0": "NNP", "1": "RB", "2": "VB"}


def test_every_word_of_a_long_sentence_gets_a_prediction_and_a_test_needs_no_tags(model, tmp_path):
    long = [row for sentence in sentences(40, 0) for row in sentence]
    train = write_conll(tmp_path / "train.txt", [*sentences(30, 1), long])
    words = [*(row[0] for row in long), "\u200b", "x" * 300, "end"]
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({"tokens": words}) + "\n" + json.dumps({"tokens": ["\u200b"]}))
    finetune(FinetuneOptions(model=model, output=tmp_path / "out", train=train, test=str(test), max_seq_length=16, **QUICK))
    predicted = read_predictions(tmp_path / "out")
    assert [cells[0] for cells in predicted[0]] == words
    assert predicted[1] == [["\u200b", "O"]]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["rows"] == {"train": 28, "validation": 3, "test": 2}
    assert list(results["scores"]) == ["validation"]


@pytest.fixture(scope="module")
def chain(model):
    return transformers.AutoTokenizer.from_pretrained(model)


WORD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(lambda word: word.strip())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(WORD, st.sampled_from(["``", "''", "'", "\u0301", "\u200b", "\u200c\u0301", "U.S.", "10\xa0000", "[MASK]"])),
        max_size=12,
    )
)
def test_words_give_the_pieces_of_the_words_with_spaces_between_them(chain, words):
    assert chain(words, is_split_into_words=True)["input_ids"] == chain(" ".join(words))["input_ids"]


def test_labels_stand_at_the_first_piece_of_each_word(chain):
    features = encode([Sentence(["Unconstitutional", "\u200b", "acts", "."], None)], chain, 64)
    assert len(features) == 1
    feature = features[0]
    assert feature.words == [0, 2, 3]
    pieces = chain.convert_ids_to_tokens(feature.input_ids)
    assert (pieces[0], pieces[-1]) == ("[CLS]", "[SEP]")
    starts = [position for position, piece in enumerate(pieces) if piece.startswith("▁")]
    assert feature.positions == starts
    assert len(pieces) > 3 + 2  # a word of several pieces is among them


def test_sentences_are_cut_between_words():
    assert list(split_sentence([3, 3, 3], 6)) == [(0, 2), (2, 3)]
    assert list(split_sentence([3, 9, 3, 0], 6)) == [(0, 1), (1, 2), (2, 4)]
    assert list(split_sentence([], 6)) == []
    assert list(split_sentence([6, 0, 6], 6)) == [(0, 2), (2, 3)]


SCHEMES = {
    "IOB1": "I-PER B-PER O I-LOC I-LOC I-PER O I-LOC",
    "IOB2": "B-PER B-PER O B-LOC I-LOC B-PER O B-LOC",
    "BIOES": "S-PER S-PER O B-LOC E-LOC S-PER O S-LOC",
    "BILOU": "U-PER U-PER O B-LOC L-LOC U-PER O U-LOC",
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_has_the_same_entities(scheme):
    tags = SCHEMES[scheme].split()
    assert is_entity_scheme(set(tags))
    assert to_iob2(tags) == SCHEMES["IOB2"].split()
    three = {"IOB1": "I I I", "IOB2": "B I I", "BIOES": "B I E", "BILOU": "B I L"}[scheme]
    assert to_iob2([f"{letter}-A-B" for letter in three.split()]) == ["B-A-B", "I-A-B", "I-A-B"]


def test_tags_of_words_in_a_script_without_spaces_and_those_that_mark_nothing():
    assert to_iob2(["B", "M", "E", "S"]) == ["B-_", "I-_", "I-_", "B-_"]
    assert not is_entity_scheme({"NN", "O", "B-PER"})
    assert not is_entity_scheme({"NOUN", "I"})


def test_figures_are_those_of_the_entities_counted_by_hand():
    expected = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O", "B-PER"]]
    predicted = [["B-PER", "I-PER", "O", "B-PER"], ["B-LOC", "I-LOC", "B-PER"]]
    # right: PER of two words, PER at the end; wrong: PER for LOC, LOC of two words for one
    found = tag_scores(expected, predicted, entities=True)
    assert found == pytest.approx({"precision": 2 / 4, "recall": 2 / 4, "f1": 0.5, "accuracy": 5 / 7})
    assert tag_scores([["O"]], [["O"]], entities=True) == {"precision": 0, "recall": 0, "f1": 0, "accuracy": 1}


TWO = [Sentence(["EU", "rejects"], ["B-ORG", "O"]), Sentence(["Peter"], ["B-PER"])]


def read(path, words=None, tags=None, reading=None, *, labelled=True):
    return read_tagged(str(path), "train", words, tags, reading or Reading(), labelled=labelled)


def test_every_layout_gives_the_same_sentences(tmp_path):
    layouts = {
        "conll2003.txt": "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nPeter NNP B-NP B-PER",
        "wnut.conll": "EU\tB-ORG\r\nrejects\tO\r\n\t\r\nPeter\tB-PER\r\n",
        "germeval.tsv": "#\thttp://a.example [2009]\n# one\n1\tEU\tB-ORG\tO\n2\trejects\tO\tO\n\n#\ttwo\n1\tPeter\tB-PER\tO\n",
        "ud.conllu": "# text = a b c d e f g\n1-2\tx\t_\t_\t_\t_\t_\t_\t_\t_\n1\tEU\tl\tB-ORG\tx\t_\t0\td\t_\t_\n"
        "2\trejects\tl\tO\tx\t_\t1\td\t_\t_\n2.1\tgap\t_\tV\t_\t_\t_\t_\t_\t_\n\n1\tPeter\tl\tB-PER\tx\t_\t0\td\t_\t_\n\n",
    }
    for name, text in layouts.items():
        (tmp_path / name).write_text(text)
        columns = ("2", "3") if name == "germeval.tsv" else (None, None)
        assert read(tmp_path / name, *columns).sentences == TWO
    with gzip.open(tmp_path / "conll.txt.gz", "wt") as file:
        file.write(layouts["conll2003.txt"])
    named = Reading(["word", "pos", "chunk", "entity"])
    assert read(tmp_path / "conll.txt.gz", "word", "entity", named).sentences == TWO
    assert read(tmp_path / "conll.txt.gz", None, "pos", named).sentences[0].tags == ["NNP", "VBZ"]
    rows = [{"tokens": each.words, "tags": each.tags} for each in TWO]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    names = ["O", "B-ORG", "B-PER"]
    features = Features({"tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))})
    numbered = {"tokens": [each.words for each in TWO], "ner_tags": [[names.index(tag) for tag in each.tags] for each in TWO]}
    Dataset.from_dict(numbered, features=features).to_parquet(tmp_path / "set" / "train.parquet")
    for source in (tmp_path / "rows.jsonl", f"hf:{tmp_path}/set"):
        assert read(source).sentences == TWO
    kept_back = {"tokens": numbered["tokens"], "ner_tags": [[-1, -1], [-1]]}
    Dataset.from_dict(kept_back, features=features).to_parquet(tmp_path / "set" / "test.parquet")
    assert read(f"hf:{tmp_path}/set::test", labelled=False).sentences == [each._replace(tags=None) for each in TWO]


def test_words_may_hold_other_spaces_and_hashes(tmp_path):
    (tmp_path / "a.txt").write_text("# O\n10\xa0000 O\nb\x85c\u2028d B-X\n")
    assert read(tmp_path / "a.txt").sentences == [Sentence(["#", "10\xa0000", "b\x85c\u2028d"], ["O", "O", "B-X"])]
    assert as_conll("test", [Sentence(["New York"], None)], [["B-LOC"]]) == {"predictions_test.conll": "New_York B-LOC\n"}


def test_a_comment_of_as_many_columns_as_the_words_is_none_of_them(tmp_path, capsys):
    path = tmp_path / "a.txt"
    for separator in (" ", "\t"):
        path.write_text(f"# newdoc\n# newpar\nEU{separator}B-ORG\nrejects{separator}O\n\n# Two\nPeter{separator}B-PER\n")
        assert read(path).sentences == TWO
        assert f"{path}: 3 lines with # and 2 columns before a sentence taken as comments" in capsys.readouterr().out
    path.write_text("# sent_id = 1\na X Y O\n")
    assert read(path).sentences == [Sentence(["a"], ["O"])]
    path.write_text("# #\n10 CD\n\na DT\n# SYM\n\n# CD\n")  # words: the first as Penn tags it, the second within a sentence
    assert [each.words for each in read(path).sentences] == [["#", "10"], ["a", "#"], ["#"]]
    path.write_text("#\na\n")
    assert read(path, labelled=False).sentences == [Sentence(["#", "a"], None)]


def test_columns_may_name_the_tags_that_a_test_lacks(tmp_path, capsys):
    (tmp_path / "pairs.txt").write_text("EU NNP\nrejects VBZ\n")
    (tmp_path / "words.txt").write_text("EU\nrejects\n")
    untagged = [Sentence(["EU", "rejects"], None)]
    for names, words, tags in ((["w", "p", "t"], None, None), (["w", "p", "t"], "w", "t"), (["t", "w", "p"], "2", "1")):
        for name in ("pairs.txt", "words.txt"):
            found = read(tmp_path / name, words, tags, Reading(names), labelled=False)
            assert (found.sentences, found.words) == (untagged, "1")
        with pytest.raises(UserError, match="has 2 columns, but --columns names 3"):
            read(tmp_path / "pairs.txt", words, tags, Reading(names))
    assert f"{tmp_path}/pairs.txt: no tags in the column t; it gets predictions, but no figures" in capsys.readouterr().out
    with pytest.raises(UserError, match="has 2 columns, but --columns names 4"):
        read(tmp_path / "pairs.txt", reading=Reading(["w", "l", "p", "t"]), labelled=False)
    with pytest.raises(UserError, match="words and tags would be the same column, 3 of 3"):
        read(tmp_path / "pairs.txt", "3", "3", reading=Reading(["w", "l", "p"]), labelled=False)
    with pytest.raises(UserError, match=r"several columns have the same name \(w\)"):
        read(tmp_path / "pairs.txt", reading=Reading(["w", "w"]))


def write_rows(path, *rows):
    path.write_text("\n".join(json.dumps(dict(zip(("tokens", "tags"), row, strict=False))) for row in rows))
    return path


def test_a_test_has_tags_in_all_rows_or_in_none_and_words_in_all(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    for missing in ([["b"]], [["b"], None], [["b"], []], [["b", "c"], ["O", None]]):
        with pytest.raises(UserError, match=r"rows.jsonl, row 2: has no tags as tags, as 1 of 2 rows\."):
            read(write_rows(path, [["a"], ["O"]], missing), labelled=False)
    assert read(write_rows(path, [["a"], []], [["b"]]), labelled=False).sentences == [Sentence(["a"], None), Sentence(["b"], None)]
    assert f"{path}: no tags; it gets predictions, but no figures" in capsys.readouterr().out
    rows = write_rows(path, [["a"], ["O"]], [[], []], [["b"], ["O"]])
    with pytest.raises(UserError, match=r"rows.jsonl, row 2: has no words\. Take such rows out"):
        read(rows, labelled=False)
    assert [each.words for each in read(rows).sentences] == [["a"], ["b"]]
    assert f"{path}: 1 rows without words left out" in capsys.readouterr().out


def test_rows_without_tags_are_left_out_on_request(tmp_path, capsys):
    path = write_rows(tmp_path / "rows.jsonl", [["a"], ["O"]], [["b"], None], [["c"], [None]], [[], []], [["d"], ["O"]])
    with pytest.raises(UserError, match="row 2: expected a list of tags as tags. Give them, or .*--on_error skip"):
        read(path)
    assert [each.words for each in read(path, reading=Reading(on_error="skip")).sentences] == [["a"], ["d"]]
    told = capsys.readouterr().out
    assert f"{path}: 2 rows without tags left out" in told
    assert f"{path}: 1 rows without words left out" in told


@pytest.mark.parametrize(("tags", "kind"), [("0 1 2", "numbers"), ("NN VB 2", "names"), ("O B-X I-X", "entities")])
def test_tags_that_mark_no_entities_are_told_and_numbers_most_of_all(model, tags, kind, tmp_path, capsys):
    rows = [{"tokens": tags.split(), "tags": [int(tag) if tag.isdecimal() else tag for tag in tags.split()]}] * 20
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Dataset.from_list([row | {"tags": tags.split()} for row in rows]).to_parquet(tmp_path / "set" / "train.parquet")
    chain = transformers.AutoTokenizer.from_pretrained(model)
    for train, mend in ((str(tmp_path / "rows.jsonl"), "B-PER, give hf:NAME"), (f"hf:{tmp_path}/set", "B-PER, write them")):
        options = FinetuneOptions(model=model, task="token_classification", output=tmp_path / "out", train=train)
        next(build(options, chain, 64, False))
        printed = capsys.readouterr().out
        assert ("3 tags; they mark no entities, so they are scored by accuracy over words" in printed) is (kind != "entities")
        assert (f"{train}: all tags are numbers. If they stand for names such as {mend}" in printed) is (kind == "numbers")


def test_a_line_without_its_tag_is_named_or_its_sentence_left_out(tmp_path, capsys):
    path = write_conll(tmp_path / "a.txt", [[("a", "O"), ("b",)], [("c", "O"), ("d", "B-X")]], header="")
    with pytest.raises(UserError, match=r"a.txt, line 2: expected 2 columns, .*--on_error skip"):
        read(path)
    assert read(path, reading=Reading(on_error="skip")).sentences == [Sentence(["c", "d"], ["O", "B-X"])]
    assert "1 sentences left out" in capsys.readouterr().out
    (tmp_path / "b.txt").write_text("a\tx\tO\nb\tx\tO\nc\t\tO\n")
    with pytest.raises(UserError, match="line 3"):
        read(tmp_path / "b.txt", tags="2")


def test_files_without_tags_have_none(tmp_path):
    path = write_conll(tmp_path / "a.txt", [[("a",), ("b",)]], header="")
    assert read(path, labelled=False).sentences == [Sentence(["a", "b"], None)]
    assert read(path, "1", "3", labelled=False).tags is None
    with pytest.raises(UserError, match="words and tags would be the same column, 1 of 1"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "holds no sentences"),
        ("a.txt", "\n\n-DOCSTART- O\n\n", "holds no sentences"),
        ("a.csv", "a,b", "expected a CoNLL file"),
        ("a.jsonl", '{"words": ["a", "b"], "tags": ["O"]}', "row 1: has 2 words and 1 tags"),
        ("a.jsonl", '{"words": "a b", "tags": ["O"]}', "row 1: expected a list of words as words"),
        ("a.jsonl", '{"words": ["a"], "tags": [null]}', "row 1: expected a list of tags as tags"),
        ("a.jsonl", '{"words": ["a"], "tags": [["O"]]}', "row 1: expected a list of tags as tags"),
        ("a.jsonl", '{"text": "a b", "tag": ["O"]}', "no column tokens or words.*no column tags or ner_tags"),
        ("a.jsonl", "", "holds no sentences"),
        ("a.jsonl", '{"words": ["\\ud800"], "tags": ["O"]}', "row 1: expected a list of words as words"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "absent.txt")


def test_columns_that_are_not_there_are_said(news):
    for arguments, message in (
        ((None, "4"), "no column 4; give --label a number from 1 to 3"),
        (("0", None), "no column 0; give --text a number"),
        ((None, "ner", Reading(["a", "b", "c"])), r"or one of --columns \(a, b, c\)"),
        ((None, None, Reading(["a", "b"])), "has 3 columns, but --columns names 2"),
    ):
        with pytest.raises(UserError, match=message):
            read(news["train"], *arguments)


def test_tags_that_training_lacks_count_as_missed(model, tmp_path, capsys):
    train = write_conll(tmp_path / "train.txt", sentences(20, 0))
    other = write_conll(tmp_path / "other.txt", [[("a", "x", "B-ZEBRA"), ("b", "x", "O")]])
    finetune(FinetuneOptions(model=model, output=tmp_path / "out", train=train, validation=other, **QUICK | {"epochs": 1}))
    assert "validation: 1 words have a tag that --train does not have (B-ZEBRA); they count as missed" in capsys.readouterr().out
    scores = json.loads((tmp_path / "out" / "results.json").read_text())["seeds"][0]["scores"]["validation"]
    assert (scores["recall"], scores["f1"]) == (0, 0)
    assert scores["accuracy"] <= 0.5
    masked = write_conll(tmp_path / "masked.txt", [[("a", "x", "_")]])
    with pytest.raises(UserError, match=r"masked.txt: has tags that mark no entities \(_\), unlike --train"):
        finetune(FinetuneOptions(model=model, output=tmp_path / "out", train=train, test=masked, **QUICK))
    blank = write_conll(tmp_path / "blank.txt", [[("\u200b", "x", "O")]])
    with pytest.raises(UserError, match="blank.txt: no word in it has a piece"):
        finetune(FinetuneOptions(model=model, output=tmp_path / "out", train=train, validation=blank, **QUICK))
    same = write_conll(tmp_path / "same.txt", [[("a", "x", "O")]] * 20)
    with pytest.raises(UserError, match=r"all words have the same tag \(O\)"):
        finetune(FinetuneOptions(model=model, output=tmp_path / "out", train=same, **QUICK))
    few = write_conll(tmp_path / "few.txt", sentences(5, 0))
    with pytest.raises(UserError, match="5 sentences are too few"):
        finetune(FinetuneOptions(model=model, output=tmp_path / "out", train=few, **QUICK))


def test_an_error_of_a_private_model_quotes_no_word(model, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    config = json.loads((model / "tokenizer_config.json").read_text())
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(config | {"private": True}))
    canary = "zebrafinch"
    (tmp_path / "rows.jsonl").write_text(json.dumps({canary: ["a"]}))
    sources = [
        str(tmp_path / "rows.jsonl"),
        write_conll(tmp_path / "a.txt", [[(canary, "O"), (canary,)]], header=""),
        write_conll(tmp_path / "b.txt", [[("a", canary)]] * 20, header=""),
    ]
    for source in sources:
        with pytest.raises(UserError) as error:
            finetune(FinetuneOptions(model=tmp_path / "model", output=tmp_path / "out", train=source, **QUICK))
        assert canary not in str(error.value)
