"""Dropout whose mask is a hash of (seed, step, sample, layer, site, position, channel): a sample drops the same activations on any
rank, in any micro-batch, at any padding, and after any interruption. No generator, no state.

The hash is the finaliser "lowbias32" of Wellons, "Prospecting for Hash Functions" (nullprogram.com, 2018), over 32-bit keys that
are mixed one coordinate at a time. It runs in int32, whose multiplication wraps, on any device.

Shape suffixes as in pretrain/model.py.
"""

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.sample_order import mix

GOLDEN_RATIO = 0x9E3779B9 - 2**32
"""Odd multiplier of Weyl sequences: neighbouring coordinates get keys far apart."""


def sample_keys(samples: np.ndarray, seed: int, step: int) -> Tensor:
    """A key (int32) for each sample number (int64) in a step."""
    hashed = mix(mix(np.uint64(seed), np.uint64(step)), samples.astype(np.uint64))
    return torch.from_numpy((hashed >> np.uint64(32)).astype(np.uint32).view(np.int32))


class KeyedDropout(nn.Module):
    """Dropout in training with the masks of `keyed_dropout`; without keys an error, so that no random mask slips in."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor, keys_B: Tensor | None, site: int) -> Tensor:
        """x: (B, T, channels), or (B, H, T, channels) with masks of their own for each head. site: see `position_keys`.

        Raises:
            ValueError: keys are needed, and there are none.
        """
        if not self.training or self.probability == 0:
            return x
        if keys_B is None:
            raise ValueError("dropout in training needs MicroBatch.dropout_keys_B (pretrain.dropout.sample_keys)")
        if x.dim() == 4:
            keys_B = scramble(weyl(keys_B[:, None], torch.arange(x.shape[1], dtype=torch.int32, device=x.device)))
        return keyed_dropout(x, self.probability, position_keys(keys_B, site, x.shape[-2]))


def position_keys(keys: Tensor, site: int, num_positions: int) -> Tensor:
    """Keys (..., num_positions), int32, of every position of each sample (or head) at one place of the network.

    site: number of the place, another for each layer and for each dropout within one.
    """
    positions = torch.arange(num_positions, dtype=torch.int32, device=keys.device)
    at_site = scramble(weyl(keys, torch.full((), site, dtype=torch.int32, device=keys.device)))
    return scramble(weyl(at_site[..., None], positions))


def keyed_dropout(x: Tensor, probability: float, keys: Tensor) -> Tensor:
    """`x` with entries set to 0 with `probability` and the others divided by 1 - probability.

    keys: int32, one for each vector of `x` along its last dimension (`keys.shape == x.shape[:-1]`).
    """
    channels = torch.arange(x.shape[-1], dtype=torch.int32, device=x.device)
    hashed = scramble(weyl(keys[..., None], channels))
    kept = hashed >= round(probability * 2**32) - 2**31
    return torch.where(kept, x, 0.0) * (1 / (1 - probability))


def weyl(keys: Tensor, numbers: Tensor) -> Tensor:
    """The entry of number `numbers` in the Weyl sequence from each key; int32, wrapping."""
    return keys + numbers * GOLDEN_RATIO


def scramble(x: Tensor) -> Tensor:
    """lowbias32 over int32."""
    x = shift_xor(x, 16) * 0x7FEB352D
    x = shift_xor(x, 15) * (0x846CA68B - 2**32)
    return shift_xor(x, 16)


def shift_xor(x: Tensor, bits: int) -> Tensor:
    """x ^ (x >>> bits): int32 shifts bring the sign along, which the mask takes away."""
    return x ^ ((x >> bits) & (2 ** (32 - bits) - 1))
