"""The five commands of the README on the bundled corpus, small: raw text in, a folder that `transformers` loads out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.schema import read_manifest
from pretrain.checkpoint import load_weights
from pretrain.config_file import load_config
from pretrain.data import collate, open_split
from pretrain.model import Albert
from tokenizer.corpus import read_documents
from tokenizer.encoder import Encoder

transformers = pytest.importorskip("transformers", reason="the export is checked with the extra `transformers`")

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "data_prep" / "bundled" / "sotu_1961_2026.txt.gz"
SMALL = [
    "--model.hidden_size",
    32,
    "--model.intermediate_size",
    64,
    "--model.share",
    "attention",
    "--training.global_batch_size",
    8,
]


@pytest.fixture(scope="module")
def work(albert, tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("pipeline")
    options = ("--validation_fraction", 0.05, "--dupe_factor", 1)
    albert("tokenizer", "--input", CORPUS, "--output", work / "tokenizer", "--vocab_size", 600)
    albert(
        "prepare", "--input", CORPUS, "--tokenizer", work / "tokenizer", "--output", work / "data", "--max_seq_length", 32, *options
    )
    steps = ["--training.steps", 4, "--training.validate_every_n_steps", 2, "--checkpoint.every_n_steps", 2]
    where = ("--config", ROOT / "configs" / "demo.yaml", "--data", work / "data", "--output", work / "run")
    albert("launch", *where, *SMALL, *steps, "--training.max_validation_instances", 50, "--logging.every_n_steps", 2)
    albert("export", "--run", work / "run", "--output", work / "hf")
    return work


def test_the_export_holds_what_the_readme_lists(work):
    files = {"README.md", "config.json", "model.safetensors", "spiece.model", "tokenizer.json", "tokenizer_config.json"}
    files.add("provenance.json")
    assert {path.name for path in (work / "hf").iterdir()} == files


def test_logits_of_the_export_equal_ours_on_held_out_text(work):
    config = load_config(work / "run" / "config.yaml")
    manifest = read_manifest(work / "data")
    model = Albert(config.model, manifest.vocab_size).eval()
    load_weights(work / "run" / "checkpoints" / "step-4", model)
    theirs = transformers.AlbertForPreTraining.from_pretrained(work / "hf").eval()
    split = open_split(work / "data", manifest, "validation")
    for index in range(5):
        batch = collate(split.read(np.array([index])))
        with torch.no_grad():
            mlm_logits, sop_logits = model.logits(batch)
            output = theirs(batch.input_ids_N[None], token_type_ids=batch.segment_ids_N[None])
        torch.testing.assert_close(
            mlm_logits, output.prediction_logits[0, batch.read_index_R[batch.mlm_index_M]], atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(sop_logits, output.sop_logits, atol=1e-5, rtol=1e-5)


def test_the_exported_tokenizer_gives_the_ids_of_data_preparation(work):
    encoder = Encoder(work / "data" / "tokenizer")
    lines = [line for document in list(read_documents([str(CORPUS)]))[:5] for line in document.text.split("\n")[:40]]
    ours = [ids.tolist() for ids in encoder.encode(lines)]
    for kind in (transformers.AutoTokenizer, transformers.AlbertTokenizer):
        exported = kind.from_pretrained(work / "hf")
        assert exported(lines, add_special_tokens=False)["input_ids"] == ours
    pair = exported("we the people", "of the union")
    assert set(pair["token_type_ids"]) == {0, 1}
    assert exported.model_max_length == load_config(work / "run" / "config.yaml").model.max_position_embeddings


def test_fill_mask_runs_on_the_export(work):
    guesses = transformers.pipeline("fill-mask", str(work / "hf"))("The state of the [MASK] is strong.")
    assert len(guesses) == 5
    assert all(0 < guess["score"] < 1 for guess in guesses)


def test_the_model_card_states_the_runs_own_figures(work):
    card = (work / "hf" / "README.md").read_text()
    records = map(json.loads, (work / "run" / "metrics.jsonl").read_text().splitlines())
    last = [record for record in records if record["event"] == "validation"][-1]
    assert f"{last['mlm_loss']:.4f}" in card
    assert "4 steps of 8 instances" in card
    assert read_manifest(work / "data").tokenizer_sha256 in card


def test_a_step_and_the_best_can_be_exported_and_an_absent_one_is_named(work, albert, tmp_path):
    for which in ("2", "best"):
        albert("export", "--run", work / "run", "--output", tmp_path / which, "--checkpoint", which)
        assert (tmp_path / which / "model.safetensors").exists()
    error = albert("export", "--run", work / "run", "--output", tmp_path / "x", "--checkpoint", "3", code=2).stderr
    assert "--checkpoint 3: no such checkpoint" in error
    assert "(2, 4)" in error
    assert not (tmp_path / "x").exists()


def test_a_damaged_checkpoint_is_not_exported_by_name_and_passed_over_by_last(work, albert, tmp_path):
    shutil.copytree(work / "run", tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step-4" / "model.safetensors").write_bytes(b"no")
    error = albert("export", "--run", tmp_path / "run", "--output", tmp_path / "hf", "--checkpoint", "4", code=2).stderr
    assert "model.safetensors is damaged" in error
    output = albert("export", "--run", tmp_path / "run", "--output", tmp_path / "hf").stdout
    assert "exported step 2" in output


def test_an_export_is_replaced_by_another_and_needs_the_tokenizer_of_the_data(work, albert, tmp_path):
    shutil.copytree(work / "hf", tmp_path / "hf")
    albert("export", "--run", work / "run", "--output", tmp_path / "hf", "--checkpoint", 2)
    assert "2 steps of 8 instances" in (tmp_path / "hf" / "README.md").read_text()
    shutil.copytree(work / "data", tmp_path / "data")
    (tmp_path / "data" / "tokenizer" / "tokenizer.json").unlink()
    shutil.copytree(work / "run", tmp_path / "run")
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(work / "data"), str(tmp_path / "data")))
    error = albert("export", "--run", tmp_path / "run", "--output", tmp_path / "hf2", code=2).stderr
    assert "tokenizer.json: cannot be read" in error
    assert not (tmp_path / "hf2").exists()


def test_training_goes_on_from_an_export(work, albert, tmp_path):
    where = ("--config", ROOT / "configs" / "demo.yaml", "--data", work / "data", "--output", tmp_path / "run")
    small = [*SMALL[:4], "--model.share", "none", "--training.global_batch_size", 8, "--training.max_validation_instances", 50]
    albert("launch", *where, *small, "--training.steps", 1, "--model.init_from", work / "hf")
    validations = [
        [
            record
            for record in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
            if record["event"] == "validation"
        ]
        for folder in (work / "run", tmp_path / "run")
    ]
    assert validations[1][0]["mlm_loss"] == pytest.approx(validations[0][-1]["mlm_loss"], abs=1e-5)


def test_export_refuses_a_folder_of_other_things(work, albert, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "config.json").write_text("{}")
    assert "holds something else" in albert("export", "--run", work / "run", "--output", tmp_path, code=2).stderr
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.txt", "config.json"}
    assert (tmp_path / "config.json").read_text() == "{}"
