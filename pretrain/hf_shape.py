"""A Hugging Face ALBERT's config.json in, the fields of a run config that compute the same out, or why none does."""

import json
from pathlib import Path
from typing import Any

from tokenizer.errors import UserError

ACTIVATIONS = {"gelu_new": "gelu_new", "gelu_pytorch_tanh": "gelu_new", "gelu": "gelu", "relu": "relu"}
"""Their `hidden_act` -> ours; two names of theirs are those of one function. The first is what they take where it is left out."""

COMPUTED: dict[str, tuple[object, ...]] = {
    "model_type": ("albert",),
    "inner_group_num": (1,),
    "hidden_act": tuple(ACTIVATIONS),
    "layer_norm_eps": (1e-12,),
    "type_vocab_size": (2,),
    "position_embedding_type": ("absolute",),
}
"""Fields, and the values that `Albert` computes."""

SHAPE = {
    "embedding_size": 128,
    "hidden_size": 4096,
    "num_hidden_layers": 12,
    "num_hidden_groups": 1,
    "num_attention_heads": 64,
    "intermediate_size": 16_384,
    "max_position_embeddings": 512,
}
"""Fields of the run config's `model` that shape the weights, which have the same names here; with what AlbertConfig of transformers
5.23 takes where one is left out."""
OTHERS = {
    "hidden_dropout": ("hidden_dropout_prob", 0.0),
    "attention_dropout": ("attention_probs_dropout_prob", 0.0),
    "initializer_range": ("initializer_range", 0.02),
}
"""Of the other fields of `model`, the name here, and what is taken where it is left out."""


def model_fields(folder: Path) -> tuple[dict[str, Any], int]:
    """Fields of the run config's `model`, unchecked, and vocabulary size of a Hugging Face ALBERT folder.

    Raises:
        UserError: config.json cannot be read, or describes what `Albert` cannot compute; every reason is listed.
    """
    content = read_hf_config(folder)
    faults = []
    for key, known in COMPUTED.items():
        value = content.get(key, known[0] if key != "model_type" else None)
        if value not in known:
            faults.append(f"{key} is {value!r}, and only {' or '.join(map(str, known))} can be computed here")
    vocab_size = content.get("vocab_size", 30_000)
    if type(vocab_size) is not int or vocab_size < 1:
        faults.append(f"vocab_size must be a whole number above 0, found {vocab_size!r}")
    if faults:
        raise UserError(f"{folder / 'config.json'}: " + "; ".join(faults) + ".")
    shape = {key: content.get(key, default) for key, default in SHAPE.items()}
    others = {key: content.get(theirs, default) for key, (theirs, default) in OTHERS.items()}
    return shape | others | {"hidden_act": ACTIVATIONS[content.get("hidden_act", "gelu_new")]}, vocab_size


def read_hf_config(folder: Path) -> dict[str, Any]:
    """Content of config.json.

    Raises:
        UserError: it is not there, or holds something else than a JSON object.
    """
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}/config.json cannot be read ({error}). Give a Hugging Face ALBERT folder.") from error
    return content
