"""`albert finetune`: from labelled text in each layout to figures and a folder for `transformers.pipeline`."""

import csv
import gzip
import json
import math
import random
import shutil
import statistics
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from datasets import ClassLabel, Dataset, Features, Value

from downstream.classification import hold_out, in_order, read_parts
from downstream.contexts import Features as KnownFeatures
from downstream.finetune import finetune
from downstream.finetune_options import FinetuneOptions
from downstream.glue import GLUE, read_glue, scores_of_seeds
from downstream.inspect_export import load_export
from downstream.labelled import Columns, Reading, find_columns, read_labelled
from downstream.scores import classification_scores, is_constant, regression_scores
from downstream.task import Task
from downstream.train import BestEpoch, check_device, make_model, train
from tests.models import tiny_export
from tokenizer.errors import UserError

SUBJECTS = ("The budget", "This Congress", "Our economy", "The treaty", "My administration", "The nation")
VERBS = {"pos": ("is strong", "has grown", "works well"), "neg": ("is weak", "has failed", "costs too much")}


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    return tiny_export(tokenizer, tmp_path_factory.mktemp("export") / "hf")


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Text and label."""
    draw = random.Random(seed)
    labels = [draw.choice(("neg", "pos")) for _ in range(count)]
    return [(f"{draw.choice(SUBJECTS)} {draw.choice(VERBS[label])}, and {draw.choice(SUBJECTS)} too.", label) for label in labels]


def write_tsv(path, rows, header=("text", "label")):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join("\t".join(map(str, row)) for row in ([header] if header else []) + rows) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def reviews(tmp_path):
    """Options for 200 + 60 + 40 labelled sentences."""
    counts = {"train": 200, "validation": 60, "test": 40}
    return {name: write_tsv(tmp_path / f"{name}.tsv", sentences(count, seed)) for seed, (name, count) in enumerate(counts.items())}


QUICK = {"learning_rate": 3e-3, "epochs": 4, "batch_size": 16, "device": "cpu"}


def test_a_classifier_of_several_seeds_learns_loads_in_a_pipeline_and_is_the_best_of_them(model, reviews, tmp_path, capsys):
    finetune(FinetuneOptions(model=model, output=tmp_path / "out", num_seeds=2, seed=3, **reviews, **QUICK))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    by_seed = {each["seed"]: each["scores"] for each in results["seeds"]}
    assert list(by_seed) == [3, 4]
    for split in ("validation", "test"):
        values = [scores[split]["accuracy"] for scores in by_seed.values()]
        assert results["scores"][split]["accuracy"] == {"mean": statistics.mean(values), "std": statistics.stdev(values)}
    assert results["rows"] == {"train": 200, "validation": 60, "test": 40}
    best = max(by_seed, key=lambda seed: by_seed[seed]["validation"]["score"])
    assert results["kept_seed"] == best
    assert by_seed[best]["test"]["accuracy"] > 0.9  # a word tells the label
    predict = transformers.pipeline("text-classification", str(tmp_path / "out"))
    texts, labels = zip(*sentences(40, 2), strict=True)
    predicted = [answer["label"] for answer in predict(list(texts))]
    with (tmp_path / "out" / "predictions_test.tsv").open() as file:
        assert [row["prediction"] for row in csv.DictReader(file, delimiter="\t")] == predicted
    right = np.mean([ours == label for ours, label in zip(predicted, labels, strict=True)])
    assert by_seed[best]["test"]["accuracy"] == pytest.approx(right)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert record["parents"][0]["path"] == str(model)
    assert [entry["path"] for entry in record["inputs"]] == list(reviews.values())
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(("rate", "is_told"), [(1e-12, True), (5e-3, False)])
def test_a_classifier_that_learns_nothing_beyond_the_most_frequent_class_is_told_so(
    model, reviews, rate, is_told, tmp_path, capsys
):
    finetune(FinetuneOptions(model=model, output=tmp_path / "out", **reviews, **QUICK | {"learning_rate": rate}))
    (seed,) = json.loads((tmp_path / "out" / "results.json").read_text())["seeds"]
    printed = " ".join(capsys.readouterr().out.split())
    assert seed["constant"] is is_told
    assert (seed["scores"]["validation"]["matthews"] == 0) is is_told
    message = "seed 0: the model gives all validation rows the same class; it has learnt nothing beyond the most frequent one."
    assert (f"{message} Give a higher --learning_rate (now 1e-12;" in printed) is is_told
    assert ("--epochs and --patience (now 4 and 2)" in printed) is is_told


def test_one_class_for_all_is_a_fault_only_where_there_are_several():
    for predicted, expected, fault in (
        ([1, 1], [0, 1], True),
        ([0, 1], [0, 1], False),
        ([1, 1], [1, 1], False),
        ([0, 0], [1, 1], False),
    ):
        assert is_constant(np.array(predicted), np.array(expected)) is fault


def test_the_same_command_gives_the_same_model(model, reviews, tmp_path):
    options = FinetuneOptions(model=model, output=tmp_path / "one", **reviews, **QUICK | {"epochs": 1})
    finetune(options)
    finetune(replace(options, output=tmp_path / "two"))
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_what_stops_a_later_seed_leaves_those_before_it(model, reviews, tmp_path, monkeypatch):
    options = FinetuneOptions(model=model, output=tmp_path / "two", num_seeds=2, seed=5, **reviews, **QUICK | {"epochs": 1})
    finetune(options)
    set_seed = transformers.set_seed

    def interrupted(seed):
        if seed == 7:
            raise KeyboardInterrupt
        set_seed(seed)

    monkeypatch.setattr(transformers, "set_seed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        finetune(replace(options, output=tmp_path / "three", num_seeds=3))
    two, three = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("two", "three"))
    assert (two.pop("num_seeds"), three.pop("num_seeds")) == (2, 3)
    assert two == three  # two seeds are done in both
    assert three["num_seeds_done"] == 2
    assert [each["seed"] for each in three["seeds"]] == [5, 6]
    for name in ("model.safetensors", "predictions_test.tsv", "tokenizer.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "three" / name).read_bytes()
    monkeypatch.undo()
    finetune(replace(options, output=tmp_path / "three", num_seeds=1))  # may be replaced


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

    monkeypatch.setattr(transformers, "set_seed", interrupted)
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


def test_one_file_is_enough(albert, model, tmp_path):
    train = write_tsv(tmp_path / "mine.tsv", sentences(100, 0))
    options = ("--model", model, "--train", train, "--output", tmp_path / "out", "--epochs", 1, "--device", "cpu")
    output = albert("finetune", *options).stdout
    assert "text: text, label: label" in output
    assert "validation: 10 of the rows of --train, held out" in output
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rows"] == {"train": 90, "validation": 10}


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


def test_figures_are_those_of_their_definitions():
    draw = np.random.default_rng(0)
    logits, labels = draw.normal(size=(50, 2)), draw.integers(0, 2, 50)
    predicted = logits.argmax(-1)
    tp, tn, fp, fn = (int(((predicted == ours) & (labels == theirs)).sum()) for ours, theirs in ((1, 1), (0, 0), (1, 0), (0, 1)))
    found = classification_scores(logits, labels)
    assert found["accuracy"] == pytest.approx((tp + tn) / 50)
    assert found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    under = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert found["matthews"] == pytest.approx((tp * tn - fp * fn) / under)
    outputs, numbers = draw.normal(size=(50, 1)), draw.normal(size=50)
    found = regression_scores(outputs, numbers)
    assert found["pearson"] == pytest.approx(np.corrcoef(outputs[:, 0], numbers)[0, 1])
    ranks = outputs[:, 0].argsort().argsort(), numbers.argsort().argsort()
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert regression_scores(np.ones((5, 1)), numbers[:5])["pearson"] == 0


def test_random_weights_are_not_those_of_the_folder(model):
    task = SimpleNamespace(auto_class="AutoModelForSequenceClassification", config={"num_labels": 2})
    pretrained = transformers.AutoModel.from_pretrained(model).state_dict()
    options = FinetuneOptions(model=model, output=model)
    kept, drawn = (make_model(task, each).albert.state_dict() for each in (options, replace(options, random_weights=True)))
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(kept[name], pretrained[name])
    assert not torch.allclose(drawn[name], pretrained[name], atol=1e-3)


@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice"])
def test_the_head_is_new_for_each_seed_and_the_rest_is_that_of_the_folder(model, head, tmp_path):
    task = SimpleNamespace(auto_class=f"AutoModelFor{head}", config={"num_labels": 2})
    former = make_model(task, FinetuneOptions(model=model, output=tmp_path))
    former.save_pretrained(tmp_path / "former")
    weights, found = former.state_dict(), []
    for seed in (0, 1, 0):
        transformers.set_seed(seed)
        found.append(make_model(task, FinetuneOptions(model=tmp_path / "former", output=tmp_path)).state_dict())
    for name, tensor in weights.items():
        first, second, again = (state[name] for state in found)
        assert torch.equal(first, again)
        if name.startswith("albert."):
            assert torch.equal(first, tensor)
        elif name.endswith(".weight"):  # a new bias is 0
            assert not torch.allclose(first, tensor, atol=1e-3)
            assert not torch.allclose(first, second, atol=1e-3)
    assert set(weights) == set(found[0])


def test_an_encoder_without_a_head_is_that_of_the_folder(model):
    task = SimpleNamespace(auto_class="AutoModel", config={})
    ours = make_model(task, FinetuneOptions(model=model, output=model)).state_dict()
    assert all(
        torch.equal(ours[name], tensor) for name, tensor in transformers.AutoModel.from_pretrained(model).state_dict().items()
    )


def test_the_best_epoch_is_kept_and_patience_ends_training():
    layer, control = torch.nn.Linear(1, 1), SimpleNamespace(should_training_stop=False)
    best = BestEpoch(0, patience=2)
    stopped = []
    for epoch, score in enumerate((0.5, 0.7, 0.7, 0.6, 0.9), 1):
        with torch.no_grad():
            layer.bias.fill_(epoch)
        state, arguments = SimpleNamespace(epoch=float(epoch)), SimpleNamespace(num_train_epochs=5)
        best.on_evaluate(arguments, state, control, {"eval_score": score, "eval_runtime": 1.0}, layer)
        stopped.append(control.should_training_stop)
        if control.should_training_stop:
            break
    assert stopped == [False, False, False, True]
    assert (best.epoch, best.scores, best.weights["bias"].item()) == (2, {"score": 0.7}, 2.0)


def scripted(model, scores):
    """A task whose epochs score as told, with `test` the same rows as `validation`; and the outputs of each epoch, as they come."""
    parts = {name: [text for text, _ in sentences(count, count)] for name, count in (("train", 24), ("validation", 8), ("test", 8))}
    tokenizer, told, outputs_of = transformers.AutoTokenizer.from_pretrained(model), iter(scores), []

    def score(split, outputs, labels, validation):
        if split == "test":
            return {"score": 0.0}
        outputs_of.append(outputs.copy())
        return {"score": next(told)}

    task = Task(
        name="",
        splits={
            split: Dataset.from_dict(dict(tokenizer(texts)) | {"labels": [number % 2 for number in range(len(texts))]})
            for split, texts in parts.items()
        },
        num_rows={},
        collate=transformers.DataCollatorWithPadding(tokenizer),
        inputs=[],
        auto_class="AutoModelForSequenceClassification",
        config={"num_labels": 2, "problem_type": "single_label_classification"},
        score=score,
        predictions=lambda split, outputs, validation: {},
    )
    return task, outputs_of


def test_training_gives_the_best_epoch_with_its_predictions_when_later_ones_are_worse(model, tmp_path):
    task, outputs_of = scripted(model, (0.3, 0.8, 0.5, 0.4))
    options = FinetuneOptions(model=model, output=tmp_path, **QUICK | {"patience": 4, "learning_rate": 1e-2})
    trained = train(task, options, 0, tmp_path / "trainer")
    assert (trained.epoch, trained.scores["validation"]) == (2, {"score": 0.8})
    batch = task.collate([{name: row[name] for name in ("input_ids", "attention_mask")} for row in task.splits["validation"]])
    with torch.no_grad():
        logits = trained.model.eval()(**batch).logits.numpy()
    for epoch, outputs in enumerate(outputs_of, 1):
        assert np.allclose(trained.outputs["test"], outputs, atol=1e-5) is (epoch == 2)  # fp32, the same rows
        assert np.allclose(logits, outputs, atol=1e-5) is (epoch == 2)
    assert len(outputs_of) == 4


def test_features_are_made_once_an_epoch_in_batches_of_like_length(model, tmp_path):
    task, _ = scripted(model, (0.5, 0.6))
    made, spans, draw = [], [], random.Random(0)
    shorter = [(row, draw.randint(2, 12)) for row in list(task.splits["train"]) * 4]
    rows = [{name: value[:size] if name != "labels" else value for name, value in row.items()} for row, size in shorter]
    lengths = [len(row["input_ids"]) for row in rows]

    def make(number):
        made.append(number)
        return rows[number]

    def collate(features):
        found = [len(row["input_ids"]) for row in features]
        spans.append(max(found) - min(found))
        return task.collate(features)

    splits = task.splits | {"train": KnownFeatures(range(len(rows)), make, lengths)}
    options = FinetuneOptions(model=model, output=tmp_path, **QUICK | {"epochs": 2, "batch_size": 8})
    train(task._replace(splits=splits, collate=collate), options, 0, tmp_path / "trainer")
    assert sorted(made) == sorted([*range(len(rows))] * 2)
    of_training = spans[: len(rows) // 8]  # batches of the first epoch
    assert np.mean(of_training) < (max(lengths) - min(lengths)) / 2  # of rows in any order 0.9 of it


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (3, 6)])
def test_training_ends_after_patience_epochs_without_a_better_one(model, patience, epochs, tmp_path):
    task, outputs_of = scripted(model, (0.5, 0.6, 0.6, 0.1, 0.9, 0.2))
    options = FinetuneOptions(model=model, output=tmp_path, **QUICK | {"patience": patience, "epochs": 6})
    train(task, options, 0, tmp_path / "trainer")
    assert len(outputs_of) == epochs


ANY = Columns(None, None, None)


def read(source, reading=None, *, split="train", labelled=True):
    return read_labelled(source, split, ANY, reading or Reading(), labelled=labelled)


def test_every_layout_gives_the_same_rows(tmp_path):
    rows = [{"text": 'He said "no",\tthen left', "label": "a"}, {"text": "two\nlines", "label": "b"}, {"text": "ü", "label": "a"}]
    with (tmp_path / "rows.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.write("\n\n".join(map(json.dumps, rows)))
    Dataset.from_list(rows).to_parquet(tmp_path / "set" / "train.parquet")
    for source in (tmp_path / "rows.csv", tmp_path / "rows.jsonl.gz", f"hf:{tmp_path}/set"):
        assert read(str(source)).rows == rows
    plain = write_tsv(tmp_path / "rows.tsv", [('a "quoted', "x"), ('b" word', "y")], header=None)
    expected = [{"text": 'a "quoted', "label": "x"}, {"text": 'b" word', "label": "y"}]
    assert read(plain, Reading(["text", "label"])).rows == expected
    with pytest.raises(UserError, match="its rows name their columns; leave --columns out"):
        read(str(tmp_path / "rows.jsonl.gz"), Reading(["text", "label"]))


def test_class_labels_of_a_dataset_are_their_names_and_minus_one_is_none(tmp_path):
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    Dataset.from_dict({"sentence": ["a", "b"], "label": [1, 0]}, features=features).to_parquet(tmp_path / "set" / "train.parquet")
    Dataset.from_dict({"sentence": ["a", "b"], "label": [-1, -1]}, features=features).to_parquet(tmp_path / "set" / "test.parquet")
    found = read(f"hf:{tmp_path}/set")
    assert (found.texts(), found.labels()) == ((["a", "b"], None), ["yes", "no"])
    assert read(f"hf:{tmp_path}/set", split="test", labelled=False).columns.label is None
    numbers = write_tsv(tmp_path / "numbers.tsv", [("a", "-1"), ("b", "-1")], ("text", "score"))
    assert read(numbers, split="test", labelled=False).columns.label is None
    assert read(numbers).labels() == ["-1", "-1"]


def test_rows_of_another_width_are_named_or_left_out(tmp_path, capsys):
    path = write_tsv(tmp_path / "rows.tsv", [("a", "x"), ("b",), ("c", "y")])
    with pytest.raises(UserError, match=r"rows.tsv, line 3: has 1 columns, expected 2 \(text, label\).*--on_error skip"):
        read(path)
    assert [row["text"] for row in read(path, Reading(on_error="skip")).rows] == ["a", "c"]
    assert "1 rows with another number of columns than 2 left out" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"line 3: .*Mend it\.$"):  # predictions go by the number of the row
        read(path, Reading(on_error="skip"), split="test", labelled=False)


QUOTED = 'text\tlabel\n"He said ""no"""\tneg\nShe went.\tpos\n'


def test_a_tsv_is_read_without_quoting_and_that_is_told_where_a_program_has_quoted(tmp_path, capsys):
    path = tmp_path / "rows.tsv"
    path.write_text(QUOTED)
    assert read(str(path)).texts()[0] == ['"He said ""no"""', "She went."]
    told = capsys.readouterr().out
    assert f'{path}: 1 cells begin and end with ", which belongs to them. A .tsv is read without quoting' in told
    (tmp_path / "rows.csv").write_text(QUOTED.replace("\t", ","))
    assert read(str(tmp_path / "rows.csv")).texts()[0] == ['He said "no"', "She went."]
    path.write_text('text\tlabel\n"all"\t"neg"\n"rows"\t"pos"\n')
    read(str(path))
    assert "4 cells begin and end" in capsys.readouterr().out
    path.write_text('text\tlabel\n"Yes."\tneg\n"No," he said, "no."\tpos\n"a "" b\tpos\n')  # quotes of the texts themselves
    (tmp_path / "b.csv").write_text(QUOTED.replace("\t", ","))
    for source in (path, tmp_path / "b.csv"):
        read(str(source))
    assert capsys.readouterr().out == ""
    path.write_text('text\tlabel\n"two\nlines"\tneg\n')
    with pytest.raises(UserError, match="line 2: has 1 columns, expected 2 .*A .tsv is read without quoting.*save it as .csv"):
        read(str(path))


@pytest.mark.parametrize(("name", "encoding"), [("a.tsv", "utf-16"), ("b.jsonl", "latin-1"), ("c.csv.gz", "latin-1")])
def test_a_file_that_is_not_utf_8_is_to_be_saved_so(name, encoding, tmp_path):
    content = json.dumps({"text": "née", "label": "x"}, ensure_ascii=False).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(UserError, match=rf"{name}: is not in UTF-8 \(byte 0x..\).*Save it as UTF-8\.$"):
        read(str(tmp_path / name))


def test_endings_may_be_in_capitals(tmp_path):
    table, line = "text,label\na,x\n", '{"text": "a", "label": "x"}'
    for name, content in (("A.CSV", table), ("A.TSV", table.replace(",", "\t")), ("A.JSONL", line)):
        (tmp_path / name).write_text(content)
        (tmp_path / f"{name}.GZ").write_bytes(gzip.compress(content.encode()))
        for source in (name, f"{name}.GZ"):
            assert read(str(tmp_path / source)).rows == [{"text": "a", "label": "x"}]


def test_a_blank_line_is_an_empty_text_of_the_only_column_and_nothing_elsewhere(tmp_path):
    for name in ("a.tsv", "a.csv"):
        (tmp_path / name).write_text("\ntext\na\n\nb\n")
        assert read(str(tmp_path / name), labelled=False).texts()[0] == ["a", "", "b"]
        (tmp_path / f"two_{name}").write_text("text,label\n\na,x\n\nb,y\n\n".replace(",", "\t" if name == "a.tsv" else ","))
        assert read(str(tmp_path / f"two_{name}")).texts()[0] == ["a", "b"]


def test_columns_of_the_same_name_are_refused(tmp_path):
    header, plain = "text\tlabel\tlabel\n", "a\tx\ty\n"
    (tmp_path / "a.tsv").write_text(header + plain)
    with pytest.raises(UserError, match=r"a.tsv: several columns have the same name \(label\).*in the header; if that is a row"):
        read(str(tmp_path / "a.tsv"))
    (tmp_path / "b.tsv").write_text(plain)
    with pytest.raises(UserError, match=r"same name \(text\). Give each its own in --columns"):
        read(str(tmp_path / "b.tsv"), Reading(["text", "label", "text"]))
    (tmp_path / "c.csv").write_text("text,label,,\na,x,,\n")  # as spreadsheets write columns that were emptied
    assert read(str(tmp_path / "c.csv")).labels() == ["x"]


def test_a_carriage_return_within_a_text_is_told(tmp_path):
    for name in ("a.tsv", "a.csv"):
        (tmp_path / name).write_text("text,label\na\rb,x\n".replace(",", "\t" if name == "a.tsv" else ","), newline="")
        with pytest.raises(
            UserError, match="line 2: has 1 columns, .*ends with a lone carriage return, which may belong to a text"
        ):
            read(str(tmp_path / name))


def test_a_test_has_labels_in_all_rows_or_in_none_which_is_told(tmp_path, capsys):
    some = write_tsv(tmp_path / "some.tsv", [("a", "x"), ("b", " "), ("c", "")])
    with pytest.raises(UserError, match=r"some.tsv, row 2: has no label in the column label, as 2 of 3 rows\."):
        read(some, labelled=False)
    for header, rows, told in (
        (("text", "label"), [("a", ""), ("b", "")], "no label (its column label has none); it gets predictions, but no figures"),
        (("text", "lable"), [("a", "x"), ("b", "y")], "no label or score (it has: text, lable); it gets predictions"),
    ):
        path = write_tsv(tmp_path / "none.tsv", rows, header)
        assert read(path, labelled=False).columns.label is None
        assert f"{path}: {told}" in capsys.readouterr().out
    assert read(write_tsv(tmp_path / "all.tsv", [("a", "x"), ("b", "y")]), labelled=False).labels() == ["x", "y"]
    assert capsys.readouterr().out == ""


def test_labels_are_numbered_in_one_order_whatever_their_length_and_white_space():
    labels = ["b", "10", "2", "01", "1", "2" * 5000, "1" * 5000, "a", "٣"]  # the last is an Arabic 3
    expected = ["01", "1", "2", "٣", "10", "1" * 5000, "2" * 5000, "a", "b"]
    for turn in range(len(labels)):
        assert sorted(labels[turn:] + labels[:turn], key=in_order) == expected


def test_white_space_around_a_label_makes_no_other_label(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": "a", "label": label}) for label in ("1 ", "1", 1, "\u00a01", "in two words")))
    assert read(str(path)).labels() == ["1", "1", "1", "1", "in two words"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "half \\ud83d", "score": 1}', "row 31: expected a text as text, found half a character"),
        ('{"text": "a", "score": "\\ud83d"}', "row 31: has no label in the column score"),
        ('{"text": "a", "score": "high"}', r"row 31: expected a number to predict \(high\)"),
        ("[" * 100_000, "line 31: is no JSON"),
    ],
)
def test_a_bad_line_is_named_by_its_number_in_the_file(model, line, message, tmp_path):
    rows = [json.dumps({"text": "a", "score": number}) for number in range(30)]
    (tmp_path / "train.jsonl").write_text("\n".join([*rows, line]))
    with pytest.raises(UserError, match=message):
        finetune(FinetuneOptions(model=model, task="regression", train=str(tmp_path / "train.jsonl"), output=tmp_path / "out"))


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([("a", "x")] * 30, ("text", "label"), r"all rows have the same label \(x\)"),
        ([("a", "x"), ("b", "y")], ("text", "label"), "2 rows are too few to hold a tenth out"),
        ([("a", "x")] * 30, ("words", "class"), "no column text or sentence.*no column label or score; .*It has: words, class"),
        ([("a", "x"), ("b", "")] * 30, ("text", "label"), "row 2: has no label in the column label"),
        ([], ("text", "label"), "holds no rows"),
    ],
)
def test_what_cannot_be_learnt_is_said(model, rows, header, message, tmp_path):
    train = write_tsv(tmp_path / "train.tsv", rows, header)
    with pytest.raises(UserError, match=f"(?s){message}"):
        finetune(FinetuneOptions(model=model, train=train, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_labels_that_training_lacks_and_numbers_that_are_none_are_said(model, reviews, tmp_path):
    other = write_tsv(tmp_path / "other.tsv", [("a", "neutral")])
    with pytest.raises(UserError, match=r"other.tsv: has labels that --train does not have \(neutral\)"):
        finetune(FinetuneOptions(model=model, output=tmp_path / "out", **reviews | {"validation": other}))
    with pytest.raises(UserError, match=r"train.tsv, row 1: expected a number to predict \((pos|neg)\). Classes: --task class"):
        finetune(FinetuneOptions(model=model, output=tmp_path / "out", task="regression", **reviews))


def test_all_faults_of_the_options_are_in_one_error(tmp_path):
    with pytest.raises(UserError) as error:
        finetune(
            FinetuneOptions(model=tmp_path / "absent", output=tmp_path, epochs=0, seed=-1, learning_rate=math.nan, max_seq_length=3)
        )
    for name in ("model", "epochs", "seed", "learning_rate", "max_seq_length", "train"):
        assert f"--{name}: " in str(error.value)
    glue = FinetuneOptions(model=tmp_path, output=tmp_path, task="glue", train="a.tsv")
    with pytest.raises(UserError, match="(?s)--train: --task glue has files.*--glue_folder: is missing"):
        glue.check()


def test_a_folder_without_safetensors_and_an_input_too_long_for_the_model_are_said(model, reviews, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"has no model.safetensors. Pickled weights are not read"):
        finetune(FinetuneOptions(model=tmp_path / "model", output=tmp_path / "out", **reviews))
    with pytest.raises(UserError, match="--max_seq_length 65: the model takes 64 pieces at most"):
        finetune(FinetuneOptions(model=model, output=tmp_path / "out", max_seq_length=65, **reviews))


def test_a_tokenizer_of_another_model_is_said(model, reviews, tmp_path):
    small = transformers.AutoConfig.from_pretrained(model, vocab_size=1999)
    transformers.AlbertModel(small).save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(model / name, tmp_path / "model" / name)
    message = r"model: 2,000 pieces in tokenizer.json, but 1,999 in the model. Put the model's own tokenizer there\."
    with pytest.raises(UserError, match=f"--model .*{message}"):
        finetune(FinetuneOptions(model=tmp_path / "model", output=tmp_path / "out", **reviews))
    with pytest.raises(UserError, match=message):
        load_export(tmp_path / "model")


def test_a_folder_of_something_else_is_left_alone(model, reviews, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear")
    with pytest.raises(UserError, match="holds something else"):
        finetune(FinetuneOptions(model=model, output=tmp_path / "letters", **reviews))


def test_columns_asked_for_must_be_there_and_two_texts_need_a_word():
    rows, plain = [{"a": "1", "b": "2", "label": "x"}], Reading()
    assert find_columns(rows, Columns("a", "b", None), "f", plain, labelled=True) == Columns("a", "b", "label")
    with pytest.raises(UserError, match="no column c; give --text_pair NAME"):
        find_columns(rows, Columns("a", "c", None), "f", plain, labelled=True)
    rows = [{"question": "1", "sentence": "2", "label": "x"}]
    with pytest.raises(UserError, match="columns sentence and question; give --text NAME"):
        find_columns(rows, ANY, "f", plain, labelled=True)
    assert find_columns(rows, Columns("question", "sentence", None), "f", plain, labelled=True).text_pair == "sentence"


def test_the_columns_of_training_hold_for_all_splits(model, tmp_path):
    pairs = write_tsv(tmp_path / "train.tsv", [("a", "b", "x"), ("c", "d", "y")] * 20, ("sentence1", "sentence2", "label"))
    single = write_tsv(tmp_path / "dev.tsv", [("a", "b", "x")], ("text", "sentence1", "label"))
    with pytest.raises(UserError, match="dev.tsv: no column sentence2; give --text_pair NAME"):
        finetune(FinetuneOptions(model=model, train=pairs, validation=single, output=tmp_path / "out"))


def test_where_training_has_one_text_other_files_have_no_pair(tmp_path):
    single = write_tsv(tmp_path / "train.tsv", [("a", "x"), ("b", "y")])
    more = {
        split: write_tsv(tmp_path / f"{split}.tsv", [("a", "b", "x")], ("text", "sentence2", "label")) for split in ("dev", "test")
    }
    options = FinetuneOptions(model=tmp_path, output=tmp_path, train=single, validation=more["dev"], test=more["test"])
    for part in read_parts(options, private=False).values():
        assert part.texts()[1] is None
    pairs = replace(options, train=more["dev"], validation=more["dev"])
    assert {part.columns.text_pair for part in read_parts(pairs, private=False).values()} == {"sentence2"}


def test_a_rare_label_is_not_held_out(tmp_path):
    rows = [("a", "common")] * 99 + [("b", "rare")]
    train = read(write_tsv(tmp_path / "train.tsv", rows))
    for seed in range(30):
        parts = hold_out(train, seed, keep_labels=True)
        assert len(parts["validation"].rows) == 10
        assert len(parts["train"].rows) == 90
        assert "rare" in parts["train"].labels()


def test_an_error_of_a_private_model_quotes_no_row(model, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    config = json.loads((model / "tokenizer_config.json").read_text())
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(config | {"private": True}))
    canary = "zebrafinch"
    bad = {
        "no header": write_tsv(tmp_path / "a.tsv", [(f"{canary} one", "x")] * 30, header=None),
        "one label": write_tsv(tmp_path / "b.tsv", [("a", canary)] * 30),
        "ragged": write_tsv(tmp_path / "c.tsv", [(canary,)], (canary, "label")),
    }
    for source in bad.values():
        for task in ("classification", "regression"):
            with pytest.raises(UserError) as error:
                finetune(FinetuneOptions(model=tmp_path / "model", task=task, train=source, output=tmp_path / "out"))
            assert canary not in str(error.value)
    with pytest.raises(UserError, match=canary):  # and is seen without
        finetune(FinetuneOptions(model=model, train=bad["no header"], output=tmp_path / "out"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_said():
    for device, dtype in (("cuda", "fp32"), ("auto", "fp16")):
        with pytest.raises(UserError):
            check_device(device, dtype)
    check_device("auto", "bf16")


def test_weights_that_do_not_fit_are_said_and_a_missing_pooler_is_told(model, tmp_path, capsys):
    task = SimpleNamespace(auto_class="AutoModelForSequenceClassification", config={"num_labels": 2})
    transformers.AlbertForMaskedLM.from_pretrained(model).save_pretrained(tmp_path / "masked")
    make_model(task, FinetuneOptions(model=tmp_path / "masked", output=tmp_path))
    assert "has no pooler" in capsys.readouterr().out
    config = json.loads((tmp_path / "masked" / "config.json").read_text())
    (tmp_path / "masked" / "config.json").write_text(json.dumps(config | {"vocab_size": 1999}))
    with pytest.raises(UserError, match=r"its weights do not fit its config.json \(albert.embeddings.word_embeddings.weight\)"):
        make_model(task, FinetuneOptions(model=tmp_path / "masked", output=tmp_path))
