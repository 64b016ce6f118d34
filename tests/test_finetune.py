"""`albert finetune`: from labelled text to figures and a folder for `transformers.pipeline`."""

import csv
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
from datasets import Dataset

from downstream.contexts import Features as KnownFeatures
from downstream.finetune import finetune
from downstream.finetune_options import FinetuneOptions
from downstream.inspect_export import load_export
from downstream.scores import classification_scores, is_constant, regression_scores
from downstream.similarity import CosineModel, PairCollator
from downstream.task import Task
from downstream.train import BestEpoch, check_device, make_model, train
from tests.labelled_rows import QUICK, sentences, write_tsv
from tokenizer.errors import UserError
from tokenizer.files import write_json


@pytest.fixture
def reviews(tmp_path):
    """Options for 200 + 60 + 40 labelled sentences."""
    counts = {"train": 200, "validation": 60, "test": 40}
    return {name: write_tsv(tmp_path / f"{name}.tsv", sentences(count, seed)) for seed, (name, count) in enumerate(counts.items())}


def test_a_classifier_of_several_seeds_learns_loads_in_a_pipeline_and_is_the_best_of_them(model, reviews, tmp_path, capsys):
    finetune(FinetuneOptions(model=model, output=tmp_path / "out", num_seeds=2, seed=3, **reviews, **QUICK))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    by_seed = {each["seed"]: each["scores"] for each in results["seeds"]}
    assert list(by_seed) == [3, 4]
    for split in ("validation", "test"):
        values = [scores[split]["accuracy"] for scores in by_seed.values()]
        assert results["scores"][split]["accuracy"] == {"mean": statistics.mean(values), "std": statistics.stdev(values)}
    assert results["task"] == "classification"
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


@pytest.mark.parametrize(("rate", "advice"), [(1e-12, "a higher"), (5e-3, None), (1e3, "a lower")])
def test_a_classifier_that_learns_nothing_beyond_the_most_frequent_class_is_told_so(model, reviews, rate, advice, tmp_path, capsys):
    finetune(FinetuneOptions(model=model, output=tmp_path / "out", **reviews, **QUICK | {"learning_rate": rate}))
    (seed,) = json.loads((tmp_path / "out" / "results.json").read_text())["seeds"]
    printed = " ".join(capsys.readouterr().out.split())
    is_told = advice is not None
    assert seed["constant"] is is_told
    assert (seed["scores"]["validation"]["matthews"] == 0) is is_told
    message = "classification, seed 0: the model gives all validation rows the same class; "
    message += "it has learnt nothing beyond the most frequent one."
    assert (f"{message} Give {advice} --learning_rate (now {rate:g};" in printed) is is_told
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

    monkeypatch.setattr("downstream.train.transformers.set_seed", interrupted)
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


def test_what_stops_the_first_seed_leaves_its_best_epoch(model, reviews, tmp_path, monkeypatch):
    def interrupted(self, dataset):
        raise KeyboardInterrupt

    monkeypatch.setattr("downstream.train.InOrder.predict", interrupted)  # of `test`, after all epochs
    options = FinetuneOptions(model=model, output=tmp_path / "out", num_seeds=2, seed=3, **reviews, **QUICK)
    with pytest.raises(KeyboardInterrupt):
        finetune(options)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["num_seeds_done"], results["kept_seed"], list(results["scores"])) == (0, 3, ["validation"])
    assert results["seeds"][0]["epoch"] > 1
    predict = transformers.pipeline("text-classification", str(tmp_path / "out"))
    texts, labels = zip(*sentences(60, 1), strict=True)
    right = np.mean([answer["label"] == label for answer, label in zip(predict(list(texts)), labels, strict=True)])
    assert results["kept_scores"]["validation"]["accuracy"] == pytest.approx(right)
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert record["sessions"][-1]["exit_code"] is None
    assert [each["path"] for each in record["outputs"]]

    write_json(tmp_path / "out" / "results.json", results | {"num_seeds_done": 2})  # of a command that was done
    before = contents(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        finetune(replace(options, seed=4))
    assert contents(tmp_path / "out") == before


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_one_file_is_enough(albert, model, tmp_path):
    train = write_tsv(tmp_path / "mine.tsv", sentences(100, 0))
    options = ("--model", model, "--train", train, "--output", tmp_path / "out", "--epochs", 1, "--device", "cpu")
    output = albert("finetune", *options).stdout
    assert "text: text, label: label" in output
    assert "validation: 10 of the rows of --train, held out" in output
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rows"] == {"train": 90, "validation": 10}


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
        outputs_of.append(np.array(outputs))
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


def with_head(task, head):
    """The same rows with other labels, and `train` with many more labels in some batches than in others."""
    tokenizer = task.collate.tokenizer

    def labelled(split, row):
        ids = row["input_ids"]
        if head == "TokenClassification":
            share = 1 if len(ids) % 2 else 9
            return row | {"labels": [number % 2 if number % share == 0 else -100 for number in range(len(ids))]}
        del row["labels"]
        if head == "QuestionAnswering":
            return row | {"start_positions": ids[1] % len(ids), "end_positions": len(ids) - 1}
        return {"input_ids": ids, "token_type_ids": [0] * 5 + [1] * (len(ids) - 5), "labels": len(ids) / 64}

    if head == "SequenceClassification":
        return task
    splits = {split: Dataset.from_list([labelled(split, row) for row in rows]) for split, rows in task.splits.items()}
    task = task._replace(splits=splits, auto_class=f"AutoModelFor{head}", config={"num_labels": 2})
    if head == "TokenClassification":
        return task._replace(collate=transformers.DataCollatorForTokenClassification(tokenizer))
    if head == "Cosine":
        return task._replace(auto_class="AutoModel", config={}, wrap=CosineModel, collate=PairCollator(tokenizer.pad_token_id))
    return task


@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification", "QuestionAnswering", "Cosine"])
def test_micro_batches_give_the_weights_of_the_batch(model, head, tmp_path):
    def trained(**more):
        task = with_head(scripted(model, (0.5, 0.6))[0], head)
        options = FinetuneOptions(model=model, output=tmp_path, **QUICK | {"epochs": 2, "batch_size": 16} | more)
        return train(task, options, 0, tmp_path / "trainer").model.state_dict()

    whole, split, smaller = trained(), trained(micro_batch_size=4), trained(batch_size=4)  # 16 rows and 8, or 4 six times
    for name, tensor in whole.items():
        if name == "qa_outputs.bias":  # a softmax over the pieces does not see it: its gradient is rounding alone
            continue
        assert torch.allclose(split[name], tensor, atol=1e-5)  # sums in another order, through four steps
    name = next(name for name in whole if name.endswith("word_embeddings.weight"))
    assert (smaller[name] - whole[name]).abs().max() > 1e-3


def test_a_gpu_without_room_is_told_what_takes_less(model, tmp_path):
    task, _ = scripted(model, ())

    def collate(features):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    options = FinetuneOptions(model=model, output=tmp_path, **QUICK)
    for more, expected in (
        ({}, "--batch_size 16, --max_seq_length 64, --dtype fp32: .* Give --micro_batch_size 8 or .* or --dtype bf16.$"),
        (
            {"max_seq_length": 32, "dtype": "bf16", "micro_batch_size": 2},
            "--micro_batch_size 2, --max_seq_length 32, --dtype bf16: .* Give --micro_batch_size 1 or a smaller --max_seq_length.$",
        ),
    ):
        with pytest.raises(UserError, match=f"^{expected}"):
            train(task._replace(collate=collate), replace(options, **more), 0, tmp_path / "trainer")


def test_training_gives_the_best_epoch_with_its_predictions_when_later_ones_are_worse(model, tmp_path):
    task, outputs_of = scripted(model, (0.3, 0.8, 0.5, 0.4))
    options = FinetuneOptions(model=model, output=tmp_path, **QUICK | {"patience": 4, "learning_rate": 1e-2})
    kept = []
    trained = train(task, options, 0, tmp_path / "trainer", kept.append)
    assert [(each.epoch, each.scores) for each in kept] == [
        (1, {"validation": {"score": 0.3}}),
        (2, {"validation": {"score": 0.8}}),
    ]
    assert (trained.epoch, trained.scores["validation"]) == (2, {"score": 0.8})
    batch = task.collate([{name: row[name] for name in ("input_ids", "attention_mask")} for row in task.splits["validation"]])
    with torch.no_grad():
        logits = trained.model.eval()(**batch).logits.numpy()
    for epoch, outputs in enumerate(outputs_of, 1):
        assert np.allclose(trained.outputs["test"], outputs, atol=1e-5) is (epoch == 2)  # fp32, the same rows
        assert np.allclose(logits, outputs, atol=1e-5) is (epoch == 2)
    assert len(outputs_of) == 4


def test_features_are_made_once_an_epoch_in_batches_of_like_length(model, tmp_path):
    task, _ = scripted(model, (0.5, 0.6) * 2)
    made, spans, draw = [], [], random.Random(0)
    shorter = [(row, draw.randint(2, 12)) for row in list(task.splits["train"]) * 5]
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
    counted = task._replace(splits=splits, collate=collate)
    train(counted, options, 0, tmp_path / "trainer")
    assert sorted(made) == sorted([*range(len(rows))] * 2)
    of_training = spans[: len(rows) // 8]  # batches of the first epoch
    assert np.mean(of_training) < (max(lengths) - min(lengths)) / 2  # of rows in any order 0.9 of it
    whole = made.copy()
    made.clear()
    train(counted, replace(options, micro_batch_size=2), 0, tmp_path / "trainer")
    assert made == whole


@pytest.mark.parametrize("more", [{"dtype": "bf16"}, {"weight_decay": 1.0}])
def test_a_type_of_products_or_a_weight_decay_makes_a_difference(model, more, tmp_path):
    def trained(**more):
        task, _ = scripted(model, (0.5,))
        options = FinetuneOptions(model=model, output=tmp_path, **QUICK | {"epochs": 1} | more)
        return train(task, options, 0, tmp_path / "trainer").model.state_dict()

    plain, other = trained(), trained(**more)
    assert all(tensor.isfinite().all() and tensor.dtype == torch.float32 for tensor in other.values())
    assert not torch.equal(other["classifier.weight"], plain["classifier.weight"])
    if "weight_decay" in more:
        assert other["classifier.weight"].norm() < plain["classifier.weight"].norm()


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (3, 6)])
def test_training_ends_after_patience_epochs_without_a_better_one(model, patience, epochs, tmp_path):
    task, outputs_of = scripted(model, (0.5, 0.6, 0.6, 0.1, 0.9, 0.2))
    options = FinetuneOptions(model=model, output=tmp_path, **QUICK | {"patience": patience, "epochs": 6})
    train(task, options, 0, tmp_path / "trainer")
    assert len(outputs_of) == epochs


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
    for size in (0, 3, 64):
        with pytest.raises(UserError, match=f"--micro_batch_size {size}: must divide --batch_size 32"):
            FinetuneOptions(model=tmp_path, output=tmp_path / "out", train="a.tsv", micro_batch_size=size).check()
    glue = FinetuneOptions(model=tmp_path, output=tmp_path, task="glue", train="a.tsv")
    with pytest.raises(UserError, match="(?s)--train: --task glue has files.*--glue_folder: is missing"):
        glue.check()


@pytest.mark.parametrize(
    ("model", "output"), [("out", "out"), ("out", "link"), ("glue/CoLA", "glue"), ("link/../out", "glue/../out/")]
)
def test_an_output_that_would_replace_the_model_is_refused(model, output, tmp_path):
    for folder in ("out", "glue/CoLA"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to("out")
    options = FinetuneOptions(model=tmp_path / model, output=tmp_path / output, train="a.tsv")
    with pytest.raises(UserError, match=f"^--output: .*/{output.rstrip('/')} would be replaced, and --model .*/{model} with it"):
        options.check()
    for other in ("out2", "out/inside", "glue/MRPC"):
        replace(options, output=tmp_path / other).check()


def test_a_folder_without_safetensors_and_an_input_too_long_for_the_model_are_said(model, reviews, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(UserError, match="has no model.safetensors. Pickled weights are not read"):
        finetune(FinetuneOptions(model=tmp_path / "model", output=tmp_path / "out", **reviews))
    (tmp_path / "model" / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="has no model.safetensors. Give a folder that `albert export` wrote, or any"):
        finetune(FinetuneOptions(model=tmp_path / "model", output=tmp_path / "out", **reviews))
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").touch()
    with pytest.raises(UserError, match="run: is a run. Export it first: albert export --run .*/run --output .*/run_hf$"):
        finetune(FinetuneOptions(model=tmp_path / "run", output=tmp_path / "out", **reviews))
    with pytest.raises(UserError, match="--max_seq_length 65: the model takes 64 pieces at most"):
        finetune(FinetuneOptions(model=model, output=tmp_path / "out", max_seq_length=65, **reviews))


def test_the_output_has_the_tokenizer_of_a_model_with_a_wordpiece_vocabulary(model, reviews, tmp_path):
    folder, special = tmp_path / "model", ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("tokenizer*", "spiece.model"))
    (folder / "vocab.txt").write_text("\n".join([*special, "the", "budget", "is", "strong", "weak", "##er", "and"]))
    with pytest.raises(UserError, match='model: has neither .* WordPiece, write {"tokenizer_class": "BertTokenizer"} into its'):
        finetune(FinetuneOptions(model=folder, output=tmp_path / "out", **reviews))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    (folder / "added_tokens.json").write_text('{"[NAME]": 12}')
    options = FinetuneOptions(model=folder, output=tmp_path / "out", **reviews, **QUICK | {"epochs": 1})
    finetune(options)
    ids_of = transformers.AutoTokenizer.from_pretrained(folder)("The budget is weaker")["input_ids"]
    assert ids_of == [2, 5, 6, 7, 9, 10, 3]
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out")("The budget is weaker")["input_ids"] == ids_of
    assert (tmp_path / "out" / "added_tokens.json").read_bytes() == (folder / "added_tokens.json").read_bytes()
    finetune(options)  # may be replaced


def test_a_tokenizer_of_another_model_is_said(model, reviews, tmp_path):
    small = transformers.AutoConfig.from_pretrained(model, vocab_size=1999)
    transformers.AlbertModel(small).save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(model / name, tmp_path / "model" / name)
    message = r"model: 2,000 pieces in the tokenizer, but 1,999 in the model. Put the model's own tokenizer there\."
    with pytest.raises(UserError, match=message):
        finetune(FinetuneOptions(model=tmp_path / "model", output=tmp_path / "out", **reviews))
    with pytest.raises(UserError, match=message):
        load_export(tmp_path / "model")


def test_a_folder_of_something_else_is_left_alone(model, reviews, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "love.txt").write_text("dear")
    with pytest.raises(UserError, match="holds something else"):
        finetune(FinetuneOptions(model=model, output=tmp_path / "letters", **reviews))


def test_the_columns_of_training_hold_for_all_splits(model, tmp_path):
    pairs = write_tsv(tmp_path / "train.tsv", [("a", "b", "x"), ("c", "d", "y")] * 20, ("sentence1", "sentence2", "label"))
    single = write_tsv(tmp_path / "dev.tsv", [("a", "b", "x")], ("text", "sentence1", "label"))
    with pytest.raises(UserError, match="dev.tsv: no column sentence2; give --text_pair NAME"):
        finetune(FinetuneOptions(model=model, train=pairs, validation=single, output=tmp_path / "out"))


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
    for without in ("AutoModel", "AutoModelForTokenClassification"):  # no head of ours reads it
        make_model(SimpleNamespace(auto_class=without, config={}), FinetuneOptions(model=tmp_path / "masked", output=tmp_path))
        assert capsys.readouterr().out == ""
    config = json.loads((tmp_path / "masked" / "config.json").read_text())
    (tmp_path / "masked" / "config.json").write_text(json.dumps(config | {"vocab_size": 1999}))
    with pytest.raises(UserError, match=r"its weights do not fit its config.json \(albert.embeddings.word_embeddings.weight\)"):
        make_model(task, FinetuneOptions(model=tmp_path / "masked", output=tmp_path))
    (tmp_path / "masked" / "model.safetensors").write_text("half")
    with pytest.raises(UserError, match="masked: cannot be loaded"):
        make_model(task, FinetuneOptions(model=tmp_path / "masked", output=tmp_path))
