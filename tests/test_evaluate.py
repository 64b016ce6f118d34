"""`albert evaluate` against training's own validation, against Hugging Face, and against plain loops; and what it refuses."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from prepared import read
from runs import STEPS, records
from safetensors.torch import load_file, save_file
from synthetic import VOCAB_SIZE
from torch.nn.utils.rnn import pad_sequence

from data_prep.schema import read_manifest
from pretrain.breakdown import HeldOut, interval, length_bands, mean_and_error, rank_bands
from pretrain.checkpoint import load_weights
from pretrain.comparison import evaluate
from pretrain.comparison_table import accuracy
from pretrain.config_file import load_config
from pretrain.data import collate, open_split
from pretrain.evaluate_options import EvaluateOptions
from pretrain.export import load_model as load_run_model
from pretrain.export import write_model
from pretrain.hf_weights import hf_config
from pretrain.model import Albert
from pretrain.model_folder import hash_of_weights, load_model, open_model
from tokenizer.errors import UserError
from tokenizer.files import sha256_of_files
from tokenizer.special_tokens import FIRST_ORDINARY_ID

CLOSE = {"abs": 1e-5}
"""fp32 sums of some hundred losses of size 4, in another order."""


def compare(*models: Path, **options) -> dict:
    return evaluate(EvaluateOptions(model=list(map(str, models)), **options))


@pytest.fixture(scope="module")
def hf(undisturbed, tmp_path_factory) -> Path:
    """What an export holds that is loaded; the synthetic tokenizer has pieces and no chain, so `albert export` would refuse it."""
    folder = tmp_path_factory.mktemp("evaluate") / "hf"
    folder.mkdir()
    config = load_config(undisturbed / "config.yaml")
    manifest = read_manifest(config.data.path)
    weights = load_file(undisturbed / "checkpoints" / f"step-{STEPS}" / "model.safetensors")
    write_model(folder, load_run_model(weights, config, manifest, torch.float32), config, manifest, torch.float32)
    return folder


@pytest.fixture(scope="module")
def compared(undisturbed, hf) -> dict:
    return compare(undisturbed, hf)


def copy(hf: Path, to: Path, weights: dict | None = None, **config) -> Path:
    """The export with other weights or another config.json."""
    shutil.copytree(hf, to)
    (to / "config.json").write_text(json.dumps(json.loads((hf / "config.json").read_text()) | config))
    if weights is not None:
        save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


def test_a_run_has_the_figures_of_its_last_validation_and_of_the_one_of_the_step(undisturbed, compared):
    by_step = {record["step"]: record for record in records(undisturbed, "validation")}
    assert_validation(compared["columns"][2], by_step[10])
    assert_validation(compare(undisturbed, checkpoint="5", micro_batch_size=3)["columns"][2], by_step[5])


def test_checkpoints_of_one_run_stand_side_by_side(undisturbed, compared):
    checkpoints = [undisturbed / "checkpoints" / f"step-{step}" for step in (5, 10)]
    earlier, later = compare(*checkpoints, checkpoint="best")["columns"][2:]
    assert [Path(column["path"]) for column in (earlier, later)] == checkpoints
    assert (earlier["step"], later["step"]) == (5, 10)
    assert later["masked_lm"] == compared["columns"][2]["masked_lm"] != earlier["masked_lm"]
    with pytest.raises(UserError, match="--checkpoint 7: no such checkpoint"):
        compare(undisturbed / "checkpoints" / "step-7")


def test_a_step_is_a_model_in_its_own_folder_and_a_number_is_no_step(undisturbed, hf, tmp_path, monkeypatch):
    monkeypatch.chdir(undisturbed / "checkpoints")
    assert open_model(Path("step-5"), "last").state["step"] == 5
    (tmp_path / "checkpoints").mkdir()
    hugging_face = copy(hf, tmp_path / "checkpoints" / "500")
    assert open_model(hugging_face, "last").kind == "hugging_face"
    assert open_model(hugging_face.rename(tmp_path / "checkpoints" / "step-500"), "last").kind == "hugging_face"


def test_equal_shares_in_all_instances_claim_no_more_than_a_trial_each():
    """A third is no binary fraction, so the residuals are not quite 0."""
    for share, num_instances in ((1 / 3, 3), (0.5, 2)):
        hits = np.tile(np.arange(round(1 / share)) == 0, num_instances).astype(float)
        mean, error = mean_and_error(hits, np.arange(num_instances).repeat(round(1 / share)))
        assert (mean, error) == (pytest.approx(share), 0.0)
        low, high = interval(mean, error, num_instances)
        assert high - low > 0.5


def assert_validation(column: dict, record: dict) -> None:
    assert column["masked_lm"]["loss"] == pytest.approx(record["mlm_loss"], **CLOSE)
    assert column["masked_lm"]["accuracy"] == pytest.approx(record["mlm_accuracy"], **CLOSE)
    assert column["sentence_order"]["loss"] == pytest.approx(record["sop_loss"], **CLOSE)
    assert column["sentence_order"]["accuracy"] == pytest.approx(record["sop_accuracy"], **CLOSE)


def test_random_weights_are_those_that_the_run_began_with(undisturbed, compared):
    column = compared["columns"][1]
    assert column["name"] == "random"
    assert_validation(column, records(undisturbed, "validation")[0])


def test_an_export_has_the_figures_of_its_run_and_of_hugging_face_on_a_padded_batch(undisturbed, hf, compared):
    transformers = pytest.importorskip("transformers", reason="parity needs the extra `transformers`")
    run, exported = compared["columns"][2:]
    for key in ("masked_lm", "masked_lm_by_run_length", "masked_lm_by_piece_rank", "sentence_order", "sentence_order_by_length"):
        assert exported[key] == run[key]
    assert (run["trained_on_this_data"], exported["trained_on_this_data"]) == (True, None)
    data = load_config(undisturbed / "config.yaml").data.path
    split = open_split(data, read_manifest(data), "validation")
    inputs, order_labels = padded(split.read(np.arange(len(split))))
    with torch.no_grad():
        output = transformers.AlbertForPreTraining.from_pretrained(hf).eval()(**inputs, sentence_order_label=order_labels)
    labels = inputs["labels"]
    hits = (output.prediction_logits.argmax(-1) == labels)[labels != -100]
    assert exported["masked_lm"]["pieces"] == len(hits)
    assert exported["masked_lm"]["accuracy"] == pytest.approx(hits.double().mean().item(), **CLOSE)
    assert exported["masked_lm"]["loss"] + exported["sentence_order"]["loss"] == pytest.approx(output.loss.item(), **CLOSE)
    assert exported["masked_lm"]["perplexity"] == pytest.approx(math.exp(exported["masked_lm"]["loss"]))


def padded(instances: list) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """As Hugging Face takes them."""
    rows = []
    for ids, border, _, positions, labels in instances:
        targets = torch.full((len(ids),), -100)
        targets[torch.from_numpy(positions.astype(np.int64))] = torch.from_numpy(labels.astype(np.int64))
        segments = torch.arange(len(ids)) >= (int(border) or len(ids))
        rows.append((torch.from_numpy(ids.astype(np.int64)), torch.ones(len(ids), dtype=torch.int64), segments.long(), targets))
    names, values = ("input_ids", "attention_mask", "token_type_ids", "labels"), (0, 0, 0, -100)
    inputs = {
        name: pad_sequence(list(column), batch_first=True, padding_value=value)
        for name, value, column in zip(names, values, zip(*rows, strict=True), strict=True)
    }
    return inputs, torch.tensor([int(instance.sentence_order_label) for instance in instances])


def test_every_band_is_what_plain_loops_find(undisturbed, synthetic):
    found = compare(undisturbed, split="train", max_instances=30)
    config, manifest = load_config(undisturbed / "config.yaml"), read_manifest(synthetic)
    model = Albert(config.model, VOCAB_SIZE).eval()
    load_weights(undisturbed / "checkpoints" / "step-10", model)
    split = open_split(synthetic, manifest, "train")
    counts = [0] * VOCAB_SIZE
    for instance in split.read(np.arange(len(split))):
        for label in instance.mlm_labels:
            counts[label] += 1
    by_run, order, floor = {}, {}, []
    rows = sorted({int(number * 43 / 29) for number in range(30)})
    assert len(rows) == found["instances"] == 30
    for row in rows:
        (instance,) = split.read(np.array([row]))
        with torch.no_grad():
            logits, order_logits = model.logits(collate([instance]))
        masked = {int(place): int(label) for place, label in zip(instance.mlm_positions, instance.mlm_labels, strict=True)}
        for number, (place, label) in enumerate(masked.items()):
            loss, hit = -logits[number].log_softmax(-1)[label].item(), logits[number].argmax().item() == label
            by_run.setdefault(words_around(place, masked), []).append((row, loss, hit))
            probability = (counts[label] + 1) / (sum(counts) + VOCAB_SIZE)
            floor.append((row, -math.log(probability), counts.index(max(counts)) == label))
        if (label := instance.sentence_order_label) >= 0:
            loss = -order_logits[0].log_softmax(-1)[label].item()
            order.setdefault("25 to 32", []).append((row, loss, order_logits[0].argmax().item() == label))
    names = {1: "1 word", 2: "2 words", 3: "3 words", 4: "over 3 words"}
    run = found["columns"][2]
    assert_bands(run["masked_lm_by_run_length"], {names[words]: by_run[words] for words in sorted(by_run)})
    assert len(by_run) >= 3, "too few kinds of runs to prove anything"
    assert_bands(run["sentence_order_by_length"], order)
    everything = [each for band in by_run.values() for each in band]
    assert_figures(run["masked_lm"], everything)
    assert_figures(found["columns"][0]["masked_lm"], floor)
    assert run["masked_lm_by_piece_rank"] == [{"band": "1 to 100"} | run["masked_lm"]]


def words_around(place: int, masked: dict[int, int]) -> int:
    """Words in the run of masked places around this one, at most 4: of these pieces every third starts one (tests/synthetic.py)."""
    first = last = place
    while first - 1 in masked:
        first -= 1
    while last + 1 in masked:
        last += 1
    return min(4, 1 + sum((masked[each] - FIRST_ORDINARY_ID) % 3 == 0 for each in range(first + 1, last + 1)))


def assert_bands(found: list[dict], expected: dict[str, list]) -> None:
    assert [band["band"] for band in found] == list(expected)
    for band in found:
        assert_figures(band, expected[band["band"]])


def assert_figures(found: dict, scored: list[tuple[int, float, bool]]) -> None:
    """scored: (row, loss, hit) of each."""
    assert found.get("pieces", found.get("instances")) == len(scored)
    for name, values in (("loss", [loss for _, loss, _ in scored]), ("accuracy", [float(hit) for *_, hit in scored])):
        mean = sum(values) / len(values)
        assert found[name] == pytest.approx(mean, **CLOSE)
        of_row = {}
        for (row, *_), value in zip(scored, values, strict=True):
            of_row[row] = of_row.get(row, 0.0) + value - mean
        if len(of_row) == 1:
            assert found[f"{name}_standard_error"] is None
            continue
        spread = sum(each**2 for each in of_row.values()) * len(of_row) / (len(of_row) - 1)
        error = math.sqrt(spread) / len(values)
        assert found[f"{name}_standard_error"] == pytest.approx(error, **CLOSE)
    if found["accuracy_interval"]:
        # the shares x that are 1.96 standard errors sqrt(x (1 - x) / n) away from the mean of the hits, which is the last one
        z2 = 1.96**2 / (mean * (1 - mean) / error**2 if error else len(of_row))
        bounds = sorted(np.roots([1 + z2, -2 * mean - z2, mean**2]).real)
        assert found["accuracy_interval"] == pytest.approx(bounds, **CLOSE)


def held_out(**fields) -> HeldOut:
    return HeldOut(*(np.array(fields.get(name, [0])) for name in HeldOut._fields))


def test_ranks_are_those_of_the_sorted_counts():
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 50, 15_000)
    labels = generator.integers(0, 15_000, 3_000)
    names, band = rank_bands(held_out(labels=labels), counts)
    rank = {piece: number for number, piece in enumerate(sorted(range(15_000), key=lambda piece: (-counts[piece], piece)), 1)}
    for label, found in zip(labels.tolist(), band.tolist(), strict=True):
        expected = "never seen" if counts[label] == 0 else next(
            name for last, name in ((100, "1 to 100"), (1_000, "101 to 1,000"), (10_000, "1,001 to 10,000"), (1e9, "over 10,000"))
            if rank[label] <= last
        )  # fmt: skip
        assert names[found] == expected
    assert set(band.tolist()) == set(range(5))


def test_lengths_fall_into_quarters_of_the_longest():
    names, band = length_bands(held_out(lengths=[3, 32, 33, 96, 97, 128]), 128)
    assert [names[each] for each in band] == ["1 to 32", "1 to 32", "33 to 64", "65 to 96", "97 to 128", "97 to 128"]


def test_the_command_prints_80_columns_without_a_terminal_and_writes_every_figure(albert, undisturbed, hf, synthetic, tmp_path):
    output = tmp_path / "figures.json"
    models = [undisturbed, hf, *(copy(hf, tmp_path / name) for name in ("b", "c"))]
    printed = albert("evaluate", "--model", *models, "--data", synthetic, "--output", output).stdout
    result = json.loads(output.read_text())
    assert [column["name"] for column in result["columns"]] == ["unigram", "random", "model 1", "model 2", "model 3", "model 4"]
    lines = printed.splitlines()
    about = [line for line in lines if str(tmp_path.parent.parent) in line]
    assert max(len(line) for line in lines if line not in about) <= 80
    assert f"model 1: {undisturbed}, step 10, " in printed
    assert f"model 2: {hf}, " in printed
    assert "not known what it was trained on" in printed
    rows = [line.split() for line in lines if line.startswith("masked-LM loss")]
    losses = [f"{column['masked_lm']['loss']:.3f}" for column in result["columns"]]
    assert rows == [["masked-LM", "loss", "36", *losses[:5]], ["masked-LM", "loss", "36", *losses[:2], losses[5]]]
    assert "…" not in printed
    again = albert("evaluate", "--model", hf, "--output", output, "--data", synthetic)  # an earlier evaluation is replaced
    assert len(json.loads(output.read_text())["columns"]) == 3
    assert str(output) in again.stdout


def test_an_accuracy_is_shown_in_9_columns_with_the_farther_end_of_its_interval():
    shown = [
        ((1.0, [0.51, 1.0]), "100.0±49"),
        ((0.123, [0.1201, 0.1279]), "12.3±0.5"),
        ((0.5, [0.40, 0.6]), "50.0±10"),
        ((0.5, None), "50.0"),
    ]
    for (share, bounds), expected in shown:
        assert accuracy({"accuracy": share, "accuracy_interval": bounds}) == expected
    assert accuracy(None) == "-"


def test_all_that_is_wrong_with_models_and_data_is_in_one_error(undisturbed, hf, synthetic, tmp_path):
    weights = load_file(hf / "model.safetensors")
    encoder = {name: tensor for name, tensor in weights.items() if name.startswith("albert.")}
    shutil.copytree(undisturbed, tmp_path / "young", ignore=shutil.ignore_patterns("step-*"))
    (tmp_path / "thesis").mkdir()
    other = copy(hf, tmp_path / "other")
    (other / "tokenizer.json").write_text((hf / "tokenizer.json").read_text().replace("aaaa", "bbbb"))
    copy(hf, tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes((hf / "model.safetensors").read_bytes()[:5000])
    copy(hf, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    copy(hf, tmp_path / "unknown")
    (tmp_path / "unknown" / "tokenizer.json").unlink()
    not_finite = weights | {"predictions.bias": weights["predictions.bias"] * math.nan}
    wanted = {
        copy(
            hf, tmp_path / "bare", {name.removeprefix("albert."): tensor for name, tensor in encoder.items()}
        ): "no masked-LM head",
        copy(hf, tmp_path / "repeated", inner_group_num=2, hidden_act="silu"): "inner_group_num is 2.*hidden_act is 'silu'",
        copy(hf, tmp_path / "bert", model_type="bert"): "model_type is 'bert', and only albert",
        copy(hf, tmp_path / "uneven", num_hidden_groups=3): "num_hidden_groups: must divide num_hidden_layers 2, found 3",
        copy(hf, tmp_path / "wide", hidden_size=64): "do not fit config.json",
        copy(hf, tmp_path / "short", max_position_embeddings=16): "takes 16 pieces at most.*up to 32",
        copy(hf, tmp_path / "nan", not_finite): "no finite numbers",
        copy(hf, tmp_path / "untied", weights | {"predictions.decoder.weight": torch.zeros(VOCAB_SIZE, 16)}): "not its piece embed",
        other: rf"another tokenizer \(SHA-256 {sha256_of_files(other / 'tokenizer.json')[:12]}",
        tmp_path / "cut": "cannot be read as safetensors",
        tmp_path / "pickled": "Pickled weights are not read",
        tmp_path / "unknown": "has no tokenizer.json",
        tmp_path / "young": "there is no checkpoint yet",
        tmp_path / "thesis": "holds neither config.yaml.*nor config.json",
        tmp_path / "albert-base-v2": "nothing is downloaded",
    }
    with pytest.raises(UserError) as raised:
        compare(hf, *wanted, data=synthetic)
    _, *faults = str(raised.value).split("\n  - ")
    assert len(faults) == len(wanted)
    for path, reason in wanted.items():
        (fault,) = [fault for fault in faults if f"{path}:" in fault or f"{path} " in fault or f"{path}/" in fault]
        assert re.search(reason, fault), fault


def test_data_that_cannot_be_evaluated_on_is_named(undisturbed, hf, synthetic, tmp_path):
    with pytest.raises(UserError, match="--data: give the data folder"):
        compare(hf)
    with pytest.raises(UserError, match="is no data folder"):
        compare(hf, data=hf)
    data = shutil.copytree(synthetic, tmp_path / "data")
    manifest = json.loads((data / "manifest.json").read_text())
    del manifest["splits"]["validation"]
    (data / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="has no validation instances.*--validation_fraction"):
        compare(undisturbed, data=data)
    (data / "tokenizer" / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="tokenizer"):
        compare(undisturbed, data=data, split="train")
    with pytest.raises(UserError, match=r"(?s)--model.*--split.*--max_instances.*--device"):
        compare(hf, hf, split="test", max_instances=0, device="tpu")


def test_a_run_on_data_with_another_tokenizer_is_refused_by_both_hashes(undisturbed, synthetic, tmp_path):
    data = shutil.copytree(synthetic, tmp_path / "data")
    path = data / "tokenizer" / "tokenizer.json"
    path.write_text(path.read_text().replace("aaaa", "bbbb"))
    manifest = json.loads((data / "manifest.json").read_text())
    now = sha256_of_files(path, path.with_name("tokenizer_config.json"))
    (data / "manifest.json").write_text(json.dumps(manifest | {"tokenizer_sha256": now}))
    with pytest.raises(UserError, match=rf"{manifest['tokenizer_sha256'][:12]}.*{now[:12]}"):
        compare(undisturbed, data=data)


def test_a_tokenizer_that_transformers_has_saved_again_is_the_same(hf, synthetic, compared, tmp_path):
    saved = copy(hf, tmp_path / "saved")
    content = json.loads((hf / "tokenizer.json").read_text())
    (saved / "tokenizer.json").write_text(json.dumps(content | {"truncation": {"max_length": 8}, "padding": None}, indent=1))
    assert compare(saved, data=synthetic)["columns"][2]["masked_lm"] == compared["columns"][3]["masked_lm"]


def replace_validation(data: Path, table: pa.Table) -> None:
    """The table may be a view of the file that goes."""
    shard = data / "validation-00000.arrow"
    with pa.OSFile(str(shard.with_suffix(".new")), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    shard.with_suffix(".new").replace(shard)


def test_a_piece_or_position_out_of_range_is_a_damaged_shard(undisturbed, synthetic, tmp_path):
    table = read(synthetic, "validation")
    for name, value in {"input_ids": VOCAB_SIZE, "mlm_positions": 32, "mlm_labels": VOCAB_SIZE}.items():
        data = shutil.copytree(synthetic, tmp_path / name)
        column = table[name].to_pylist()
        column[3][0] = value
        place = table.schema.get_field_index(name)
        replace_validation(data, table.set_column(place, table.schema.field(name), pa.array(column, table.schema.field(name).type)))
        with pytest.raises(UserError, match=rf"{data}: a shard is damaged"):
            compare(undisturbed, data=data)


def test_without_order_labels_the_masked_lm_is_evaluated_alone(undisturbed, synthetic, compared, tmp_path, capsys):
    data = shutil.copytree(synthetic, tmp_path / "data")
    table = read(data, "validation")
    unlabelled = table.set_column(4, table.schema.field(4), pa.array([-100] * len(table), pa.int8()))
    replace_validation(data, unlabelled)
    found = compare(undisturbed, data=data)
    assert found["columns"][2]["masked_lm"] == compared["columns"][2]["masked_lm"]
    assert [column["sentence_order"] for column in found["columns"]] == [None, None, None]
    assert "no sentence-order labels" in capsys.readouterr().out


def test_one_instance_has_figures_and_no_error_of_them(undisturbed, capsys):
    found = compare(undisturbed, max_instances=1)
    assert found["instances"] == 1
    assert found["columns"][2]["masked_lm"]["pieces"] == 8
    assert found["columns"][2]["masked_lm"]["accuracy_standard_error"] is None
    assert "±" not in capsys.readouterr().out.partition("rounded up")[2]


def test_weights_in_bf16_are_those_numbers_in_fp32(hf, synthetic, compared, tmp_path):
    half = {name: tensor.bfloat16() for name, tensor in load_file(hf / "model.safetensors").items()}
    found = compare(
        copy(hf, tmp_path / "half", half),
        copy(hf, tmp_path / "same", {name: tensor.float() for name, tensor in half.items()}),
        data=synthetic,
    )
    assert found["columns"][2]["masked_lm"] == found["columns"][3]["masked_lm"]
    assert found["columns"][2]["masked_lm"] != compared["columns"][3]["masked_lm"]


def test_what_transformers_saves_of_a_masked_lm_has_no_order_head_and_its_decoder_has_the_bias(hf, synthetic, tmp_path, capsys):
    transformers = pytest.importorskip("transformers", reason="saved with the extra `transformers`")
    saved = copy(hf, tmp_path / "saved")
    transformers.AlbertForMaskedLM.from_pretrained(hf).save_pretrained(saved)
    weights = load_file(saved / "model.safetensors")
    bias = {"predictions.decoder.bias": torch.linspace(-3, 3, VOCAB_SIZE)}
    biased = copy(saved, tmp_path / "biased", weights | bias)
    model = transformers.AlbertForMaskedLM.from_pretrained(biased).eval()
    found = compare(hf, saved, biased, data=synthetic)
    whole, alone, shifted = found["columns"][2:]
    assert alone["masked_lm"] == whole["masked_lm"]
    assert whole["sentence_order"]["instances"] == 4
    assert alone["sentence_order"] is alone["sentence_order_by_length"] is None
    assert "no sentence-order head" in capsys.readouterr().out
    split = open_split(synthetic, read_manifest(synthetic), "validation")
    inputs, _ = padded(split.read(np.arange(len(split))))
    with torch.no_grad():
        assert shifted["masked_lm"]["loss"] == pytest.approx(model(**inputs).loss.item(), **CLOSE)


def test_a_file_that_no_evaluation_wrote_is_left_alone(undisturbed, tmp_path):
    for content in ("years of work", "{}", "[]"):
        (tmp_path / "thesis").write_text(content)
        with pytest.raises(UserError, match="left alone"):
            compare(undisturbed, output=tmp_path / "thesis")
        assert (tmp_path / "thesis").read_text() == content
    with pytest.raises(UserError, match="a file in a folder that exists"):
        compare(undisturbed, output=tmp_path / "absent" / "figures.json")


def test_the_shape_of_a_config_json_that_leaves_fields_out_is_that_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers", reason="defaults of the extra `transformers`")
    from pretrain.hf_weights import config_from_hf

    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    config, vocab_size = config_from_hf(tmp_path)
    theirs = transformers.AlbertConfig()
    ours = hf_config(config, vocab_size)
    assert {key: getattr(theirs, key) for key in ours if key not in ("architectures", "bos_token_id", "eos_token_id")} == {
        key: value for key, value in ours.items() if key not in ("architectures", "bos_token_id", "eos_token_id")
    }


def test_a_checkpoint_that_the_run_deletes_meanwhile_is_said(undisturbed, synthetic, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    source = open_model(run, "last")
    shutil.rmtree(source.weights)
    for look in (lambda: load_model(source, VOCAB_SIZE), lambda: hash_of_weights(source)):
        with pytest.raises(UserError, match="was deleted meanwhile by the run. Evaluate again, or give --checkpoint STEP"):
            look()
