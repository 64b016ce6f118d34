"""`albert finetune --task multiple_choice`: RACE's folders and .jsonl, what is cut off, figures, and a model that chooses."""

import csv
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from downstream.choices import LETTERS, Choice, read_choices
from downstream.contexts import encode_all
from downstream.finetune import finetune
from downstream.finetune_options import FinetuneOptions
from downstream.multiple_choice import build, collate_options, feature, fit_pair, score
from downstream.text_files import Reading
from tokenizer.errors import UserError

SENTENCES = ("The nation is strong.", "Our economy has grown.", "This Congress works well.", "My administration has a plan.")
WRONG = ("the treaty", "the weather", "the enemy", "the ocean")
RIGHT = "the people"
QUICK = {"learning_rate": 5e-3, "epochs": 2, "batch_size": 8, "device": "cpu"}


def article(seed: int, group: str) -> dict:
    """Two questions; a word tells the right option."""
    draw = random.Random(f"{seed} {group}")
    options = [draw.sample([RIGHT, *draw.sample(WRONG, 3)], 4) for _ in range(2)]
    return {
        "answers": [LETTERS[each.index(RIGHT)] for each in options],
        "options": options,
        "questions": ["Whom does it serve?", "It is about _ ."],
        "article": " ".join(draw.choices(SENTENCES, k=draw.randint(2, 15))),
        "id": f"{group}{seed}.txt",
    }


def write_race(folder: Path, articles: int, seed: int, groups=("high", "middle")) -> str:
    for group in groups:
        (folder / group).mkdir(parents=True)
        for number in range(seed, seed + articles):
            (folder / group / f"{number}.txt").write_text(json.dumps(article(number, group)), encoding="utf-8")
    return str(folder)


def write_jsonl(path: Path, rows: list[dict]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return str(path)


def as_lines(articles: int, seed: int = 0) -> list[dict]:
    return [
        {"context": each["article"], "question": question, "options": options, "label": LETTERS.index(letter)}
        for each in (article(number, "high") for number in range(seed, seed + articles))
        for question, options, letter in zip(each["questions"], each["options"], each["answers"], strict=True)
    ]


def test_a_model_learns_race_and_says_how_middle_and_high_went(model, tmp_path, capsys):
    parts = {"train": (30, 0), "validation": (8, 100), "test": (8, 200)}
    files = {name: write_race(tmp_path / name, count, seed) for name, (count, seed) in parts.items()}
    finetune(FinetuneOptions(model=model, task="multiple_choice", output=tmp_path / "out", **files, **QUICK))
    out = tmp_path / "out"
    results = json.loads((out / "results.json").read_text())
    assert results["rows"] == {"train": 120, "validation": 32, "test": 32}
    figures = results["kept_scores"]["test"]
    assert figures["score"] == figures["accuracy"] > 0.9
    assert figures["accuracy"] == pytest.approx((figures["accuracy_middle"] + figures["accuracy_high"]) / 2)
    with (out / "predictions_test.tsv").open() as file:
        answers = {row["index"]: row["prediction"] for row in csv.DictReader(file, delimiter="\t")}
    right = {
        f"{group}/{number}-{place}": letter
        for group in ("middle", "high")
        for number in range(200, 208)
        for place, letter in enumerate(article(number, group)["answers"])
    }
    assert list(answers) == list(right)
    assert np.mean([answers[name] == letter for name, letter in right.items()]) == pytest.approx(figures["accuracy"])
    loaded = transformers.AutoModelForMultipleChoice.from_pretrained(out).eval()
    chain, row = transformers.AutoTokenizer.from_pretrained(out), article(200, "middle")
    pairs = [f"{row['questions'][0]} {option}" for option in row["options"][0]]
    encoded = chain([row["article"]] * 4, pairs, truncation="only_first", max_length=64, padding=True, return_tensors="pt")
    with torch.no_grad():
        chosen = loaded(**{name: tensor[None] for name, tensor in encoded.items()}).logits.argmax().item()
    assert LETTERS[chosen] == answers["middle/200-0"]
    record = json.loads((out / "provenance.json").read_text())["inputs"][0]
    assert (record["num_files"], record["path"]) == (60, files["train"])
    assert "the end of the context is cut off" in capsys.readouterr().out


def test_lines_of_json_are_read_held_out_by_context_and_predicted_by_number(model, tmp_path, capsys):
    train = write_jsonl(tmp_path / "train.jsonl", as_lines(20))
    test = write_jsonl(tmp_path / "test.jsonl", [{**row, "label": -1} for row in as_lines(3, 50)])
    options = {"model": model, "task": "multiple_choice", "output": tmp_path / "out", "train": train, "test": test}
    finetune(FinetuneOptions(**options, **QUICK | {"epochs": 1}, random_weights=True))
    assert "validation: 4 of the questions of --train, held out with their contexts" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())["scores"]) == {"validation"}
    lines = (tmp_path / "out" / "predictions_test.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["index", *map(str, range(6))]
    assert {line.split("\t")[1] for line in lines[1:]} <= set("0123")


def test_lengths_are_those_of_the_longest_option(model, tmp_path):
    rows = as_lines(20) + [as_lines(1)[0] | {"context": "Short.", "options": ["a", RIGHT * 40, "b", "c"]}]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    options = FinetuneOptions(model=model, task="multiple_choice", output=tmp_path / "out", train=train)
    for features in next(build(options, transformers.AutoTokenizer.from_pretrained(model), 64, False)).splits.values():
        found = [max(map(len, features[number]["input_ids"])) for number in range(len(features))]
        assert features.lengths == found
        assert len(set(found)) > 1


def test_race_and_lines_of_json_give_the_same_questions(tmp_path):
    race = read_choices(write_race(tmp_path / "race", 3, 0, ("high",)), Reading(), labelled=True)
    inner = read_choices(str(tmp_path / "race" / "high"), Reading(), labelled=True)
    lines = read_choices(write_jsonl(tmp_path / "rows.jsonl", as_lines(3)), Reading(), labelled=True)
    assert race.rows == inner.rows
    assert [row._replace(id="", group="") for row in race.rows] == [row._replace(id="") for row in lines.rows]
    assert {row.group for row in race.rows} == {"high"}


def test_the_context_gives_way_before_the_question_and_that_before_the_option():
    context, question, option = list(range(10)), [20, 21, 22], [30, 31]
    assert fit_pair(context, question, option, 15) == (context, [20, 21, 22, 30, 31])
    assert fit_pair(context, question, option, 7) == ([0, 1], [20, 21, 22, 30, 31])
    assert fit_pair(context, question, option, 5) == ([], [20, 21, 22, 30, 31])
    assert fit_pair(context, question, option, 4) == ([], [20, 21, 30, 31])
    assert fit_pair(context, question, option, 1) == ([], [30])


def test_features_are_those_of_the_tokenizer_itself_and_batches_are_padded(tokenizer):
    chain = transformers.AutoTokenizer.from_pretrained(tokenizer)
    rows = [
        Choice("0", "", " ".join(SENTENCES), "Whom?", ["the people", "x"], 1),
        Choice("1", "", "", "Why?", ["so", "or so"], None),
    ]
    pieces = encode_all((text for row in rows for text in (row.context, row.question, *row.options)), chain)
    made = [feature(row, pieces, chain, 24) for row in rows]
    for row, encoded in zip(rows, made, strict=True):
        pairs = [f"{row.question} {option}" for option in row.options]
        theirs = chain([row.context] * 2, pairs, truncation="only_first", max_length=24)
        assert all(encoded[name] == theirs[name] for name in ("input_ids", "token_type_ids", "attention_mask"))
    assert (made[0]["labels"], "labels" in made[1]) == (1, False)
    batch = collate_options([{**each, "labels": 0} for each in made], chain)
    assert batch["input_ids"].shape == (2, 2, 24)
    for number, encoded in enumerate(made):
        for option, ids in enumerate(encoded["input_ids"]):
            assert batch["input_ids"][number, option].tolist() == ids + [chain.pad_token_id] * (24 - len(ids))
            assert batch["attention_mask"][number, option].sum() == len(ids)


def test_accuracy_is_told_for_each_group_that_is_there():
    logits, labels = np.eye(4)[[0, 1, 2, 3]], np.array([0, 1, 0, 0])
    found = score(logits, labels, ["middle", "high", "high", "high"])
    assert found == {"score": 0.5, "accuracy": 0.5, "accuracy_middle": 1, "accuracy_high": pytest.approx(1 / 3)}
    assert score(logits, labels, [""] * 4) == {"score": 0.5, "accuracy": 0.5}


ROW = {"context": "c", "question": "q", "options": ["zebrafinch", "b"], "label": 0}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"label": 2}, "row 13: label: expected the number of the right option, from 0 to 1"),
        ({"label": "A"}, "row 13: label: expected the number"),
        ({"label": True}, "row 13: label: expected the number"),
        ({"label": None}, "1 of 13 questions do not tell the right option"),
        ({"options": ["zebrafinch"]}, "row 13: options: expected a list of 2 to 26 texts"),
        ({"options": ["zebrafinch", 3]}, "row 13: options: expected a list"),
        ({"options": "zebrafinch"}, "row 13: options: expected a list"),
        ({"options": ["zebrafinch", "b", "c"]}, "question 12: has 3 options, but the first for training has 2"),
        ({"context": None}, "row 13: context: expected a text"),
        ({"question": "half \ud83d"}, "row 13: question: expected a text"),
    ],
)
def test_rows_that_are_not_as_they_should_be_are_named_and_not_quoted(model, row, message, tmp_path):
    rows = [ROW | {"context": str(number)} for number in range(12)] + [ROW | row]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    with pytest.raises(UserError, match=message) as error:
        finetune(FinetuneOptions(model=model, task="multiple_choice", train=train, output=tmp_path / "out"))
    assert "zebrafinch" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": ["A"]}, "0.txt: expected lists of the same length as questions, options and"),
        ({"questions": None}, "0.txt: expected lists of the same length"),
        ({"answers": ["A", "E"]}, "0.txt: question 2: answers: expected a letter from A to D"),
        ({"answers": ["A", ["zebrafinch"]]}, "0.txt: question 2: answers: expected a letter"),
        ({"options": [["a", "b"], []]}, "0.txt: question 2: options: expected a list"),
        ({"article": 7}, "0.txt: article: expected a text"),
    ],
)
def test_articles_that_are_not_as_published_are_named(change, message, tmp_path):
    folder = Path(write_race(tmp_path / "race", 1, 0, ("middle",)))
    (folder / "middle" / "0.txt").write_text(json.dumps(article(0, "middle") | change))
    with pytest.raises(UserError, match=message) as error:
        read_choices(str(folder), Reading(), labelled=True)
    assert "zebrafinch" not in str(error.value)


def test_sources_of_another_kind_are_said(tmp_path):
    (tmp_path / "RACE" / "train" / "high").mkdir(parents=True)
    for source, message in (
        ("RACE", "expected .txt files, or middle and high"),
        ("RACE/train", "expected .txt"),
        ("a.tsv", "expected a folder"),
    ):
        with pytest.raises(UserError, match=message):
            read_choices(str(tmp_path / source), Reading(), labelled=True)
    for content in ('{"questions"', "[]", "9" * 5000, "[" * 100_000):
        (tmp_path / "RACE" / "train" / "high" / "1.txt").write_bytes(content.encode("latin-1"))
        with pytest.raises(UserError, match=r"1.txt: (is no JSON|expected an object)"):
            read_choices(str(tmp_path / "RACE" / "train"), Reading(), labelled=True)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no questions"):
        read_choices(str(tmp_path / "empty.jsonl"), Reading(), labelled=True)


def test_few_contexts_want_a_validation_file_and_a_private_model_is_quoted_in_no_error(model, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    config = json.loads((model / "tokenizer_config.json").read_text())
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(config | {"private": True}))
    train = write_jsonl(tmp_path / "train.jsonl", [ROW] * 30)
    with pytest.raises(UserError, match="1 contexts are too few to hold a tenth out; give --validation") as error:
        finetune(FinetuneOptions(model=tmp_path / "model", task="multiple_choice", train=train, output=tmp_path / "out"))
    assert "zebrafinch" not in str(error.value)
