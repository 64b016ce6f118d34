"""`albert finetune --task question_answering`: SQuAD's files, windows, spans, figures, and a model that finds answers."""

import gzip
import json
import random
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import transformers
from scipy.special import expit

from downstream.contexts import encode_all, hold_out
from downstream.finetune import CONTENT, RESULTS, finetune
from downstream.finetune_options import FinetuneOptions
from downstream.question_answering import build, has_unanswerable, score
from downstream.squad import Question, read_squad
from downstream.squad_scores import answer_scores, best_threshold, normalize_answer
from downstream.text_files import Reading
from downstream.windows import Example, Spans, best_span, best_spans, cut_windows, feature, pieces_of
from tests.readme import python_of
from tokenizer.errors import UserError
from tokenizer.files import check_output_folder

SENTENCES = ("The nation is strong.", "Our economy has grown.", "This Congress works well.", "My administration has a plan.")
AMOUNTS = ("three billion", "seven hundred", "ninety million", "forty thousand")
QUICK = {"learning_rate": 5e-3, "epochs": 2, "batch_size": 16, "device": "cpu"}


@pytest.fixture(scope="module")
def pieces(tokenizer):
    """A function from texts to their pieces, and the tokenizer."""
    chain = transformers.AutoTokenizer.from_pretrained(tokenizer)
    return lambda *texts: encode_all(texts, chain), chain


def squad(count: int, seed: int, *, impossible: float = 0.0, labelled: bool = True) -> dict:
    """So many paragraphs, the longest of several windows, each with a question; a share `impossible` does not answer it."""
    draw, paragraphs = random.Random(seed), []
    for number in range(count):
        sentences, answer = [draw.choice(SENTENCES) for _ in range(draw.randint(4, 14))], draw.choice(AMOUNTS)
        none = draw.random() < impossible
        if not none:
            sentences.insert(draw.randrange(len(sentences)), f"The budget is {answer}.")
        context = " ".join(sentences)
        entry = {"id": f"{seed}-{number}", "question": "How large is the budget?"}
        if labelled:
            entry["answers"] = [] if none else [{"text": answer, "answer_start": context.index(answer)}]
            entry |= {"is_impossible": none} if impossible else {}
        paragraphs.append({"context": context, "qas": [entry]})
    return {"version": "v2.0" if impossible else "1.1", "data": [{"title": "Budgets", "paragraphs": paragraphs}]}


def write(path: Path, content: dict) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def golds_of(content: dict) -> dict[str, tuple[str, list[str]]]:
    """Context and right answers by id."""
    entries = [(paragraph["context"], entry) for paragraph in content["data"][0]["paragraphs"] for entry in paragraph["qas"]]
    return {entry["id"]: (context, [answer["text"] for answer in entry["answers"]]) for context, entry in entries}


def test_a_model_learns_to_answer_across_windows_and_answers_by_the_lines_of_the_readme(model, tmp_path, monkeypatch, capsys):
    test = squad(30, 2)
    files = {"train": write(tmp_path / "train.json", squad(100, 0)), "test": write(tmp_path / "test.json", test)}
    out = tmp_path / "work" / "answers"
    finetune(FinetuneOptions(model=model, task="question_answering", output=out, num_seeds=2, **files, **QUICK))
    printed = capsys.readouterr().out
    assert "validation: 10 of the questions of --train, held out with their contexts" in printed
    results = json.loads((out / "results.json").read_text())
    assert results["rows"] == {"train": 90, "validation": 10, "test": 30}
    assert [each["seed"] for each in results["seeds"]] == [0, 1]
    answers, right = json.loads((out / "predictions_test.json").read_text()), 0
    assert not (out / "na_prob_test.json").exists()
    for name, (context, golds) in golds_of(test).items():
        assert answers[name] in context
        right += answers[name] in golds
    assert results["kept_scores"]["test"]["exact_match"] == pytest.approx(right / 30)
    assert right / 30 > 0.8  # seeds differ
    record = json.loads((out / "provenance.json").read_text())
    assert [entry["path"] for entry in record["inputs"]] == list(files.values())
    monkeypatch.chdir(tmp_path)
    exec(python_of("Answers to questions")[0], {})
    assert capsys.readouterr().out == "three billion\n"


def test_the_threshold_of_validation_decides_which_questions_have_no_answer_here_and_in_the_readme(
    model, tmp_path, monkeypatch, capsys
):
    contents = {
        "train": squad(100, 0, impossible=0.4),
        "validation": squad(30, 1, impossible=0.4),
        "test": squad(30, 2, impossible=0.4),
    }
    out = tmp_path / "work" / "answers"
    files = {name: write(tmp_path / f"{name}.json", content) for name, content in contents.items()}
    finetune(FinetuneOptions(model=model, task="question_answering", output=out, **files, **QUICK))
    scores = json.loads((out / "results.json").read_text())["kept_scores"]
    assert scores["test"]["na_threshold"] == scores["validation"]["na_threshold"]
    answers, na_prob = (json.loads((out / f"{name}_test.json").read_text()) for name in ("predictions", "na_prob"))
    golds = golds_of(contents["test"])
    assert list(answers) == list(na_prob) == list(golds)
    assert all((na_prob[name] > scores["test"]["na_threshold"]) == (answer == "") for name, answer in answers.items())
    right = [answers[name] in (answers_of or [""]) for name, (_, answers_of) in golds.items()]
    assert scores["test"]["exact_match"] == pytest.approx(np.mean(right))
    assert scores["test"]["score"] == scores["test"]["f1"] > 0.85
    assert 0 < sum(answer == "" for answer in answers.values()) < 30
    check_output_folder(out, RESULTS, "fine-tuned model", CONTENT)  # may be replaced
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    (lines,), sentence = python_of("Answers to questions"), "The budget is three billion. "
    assert sentence in lines
    for text, answer in ((lines, "three billion"), (lines.replace(sentence, ""), "no answer")):
        exec(text, found := {})
        assert capsys.readouterr().out == f"{answer}\n"
        assert (found["na_prob"] > scores["validation"]["na_threshold"]) is (answer == "no answer")


def test_a_folder_that_was_fine_tuned_for_three_classes_or_a_number_learns_to_answer(model, tmp_path):
    train = write(tmp_path / "train.json", squad(20, 0))
    for number, kind in ((3, "single_label_classification"), (1, "regression")):
        folder, out = tmp_path / f"classes_{number}", tmp_path / f"out_{number}"
        shutil.copytree(model, folder)
        config = transformers.AutoConfig.from_pretrained(model, num_labels=number, problem_type=kind)
        transformers.AlbertForSequenceClassification.from_pretrained(model, config=config).save_pretrained(folder)
        options = {"task": "question_answering", "train": train, "output": out}
        finetune(FinetuneOptions(model=folder, **options, **QUICK | {"epochs": 1}))
        assert transformers.AutoModelForQuestionAnswering.from_pretrained(out).qa_outputs.out_features == 2


def test_a_test_without_answers_gets_predictions_and_long_questions_are_cut_off(model, tmp_path, capsys):
    content = squad(20, 0)
    for paragraph in content["data"][0]["paragraphs"]:
        paragraph["qas"][0]["question"] = "How large is the budget of the nation? " * 5
    with gzip.open(tmp_path / "test.json.gz", "wt") as file:
        json.dump(squad(4, 2, labelled=False), file)
    files = {"train": write(tmp_path / "train.json", content), "test": str(tmp_path / "test.json.gz")}
    finetune(FinetuneOptions(model=model, task="question_answering", output=tmp_path / "out", **files, **QUICK | {"epochs": 1}))
    assert list(json.loads((tmp_path / "out" / "predictions_test.json").read_text())) == ["2-0", "2-1", "2-2", "2-3"]
    assert set(json.loads((tmp_path / "out" / "results.json").read_text())["scores"]) == {"validation"}
    assert "1 questions have more than 21 pieces, and are cut off there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "golds", "exact", "f1"),
    [
        ("The Denver Broncos.", ["Carolina Panthers", "denver  broncos"], 1, 1),  # the best of the right answers
        ("Santa Clara, California", ["Santa Clara"], 0, 0.8),  # precision 2/3, recall 1
        ("new new york", ["York, New York"], 0, 2 / 3),  # new and york once each: 2/3 and 2/3
        ("1,000", ["1000"], 1, 1),
        ("theater", ["a theater"], 1, 1),
        ("“York”", ["York"], 0, 0),  # typographic quotation marks are no ASCII punctuation
        ("中国人", ["中国"], 0, 0),  # one word between white space
        ("Paris", ["London"], 0, 0),
    ],
)
def test_figures_are_those_of_the_published_evaluations(answer, golds, exact, f1):
    for unanswerable in (False, True):
        found = answer_scores([answer], [golds], unanswerable=unanswerable)
        assert (found["exact_match"][0], found["f1"][0]) == (exact, pytest.approx(f1))


def test_no_answer_counts_as_in_version_2_and_words_that_vanish_as_in_each_version():
    found = answer_scores(["", "Paris", "", "the"], [[], [], ["Paris"], ["..."]], unanswerable=True)
    assert found["exact_match"].tolist() == found["f1"].tolist() == [1, 0, 0, 1]
    first = answer_scores(["the"], [["..."]], unanswerable=False)
    assert (first["exact_match"][0], first["f1"][0]) == (1, 0)
    assert normalize_answer(" An  A-Team, the\tend ") == "ateam end"


@pytest.mark.parametrize("highest", [8, 10])
def test_the_best_threshold_is_the_best_of_all(highest):
    at_the_end = 0
    for seed in range(50):
        draw = np.random.default_rng(seed)
        na_prob = draw.integers(1, highest, 6, endpoint=True) / 10  # some of them equal, and maybe 1
        has_answer = draw.random(6) < 0.5
        scores, null_scores = draw.random(6).round(1) * has_answer, (~has_answer).astype(float)

        def total(threshold, na_prob=na_prob, scores=scores, null_scores=null_scores):
            return np.where(na_prob > threshold, null_scores, scores).sum()

        best = best_threshold(na_prob, scores, null_scores)
        assert total(best) == pytest.approx(max(total(each) for each in (*np.arange(0.05, 1, 0.1), 1.0)))
        assert best not in na_prob or best == 1
        at_the_end += best == 1
    assert (at_the_end > 0) is (highest == 10)


def test_figures_of_both_kinds_follow_from_the_threshold():
    rows = [Question(str(number), "c", "q", golds, None) for number, golds in enumerate([["a b"], ["b"], [], []])]
    spans = Spans(["b c", "b", "b", "b"], np.array([0.3, 0.1, 0.2, 0.9]))
    found = score(spans, rows, None, unanswerable=True)
    assert found["na_threshold"] == pytest.approx(0.15)  # 0.6 lies between 0.3 and 0.9, but costs a question without an answer
    assert (found["f1"], found["exact_match"], found["has_answer_f1"], found["no_answer_f1"]) == (0.75, 0.75, 0.5, 1)
    found = score(spans, rows, {"na_threshold": 0.5}, unanswerable=True)
    assert (found["no_answer_f1"], found["na_threshold"]) == (0.5, 0.5)
    assert found["has_answer_f1"] == pytest.approx((2 / 3 + 1) / 2)  # "a b" and "b c", without the article: 1/2 and 1


def test_none_is_wrong_where_the_answer_vanishes_as_in_the_published_evaluation():
    rows = [Question(str(number), "c", "q", golds, None) for number, golds in enumerate([["the"], ["%"], []])]
    spans = Spans(["the", "b", "b"], np.array([0.1, 0.9, 0.9]))
    found = score(spans, rows, {"na_threshold": 0.5}, unanswerable=True)
    assert (found["has_answer_f1"], found["no_answer_f1"]) == (0.5, 1)  # "the" was given, "%" was not
    assert found["exact_match"] == pytest.approx(2 / 3)


def test_questions_without_an_answer_must_be_left_to_train_on(tmp_path):
    parts = hold_out(read_squad(write(tmp_path / "train.json", squad(20, 0)), "train", Reading()), 0)
    assert not has_unanswerable(parts)
    none = [row._replace(answers=[], start=None) for row in parts["validation"].rows]
    with pytest.raises(UserError, match="train.json: all questions without an answer are among those held out. Give --validation"):
        has_unanswerable(parts | {"validation": parts["validation"]._replace(rows=none)})
    assert has_unanswerable(parts | {"train": parts["train"]._replace(rows=none)})


CONTEXT = "  Él  naïve café, ﬁnance ''quoted'' 中国人 Straße ½ cafe\u0301 and the e\u0301tude… of\u00a0 the Nation [SEP] 5,000 x"


def test_windows_are_those_of_the_tokenizer_itself(pieces):
    encode, chain = pieces
    question, context = "What is strong?", " ".join(SENTENCES * 3)
    found = encode(question, context)
    row = Question("1", context, question, None, None)
    example = Example(row, found[question].ids, found[context])
    for length, stride in ((24, 0), (24, 7), (300, 50)):
        theirs = chain(
            question, context, truncation="only_second", max_length=length, stride=stride, return_overflowing_tokens=True
        )
        ours = [feature(window, example, chain) for window in cut_windows([example], length, stride)]
        for name in ("input_ids", "token_type_ids", "attention_mask"):
            assert [each[name] for each in ours] == theirs[name]


def test_every_span_of_characters_is_found_in_pieces_and_back(pieces):
    encode, chain = pieces
    found = encode(CONTEXT, "What?")
    context = found[CONTEXT]
    for match in re.finditer(r"\S+", CONTEXT):
        row = Question("1", CONTEXT, "What?", [match[0]], match.start())
        example = Example(row, found["What?"].ids, context)
        (window,) = cut_windows([example], 512, 0)
        encoded = feature(window, example, chain)
        start, end = np.zeros((2, 1, len(encoded["input_ids"])))
        start[0, encoded["start_positions"]] = end[0, encoded["end_positions"]] = 1
        assert best_spans((start, end), [window], [example], 30).answers[0].strip("'") == match[0].strip(
            "'"
        )  # '' is one piece, which stands for half
    first, last = pieces_of(0, 2, context.offsets)  # white space has no piece
    assert last < first


def test_lengths_are_those_of_the_features(model, pieces, tmp_path):
    train = write(tmp_path / "train.json", squad(30, 0))
    options = FinetuneOptions(model=model, task="question_answering", output=tmp_path / "out", train=train)
    for features in next(build(options, pieces[1], 64, False)).splits.values():
        assert features.lengths == [len(features[number]["input_ids"]) for number in range(len(features))]
        assert len(set(features.lengths)) > 1


def test_an_answer_outside_of_a_window_is_none_there_and_windows_vote_by_their_best_span(pieces):
    encode, chain = pieces
    question, context = "What?", "the nation " * 10
    found = encode(question, context)
    row = Question("1", context, question, ["nation"], context.rindex("nation"))
    example, shift = Example(row, found[question].ids, found[context]), len(found[question].ids) + 2
    windows = cut_windows([example], shift + 1 + 8, 2)
    labels = [(encoded["start_positions"], encoded["end_positions"]) for encoded in (feature(w, example, chain) for w in windows)]
    assert labels == [(0, 0)] * (len(windows) - 1) + [(shift + windows[-1].end - windows[-1].begin - 1,) * 2]
    assert [(window.begin, window.end) for window in windows] == [(0, 8), (6, 14), (12, 20)]
    start = np.full((3, shift + 9), -5.0)
    end = start.copy()
    start[0, 0], start[2, 0] = 3, 1  # of no answer, in two windows
    start[1, shift + 1], end[1, shift] = 9, 9  # ends before it begins
    start[2, shift + 2], end[2, shift + 3] = 2, 3
    end[2, shift - 1] = 50  # in the question
    spans = best_spans((start, end), windows, [example], 30)
    assert spans.answers == [context[slice(*found[context].offsets[[14, 15], [0, 1]])]]
    least = min(start[:, 0] + end[:, 0])
    assert spans.na_prob == pytest.approx(expit(least - 5))


def test_the_best_span_is_the_best_of_all():
    draw = np.random.default_rng(0)
    for size, longest in ((1, 30), (7, 3), (12, 30)):
        start, end = draw.normal(size=(2, size))
        sums = {(i, j): start[i] + end[j] for i in range(size) for j in range(i, min(size, i + longest))}
        assert best_span(start, end, longest) == (pytest.approx(max(sums.values())), *max(sums, key=sums.get))


def test_contexts_are_held_out_whole(tmp_path):
    content = squad(20, 0)
    for paragraph in content["data"][0]["paragraphs"]:
        (entry,) = paragraph["qas"]
        paragraph["qas"] = [entry, entry | {"id": entry["id"] + "-too"}]
    train = read_squad(write(tmp_path / "train.json", content), "train", Reading())
    parts = hold_out(train, 0)
    contexts = {split: Counter(row.context for row in part.rows) for split, part in parts.items()}
    assert not set(contexts["train"]) & set(contexts["validation"])
    assert len(contexts["validation"]) == len(contexts["train"] | contexts["validation"]) // 10


def changed(change) -> dict:
    content = squad(12, 0)
    paragraph = content["data"][0]["paragraphs"][1]
    change(content, paragraph, paragraph["qas"][0])
    return content


BAD = {
    r"data: expected a list of objects": lambda content, paragraph, entry: content.update(data={}),
    r"data\[0\].paragraphs\[1\].context: expected a text": lambda content, paragraph, entry: paragraph.update(context=" "),
    r"data\[0\].paragraphs\[1\].qas: expected a list": lambda content, paragraph, entry: paragraph.update(qas=[3]),
    r"qas\[0\].question: expected a text": lambda content, paragraph, entry: entry.update(question="half \ud83d"),
    r"qas\[0\].id: expected a text": lambda content, paragraph, entry: entry.pop("id"),
    r"qas\[0\].answers: there is none. Questions that have no": lambda content, paragraph, entry: entry.update(answers=[]),
    r"qas\[0\].is_impossible: is true, and yet": lambda content, paragraph, entry: entry.update(is_impossible=True),
    r"qas\[0\].answers\[0\].text: expected a text": lambda content, paragraph, entry: entry.update(answers=[{"text": 1}]),
    r"qas\[0\].answers\[0\]: its text is not in the context at answer_start, as in 1 questions.*--on_error skip": (
        lambda content, paragraph, entry: entry["answers"][0].update(answer_start=0)
    ),
    r"some questions have the same id": lambda content, paragraph, entry: entry.update(id="0-0"),
    r"holds no questions": lambda content, paragraph, entry: content.update(data=[]),
    r"of the contexts of 1 questions the tokenizer keeps nothing": (
        lambda content, paragraph, entry: (paragraph.update(context="\u200b\u200b"), entry.update(answers=[], is_impossible=True))
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_not_as_published_is_said_with_its_place_and_without_its_words(model, message, tmp_path):
    train = write(tmp_path / "train.json", changed(BAD[message]))
    with pytest.raises(UserError, match=f"(?s)train.json: .*{message}") as error:
        finetune(FinetuneOptions(model=model, task="question_answering", train=train, output=tmp_path / "out"))
    assert "budget" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_misplaced_answer_is_left_out_of_training_on_request_and_no_matter_elsewhere(tmp_path, capsys):
    path = write(tmp_path / "train.json", changed(lambda content, paragraph, entry: entry["answers"][0].update(answer_start=-1)))
    assert len(read_squad(path, "train", Reading(on_error="skip")).rows) == 11
    assert "1 questions whose answer is not at answer_start left out" in capsys.readouterr().out
    rows = read_squad(path, "validation", Reading()).rows
    assert (len(rows), rows[1].start) == (12, None)


def test_files_that_do_not_fit_each_other_or_are_none_are_said(model, tmp_path):
    plain, mixed = (write(tmp_path / f"{part}.json", squad(12, 0, impossible=part)) for part in (0.0, 0.5))
    options = {"model": model, "task": "question_answering", "output": tmp_path / "out"}
    with pytest.raises(UserError, match="0.5.json: some questions have no answer, but none of --train is such"):
        finetune(FinetuneOptions(train=plain, validation=mixed, **options))
    with pytest.raises(UserError, match="expected the .json of SQuAD"):
        finetune(FinetuneOptions(train=str(tmp_path / "a.jsonl"), **options))
    with pytest.raises(UserError, match="cannot be read"):
        finetune(FinetuneOptions(train=str(tmp_path / "absent.json"), **options))
    (tmp_path / "cut.json").write_text(Path(plain).read_text()[:200])
    with pytest.raises(UserError, match="cut.json: is no JSON"):
        finetune(FinetuneOptions(train=str(tmp_path / "cut.json"), **options))
    (tmp_path / "bad.json.gz").write_bytes(gzip.compress(Path(plain).read_bytes())[:50] + bytes(50))
    with pytest.raises(UserError, match="bad.json.gz: cannot be read"):
        finetune(FinetuneOptions(train=str(tmp_path / "bad.json.gz"), **options))
    with pytest.raises(UserError, match="windows of 64 pieces have room for 40 .* beside a question of 21; give less than 40"):
        finetune(FinetuneOptions(train=plain, doc_stride=40, **options))


def test_options_of_one_task_are_refused_for_another(model, tmp_path):
    for task, given, message in (
        ("classification", {"doc_stride": 16}, "--doc_stride: goes with --task question_answering alone"),
        ("multiple_choice", {"max_answer_length": 5}, "--max_answer_length: goes with --task question_answering alone"),
        ("question_answering", {"text": "a"}, "--text: goes with --task classification or .* alone"),
        ("question_answering", {"doc_stride": -1}, "--doc_stride: must be at least 0"),
        ("question_answering", {"max_answer_length": 0}, "--max_answer_length: must be above 0"),
    ):
        with pytest.raises(UserError, match=message):
            FinetuneOptions(model=model, output=tmp_path, train="a", task=task, **given).check()


def test_a_private_model_is_quoted_in_no_error(model, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    config = json.loads((model / "tokenizer_config.json").read_text())
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(config | {"private": True}))
    content = changed(lambda content, paragraph, entry: entry.update(answers=[{"text": "zebrafinch", "answer_start": 0}]))
    train = write(tmp_path / "train.json", content)
    with pytest.raises(UserError) as error:
        finetune(FinetuneOptions(model=tmp_path / "model", task="question_answering", train=train, output=tmp_path / "out"))
    assert "zebrafinch" not in str(error.value)
