"""The experiment of docs/does_it_help.md from text to table, tiny."""

import json
import re

import pytest

from benchmarks.sentiment import main

CONFIG = """
model:
  embedding_size: 8
  hidden_size: 16
  num_hidden_layers: 1
  num_attention_heads: 2
  intermediate_size: 16
  max_position_embeddings: 32
training:
  global_batch_size: 8
  micro_batch_size: 8
  compile: false
  max_validation_instances: 8
precision:
  dtype: fp32
  device: cpu
schedule:
  warmup_steps: 1
  total_steps: 4
"""


@pytest.fixture
def labelled(tmp_path):
    """Sentences with a good or a bad word; one holds a line separator, which ends no line of JSON."""
    folder = tmp_path / "labelled"
    folder.mkdir()
    for name, count in (("train", 24), ("dev", 8), ("test", 8)):
        words = [("strong", "pos"), ("weak\u2028ened", "neg")]
        rows = [
            {"text": f"The nation is {word} {number}.", "label": label} for number in range(count // 2) for word, label in words
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_an_experiment_from_text_to_table(corpus, tokenizer, labelled, tmp_path, capsys):
    work, config = tmp_path / "work", tmp_path / "config.yaml"
    work.mkdir()
    (work / "tokenizer").symlink_to(tokenizer)
    config.write_text(CONFIG)
    command = ["--input", str(corpus), "--labelled", str(labelled), "--work", str(work), "--config", str(config)]
    command += ["--arms", "albert", "random", "--steps", "4", "--dupe_factor", "1", "--train_rows", "16", "--num_seeds", "2"]
    command += ["--learning_rates", "1e-3", "--jobs", "2", "--optimizer.lr", "0.001"]
    with pytest.raises(SystemExit):
        main([*command, "--arms", "random"])
    assert "takes the shape of albert" in capsys.readouterr().err

    assert main([*command, "--epochs", "1"]) == 0
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0].strip("| ") for line in printed[2:]] == ["pretrained", "random weights", "naive Bayes over words"]
    results = json.loads((work / "results_16_1.json").read_text())
    assert {arm: [len(result["seeds"]), result["learning_rate"]] for arm, result in results.items()} == {
        "albert": [2, 0.001],
        "random": [2, 0.001],
    }
    for name in ("launch_albert", "finetune_random_16_1_0.001"):
        assert (work / "logs" / f"{name}.log").exists()
    with (work / "train_16.jsonl").open(encoding="utf-8") as rows:
        assert len({json.loads(row)["text"] for row in rows}) == 16

    assert main([*command, "--epochs", "1", "--jobs", "1"]) == 0
    again = capsys.readouterr().out.splitlines()
    assert [line for line in again if line.startswith("|")] == printed
    have_nothing_to_do = ["prepare_albert", "launch_albert"]
    assert [line.partition(":")[0] for line in again if ": exit code" in line] == have_nothing_to_do
    assert main([*command, "--dupe_factor", "2"]) == 2
    assert "made with other settings (dupe_factor: 1 -> 2)" in capsys.readouterr().err
    assert main([*command, "--labelled", str(tmp_path / "typo")]) == 2
    assert re.search("not there: .*typo/train.jsonl", capsys.readouterr().err)
    assert main([*command, "--epochs", "2"]) == 0
    tuned = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines() if ": exit code" in line]
    assert sorted(tuned) == sorted(["finetune_albert_16_2_0.001", "finetune_random_16_2_0.001", *have_nothing_to_do])
