"""`albert export`: what it chooses, also while the run trains; what it checks and refuses; bf16, ONNX, the card, transformers 4."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ALBERT
from models import random_model
from runs import CONFIG, SLOW, start, wait_for
from safetensors.numpy import load_file, save_file

from data_prep.schema import manifest_sha256, read_manifest
from pretrain.checkpoint import delete_old_checkpoints, list_checkpoints, snapshot, write_checkpoint
from pretrain.checkpoint_choice import choose_checkpoint
from pretrain.config import RunConfig
from pretrain.config_file import load_config, to_plain
from pretrain.data import collate, open_split
from pretrain.export import FILES, export, load_model
from pretrain.export_check import check_export, load_transformers, take_sample
from pretrain.export_options import ExportOptions
from pretrain.export_source import read_source
from pretrain.lineage import comes_of_private_text, corpus_inputs
from pretrain.onnx_export import OnnxFigures
from pretrain.optimizer import build_optimizer
from pretrain.progress import Progress
from pretrain.sessions import run_session
from tokenizer.errors import UserError
from tokenizer.files import sha256_of_files

transformers = pytest.importorskip("transformers", reason="an export is checked with the extra `transformers`")

STEPS = (2, 4, 6)
VALIDATION = {
    "event": "validation",
    "step": 6,
    "mlm_loss": 6.5,
    "unigram_entropy": 6.0,
    "mlm_accuracy": 0.0625,
    "sop_accuracy": None,
}
HEADS = {"ForSequenceClassification": "classifier", "ForTokenClassification": "classifier", "ForQuestionAnswering": "qa_outputs"}
HEADS |= {"ForMultipleChoice": "classifier", "Model": "", "ForMaskedLM": "", "ForPreTraining": ""}
"""What each class has of its own, which is made anew."""
SHAPES = [("all", 1, 1, "relu"), ("all", 2, 4, "gelu"), ("attention", 1, 2, "gelu_new"), ("ffn", 2, 2, "gelu_new")]
SHAPES += [("none", 1, 3, "gelu")]
"""`share`, groups, layers, activation."""


def make_run(
    folder: Path, data: Path, *, share: str = "attention", groups: int = 1, layers: int = 2, hidden_act: str = "gelu_new"
) -> Path:
    """A run folder with checkpoints of random models; step 4 is the best."""
    folder.mkdir()
    (folder / "config.yaml").write_text(CONFIG)
    shape = {"share": share, "num_hidden_groups": groups, "num_hidden_layers": layers, "max_position_embeddings": 64}
    shape |= {"hidden_act": hidden_act}
    overrides = [(f"model.{name}", str(value)) for name, value in shape.items()]
    overrides += [("data.path", str(data)), ("checkpoint.keep_last", "3")]
    config = load_config(folder / "config.yaml", overrides)
    write_config(folder, config)
    with run_session(folder, config, None) as session:
        session["exit_code"] = 0
    (folder / "metrics.jsonl").write_text(f'{json.dumps(VALIDATION)}\n{{"event": "train", "step": 6')  # being written
    for step in STEPS:
        save_step(folder, config, step)
    return folder


def write_config(folder: Path, config: RunConfig) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(to_plain(config)))


def save_step(run: Path, config: RunConfig, step: int) -> None:
    model = random_model(config.model, read_manifest(config.data.path).vocab_size, seed=step)
    progress = Progress(step=step, samples_seen=8 * step, best={"step": 4, "mlm_loss": 6.5} if step >= 4 else {})
    state = dataclasses.asdict(progress) | {"data_sha256": manifest_sha256(config.data.path)}
    write_checkpoint(run / "checkpoints" / f"step-{step}", snapshot(model, build_optimizer(model, config.optimizer)), state)


def export_to(output: Path, run: Path, **options: object) -> Path:
    export(ExportOptions(run=run, output=output, **options))
    return output


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("export") / "run", data)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    """With all options of the card, and ONNX."""
    about = {
        "license": "other",
        "license_name": "mine",
        "license_link": "https://example.org/mine",
        "data_license": "public domain",
    }
    return export_to(tmp_path_factory.mktemp("exported") / "hf", run, onnx=has_onnx(), language=["en", "bn"], **about)


def has_onnx() -> bool:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        return False
    return True


needs_onnx = pytest.mark.skipif(not has_onnx(), reason="needs the extra `onnx`")


@pytest.mark.parametrize("name", HEADS)
def test_it_loads_in_every_albert_class_and_only_heads_of_the_task_are_new(exported, name):
    model, info = getattr(transformers, f"Albert{name}").from_pretrained(exported, output_loading_info=True)
    assert not info["mismatched_keys"]
    new = {key.partition(".")[0] for key in info["missing_keys"]}
    assert new == ({HEADS[name]} if HEADS[name] else set())
    left = {key.partition(".")[0] for key in info["unexpected_keys"]}
    assert left <= {"predictions", "sop_classifier", "albert"}
    if name in ("ForPreTraining", "ForMaskedLM"):
        assert left <= {"sop_classifier", "albert"}
    encoder = [key for key in info["unexpected_keys"] if key.startswith("albert.") and ".pooler." not in key]
    assert not encoder
    assert model.config.num_hidden_groups == 2  # attention alone is shared: one group a layer


def test_the_mean_of_k_checkpoints_is_exported_and_named(run, tmp_path):
    folder = export_to(tmp_path / "hf", run, average=2)
    found = load_file(folder / "model.safetensors")["albert.pooler.weight"]
    newest, before = (load_file(run / "checkpoints" / f"step-{step}" / "model.safetensors")["pooler.weight"] for step in (6, 4))
    expected = ((newest.astype(np.float64) + before) / 2).astype(np.float32)
    assert np.array_equal(found, expected)
    options = json.loads((folder / "provenance.json").read_text())["options"]
    digests = {f"step-{step}": sha256_of_files(run / "checkpoints" / f"step-{step}" / "manifest.json") for step in (6, 4)}
    assert options == {"checkpoint": "last", "step": 6, "dtype": "fp32", "checkpoints": digests}
    assert "step-6 and step-4 (their mean)" in card_of(folder)
    assert "of the weights before their mean was taken" in card_of(folder)
    assert list(read_source(run / "checkpoints", "4", 2, 9).checkpoints) == ["step-4", "step-2"]


def test_too_few_checkpoints_for_a_mean_are_counted(run, tmp_path):
    with pytest.raises(UserError, match=r"--average 3: up to .*step-4 the run has 2 whole checkpoint\(s\) \(step-2, step-4\)"):
        export_to(tmp_path / "hf", run, checkpoint="best", average=3)
    assert list(tmp_path.iterdir()) == []


def test_the_best_that_was_kept_beyond_the_newest_is_no_part_of_a_mean(run):
    with pytest.raises(UserError, match=r"--average 3: up to .*step-6 the run has 2 whole checkpoint"):
        read_source(run / "checkpoints", "last", 3, keep_last=2)


def test_a_best_that_is_not_there_is_not_said_to_be_deleted_by_a_run(run, tmp_path):
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    shutil.rmtree(tmp_path / "checkpoints" / "step-4")
    with pytest.raises(UserError, match=r"--checkpoint 4: no such checkpoint in .*give last, best or a step \(2, 6\)"):
        read_source(tmp_path / "checkpoints", "best", 1, 9)


def test_figures_of_other_weights_are_not_given_to_the_hub(run, exported, tmp_path):
    assert "model-index" in card_of(exported)
    averaged, earlier = export_to(tmp_path / "mean", run, average=2), export_to(tmp_path / "earlier", run, checkpoint="4")
    assert "model-index" not in card_of(averaged)
    rounded = card_of(export_to(tmp_path / "bf16", run, dtype="bf16"))
    assert "model-index" not in rounded
    assert "of the weights before they were rounded" in rounded
    assert "not validated up to this step" in card_of(earlier)
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "metrics.jsonl").unlink()
    assert "not validated up to this step" in card_of(export_to(tmp_path / "bare", copy))


def test_what_comes_of_private_text_is_private_and_names_no_file():
    def entry(role, parents=(), inputs=(), **options):
        record = {"sessions": [{}], "options": options, "parents": list(parents), "inputs": list(inputs)}
        return {"role": role, "path": "/p", "marker": "m", "sha256": f"{role}{options}", "provenance": record}

    secret, model_file = {"path": "/clients.txt", "size": 3}, {"path": "/lid.bin", "size": 5, "option": "language_model"}
    first = entry("continue_from", [entry("data", inputs=[secret], private=True)])
    data = {**entry("data"), "provenance": "unknown"}
    assert comes_of_private_text([entry("run", [first, data])])
    assert not comes_of_private_text([entry("run", [data])])
    assert corpus_inputs([entry("run", [first, data])]) == []  # and not those of an earlier phase
    text = {"path": "/open.txt", "size": 4}
    remasked = entry("data", [entry("data", inputs=[text, model_file])])
    assert corpus_inputs([entry("run", [first, remasked])]) == corpus_inputs([remasked]) == [text]


def test_a_damaged_checkpoint_is_no_part_of_a_mean(run, tmp_path, capsys):
    shutil.copytree(run / "checkpoints", tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "step-4" / "state.json").unlink()
    assert list(read_source(tmp_path / "checkpoints", "last", 2, 9).checkpoints) == ["step-6", "step-2"]
    assert "step-4: state.json is missing" in capsys.readouterr().out
    (tmp_path / "checkpoints" / "step-6" / "manifest.json").write_text("{}")
    assert list(read_source(tmp_path / "checkpoints", "last", 1, 9).checkpoints) == ["step-2"]
    (tmp_path / "checkpoints" / "step-2" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="no checkpoint is whole"):
        read_source(tmp_path / "checkpoints", "last", 1, 9)


def test_bf16_rounds_each_weight_once_and_is_half_as_large(run, exported, tmp_path):
    folder = export_to(tmp_path / "hf", run, dtype="bf16")
    assert (folder / "model.safetensors").stat().st_size < 0.6 * (exported / "model.safetensors").stat().st_size
    halved = transformers.AlbertForPreTraining.from_pretrained(folder, dtype="auto").state_dict()
    whole = transformers.AlbertForPreTraining.from_pretrained(exported, dtype="auto").state_dict()
    assert {tensor.dtype for tensor in halved.values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in whole.values()} == {torch.float32}
    assert all(torch.equal(tensor.bfloat16(), halved[name]) for name, tensor in whole.items())


@pytest.mark.parametrize(("share", "groups", "layers", "hidden_act"), SHAPES)
def test_every_shape_passes_its_own_check(data, tmp_path, share, groups, layers, hidden_act):
    run = make_run(tmp_path / "run", data, share=share, groups=groups, layers=layers, hidden_act=hidden_act)
    folder = export_to(tmp_path / "hf", run, onnx=has_onnx())
    assert f"| weights shared | {share}, {groups} hidden group(s) |" in card_of(folder)
    assert json.loads((folder / "config.json").read_text())["hidden_act"] == hidden_act


def delete_while_read(checkpoints: Path, newest: Path, then: Callable[[], None]) -> threading.Thread:
    """A reader of `newest` stops at its first weights until training has deleted it and `then` has been called."""
    path = newest / "model.safetensors"
    path.unlink()
    os.mkfifo(path)

    def delete() -> None:
        with path.open("wb") as pipe:  # opens when the reader does
            then()
            delete_old_checkpoints(checkpoints, keep_last=1, best_step=None)
            pipe.write(b"too late")

    thread = threading.Thread(target=delete)
    thread.start()
    return thread


def test_a_checkpoint_that_is_deleted_while_it_is_read_is_no_fault_of_the_run(run, tmp_path, capsys):
    config = load_config(run / "config.yaml")
    for which in ("last", "4"):
        copy = tmp_path / which
        shutil.copytree(run / "checkpoints", copy / "checkpoints")
        newest = copy / "checkpoints" / ("step-6" if which == "last" else "step-4")
        thread = delete_while_read(copy / "checkpoints", newest, lambda copy=copy: save_step(copy, config, 8))
        if which == "last":
            assert list(read_source(copy / "checkpoints", which, 1, 9).checkpoints) == ["step-8"]
        else:
            with pytest.raises(UserError, match=r"step-4: was deleted by the run while it was read\. Give last or best"):
                read_source(copy / "checkpoints", which, 1, 9)
        thread.join()
        assert [folder.name for folder in list_checkpoints(copy / "checkpoints")] == ["step-8"]
        assert [path.name for path in (copy / "checkpoints").iterdir()] == ["step-8"]
    assert "damaged" not in capsys.readouterr().out


def test_a_checkpoint_that_comes_between_the_choice_and_the_mean_pushes_no_neighbour_out(run, tmp_path, monkeypatch):
    """keep_last is 2: the run keeps step 8 and the chosen step 6, and has not yet deleted step 4."""
    config, checkpoints = load_config(run / "config.yaml"), tmp_path / "checkpoints"
    shutil.copytree(run / "checkpoints", checkpoints)

    def choose(*arguments):
        chosen = choose_checkpoint(*arguments)
        save_step(tmp_path, config, 8)
        return chosen

    monkeypatch.setattr("pretrain.export_source.choose_checkpoint", choose)
    assert list(read_source(checkpoints, "last", 2, 2).checkpoints) == ["step-6", "step-4"]


def test_a_run_that_goes_on_training_and_deleting_is_exported(small_config, data, tmp_path):
    run = tmp_path / "run"
    often = ("--checkpoint.every_n_steps", 1, "--checkpoint.keep_last", 2, "--model.max_position_embeddings", 64)
    long = ("--training.steps", 5000, "--schedule.total_steps", 5000, "--training.validate_every_n_steps", 5000)
    process = start(small_config, data, run, *often, *long, num_procs=1, **SLOW)
    try:
        wait_for(lambda: len(list_checkpoints(run / "checkpoints")) >= 2, process)
        first = export(ExportOptions(run=run, output=tmp_path / "hf", average=2))["step"]
        wait_for(lambda: not (run / "checkpoints" / f"step-{first}").exists(), process)
        second = export(ExportOptions(run=run, output=tmp_path / "hf", average=2))["step"]
        assert process.poll() is None
    finally:
        (run / "STOP").touch()
        process.communicate(timeout=120)
    assert process.returncode == 3
    assert first < second
    options = json.loads((tmp_path / "hf" / "provenance.json").read_text())["options"]
    assert list(options["checkpoints"]) == [f"step-{second}", f"step-{second - 1}"]


def test_what_the_check_finds_in_a_folder_is_named(run, exported, tmp_path):
    config = load_config(run / "config.yaml")
    manifest = read_manifest(config.data.path)
    model = load_model(read_source(run / "checkpoints", "last", 1, 9).weights, config, manifest, torch.float32)
    sample, library = take_sample(model, config.data.path, manifest), load_transformers()
    assert sample.split == "validation"
    assert check_export(exported, sample, config.data.path, library) <= 1e-5
    tensors, name = load_file(exported / "model.safetensors"), "albert.encoder.albert_layer_groups.1.albert_layers.0.ffn.bias"
    changed = tensors | {name: tensors[name] + np.float32(1e-3)}
    content, words = (json.loads((exported / file).read_text()) for file in ("config.json", "tokenizer_config.json"))
    damage = {
        "missing keys: .*ffn.bias": ("model.safetensors", {key: value for key, value in tensors.items() if key != name}),
        "unexpected keys: other": ("model.safetensors", tensors | {"other": tensors[name]}),
        "logits differ by": ("model.safetensors", changed),
        r"logits differ by \d": ("config.json", content | {"hidden_act": "relu"}),
        "other ids than the tokenizer of the data": ("tokenizer_config.json", words | {"do_lower_case": False}),
    }
    for number, (message, (file, wrong)) in enumerate(damage.items()):
        folder = shutil.copytree(exported, tmp_path / str(number))
        if file.endswith(".json"):
            (folder / file).write_text(json.dumps(wrong))
        else:
            save_file(wrong, folder / file, metadata={"format": "pt"})
        with pytest.raises(UserError, match=message):
            check_export(folder, sample, config.data.path, library)


def test_an_export_that_disagrees_is_not_kept_and_the_earlier_one_stays(run, exported, tmp_path):
    """A weight that is no number, in a checkpoint whose hashes say that all is well."""
    folder, copy = shutil.copytree(exported, tmp_path / "hf"), shutil.copytree(run, tmp_path / "run")
    checkpoint = copy / "checkpoints" / "step-6"
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["pooler.bias"][0] = np.nan
    save_file(tensors, checkpoint / "model.safetensors")
    digests = json.loads((checkpoint / "manifest.json").read_text())
    digests["model.safetensors"] = sha256_of_files(checkpoint / "model.safetensors")
    (checkpoint / "manifest.json").write_text(json.dumps(digests))
    for output in (folder, tmp_path / "new"):
        with pytest.raises(UserError, match="does not say what the checkpoint says.*\n.*logits differ by nan"):
            export_to(output, copy)
    assert {path.name for path in tmp_path.iterdir()} == {"hf", "run"}
    assert sha256_of_files(folder / "model.safetensors") == sha256_of_files(exported / "model.safetensors")


def test_without_held_out_text_it_is_checked_on_the_rest(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    manifest = json.loads((data / "manifest.json").read_text())
    del manifest["splits"]["validation"]
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(manifest))
    run = make_run(tmp_path / "run", tmp_path / "data")
    (run / "metrics.jsonl").write_text("")
    card = card_of(export_to(tmp_path / "hf", run))
    assert "on train text of the data" in card
    assert "no held-out text was kept" in card
    assert "model-index" not in card


def test_a_damaged_line_of_the_log_is_counted_and_the_card_has_the_others(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "metrics.jsonl").write_bytes(b'{"event": "train", "st\xff\n[]\n' + (run / "metrics.jsonl").read_bytes())
    card = card_of(export_to(tmp_path / "hf", copy))
    assert "metrics.jsonl: 2 line(s) cannot be read and are left out of the model card." in capsys.readouterr().out
    assert "| validated at step | 6 |" in card


def test_other_data_than_that_of_the_run_is_refused(run, data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    manifest = json.loads((data / "manifest.json").read_text())
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(manifest | {"seed": 7}))
    copy = shutil.copytree(run, tmp_path / "run")
    write_config(copy, load_config(run / "config.yaml", [("data.path", str(tmp_path / "data"))]))
    with pytest.raises(UserError, match="is not the data that the checkpoint was trained on"):
        export_to(tmp_path / "hf", copy)


@pytest.mark.parametrize(("library", "options"), [("transformers", {}), ("onnxruntime", {"onnx": True})])
def test_a_library_that_is_missing_is_named_with_its_extra(run, tmp_path, monkeypatch, library, options):
    monkeypatch.setitem(sys.modules, library, None)
    extra = "onnx" if options else "transformers"
    with pytest.raises(UserError, match=rf"pip install 'albert-pretraining\[{extra}\]'"):
        export_to(tmp_path / "hf", run, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"average": 0}, "--average is 0"),
        ({"license": "Apache 2"}, "--license is 'Apache 2'"),
        ({"license": "other"}, "--license_name is None.*\n.*--license_link is None"),
        ({"license_link": "https://example.org"}, "--license_link is 'https://example.org'"),
        ({"language": ["English"]}, "--language is"),
    ],
)
def test_options_that_cannot_be_are_named(run, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        export_to(tmp_path / "hf", run, **options)


def test_kill_9_leaves_the_earlier_export_as_it_was(run, exported, tmp_path):
    folder = tmp_path / "hf"
    command = [ALBERT, "export", "--run", run, "--output", folder, "--checkpoint", "2"]
    for _ in range(5):  # an export that was done before it was killed is tried again
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(exported, folder)
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
        while process.poll() is None and not list(tmp_path.glob(".hf.tmp-*")):
            time.sleep(0.002)
        process.kill()
        if process.wait() == -signal.SIGKILL:
            break
    assert process.returncode == -signal.SIGKILL
    assert {path.name: sha256_of_files(path) for path in folder.iterdir() if path.is_file()} == {
        path.name: sha256_of_files(path) for path in exported.iterdir() if path.is_file()
    }
    export_to(folder, run, checkpoint="2")
    assert "2 steps of 8 instances" in card_of(folder)
    assert not (folder / "onnx").exists()


def test_an_edited_model_card_is_not_replaced(run, tmp_path):
    folder = export_to(tmp_path / "hf", run)
    with (folder / "README.md").open("a") as card:
        card.write("Evaluated by hand.\n")
    with pytest.raises(UserError, match=r"README.md: has been edited, and would be replaced. Move it away"):
        export_to(folder, run)
    (folder / "README.md").rename(tmp_path / "mine.md")
    export_to(folder, run)


def test_a_folder_of_other_things_inside_an_export_is_left_alone(run, tmp_path):
    folder = export_to(tmp_path / "hf", run)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"holds something else \(thesis.txt\)"):
        export_to(folder, run)
    assert (folder / "onnx" / "thesis.txt").read_text() == "years of work"


@needs_onnx
def test_onnx_gives_the_logits_and_features_of_transformers_for_any_batch_and_int8_is_smaller(run, exported):
    import onnxruntime

    config = load_config(run / "config.yaml")
    split = open_split(config.data.path, read_manifest(config.data.path), "validation")
    model = transformers.AlbertForMaskedLM.from_pretrained(exported).eval()
    texts = transformers.AutoTokenizer.from_pretrained(exported)
    fp32, int8 = (exported / "onnx" / name for name in ("model.onnx", "model_quantized.onnx"))
    session = onnxruntime.InferenceSession(str(fp32))
    assert [entry.name for entry in session.get_inputs()] == ["input_ids", "attention_mask", "token_type_ids"]
    assert [entry.name for entry in session.get_outputs()] == ["logits", "last_hidden_state"]
    instances = split.read(np.arange(3))
    lines = [texts.decode(instance.input_ids.tolist(), skip_special_tokens=True) for instance in instances]
    for batch in (lines, lines[:1], ["one", "two words"]):
        inputs = texts(batch, padding=True, return_tensors="pt", return_token_type_ids=True)
        with torch.no_grad():
            output = model(**inputs, output_hidden_states=True)
        outputs = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        kept = inputs["attention_mask"].bool()
        for found, expected in zip(outputs, (output.logits, output.hidden_states[-1]), strict=True):
            torch.testing.assert_close(torch.from_numpy(found)[kept], expected[kept], atol=1e-4, rtol=1e-4)
            assert expected.std() > 0.1  # numbers that do not differ would prove nothing
    assert int8.stat().st_size < 0.6 * fp32.stat().st_size
    onnxruntime.InferenceSession(str(int8)).run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
    card = card_of(exported)
    agreement = re.search(r"the likeliest piece is that of fp32 for (\d+\.\d)% of \d+ masked pieces", card)
    assert float(agreement[1]) >= 90
    assert "Warning" not in card
    recorded = {entry["path"] for entry in json.loads((exported / "provenance.json").read_text())["outputs"]}
    assert recorded == {*FILES, "onnx/model.onnx", "onnx/model_quantized.onnx"}


@pytest.mark.parametrize(("agreement", "warned"), [(0.9, False), (0.899, True)])
def test_an_int8_that_is_another_model_is_warned_of(agreement, warned):
    others = dict.fromkeys(set(OnnxFigures._fields) - {"agreement"}, 1)
    sentences = OnnxFigures(agreement=agreement, **others).sentences()
    assert any("Warning: int8 has another likeliest piece than fp32 for more than 10%" in each for each in sentences) == warned


def test_the_card_has_what_the_hub_reads_and_the_chain_of_hashes(run, data, exported):
    from huggingface_hub import ModelCard

    card = ModelCard.load(exported / "README.md")
    assert card.data.language == ["en", "bn"]
    assert (card.data.license, card.data.license_name, card.data.license_link) == ("other", "mine", "https://example.org/mine")
    assert {result.metric_name: result.metric_value for result in card.data.eval_results} == {
        "masked-LM loss (nats)": 6.5,
        "masked-LM accuracy": 0.0625,
    }
    manifest, text = read_manifest(data), card.content
    assert "Licence of the corpus: public domain" in text
    for digest in (
        manifest.tokenizer_sha256,
        manifest_sha256(data),
        sha256_of_files(run / "checkpoints" / "step-6" / "manifest.json"),
        sha256_of_files(data / "tokenizer" / "manifest.json"),
    ):
        assert f"`{digest}`" in text
    (of_corpus,) = json.loads((data / "provenance.json").read_text())["inputs"]
    assert f"| addresses.txt | {of_corpus['size']} | `{of_corpus['sha256']}` |" in text
    assert "| instances seen | 48 (" in text
    assert "| validated at step | 6 |" in text
    for secret in (str(run.parent), os.uname().nodename):
        assert secret not in text


def test_the_card_of_private_data_names_no_file(data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    manifest = json.loads((data / "manifest.json").read_text())
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(manifest | {"private": True}))
    card = card_of(export_to(tmp_path / "hf", make_run(tmp_path / "run", tmp_path / "data")))
    assert "The corpus: 1 input(s)" in card
    assert "addresses" not in card


@pytest.mark.skipif("TRANSFORMERS_4" not in os.environ, reason="`make test-transformers4` names a Python that has transformers 4")
def test_transformers_4_loads_every_class_and_gives_the_same_ids_and_logits(run, exported, data, tmp_path):
    """The export is made with the transformers and tokenizers of the lock, and loaded in another process with older ones."""
    split = open_split(data, read_manifest(data), "validation")
    texts = transformers.AutoTokenizer.from_pretrained(exported)
    batch = collate(split.read(np.arange(1)))
    with torch.no_grad():
        output = transformers.AlbertForPreTraining.from_pretrained(exported).eval()(
            batch.input_ids_N[None], token_type_ids=batch.segment_ids_N[None]
        )
    lines = ["It's „naïve“: 7,5 £ for ＴＥＳＴ", texts.decode(batch.input_ids_N.tolist(), skip_special_tokens=True)]
    save_file(
        {
            "input_ids": batch.input_ids_N.numpy(),
            "token_type_ids": batch.segment_ids_N.numpy(),
            "mlm_logits": output.prediction_logits[0].numpy(),
            "sop_logits": output.sop_logits.numpy(),
        },
        tmp_path / "expected.safetensors",
    )
    encoded = [dict(texts(line, line[:20])) for line in lines]
    (tmp_path / "expected.json").write_text(json.dumps({"lines": lines, "encoded": encoded, "heads": HEADS}))
    script = Path(__file__).with_name("in_transformers_4.py")
    halved = export_to(tmp_path / "bf16", run, dtype="bf16")
    command = [os.environ["TRANSFORMERS_4"], str(script), str(exported), str(halved), str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "transformers 4." in finished.stdout
