"""A run's checkpoint as a Hugging Face folder: config, weights, tokenizer, model card."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from data_prep.schema import MANIFEST_NAME, TOKENIZER_FOLDER, read_manifest
from pretrain.checkpoint import choose_checkpoint, read_state
from pretrain.config import load_config, tokenizer_faults
from pretrain.export_options import ExportOptions
from pretrain.hf_weights import hf_config, to_hf_weights
from pretrain.model_card import model_card
from tokenizer.errors import UserError
from tokenizer.files import check_output_folder, replace_folder, write_json, write_text
from tokenizer.provenance import (
    PROVENANCE_NAME,
    UNKNOWN,
    Record,
    close_session,
    new_record,
    open_session,
    parent,
    record_outputs,
    write_record,
)

FILES = ("README.md", "config.json", "model.safetensors", "spiece.model", "tokenizer.json", "tokenizer_config.json")
"""What an export holds, beside provenance.json."""


def export(options: ExportOptions) -> dict[str, Any]:
    """Write config.json, model.safetensors, the tokenizer's files and README.md; return what the last lines say.

    Raises:
        UserError: no run, no whole checkpoint of that name, or the output holds something else.
    """
    session = open_session()
    config = load_config(options.run / "config.yaml")
    manifest = read_manifest(config.data.path)
    if faults := tokenizer_faults(config.data.path, manifest):
        raise UserError("\n".join(faults))
    check_output_folder(
        options.output, marker="config.json", what="export", content="|".join(map(re.escape, (*FILES, PROVENANCE_NAME)))
    )
    folder = choose_checkpoint(options.run / "checkpoints", options.checkpoint)
    state = read_state(folder)
    weights = load_file(folder / "model.safetensors")
    with replace_folder(options.output) as temporary:
        save_file(to_hf_weights(weights, config.model), temporary / "model.safetensors", metadata={"format": "pt"})
        write_json(temporary / "config.json", hf_config(config.model, manifest.vocab_size))
        more = {"model_max_length": config.model.max_position_embeddings} | ({"private": True} if manifest.private else {})
        copy_tokenizer(config.data.path / TOKENIZER_FOLDER, temporary, more)
        write_text(temporary / "README.md", model_card(config, manifest, state, read_metrics(options.run, state["step"])))
        what = {"checkpoint": options.checkpoint, "step": state["step"]}
        parents = parents_of(options.run, folder, config.data.path)
        record = new_record("export", options.output.absolute(), session, options=what, parents=parents)
        close_session(record, 0, record_outputs(temporary, FILES))
        write_record(temporary, record)
    summary = {
        "output": str(options.output),
        "step": state["step"],
        "parameters": sum(tensor.numel() for tensor in weights.values()),
    }
    print(f"exported step {summary['step']} ({summary['parameters']:,} parameters) to {options.output}")
    return summary


def parents_of(run_folder: Path, checkpoint: Path, data: Path) -> list[Record]:
    """The run, and the data where the run's own record does not name it."""
    run = parent("run", run_folder, f"checkpoints/{checkpoint.name}/manifest.json")
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
    """Records of metrics.jsonl up to `step`."""
    lines = (run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["step"] <= step]
