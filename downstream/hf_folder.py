"""A Hugging Face ALBERT folder, from `albert export` or elsewhere: its tokenizer and its weights, or what is wrong with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tokenizer.errors import UserError, first_line


def open_tokenizer(folder: Path) -> tuple[PreTrainedTokenizerBase, int]:
    """And how many pieces the model takes.

    Raises:
        UserError: the folder has no config of an ALBERT, no tokenizer, or no safetensors; or the tokenizer is another model's.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if not any(folder.glob("model*.safetensors")):
        raise UserError(f"{folder}: {_why_no_weights(folder)}")
    with _loading(folder):
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type != "albert":
            raise ValueError(f"its config.json says {config.model_type}, not albert")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    of_albert = isinstance(tokenizer, transformers.AlbertTokenizer)
    if of_albert and not any((folder / name).is_file() for name in ("tokenizer.json", "spiece.model")):  # all would be [UNK]
        raise UserError(
            f"{folder}: has neither tokenizer.json nor spiece.model. Put the model's own there; where it has a vocab.txt of "
            'WordPiece, write {"tokenizer_class": "BertTokenizer"} into its tokenizer_config.json.'
        )
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"{folder}: {len(tokenizer):,} pieces in the tokenizer, but {config.vocab_size:,} in the model. "
            "Put the model's own tokenizer there."
        )
    return tokenizer, config.max_position_embeddings


def load_model(folder: Path, auto_class: str, config: dict[str, Any], **more: Any) -> tuple[PreTrainedModel, set[str]]:
    """In fp32, with the names of its weights that the folder lacks, which are random: of a head or the pooler.

    auto_class: of transformers; config: fields that replace those of config.json; more: for `from_pretrained`.

    Raises:
        UserError: other weights of the encoder are missing, or of another shape than config.json says.
    """
    with _loading(folder):
        model, info = getattr(transformers, auto_class).from_pretrained(
            folder,
            config=transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **config),
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # a folder that was fine-tuned for other classes
            output_loading_info=True,
            **more,
        )
    lacking = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])}
    encoder = "" if isinstance(model, transformers.AlbertModel) else f"{model.base_model_prefix}."
    if lost := sorted(name for name in lacking if name.startswith(encoder) and "pooler." not in name):
        raise UserError(f"{folder}: its weights do not fit its config.json ({', '.join(lost[:3])}).")
    return model, lacking


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each library raises of its own
        raise UserError(f"{folder}: cannot be loaded ({first_line(error)}). Is it an exported folder?") from error


def _why_no_weights(folder: Path) -> str:
    if not folder.is_dir():
        return "there is no such folder. Give one that `albert export` wrote."
    if (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir():
        return f"is a run. Export it first: albert export --run {folder} --output {folder}_hf"
    if any(folder.glob("*.bin")):
        return (
            "has no model.safetensors. Pickled weights are not read; load the model in transformers and call save_pretrained, "
            "which writes safetensors."
        )
    return "has no model.safetensors. Give a folder that `albert export` wrote, or any Hugging Face ALBERT with safetensors."
