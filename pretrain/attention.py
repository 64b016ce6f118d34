"""Self-attention within each of many sequences that lie end to end.

Shape suffixes as in pretrain/model.py.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from pretrain.dropout import keyed_dropout, subkeys


class Packing(NamedTuple):
    """Where the B sequences of a micro-batch lie among its N pieces."""

    lengths: tuple[int, ...]
    """Pieces of each sequence."""
    starts_B1: Tensor
    """int32 (B + 1): the place of each sequence's first piece, and N."""


class AttentionDropout(NamedTuple):
    """What is dropped of the attention weights (v1)."""

    probability: float
    keys_B: Tensor
    """int32, a key for each sample at this layer."""


def attend(query_NHK: Tensor, key_NHK: Tensor, value_NHK: Tensor, packing: Packing, dropout: AttentionDropout | None) -> Tensor:
    """Softmax of the scaled products within each sequence, times the values: (N, H, K).

    No kernel drops attention weights by key, so with dropout they are spelt out, for padded sequences.
    """
    kernel = chosen_kernel(query_NHK.device, query_NHK.shape[-1], query_NHK.dtype, drops=dropout is not None)
    if kernel == "packed":
        return packed_attention(query_NHK, key_NHK, value_NHK, packing)
    if kernel == "by_sequence":
        return attention_by_sequence(query_NHK, key_NHK, value_NHK, packing)
    return padded_attention(query_NHK, key_NHK, value_NHK, packing, dropout)


def chosen_kernel(
    device: torch.device, head_size: int, dtype: torch.dtype, *, drops: bool
) -> Literal["packed", "by_sequence", "padded"]:
    """How attention is computed. drops: whether attention weights are dropped."""
    if drops:
        return "padded"
    if device.type == "cpu":
        return "by_sequence"
    has_flash = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "packed" if has_flash and fits_packed_kernel(head_size, dtype.itemsize) else "padded"


def fits_packed_kernel(head_size: int, bytes_of_a_number: int) -> bool:
    """`torch.nn.attention.varlen`: flash attention, from Ampere on, in half precision, for some sizes of a head."""
    return bytes_of_a_number == 2 and head_size % 8 == 0 and head_size <= 256


def packed_attention(query_NHK: Tensor, key_NHK: Tensor, value_NHK: Tensor, packing: Packing) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn  # takes a while, and a GPU

    longest = max(packing.lengths)
    return varlen_attn(query_NHK, key_NHK, value_NHK, packing.starts_B1, packing.starts_B1, longest, longest)


def attention_by_sequence(query_NHK: Tensor, key_NHK: Tensor, value_NHK: Tensor, packing: Packing) -> Tensor:
    """A call of the kernel for each sequence: on a CPU a call costs nothing beside its work."""
    splits = (x.transpose(0, 1)[None].split(packing.lengths, dim=2) for x in (query_NHK, key_NHK, value_NHK))
    contexts = [F.scaled_dot_product_attention(*each) for each in zip(*splits, strict=True)]
    return torch.cat(contexts, dim=2)[0].transpose(0, 1)


def padded_attention(
    query_NHK: Tensor, key_NHK: Tensor, value_NHK: Tensor, packing: Packing, dropout: AttentionDropout | None
) -> Tensor:
    """All sequences padded to the longest, the padding masked."""
    query_BHTK, key_BHTK, value_BHTK = (
        pad_sequence(x.split(packing.lengths), batch_first=True).transpose(1, 2) for x in (query_NHK, key_NHK, value_NHK)
    )
    positions_T = torch.arange(query_BHTK.shape[2], device=query_NHK.device)
    mask_B11T = (positions_T < packing.starts_B1.diff()[:, None])[:, None, None]
    if dropout is None:
        context_BHTK = F.scaled_dot_product_attention(query_BHTK, key_BHTK, value_BHTK, attn_mask=mask_B11T)
    else:
        scores_BHTT = query_BHTK @ key_BHTK.transpose(-1, -2) * key_BHTK.shape[-1] ** -0.5
        weights_BHTT = scores_BHTT.masked_fill(~mask_B11T, float("-inf")).softmax(-1)
        context_BHTK = drop_weights(weights_BHTT, dropout) @ value_BHTK
    rows = zip(context_BHTK.transpose(1, 2), packing.lengths, strict=True)
    return torch.cat([row_THK[:length] for row_THK, length in rows])


def drop_weights(weights_BHTT: Tensor, dropout: AttentionDropout) -> Tensor:
    """Each head and each query position has masks of its own."""
    _, heads, positions, _ = weights_BHTT.shape
    device = weights_BHTT.device
    keys_BH = subkeys(dropout.keys_B[:, None], torch.arange(heads, device=device))
    keys_BHT = subkeys(keys_BH[..., None], torch.arange(positions, device=device))
    return keyed_dropout(weights_BHTT, dropout.probability, keys_BHT)
