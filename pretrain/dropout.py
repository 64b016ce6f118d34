"""Dropout whose mask is a hash of (seed, step, sample, layer, site, position, channel): a sample drops the same activations on any
rank, in any micro-batch, at any padding, and after any interruption. No generator, no state.

The hash is the finaliser "lowbias32" of Wellons, "Prospecting for Hash Functions" (nullprogram.com, 2018), over 32-bit keys that
are mixed one coordinate at a time. It runs in int32, whose multiplication wraps, on any device.

Shape suffixes as in pretrain/model.py.
"""

import numpy as np
import torch
from torch import Tensor

from pretrain.sample_order import mix

GOLDEN_RATIO = 0x9E3779B9 - 2**32
"""Odd multiplier of a Weyl sequence: neighbouring numbers get keys far apart."""


def sample_keys(samples: np.ndarray, seed: int, step: int) -> Tensor:
    """A key (int32) for each sample number (int64) in a step."""
    hashed = mix(mix(np.uint64(seed), np.uint64(step)), samples.astype(np.uint64))
    return torch.from_numpy((hashed >> np.uint64(32)).astype(np.uint32).view(np.int32))


def subkeys(keys: Tensor, numbers: Tensor | int) -> Tensor:
    """The key (int32) of entry `numbers` under each of `keys`: of a site under a sample, a position under a site, and so on."""
    if isinstance(numbers, int):  # no tensor, which would have to be copied to the device
        return scramble(keys + ((numbers * GOLDEN_RATIO + 2**31) % 2**32 - 2**31))
    return scramble(keys + numbers.to(torch.int32) * GOLDEN_RATIO)


def keyed_dropout(x: Tensor, probability: float, keys: Tensor) -> Tensor:
    """`x` with entries set to 0 with `probability` and the others divided by 1 - probability.

    keys: int32, one for each vector of `x` along its last dimension (`keys.shape == x.shape[:-1]`).
    """
    hashed = subkeys(keys[..., None], torch.arange(x.shape[-1], dtype=torch.int32, device=x.device))
    kept = hashed >= round(probability * 2**32) - 2**31
    return torch.where(kept, x, 0.0) * (1 / (1 - probability))


def scramble(x: Tensor) -> Tensor:
    """lowbias32 over int32, which wraps."""
    x = shift_xor(x, 16) * 0x7FEB352D
    x = shift_xor(x, 15) * (0x846CA68B - 2**32)
    return shift_xor(x, 16)


def shift_xor(x: Tensor, bits: int) -> Tensor:
    """x ^ (x >>> bits): int32 shifts bring the sign along, which the mask takes away."""
    return x ^ ((x >> bits) & (2 ** (32 - bits) - 1))
