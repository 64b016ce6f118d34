"""ALBERT for pretraining: piece ids in, sums of masked-LM and sentence-order losses out.

Source: Lan et al., "ALBERT: A Lite BERT" (arXiv 1909.11942), sections 3.1 and 3.2, and google-research/albert `modeling.py`:
factorised embeddings, layers that share weights, post-LayerNorm, tanh-approximate GELU, masked-LM and sentence-order heads.

Shape suffixes: B sequences, T pieces of a sequence, M masked pieces of the micro-batch, V vocabulary, E embedding size,
D hidden size, F intermediate (feed-forward) size, H heads, K size of one head.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.config import ModelConfig
from pretrain.dropout import KeyedDropout

LAYER_NORM_EPS = 1e-12
EMBEDDING_SITE, ATTENTION_SITE, OUTPUT_SITE, FFN_SITE, SITES_PER_LAYER = 0, 1, 2, 3, 3
"""Numbers of the places where dropout is applied; those of layer l lie l * SITES_PER_LAYER further on."""
IGNORED_LABEL = -100
"""A sentence-order label that takes no part in the loss."""


class MicroBatch(NamedTuple):
    """What one forward pass needs; int64 unless said otherwise."""

    input_ids_BT: Tensor
    segment_ids_BT: Tensor
    attention_mask_BT: Tensor | None
    """bool, True at real pieces; None when no row is padded."""
    mlm_index_M: Tensor
    """Position of each masked piece in the flattened (B*T) micro-batch."""
    mlm_labels_M: Tensor
    sop_labels_B: Tensor
    """1 swapped, 0 in order, -100 none."""
    dropout_keys_B: Tensor | None = None
    """int32, from `pretrain.dropout.sample_keys`; None where nothing is dropped."""

    def to(self, device: torch.device) -> "MicroBatch":
        return MicroBatch(*(None if field is None else field.to(device, non_blocking=True) for field in self))


class LossSums(NamedTuple):
    """Sums over one micro-batch, fp32 scalars; the caller divides by the counts of the whole global batch."""

    mlm_loss: Tensor
    mlm_correct: Tensor
    sop_loss: Tensor
    sop_correct: Tensor


class Albert(nn.Module):
    """Encoder, pooler and both pretraining heads.

    The sentence-order head has no dropout, as in google-research/albert `run_pretraining.py`.
    """

    def __init__(self, config: ModelConfig, vocab_size: int):
        super().__init__()
        self.embeddings = Embeddings(config, vocab_size)
        self.encoder = Encoder(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.mlm_head = MaskedLMHead(config, vocab_size)
        self.sop_head = nn.Linear(config.hidden_size, 2)

    def forward(self, batch: MicroBatch) -> LossSums:
        """Sums of both losses and of correct predictions over the micro-batch."""
        mlm_logits_MV, sop_logits_B2 = self.logits(batch)
        return LossSums(
            mlm_loss=F.cross_entropy(mlm_logits_MV.float(), batch.mlm_labels_M, reduction="sum"),
            mlm_correct=(mlm_logits_MV.argmax(-1) == batch.mlm_labels_M).sum().float(),
            sop_loss=F.cross_entropy(sop_logits_B2.float(), batch.sop_labels_B, reduction="sum", ignore_index=IGNORED_LABEL),
            sop_correct=(sop_logits_B2.argmax(-1) == batch.sop_labels_B).sum().float(),
        )

    def logits(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Masked-LM logits (M, V) at the masked positions only, and sentence-order logits (B, 2)."""
        hidden_BTD = self.hidden_states(batch)
        masked_MD = hidden_BTD.flatten(0, 1).index_select(0, batch.mlm_index_M)
        mlm_logits_MV = self.mlm_head(masked_MD, self.embeddings.word.weight)
        pooled_BD = torch.tanh(self.pooler(hidden_BTD[:, 0]))
        return mlm_logits_MV, self.sop_head(pooled_BD)

    def hidden_states(self, batch: MicroBatch) -> Tensor:
        """Output (B, T, D) of the last layer."""
        mask_B11T = None if batch.attention_mask_BT is None else batch.attention_mask_BT[:, None, None, :]
        embedded_BTE = self.embeddings(batch.input_ids_BT, batch.segment_ids_BT, batch.dropout_keys_B)
        return self.encoder(embedded_BTE, mask_B11T, batch.dropout_keys_B)

    @torch.no_grad()
    def initialize(self, initializer_range: float, generator: torch.Generator) -> None:
        """Truncated normal (two standard deviations) for matrices, 1 and 0 for LayerNorm, zero biases, as in ALBERT's code."""
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2:
                bound = 2 * initializer_range
                nn.init.trunc_normal_(parameter, std=initializer_range, a=-bound, b=bound, generator=generator)
            else:
                parameter.fill_(1.0 if name.endswith("layer_norm.weight") else 0.0)


class Embeddings(nn.Module):
    """Piece, segment and position embeddings of size E (paper, section 3.1, factorised embedding parameterization)."""

    def __init__(self, config: ModelConfig, vocab_size: int):
        super().__init__()
        self.word = nn.Embedding(vocab_size, config.embedding_size)
        self.segment = nn.Embedding(2, config.embedding_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.embedding_size)
        self.layer_norm = nn.LayerNorm(config.embedding_size, eps=LAYER_NORM_EPS)
        self.dropout = KeyedDropout(config.hidden_dropout)

    def forward(self, input_ids_BT: Tensor, segment_ids_BT: Tensor, keys_B: Tensor | None) -> Tensor:
        position_ids_T = torch.arange(input_ids_BT.shape[1], device=input_ids_BT.device)
        embedded_BTE = self.word(input_ids_BT) + self.segment(segment_ids_BT) + self.position(position_ids_T)
        return self.dropout(self.layer_norm(embedded_BTE), keys_B, EMBEDDING_SITE)


class Encoder(nn.Module):
    """Projection from E to D, then L layers that take their attention and feed-forward blocks from shared lists.

    `share` says which block is shared (paper, section 3.1, cross-layer parameter sharing): a shared block exists once in each of
    the `num_hidden_groups` groups of consecutive layers, an unshared one once in each layer.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.input_projection = nn.Linear(config.embedding_size, config.hidden_size)
        self.attention_of_layer = block_of_layer(config, shared=config.share in ("all", "attention"))
        self.ffn_of_layer = block_of_layer(config, shared=config.share in ("all", "ffn"))
        self.attentions = nn.ModuleList(Attention(config) for _ in range(max(self.attention_of_layer) + 1))
        self.ffns = nn.ModuleList(FeedForward(config) for _ in range(max(self.ffn_of_layer) + 1))

    def forward(self, embedded_BTE: Tensor, mask_B11T: Tensor | None, keys_B: Tensor | None) -> Tensor:
        hidden_BTD = self.input_projection(embedded_BTE)
        for layer, (attention, ffn) in enumerate(zip(self.attention_of_layer, self.ffn_of_layer, strict=True)):
            attended_BTD = self.attentions[attention](hidden_BTD, mask_B11T, keys_B, layer)
            hidden_BTD = self.ffns[ffn](attended_BTD, keys_B, layer)
        return hidden_BTD


def block_of_layer(config: ModelConfig, *, shared: bool) -> list[int]:
    """Number of the block that each layer uses."""
    layers = range(config.num_hidden_layers)
    return [layer * config.num_hidden_groups // config.num_hidden_layers for layer in layers] if shared else list(layers)


class Attention(nn.Module):
    """Multi-head self-attention, residual, LayerNorm."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.attention_dropout = KeyedDropout(config.attention_dropout)
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = KeyedDropout(config.hidden_dropout)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)

    def forward(self, hidden_BTD: Tensor, mask_B11T: Tensor | None, keys_B: Tensor | None, layer: int) -> Tensor:
        query_BHTK, key_BHTK, value_BHTK = (self.split_heads(of(hidden_BTD)) for of in (self.query, self.key, self.value))
        if self.training and self.attention_dropout.probability > 0:
            weights_BHTT = attention_weights(query_BHTK, key_BHTK, mask_B11T)
            weights_BHTT = self.attention_dropout(weights_BHTT, keys_B, ATTENTION_SITE + layer * SITES_PER_LAYER)
            context_BHTK = weights_BHTT @ value_BHTK
        else:
            context_BHTK = F.scaled_dot_product_attention(query_BHTK, key_BHTK, value_BHTK, attn_mask=mask_B11T)
        context_BTD = context_BHTK.transpose(1, 2).flatten(2)
        dropped_BTD = self.dropout(self.output(context_BTD), keys_B, OUTPUT_SITE + layer * SITES_PER_LAYER)
        return self.layer_norm(hidden_BTD + dropped_BTD)

    def split_heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def attention_weights(query_BHTK: Tensor, key_BHTK: Tensor, mask_B11T: Tensor | None) -> Tensor:
    """Softmax of the scaled products, (B, H, T, T): spelt out where its entries are dropped, for no kernel takes a mask by key."""
    scores_BHTT = query_BHTK @ key_BHTK.transpose(-1, -2) * key_BHTK.shape[-1] ** -0.5
    if mask_B11T is not None:
        scores_BHTT = scores_BHTT.masked_fill(~mask_B11T, float("-inf"))
    return scores_BHTT.softmax(-1)


class FeedForward(nn.Module):
    """Dense to F, GELU, dense to D, residual, LayerNorm."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = KeyedDropout(config.hidden_dropout)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)

    def forward(self, hidden_BTD: Tensor, keys_B: Tensor | None, layer: int) -> Tensor:
        inner_BTF = F.gelu(self.up(hidden_BTD), approximate="tanh")
        dropped_BTD = self.dropout(self.down(inner_BTF), keys_B, FFN_SITE + layer * SITES_PER_LAYER)
        return self.layer_norm(hidden_BTD + dropped_BTD)


class MaskedLMHead(nn.Module):
    """Dense to E, GELU, LayerNorm, then the piece embeddings as decoder, plus a bias for each piece."""

    def __init__(self, config: ModelConfig, vocab_size: int):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.embedding_size)
        self.layer_norm = nn.LayerNorm(config.embedding_size, eps=LAYER_NORM_EPS)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, masked_MD: Tensor, decoder_weight_VE: Tensor) -> Tensor:
        transformed_ME = self.layer_norm(F.gelu(self.dense(masked_MD), approximate="tanh"))
        return F.linear(transformed_ME, decoder_weight_VE, self.bias)
