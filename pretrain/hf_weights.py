"""Names and shapes of Hugging Face's `AlbertForPreTraining`, to and from ours.

Where blocks are shared in a way that Hugging Face cannot express (`share` other than `all`), every layer becomes a hidden group of
its own, holding equal copies of the shared weights.
"""

from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pretrain.config import ModelConfig
from pretrain.config_file import describe
from pretrain.hf_shape import SHAPE, model_fields
from pretrain.model import LAYER_NORM_EPS, block_of_layer
from tokenizer.errors import UserError, first_line
from tokenizer.special_tokens import CLS_ID, PAD_ID, SEP_ID

OUTSIDE_LAYERS = {
    "embeddings.word.weight": "albert.embeddings.word_embeddings.weight",
    "embeddings.segment.weight": "albert.embeddings.token_type_embeddings.weight",
    "embeddings.position.weight": "albert.embeddings.position_embeddings.weight",
    "embeddings.layer_norm.weight": "albert.embeddings.LayerNorm.weight",
    "embeddings.layer_norm.bias": "albert.embeddings.LayerNorm.bias",
    "encoder.input_projection.weight": "albert.encoder.embedding_hidden_mapping_in.weight",
    "encoder.input_projection.bias": "albert.encoder.embedding_hidden_mapping_in.bias",
    "pooler.weight": "albert.pooler.weight",
    "pooler.bias": "albert.pooler.bias",
    "mlm_head.dense.weight": "predictions.dense.weight",
    "mlm_head.dense.bias": "predictions.dense.bias",
    "mlm_head.layer_norm.weight": "predictions.LayerNorm.weight",
    "mlm_head.layer_norm.bias": "predictions.LayerNorm.bias",
    "mlm_head.bias": "predictions.bias",
    "sop_head.weight": "sop_classifier.classifier.weight",
    "sop_head.bias": "sop_classifier.classifier.bias",
}
IN_ATTENTION = {
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "output": "attention.dense",
    "layer_norm": "attention.LayerNorm",
}
DECODER, PIECES = "predictions.decoder.weight", "albert.embeddings.word_embeddings.weight"
"""One tensor under two names, where a file has both."""
IN_FFN = {"up": "ffn", "down": "ffn_output", "layer_norm": "full_layer_layer_norm"}


def num_hf_groups(config: ModelConfig) -> int:
    return config.num_hidden_groups if config.share == "all" else config.num_hidden_layers


def hf_names(config: ModelConfig) -> dict[str, str]:
    """Hugging Face's parameter name -> ours; several of theirs may stand for one of ours."""
    names = {theirs: ours for ours, theirs in OUTSIDE_LAYERS.items()}
    attention_of_layer = block_of_layer(config, shared=config.share in ("all", "attention"))
    ffn_of_layer = block_of_layer(config, shared=config.share in ("all", "ffn"))
    layers_per_group = config.num_hidden_layers // num_hf_groups(config)
    for group in range(num_hf_groups(config)):
        layer = group * layers_per_group
        prefix = f"albert.encoder.albert_layer_groups.{group}.albert_layers.0"
        for kind in ("weight", "bias"):
            for ours, theirs in IN_ATTENTION.items():
                names[f"{prefix}.{theirs}.{kind}"] = f"encoder.attentions.{attention_of_layer[layer]}.{ours}.{kind}"
            for ours, theirs in IN_FFN.items():
                names[f"{prefix}.{theirs}.{kind}"] = f"encoder.ffns.{ffn_of_layer[layer]}.{ours}.{kind}"
    return names


def to_hf_weights(weights: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """State dict of `AlbertForPreTraining` (the tied decoder left to Hugging Face) from ours; each tensor a copy of its own."""
    return {theirs: weights[ours].clone().contiguous() for theirs, ours in hf_names(config).items()}


def hf_config(config: ModelConfig, vocab_size: int) -> dict[str, Any]:
    """Content of config.json."""
    return {
        "architectures": ["AlbertForPreTraining"],
        "model_type": "albert",
        "vocab_size": vocab_size,
        "embedding_size": config.embedding_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_hidden_groups": num_hf_groups(config),
        "inner_group_num": 1,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "hidden_act": config.hidden_act,
        "hidden_dropout_prob": config.hidden_dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "classifier_dropout_prob": 0.1,
        "max_position_embeddings": config.max_position_embeddings,
        "type_vocab_size": 2,
        "initializer_range": config.initializer_range,
        "layer_norm_eps": LAYER_NORM_EPS,
        "pad_token_id": PAD_ID,
        "bos_token_id": CLS_ID,
        "eos_token_id": SEP_ID,
        "tie_word_embeddings": True,
    }


def read_hf_weights(config: ModelConfig, folder: Path) -> dict[str, Tensor]:
    """Our name -> tensor, fp32, from a Hugging Face ALBERT folder of this shape; those of heads that it lacks are not among them.

    Raises:
        UserError: no model.safetensors, or it is damaged; a weight of the encoder is missing; weights that are one here differ.
    """
    path = find_weights(folder)
    try:
        theirs = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be read as safetensors ({first_line(error)}). Fetch or export the model again.") from error
    if not any(name.startswith("albert.") for name in theirs):  # saved from a bare AlbertModel
        theirs = {f"albert.{name}": tensor for name, tensor in theirs.items()}
    if DECODER in theirs and PIECES in theirs and not torch.equal(theirs[DECODER].float(), theirs[PIECES].float()):
        raise UserError(f"{folder} has a masked-LM decoder that is not its piece embeddings, which ALBERT's is.")
    theirs["predictions.bias"] = theirs.get("predictions.decoder.bias", theirs.get("predictions.bias"))  # as transformers 5 does
    ours, missing = {}, []
    for hf_name, name in hf_names(config).items():
        if theirs.get(hf_name) is None:
            missing += [hf_name] if hf_name.startswith("albert.") and "pooler" not in hf_name else []
        elif name in ours and not torch.equal(ours[name], theirs[hf_name].float()):
            raise UserError(f"{folder} has other weights in {hf_name} than in the layer it should share with.")
        else:
            ours[name] = theirs[hf_name].float()
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing[:3])}{' ...' if missing[3:] else ''}: is it an ALBERT?")
    return ours


def find_weights(folder: Path) -> Path:
    """Raise a UserError without model.safetensors."""
    path = folder / "model.safetensors"
    if not path.is_file():
        raise UserError(
            f"{folder} has no model.safetensors. Pickled weights are not read; load the model in transformers "
            "and call save_pretrained, which writes safetensors."
        )
    return path


def config_from_hf(folder: Path) -> tuple[ModelConfig, int]:
    """Shape and vocabulary size of a Hugging Face ALBERT folder.

    Raises:
        UserError: config.json cannot be read, or describes what `Albert` cannot compute; every reason is listed.
    """
    theirs, vocab_size = model_fields(folder)
    try:
        return TypeAdapter(ModelConfig).validate_python(theirs), vocab_size
    except ValidationError as error:
        raise UserError(f"{folder / 'config.json'}: " + "; ".join(map(describe, error.errors())) + ".") from error


def check_hf_config(config: ModelConfig, folder: Path) -> None:
    """Every difference in shape and activation between a Hugging Face folder and the run config, in one `UserError`."""
    theirs, _ = config_from_hf(folder)
    ours = hf_config(config, 0)
    pairs = {key: (getattr(theirs, key), ours[key]) for key in (*SHAPE, "hidden_act")}
    faults = [f"{key}: the folder has {there!r}, this run {here!r}" for key, (there, here) in pairs.items() if there != here]
    if faults:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise UserError(f"{folder} is another model:\n{listed}\nLeave these fields of `model` out: they are taken from there.")
