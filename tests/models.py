"""Models made for a test."""

import shutil
from pathlib import Path

import torch
import transformers

from pretrain.config import ModelConfig
from pretrain.model import Albert


def random_model(config: ModelConfig, vocab_size: int, seed: int) -> Albert:
    """Weights large enough that every part of the network matters, biases and LayerNorm included; dropout off."""
    model = Albert(config, vocab_size).eval()
    generator = torch.Generator().manual_seed(seed)
    model.initialize(0.2, generator)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def tiny_export(tokenizer: Path, folder: Path) -> Path:
    """A tiny ALBERT as an export has it, of random weights and without dropout; it takes 64 pieces. tokenizer: of 2,000 pieces."""
    torch.manual_seed(0)
    shape = {"embedding_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    more = {"vocab_size": 2000, "max_position_embeddings": 64, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    transformers.AlbertForPreTraining(transformers.AlbertConfig(**shape, **more)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "spiece.model"):
        shutil.copyfile(tokenizer / name, folder / name)
    return folder
