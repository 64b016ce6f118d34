"""`albert finetune --task similarity`: pairs with a score, embeddings whose cosines follow it."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from scipy.stats import pearsonr, spearmanr

from downstream.embeddings import embed_texts, load_encoder, normalize
from downstream.finetune import finetune
from downstream.finetune_options import FinetuneOptions
from downstream.similarity import CosineModel, PairCollator
from tokenizer.errors import UserError

HEADER = ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score")
"""Of STS-B as GLUE has it."""
GOOD = ("The economy grows", "Our nation is strong", "The budget works", "This Congress does well")
BAD = ("The farms have failed", "That treaty costs too much", "A war is lost", "The roads are weak")


def pairs(count: int, seed: int) -> list[tuple[str, str, float]]:
    """Like if both are good or both are bad, whatever their words."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        sides = [draw.choice((GOOD, BAD)) for _ in range(2)]
        noise = draw.random()
        texts = (f"{draw.choice(side)} in {draw.randint(1900, 2026)}" for side in sides)  # no two cosines are the same
        rows.append((*texts, round(4 + noise if sides[0] is sides[1] else noise, 2)))
    return rows


def write_sts(path, rows, header=HEADER):
    lines = [header] + [(number, "news", "f", 2012, number, "none", "none", *row) for number, row in enumerate(rows)]
    path.write_text("\n".join("\t".join(map(str, line[: len(header)])) for line in lines) + "\n")
    return str(path)


@pytest.fixture
def sts(tmp_path):
    counts = {"train": 240, "validation": 60, "test": 40}
    return {name: write_sts(tmp_path / f"{name}.tsv", pairs(count, seed)) for seed, (name, count) in enumerate(counts.items())}


QUICK = {"task": "similarity", "batch_size": 16, "device": "cpu"}


def cosines(folder, path):
    rows = [line.split("\t") for line in Path(path).read_text().splitlines()[1:]]
    encoder, tokenizer = load_encoder(folder)
    first, second = (normalize(embed_texts([row[column] for row in rows], encoder, tokenizer)) for column in (7, 8))
    return (first * second).sum(-1), [float(row[9]) for row in rows]


def test_training_brings_cosines_nearer_to_the_scores_and_the_folder_is_a_plain_encoder(model, sts, tmp_path):
    finetune(FinetuneOptions(model=model, output=tmp_path / "raw", epochs=0, **sts, **QUICK))
    finetune(FinetuneOptions(model=model, output=tmp_path / "out", epochs=5, learning_rate=2e-3, **sts, **QUICK))
    raw, trained = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("raw", "out"))
    assert raw["rows"] == {"validation": 60, "test": 40}
    assert trained["rows"] == {"train": 240, "validation": 60, "test": 40}
    assert raw["scores"]["test"]["pearson"]["mean"] < 0.5
    assert trained["scores"]["test"]["pearson"]["mean"] > 0.9
    for folder, results in ((model, raw), (tmp_path / "raw", raw), (tmp_path / "out", trained)):
        found, scores = cosines(folder, sts["test"])
        for name, function in (("spearman", spearmanr), ("pearson", pearsonr)):
            assert results["scores"]["test"][name]["mean"] == pytest.approx(function(found, scores)[0], abs=1e-3)
        assert results["scores"]["test"]["score"] == results["scores"]["test"]["spearman"]
    lines = (tmp_path / "out" / "predictions_test.tsv").read_text().splitlines()
    np.testing.assert_allclose([float(line.split("\t")[1]) for line in lines[1:]], found, atol=1e-4)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["AlbertModel"]
    _, info = transformers.AlbertModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert [info[name] for name in ("missing_keys", "unexpected_keys")] == [set(), set()]
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert {"modules.json", "1_Pooling/config.json", "model.safetensors"} <= {entry["path"] for entry in record["outputs"]}


def test_a_measured_export_keeps_its_weights_and_may_be_measured_again(model, sts, tmp_path):
    options = FinetuneOptions(model=model, output=tmp_path / "out", epochs=0, validation=sts["test"], **QUICK)
    finetune(options)
    finetune(options)
    before, after = (transformers.AlbertModel.from_pretrained(folder).state_dict() for folder in (model, tmp_path / "out"))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_rows_of_jsonl_and_a_test_without_scores(model, tmp_path):
    rows = [{"text": first, "text_pair": second, "score": score} for first, second, score in pairs(40, 0)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    test = write_sts(tmp_path / "test.tsv", pairs(5, 1), HEADER[:-1])
    Dataset.from_list(rows).to_parquet(tmp_path / "set" / "validation.parquet")
    options = FinetuneOptions(
        model=model, output=tmp_path / "out", epochs=1, train=str(tmp_path / "train.jsonl"), text="text", **QUICK
    )
    finetune(options)
    with pytest.raises(UserError, match="test.tsv: no column text; give --text NAME; no column text_pair"):
        finetune(FinetuneOptions(**vars(options) | {"test": test}))
    unscored = [{name: row[name] for name in ("text", "text_pair")} for row in rows[:5]]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, unscored)))
    more = {"test": str(tmp_path / "test.jsonl"), "validation": f"hf:{tmp_path}/set"}
    finetune(FinetuneOptions(**vars(options) | more))
    assert list(json.loads((tmp_path / "out" / "results.json").read_text())["scores"]) == ["validation"]
    assert len((tmp_path / "out" / "predictions_test.tsv").read_text().splitlines()) == 6


def test_the_loss_is_the_squared_error_of_the_cosine_and_padding_counts_for_nothing(model):
    encoder = transformers.AlbertModel.from_pretrained(model).eval()
    features = [
        {"input_ids": [2, 40, 41, 3, 2, 50, 3], "token_type_ids": [0] * 4 + [1] * 3, "labels": 0.25},
        {"input_ids": [2, 60, 3, 2, 70, 71, 72, 73, 3], "token_type_ids": [0] * 3 + [1] * 6, "labels": 1.0},
    ]
    batch = PairCollator(pad_id=0)(features)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 2, 6)
    found = CosineModel(encoder)(**batch)
    expected = []
    for feature in features:
        border = feature["token_type_ids"].index(1)
        sides = (feature["input_ids"][:border], feature["input_ids"][border:])
        vectors = [encoder(torch.tensor([ids])).last_hidden_state.mean(1)[0] for ids in sides]
        expected.append(torch.dot(*vectors) / (vectors[0].norm() * vectors[1].norm()))
    expected = torch.stack(expected)
    torch.testing.assert_close(found["logits"], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found["loss"], ((expected - torch.tensor([0.25, 1.0])) ** 2).mean(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([("a", "b", 3)] * 30, HEADER, "all rows have the same score"),
        ([("a", "b", "high")] * 30, HEADER, r"row 1: expected a number to predict \(high\)"),
        ([("a", "b", 1), ("a", "b", 2)] * 20, (*HEADER[:8], "other", "score"), "has no second text; give --text_pair NAME"),
        ([("a", "b", 1)] * 30, HEADER[:-1], "no column label or score"),
    ],
)
def test_what_cannot_be_learnt_is_said(model, rows, header, message, tmp_path):
    train = write_sts(tmp_path / "train.tsv", rows, header)
    with pytest.raises(UserError, match=message):
        finetune(FinetuneOptions(model=model, output=tmp_path / "out", train=train, **QUICK))
    assert not (tmp_path / "out").exists()


def test_no_epochs_are_for_similarity_alone_and_need_something_to_measure(model, tmp_path):
    common = {"model": model, "output": tmp_path / "out"}
    with pytest.raises(UserError, match="--validation: is missing; give the pairs to measure"):
        FinetuneOptions(task="similarity", epochs=0, test="a.tsv", **common).check()
    with pytest.raises(UserError, match="--train: is missing"):
        FinetuneOptions(task="similarity", validation="a.tsv", **common).check()
    with pytest.raises(UserError, match="--epochs: must be above 0"):
        FinetuneOptions(epochs=0, train="a.tsv", **common).check()
    with pytest.raises(UserError, match="--epochs: must be at least 0"):
        FinetuneOptions(task="similarity", epochs=-1, train="a.tsv", **common).check()
