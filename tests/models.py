"""Models made for a test."""

import torch

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
