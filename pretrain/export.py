"""A run's checkpoint as a Hugging Face folder: config, weights, tokenizer, model card; checked before it gets its name."""

import json
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_prep.schema import MANIFEST_NAME, TOKENIZER_FOLDER, Manifest, manifest_sha256, read_manifest
from pretrain.checkpoint import save_tensors
from pretrain.config import RunConfig
from pretrain.config_file import load_config
from pretrain.data_faults import tokenizer_faults
from pretrain.export_check import check_export, load_transformers, take_sample
from pretrain.export_options import ExportOptions
from pretrain.export_source import Source, read_source
from pretrain.hf_weights import hf_config, to_hf_weights
from pretrain.lineage import comes_of_private_text
from pretrain.metrics_file import read_records
from pretrain.model import Albert
from pretrain.model_card import model_card
from pretrain.onnx_export import FILES as ONNX_FILES
from pretrain.onnx_export import FOLDER as ONNX_FOLDER
from pretrain.onnx_export import check_onnx_installed, write_onnx
from tokenizer.errors import UserError
from tokenizer.files import check_output_folder, replace_folder, sha256_of_files, write_json, write_text
from tokenizer.privacy import words_withheld
from tokenizer.provenance import (
    PROVENANCE_NAME,
    UNKNOWN,
    Record,
    close_session,
    new_record,
    open_session,
    parent,
    read_record,
    record_outputs,
    write_record,
)

FILES = ("README.md", "config.json", "model.safetensors", "spiece.model", "tokenizer.json", "tokenizer_config.json")
"""What an export holds, beside provenance.json and, with --onnx, the folder onnx."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def export(options: ExportOptions) -> dict[str, Any]:
    """Write what loads in transformers, check it, and give it its name; return what the last lines say.

    Raises:
        UserError: no run, no whole checkpoint of that name, other data than the run's, the output holds something else, or what was
            written does not say what the checkpoint says; what was at the output before stays.
    """
    session = open_session()
    options.check()
    config = load_config(options.run / "config.yaml")
    manifest = read_manifest(config.data.path)
    if faults := tokenizer_faults(config.data.path, manifest):
        raise UserError("\n".join(faults))
    check_output(options.output)
    library = load_transformers()
    source = read_source(options.run / "checkpoints", options.checkpoint, options.average, config.checkpoint.keep_last)
    metrics = read_metrics(options.run, source.state["step"])
    parents = parents_of(options.run, source, config.data.path)
    private = manifest.private or comes_of_private_text(parents)
    check_data(config.data.path, source)
    if options.onnx:
        check_onnx_installed(sum(tensor.nbytes for tensor in source.weights.values()))
    dtype = DTYPES[options.dtype]
    with replace_folder(options.output) as temporary, words_withheld(private):
        model = load_model(source.weights, config, manifest, dtype)
        write_model(temporary, model, config, manifest, dtype, private=private)
        sample = take_sample(model, config.data.path, manifest)
        largest = check_export(temporary, sample, config.data.path, library)
        agreement = f"the same ids, and logits to {largest:.0e} of the largest, on {sample.split} text of the data"
        checks = [f"transformers {library.version}: {agreement}."]
        if options.onnx:
            checks += write_onnx(temporary, dict(model.state_dict()), config.model, sample).sentences()
        card = model_card(config, manifest, source, metrics, parents, options, checks, private=private)
        write_text(temporary / "README.md", card)
        what = {"checkpoint": options.checkpoint, "step": source.state["step"], "dtype": options.dtype}
        what |= {"checkpoints": source.checkpoints}
        record = new_record("export", options.output.absolute(), session, options=what, parents=parents)
        close_session(record, 0, record_outputs(temporary, (*FILES, *(f"{ONNX_FOLDER}/{name}" for name in ONNX_FILES))))
        write_record(temporary, record)
    summary = {
        "output": str(options.output),
        "step": source.state["step"],
        "parameters": sum(tensor.numel() for tensor in source.weights.values()),
    }
    mean = f", the mean of {', '.join(source.checkpoints)}" if len(source.checkpoints) > 1 else ""
    print("\n".join(checks))
    print(f"exported step {summary['step']}{mean} ({summary['parameters']:,} parameters, {options.dtype}) to {options.output}")
    return summary


def check_output(output: Path) -> None:
    """Raises a UserError if there is anything but an export, or a model card that has been edited."""
    names = "|".join(map(re.escape, (*FILES, PROVENANCE_NAME, ONNX_FOLDER)))
    check_output_folder(output, marker="config.json", what="export", content=names)
    if (output / ONNX_FOLDER).exists():
        check_output_folder(output / ONNX_FOLDER, marker=ONNX_FILES[0], what="export", content="|".join(map(re.escape, ONNX_FILES)))
    written = []
    with suppress(UserError):  # a damaged record says nothing
        written = (read_record(output) or {}).get("outputs", [])
    card = output / "README.md"
    if card.is_file() and {file["sha256"] for file in written if file["path"] == card.name} - {sha256_of_files(card)}:
        raise UserError(f"{card}: has been edited, and would be replaced. Move it away, or choose another --output.")


def check_data(data: Path, source: Source) -> None:
    """Raises a UserError if this is not the data of the run: the model card would not tell the truth."""
    if manifest_sha256(data) != source.state["data_sha256"]:
        raise UserError(
            f"{data}: is not the data that the checkpoint was trained on (the manifest differs). Put the former data back, or name "
            "its folder as data.path in the config.yaml of the run."
        )


def load_model(weights: dict[str, Tensor], config: RunConfig, manifest: Manifest, dtype: torch.dtype) -> Albert:
    """Our model with the weights as they are exported: rounded to `dtype`, in fp32.

    Raises:
        UserError: they are another model's.
    """
    model = Albert(config.model, manifest.vocab_size).eval()
    try:
        model.load_state_dict({name: tensor.to(dtype).float() for name, tensor in weights.items()})
    except RuntimeError as error:
        raise UserError(f"the checkpoint holds another model than the run's config.yaml: {' '.join(str(error).split())}") from error
    return model


def write_model(
    folder: Path, model: Albert, config: RunConfig, manifest: Manifest, dtype: torch.dtype, *, private: bool = False
) -> None:
    """All that is loaded."""
    tensors = {name: tensor.to(dtype) for name, tensor in to_hf_weights(model.state_dict(), config.model).items()}
    save_tensors(folder / "model.safetensors", tensors, {"format": "pt"})  # for its owner alone, unlike other files
    content = hf_config(config.model, manifest.vocab_size) | {"dtype": str(dtype).removeprefix("torch.")}
    write_json(folder / "config.json", content)
    shutil.copymode(folder / "config.json", folder / "model.safetensors")
    more = {"model_max_length": config.model.max_position_embeddings} | ({"private": True} if private else {})
    copy_tokenizer(config.data.path / TOKENIZER_FOLDER, folder, more)


def parents_of(run_folder: Path, source: Source, data: Path) -> list[Record]:
    """The run, and the data where the run's own record does not name it."""
    newest, sha256 = next(iter(source.checkpoints.items()))
    run = parent("run", run_folder, f"checkpoints/{newest}/manifest.json", sha256)
    return [run, parent("data", data, MANIFEST_NAME)] if run["provenance"] == UNKNOWN else [run]


def copy_tokenizer(source: Path, target: Path, more: dict[str, Any]) -> None:
    """The tokenizer of the data; tokenizer_config.json gets the fields `more`, nothing else changes.

    spiece.model is missing where the data was made with a downloaded tokenizer that has none.
    """
    shutil.copyfile(source / "tokenizer.json", target / "tokenizer.json")
    content = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_json(target / "tokenizer_config.json", content | more)
    if (source / "spiece.model").is_file():
        shutil.copyfile(source / "spiece.model", target / "spiece.model")


def read_metrics(run_folder: Path, step: int) -> list[dict[str, Any]]:
    """Records of metrics.jsonl up to `step`, none without that file; lines that are damaged are left out, and their number said."""
    path = run_folder / "metrics.jsonl"
    records = list(read_records(path))
    if num_unreadable := records.count(None):
        print(f"{path}: {num_unreadable:,} line(s) cannot be read and are left out of the model card.", flush=True)
    return [record for record in records if record is not None and record["step"] <= step]
