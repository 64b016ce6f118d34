"""What a `--model` of `albert evaluate` is, a run or a Hugging Face ALBERT: its shape, its weights, and whether data suits it."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from data_prep.schema import TOKENIZER_FOLDER, Manifest, manifest_sha256
from pretrain.checkpoint import load_weights
from pretrain.checkpoint_choice import choose_checkpoint, find
from pretrain.config import ModelConfig
from pretrain.config_file import load_config
from pretrain.hf_weights import config_from_hf, read_hf_weights
from pretrain.model import Albert
from tokenizer.chain import load_chain
from tokenizer.errors import UserError
from tokenizer.files import sha256_of_files
from tokenizer.imported import read_recipe


class Source(NamedTuple):
    """A model that has been found, not yet loaded."""

    path: Path
    """As it was given."""
    kind: Literal["run", "hugging_face"]
    weights: Path
    """Folder with model.safetensors: of a run its checkpoint."""
    config: ModelConfig
    vocab_size: int | None
    """None of a run: that of the data of its tokenizer."""
    data: Path | None
    """Data folder of a run."""
    state: dict[str, Any]
    """state.json of a run's checkpoint; empty otherwise."""


def open_model(path: Path, checkpoint: str) -> Source:
    """Look at a run, one checkpoint of it (RUN/checkpoints/step-N), or a Hugging Face folder. checkpoint: of a run, as
    `--checkpoint` has it.

    Raises:
        UserError: it is none of them, has no such checkpoint, or its shape cannot be computed.
    """
    step = re.fullmatch(r".*/checkpoints/step-(\d+)", str(path.absolute()))
    if step and not (path / "config.json").is_file():
        return open_model(path.absolute().parent.parent, step[1])._replace(path=path)
    if (path / "config.yaml").is_file():
        config = load_config(path / "config.yaml")
        found = choose_checkpoint(path / "checkpoints", checkpoint, find)
        return Source(path, "run", found.folder, config.model, None, config.data.path, found.state)
    if (path / "config.json").is_file():
        model_config, vocab_size = config_from_hf(path)
        return Source(path, "hugging_face", path, model_config, vocab_size, None, {})
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder, and nothing is downloaded. Give a run or a folder with a saved model.")
    raise UserError(
        f"{path}: holds neither config.yaml, as a run of `albert launch` does, nor config.json, as a Hugging Face model does."
    )


def load_model(source: Source, vocab_size: int) -> tuple[Albert, bool]:
    """The model, fp32 on the CPU, and whether it has a sentence-order head. vocab_size: that of the data.

    Raises:
        UserError: there is no masked-LM head, or weights are missing, damaged, of another shape or no finite numbers.
    """
    model = Albert(source.config, source.vocab_size or vocab_size).eval()
    has_order_head = True
    if source.kind == "run":
        with still_there(source.weights):
            load_weights(source.weights, model)
    else:
        weights = read_hf_weights(source.config, source.path)
        lacking = model.state_dict().keys() - weights.keys()
        if any(name.startswith("mlm_head.") for name in lacking):
            raise UserError(
                f"{source.path}: there is no masked-LM head to evaluate; it was saved from an encoder alone or for another task. "
                "Save it from AlbertForPreTraining or AlbertForMaskedLM."
            )
        has_order_head = not lacking
        try:
            model.load_state_dict(weights, strict=False)
        except RuntimeError as error:
            raise UserError(f"{source.path}: the weights do not fit config.json: {' '.join(str(error).split())}") from error
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise UserError(f"{source.weights}: holds weights that are no finite numbers.")
    return model, has_order_head


def hash_of_weights(source: Source) -> str:
    """SHA-256 of model.safetensors."""
    with still_there(source.weights):
        return sha256_of_files(source.weights / "model.safetensors")


@contextmanager
def still_there(folder: Path) -> Iterator[None]:
    """A run at work deletes old checkpoints: a UserError then."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{folder}: was deleted meanwhile by the run. Evaluate again, or give --checkpoint STEP.") from error


def random_model(config: ModelConfig, vocab_size: int, seed: int) -> Albert:
    """A model of this shape as training begins with it."""
    model = Albert(config, vocab_size).eval()
    model.initialize(config.initializer_range, torch.Generator().manual_seed(seed))
    return model


def fit_faults(source: Source, data: Path, manifest: Manifest) -> list[str]:
    """Why this model cannot be evaluated on this data, a line each."""
    faults = []
    if manifest.max_seq_length > source.config.max_position_embeddings:
        faults.append(
            f"{source.path}: takes {source.config.max_position_embeddings:,} pieces at most, but {data} holds sequences of up to "
            f"{manifest.max_seq_length:,}. Prepare the data with a smaller --max_seq_length."
        )
    if source.vocab_size is not None and source.vocab_size < manifest.vocab_size:
        faults.append(f"{source.path}: knows {source.vocab_size:,} pieces, but {data} has {manifest.vocab_size:,}.")
    return faults + tokenizer_difference(source, data, manifest)


def tokenizer_difference(source: Source, data: Path, manifest: Manifest) -> list[str]:
    """A line if the model's tokenizer is not known to be that of the data."""
    theirs, ours = source.path / "tokenizer.json", data / TOKENIZER_FOLDER / "tokenizer.json"
    if source.kind == "run":
        recorded = source.state.get("tokenizer_sha256", "not recorded")
        if source.state["data_sha256"] == manifest_sha256(data) or recorded == manifest.tokenizer_sha256:
            return []
        theirs = source.data / TOKENIZER_FOLDER / "tokenizer.json"
        is_as_then = hash_of(theirs, theirs.with_name("tokenizer_config.json")) == recorded
        if is_as_then and tokenizer_content(theirs) == tokenizer_content(ours):
            return []
        hashes = recorded, manifest.tokenizer_sha256
    elif not theirs.is_file():
        return [
            f"{source.path}: has no tokenizer.json, so nothing says that its pieces are those of {data}. Put the one that it was "
            "trained with there."
        ]
    elif tokenizer_content(theirs) == tokenizer_content(ours) or is_same_recipe(source.path, ours.parent):
        return []
    else:
        hashes = hash_of(theirs), hash_of(ours)
    return [
        f"{source.path}: has another tokenizer (SHA-256 {hashes[0][:12]}...) than {data} ({hashes[1][:12]}...), so its pieces are "
        "others. Evaluate it on data that was prepared with its tokenizer."
    ]


def is_same_recipe(folder: Path, tokenizer: Path) -> bool:
    """Whether a folder of Hugging Face's has the tokenizer of the data, written by another release."""
    try:
        return read_recipe(folder) == load_chain(tokenizer)
    except UserError:
        return False


def tokenizer_content(path: Path) -> object:
    """What a tokenizer.json says, without what decides no id of a text: how long inputs are cut and padded, as transformers saves
    it, and how the file is laid out. Of what cannot be read, something that equals nothing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return object()
    passing = {"truncation", "padding"}
    return {key: value for key, value in content.items() if key not in passing} if isinstance(content, dict) else object()


def hash_of(*paths: Path) -> str:
    """SHA-256 over the files; of what cannot be read, words that say so."""
    try:
        return sha256_of_files(*paths)
    except OSError:
        return "unreadable"
