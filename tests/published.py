"""A stand-in for an ALBERT of the Hugging Face Hub: SentencePiece on lower-cased text without accents, in files as of 2020."""

import base64
import json
import shutil
from pathlib import Path

from models import random_model
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2

from pretrain.config import ModelConfig
from pretrain.hf_weights import hf_config, to_hf_weights
from tokenizer.charsmap import nmt_nfkc
from tokenizer.options import TokenizerOptions
from tokenizer.train import train_tokenizer

SHAPE = ModelConfig(
    embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=64
)


def write_published(folder: Path, corpus: Path, vocab_size: int = 800, config: ModelConfig = SHAPE) -> Path:
    """config.json, model.safetensors with random weights, spiece.model, tokenizer.json, tokenizer_config.json."""
    options = TokenizerOptions(input=[str(corpus)], output=folder / "trained", vocab_size=vocab_size, keep_accents=False)
    train_tokenizer(options)
    model = sentencepiece_model_pb2.ModelProto.FromString((folder / "trained" / "spiece.model").read_bytes())
    model.normalizer_spec.name, model.normalizer_spec.precompiled_charsmap = "nmt_nfkc", nmt_nfkc()
    (folder / "spiece.model").write_bytes(model.SerializeToString())
    content = json.loads((folder / "trained" / "tokenizer.json").read_text())
    shutil.rmtree(folder / "trained")
    del content["model"]["type"], content["model"]["byte_fallback"]
    for metaspace in (content["pre_tokenizer"]["pretokenizers"][1], content["decoder"]):
        del metaspace["prepend_scheme"], metaspace["split"]
        metaspace.update(str_rep="▁", add_prefix_space=True)
    content["normalizer"]["normalizers"][-1]["precompiled_charsmap"] = base64.b64encode(nmt_nfkc()).decode()
    content["normalizer"]["normalizers"].append({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})
    content["added_tokens"][4]["lstrip"] = True
    content["truncation"] = {"max_length": 5, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 512}')
    model = random_model(config, vocab_size, seed=3)
    save_file(to_hf_weights(model.state_dict(), config), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(hf_config(config, vocab_size)))
    return folder
