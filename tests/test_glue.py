"""`albert finetune --task glue`: the tasks that a folder holds, as GLUE publishes them."""

import json
import shutil
import statistics

import pytest
import transformers

from downstream.finetune import finetune
from downstream.finetune_options import FinetuneOptions
from downstream.glue import GLUE, read_glue, scores_of_seeds
from tests.labelled_rows import QUICK, sentences, write_tsv


def test_a_glue_folder_keeps_its_results_until_there_are_new_ones(model, tmp_path, monkeypatch):
    write_glue(tmp_path / "glue")
    for name in ("MRPC", "STS-B", "MNLI"):
        shutil.rmtree(tmp_path / "glue" / name)
    quick = QUICK | {"epochs": 1}
    options = FinetuneOptions(
        model=model, task="glue", glue_folder=tmp_path / "glue", output=tmp_path / "out", num_seeds=2, **quick
    )
    results, set_seed, stop_at = tmp_path / "out" / "results.json", transformers.set_seed, 0

    def interrupted(seed):
        if seed == stop_at:
            raise KeyboardInterrupt
        set_seed(seed)

    monkeypatch.setattr("downstream.train.transformers.set_seed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(options)
    stop_at = -1
    finetune(options)  # the folder of the first is known again
    former, stop_at = results.read_bytes(), 0
    with pytest.raises(KeyboardInterrupt):
        finetune(options)
    assert results.read_bytes() == former
    stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        finetune(options)
    assert [result["num_seeds_done"] for result in json.loads(results.read_text())["tasks"]] == [1]


def write_glue(folder):
    """Some of GLUE's tasks, with the columns that the published files have."""
    pairs = [(number, *(text for text, _ in sentences(2, number)), number % 2) for number in range(40)]
    cola = [("gj04", label == "pos", "" if label == "pos" else "*", text) for text, label in sentences(40, 0)]
    for name in ("train", "dev"):
        write_tsv(folder / "CoLA" / f"{name}.tsv", [(source, int(label), *rest) for source, label, *rest in cola], header=None)
    write_tsv(folder / "CoLA" / "test.tsv", list(enumerate(text for text, _ in sentences(5, 1))), header=("index", "sentence"))
    header = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
    for name in ("train", "dev"):
        write_tsv(
            folder / "MRPC" / f"{name}.tsv", [(label, 1, 2, first, second) for _, first, second, label in pairs], header=header
        )
    genre = ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2")
    similar = [(n, "news", "f", 2012, n, "none", "none", first, second, n / 8) for n, first, second, _ in pairs]
    for name in ("train", "dev"):
        write_tsv(folder / "STS-B" / f"{name}.tsv", similar, header=(*genre, "score"))
    names = ("neutral", "entailment", "contradiction")
    header = ("index", "sentence1", "sentence2", "label1", "gold_label")
    for name in ("train", "dev_matched", "dev_mismatched"):
        rows = [(n, first, second, names[n % 3], names[n % 3]) for n, first, second, _ in pairs]
        write_tsv(folder / "MNLI" / f"{name}.tsv", rows, header=header)
    write_tsv(folder / "MNLI" / "test_matched.tsv", [row[:3] for row in rows[:7]], header=header[:3])


def test_glue_runs_the_tasks_that_a_folder_holds_as_they_are_published(model, tmp_path, capsys):
    write_glue(tmp_path / "glue")
    options = FinetuneOptions(
        model=model, task="glue", glue_folder=tmp_path / "glue", output=tmp_path / "out", **QUICK | {"epochs": 1}
    )
    finetune(options)
    saved = json.loads((tmp_path / "out" / "results.json").read_text())
    results = saved["tasks"]
    assert [result["task"] for result in results] == ["CoLA", "MRPC", "STS-B", "MNLI"]
    scores = {result["task"]: {split: each["score"]["mean"] for split, each in result["scores"].items()} for result in results}
    matched, mismatched = scores["MNLI"].values()
    mean = statistics.mean([*(scores[name]["validation"] for name in ("CoLA", "MRPC", "STS-B")), (matched + mismatched) / 2])
    assert saved["score"] == {"mean": pytest.approx(mean), "std": None}
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines() if "│" in line]
    whole = rows[next(number for number, row in enumerate(rows) if row[0] == "MNLI") :]
    whole = whole[next(number for number, row in enumerate(whole) if row[0] == "CoLA") :]  # after the tables of each task
    assert list(dict.fromkeys(row[0] for row in whole)) == ["CoLA", "MRPC", "STS-B", "MNLI", "all 4"]
    assert whole[-1] == ["all 4", "validation", "", "score", f"{mean:.4f}", "", "1"]
    for result in results:
        for scores in result["seeds"][0]["scores"].values():
            figures = GLUE[result["task"]].figures
            assert scores["score"] == pytest.approx(statistics.mean(scores[name] for name in figures))
    assert set(results[3]["scores"]) == {"validation", "dev_mismatched"}
    lines = (tmp_path / "out" / "MNLI" / "predictions_test_matched.tsv").read_text().splitlines()
    assert len(lines) == 8
    assert {line.split("\t")[1] for line in lines[1:]} <= {"neutral", "entailment", "contradiction"}
    assert len((tmp_path / "out" / "CoLA" / "predictions_test.tsv").read_text().splitlines()) == 6
    config = json.loads((tmp_path / "out" / "STS-B" / "config.json").read_text())
    assert config["problem_type"] == "regression"
    shutil.rmtree(tmp_path / "glue" / "MRPC")
    shutil.rmtree(tmp_path / "glue" / "STS-B")
    shutil.rmtree(tmp_path / "glue" / "MNLI")
    finetune(options)  # an earlier result is replaced
    assert [result["task"] for result in json.loads((tmp_path / "out" / "results.json").read_text())["tasks"]] == ["CoLA"]


# Header lines of train.tsv and dev.tsv as GLUE's own files have them, and the columns that test.tsv has of them.
HEADERS = {
    "SST-2": (("sentence", "label"), ("index", "sentence")),
    "QQP": (("id", "qid1", "qid2", "question1", "question2", "is_duplicate"), ("id", "question1", "question2")),
    "QNLI": (("index", "question", "sentence", "label"), ("index", "question", "sentence")),
    "RTE": (("index", "sentence1", "sentence2", "label"), ("index", "sentence1", "sentence2")),
    "WNLI": (("index", "sentence1", "sentence2", "label"), ("index", "sentence1", "sentence2")),
}
TEXT_COLUMNS = {
    "SST-2": ["sentence"],
    "QQP": ["question1", "question2"],
    "QNLI": ["question", "sentence"],
    "RTE": ["sentence1", "sentence2"],
    "WNLI": ["sentence1", "sentence2"],
}


@pytest.mark.parametrize("name", HEADERS)
def test_the_columns_of_each_glue_task_are_found_in_its_own_files(name, model, tmp_path):
    header, of_test = HEADERS[name]
    for split, columns in (("train", header), ("dev", header), ("test", of_test)):
        rows = [[f"{column} {split} {number}" for column in columns] for number in range(3)]
        write_tsv(tmp_path / name / f"{split}.tsv", rows, header=columns)
    options = FinetuneOptions(model=model, task="glue", glue_folder=tmp_path, output=tmp_path / "out")
    parts = read_glue(options, private=False)[name]
    assert list(parts) == ["train", "validation", "test"]
    for (split, part), file in zip(parts.items(), ("train", "dev", "test"), strict=True):
        texts = [[f"{column} {file} {number}" for number in range(3)] for column in TEXT_COLUMNS[name]]
        assert [each for each in part.texts() if each is not None] == texts
        if split == "test":
            assert part.columns.label is None
        else:
            assert part.labels() == [f"{header[-1]} {file} {number}" for number in range(3)]


def test_the_mean_over_tasks_is_one_for_each_seed_that_all_have_done():
    def seed(**scores):
        return {"scores": {split: {"score": score} for split, score in scores.items()}}

    one = {"seeds": [seed(validation=0.5), seed(validation=0.7), seed(validation=0.9)]}
    two = {"seeds": [seed(validation=0.2, dev_mismatched=0.4, test=1.0), seed(validation=0.4, dev_mismatched=0.8, test=1.0)]}
    assert scores_of_seeds([one, two]) == [pytest.approx((0.5 + 0.3) / 2), pytest.approx((0.7 + 0.6) / 2)]
    assert scores_of_seeds([]) == []
