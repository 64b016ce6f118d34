"""Self-attention within each of many sequences that lie end to end.

All N pieces are keys; R of them, maybe all, are queries. Shape suffixes as in pretrain/model.py.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from pretrain.dropout import keyed_dropout, subkeys


class Packing(NamedTuple):
    """Where the B sequences of a micro-batch lie among its N pieces, or among R of them."""

    lengths: tuple[int, ...]
    """Pieces of each sequence."""
    starts_B1: Tensor
    """int32 (B + 1): the place of each sequence's first piece, and N or R."""
    position_ids_N: Tensor
    """int64, position of each piece in its sequence."""


class AttentionDropout(NamedTuple):
    """What is dropped of the attention weights (v1)."""

    probability: float
    keys_B: Tensor
    """int32, a key for each sample at this layer."""


def attend(
    query_RHK: Tensor, key_NHK: Tensor, value_NHK: Tensor, queries: Packing, keys: Packing, dropout: AttentionDropout | None
) -> Tensor:
    """Softmax of the scaled products within each sequence, times the values: (R, H, K).

    No kernel drops attention weights by key, so with dropout they are spelt out, for padded sequences.
    """
    kernel = chosen_kernel(query_RHK.device, query_RHK.shape[-1], query_RHK.dtype, drops=dropout is not None)
    if kernel == "packed":
        return packed_attention(query_RHK, key_NHK, value_NHK, queries, keys)
    if kernel == "by_sequence":
        return attention_by_sequence(query_RHK, key_NHK, value_NHK, queries, keys)
    return padded_attention(query_RHK, key_NHK, value_NHK, queries, keys, dropout)


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


def packed_attention(query_RHK: Tensor, key_NHK: Tensor, value_NHK: Tensor, queries: Packing, keys: Packing) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn  # takes a while, and a GPU

    longest = max(queries.lengths), max(keys.lengths)
    return varlen_attn(query_RHK, key_NHK, value_NHK, queries.starts_B1, keys.starts_B1, *longest)


def attention_by_sequence(query_RHK: Tensor, key_NHK: Tensor, value_NHK: Tensor, queries: Packing, keys: Packing) -> Tensor:
    """A call of the kernel for each sequence: on a CPU a call costs nothing beside its work."""
    of = ((query_RHK, queries), (key_NHK, keys), (value_NHK, keys))
    splits = (x.transpose(0, 1)[None].split(packing.lengths, dim=2) for x, packing in of)
    contexts = [F.scaled_dot_product_attention(*each) for each in zip(*splits, strict=True)]
    return torch.cat(contexts, dim=2)[0].transpose(0, 1)


def padded_attention(
    query_RHK: Tensor, key_NHK: Tensor, value_NHK: Tensor, queries: Packing, keys: Packing, dropout: AttentionDropout | None
) -> Tensor:
    """All sequences padded to the longest, the padding masked. T positions of queries, S of keys."""
    query_BHTK, key_BHSK, value_BHSK = (
        padded(x, packing).transpose(1, 2) for x, packing in ((query_RHK, queries), (key_NHK, keys), (value_NHK, keys))
    )
    positions_S = torch.arange(key_BHSK.shape[2], device=key_NHK.device)
    mask_B11S = (positions_S < keys.starts_B1.diff()[:, None])[:, None, None]
    if dropout is None:
        context_BHTK = F.scaled_dot_product_attention(query_BHTK, key_BHSK, value_BHSK, attn_mask=mask_B11S)
    else:
        scores_BHTS = query_BHTK @ key_BHSK.transpose(-1, -2) * key_BHSK.shape[-1] ** -0.5
        weights_BHTS = scores_BHTS.masked_fill(~mask_B11S, float("-inf")).softmax(-1)
        context_BHTK = drop_weights(weights_BHTS, padded(queries.position_ids_N, queries), dropout) @ value_BHSK
    rows = zip(context_BHTK.transpose(1, 2), queries.lengths, strict=True)
    return torch.cat([row_THK[:length] for row_THK, length in rows])


def padded(x: Tensor, packing: Packing) -> Tensor:
    """(R, ...) -> (B, T, ...)."""
    return pad_sequence(x.split(packing.lengths), batch_first=True)


def drop_weights(weights_BHTS: Tensor, position_ids_BT: Tensor, dropout: AttentionDropout) -> Tensor:
    """Each head and each query position has masks of its own."""
    heads_H = torch.arange(weights_BHTS.shape[1], device=weights_BHTS.device)
    keys_BH = subkeys(dropout.keys_B[:, None], heads_H)
    keys_BHT = subkeys(keys_BH[..., None], position_ids_BT[:, None])
    return keyed_dropout(weights_BHTS, dropout.probability, keys_BHT)
