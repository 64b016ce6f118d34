"""ALBERT for pretraining: piece ids in, sums of masked-LM and sentence-order losses out.

Source: Lan et al., "ALBERT: A Lite BERT" (arXiv 1909.11942), sections 3.1 and 3.2, and google-research/albert `modeling.py`:
factorised embeddings, layers that share weights, post-LayerNorm, GELU or ReLU, masked-LM and sentence-order heads.

Sequences lie end to end, without padding: every matrix product is over real pieces alone. The heads read the first piece of each
sequence and the masked ones, so the last layer has an output for those alone; the others are keys and values there.

Shape suffixes: B sequences, N pieces of all of them, R pieces that a layer has an output for (all N; in the last layer those that
the heads read), T positions of the longest, M masked pieces, V vocabulary, E embedding size, D hidden size, F intermediate
(feed-forward) size, H heads, K size of one head.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pretrain.attention import AttentionDropout, Packing, attend
from pretrain.config import Activation, ModelConfig
from pretrain.dropout import keyed_dropout, subkeys
from pretrain.head import masked_lm_loss
from pretrain.products import Matrix, join, linear

LAYER_NORM_EPS = 1e-12
EMBEDDING_SITE, ATTENTION_SITE, OUTPUT_SITE, FFN_SITE, SITES_PER_LAYER = 0, 1, 2, 3, 3
"""Numbers of the places where dropout is applied; those of layer l lie l * SITES_PER_LAYER further on."""
IGNORED_LABEL = -100
"""A sentence-order label that takes no part in the loss."""


class MicroBatch(NamedTuple):
    """What one forward pass needs: sequences end to end; int64 unless said otherwise."""

    input_ids_N: Tensor
    segment_ids_N: Tensor
    position_ids_N: Tensor
    lengths: tuple[int, ...]
    """Pieces of each sequence, on the host."""
    starts_B1: Tensor
    """int32 (B + 1): the place of each sequence's first piece, and N."""
    read_index_R: Tensor
    """Places among the N of the pieces that the heads read: of each sequence the first, then the masked ones."""
    read_lengths: tuple[int, ...]
    """How many of them each sequence has, on the host."""
    read_starts_B1: Tensor
    """int32 (B + 1): the place among the R of each sequence's first piece, and R."""
    mlm_index_M: Tensor
    """Place of each masked piece among the R."""
    mlm_labels_M: Tensor
    sop_labels_B: Tensor
    """1 swapped, 0 in order, -100 none."""
    dropout_keys_B: Tensor | None = None
    """int32, from `pretrain.dropout.sample_keys`; None where nothing is dropped."""

    @property
    def pieces(self) -> Packing:
        """All N."""
        return Packing(self.lengths, self.starts_B1, self.position_ids_N)

    @property
    def read_pieces(self) -> Packing:
        """The R that the heads read."""
        return Packing(self.read_lengths, self.read_starts_B1, self.position_ids_N.index_select(0, self.read_index_R))

    def to(self, device: torch.device) -> "MicroBatch":
        return MicroBatch(*(x.to(device, non_blocking=True) if isinstance(x, Tensor) else x for x in self))

    def pinned(self) -> "MicroBatch":
        """In memory from which a GPU copies while it computes."""
        return MicroBatch(*(x.pin_memory() if isinstance(x, Tensor) else x for x in self))


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
        self.drops = config.drops
        self.embeddings = Embeddings(config, vocab_size)
        self.encoder = Encoder(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.mlm_head = MaskedLMHead(config, vocab_size)
        self.sop_head = nn.Linear(config.hidden_size, 2)

    def forward(self, batch: MicroBatch) -> LossSums:
        """Sums of both losses and of correct predictions over the micro-batch; only a chunk of the masked-LM logits exists at a
        time."""
        masked_ME, sop_logits_B2 = self.head_inputs(batch)
        mlm_loss, mlm_correct = masked_lm_loss(masked_ME, self.embeddings.word.weight, self.mlm_head.bias, batch.mlm_labels_M)
        return LossSums(
            mlm_loss=mlm_loss,
            mlm_correct=mlm_correct,
            sop_loss=F.cross_entropy(sop_logits_B2.float(), batch.sop_labels_B, reduction="sum", ignore_index=IGNORED_LABEL),
            sop_correct=(sop_logits_B2.argmax(-1) == batch.sop_labels_B).sum().float(),
        )

    def logits(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Masked-LM logits (M, V) at the masked positions only, and sentence-order logits (B, 2)."""
        masked_ME, sop_logits_B2 = self.head_inputs(batch)
        return F.linear(masked_ME, self.embeddings.word.weight, self.mlm_head.bias), sop_logits_B2

    def head_inputs(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """What the decoder sees of the masked pieces (M, E), and sentence-order logits (B, 2)."""
        hidden_RD = self.hidden_states(batch)
        masked_ME = self.mlm_head(hidden_RD.index_select(0, batch.mlm_index_M))
        pooled_BD = torch.tanh(self.pooler(hidden_RD.index_select(0, batch.read_starts_B1[:-1])))
        return masked_ME, self.sop_head(pooled_BD)

    def hidden_states(self, batch: MicroBatch) -> Tensor:
        """Output (R, D) of the last layer.

        Raises:
            ValueError: dropout needs keys, and there are none: no random mask slips in.
        """
        if self.training and self.drops and batch.dropout_keys_B is None:
            raise ValueError("dropout in training needs MicroBatch.dropout_keys_B (pretrain.dropout.sample_keys)")
        return self.encoder(self.embeddings(batch), batch)

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
        self.dropout = config.hidden_dropout

    def forward(self, batch: MicroBatch) -> Tensor:
        embedded_NE = self.word(batch.input_ids_N) + self.segment(batch.segment_ids_N) + self.position(batch.position_ids_N)
        keys_N = piece_keys(batch, EMBEDDING_SITE, batch.pieces) if self.training and self.dropout else None
        return drop(self.layer_norm(embedded_NE), self.dropout, keys_N)


class AttentionWeights(NamedTuple):
    """Tensors of an attention block as the products take them."""

    qkv: Matrix
    """(3 D, D): query, key and value in one."""
    output: Matrix
    norm: Tensor
    norm_bias: Tensor


class FeedForwardWeights(NamedTuple):
    """Tensors of a feed-forward block as the products take them."""

    up: Matrix
    down: Matrix
    norm: Tensor
    norm_bias: Tensor


class LayerKeys(NamedTuple):
    """Keys of a layer's dropout, int32; None where nothing is dropped."""

    attention_B: Tensor | None
    output_R: Tensor | None
    ffn_R: Tensor | None


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
        self.num_heads, self.hidden_act = config.num_attention_heads, config.hidden_act
        self.hidden_dropout, self.attention_dropout = config.hidden_dropout, config.attention_dropout
        self.finish_layer: Callable[..., Tensor] = finish_layer
        self.recompute = False

    def compile_layer(self) -> None:
        """Compile what follows the attention of a layer: once, for any number of pieces, for all layers that call it."""
        self.finish_layer = torch.compile(finish_layer)

    def forward(self, embedded_NE: Tensor, batch: MicroBatch) -> Tensor:
        hidden_ND = self.input_projection(embedded_NE)
        # cast, joined and laid out here, once, and not at each of the L calls
        attentions, ffns = (
            [block.weights(len(hidden_ND), of_layer.count(number)) for number, block in enumerate(blocks)]
            for blocks, of_layer in ((self.attentions, self.attention_of_layer), (self.ffns, self.ffn_of_layer))
        )
        for layer, (attention, ffn) in enumerate(zip(self.attention_of_layer, self.ffn_of_layer, strict=True)):
            arguments = hidden_ND, attentions[attention], ffns[ffn], batch, layer
            if self.recompute and self.training:
                hidden_ND = checkpoint(self.run_layer, *arguments, use_reentrant=False, preserve_rng_state=False)
            else:
                hidden_ND = self.run_layer(*arguments)
        return hidden_ND  # (R, D)

    def run_layer(
        self, hidden_ND: Tensor, attention: AttentionWeights, ffn: FeedForwardWeights, batch: MicroBatch, layer: int
    ) -> Tensor:
        """Input (N, D) -> output (R, D)."""
        pieces = batch.pieces
        if layer < len(self.attention_of_layer) - 1:
            hidden_RD, queries = hidden_ND, pieces
            qkv_N3D = linear(hidden_ND, attention.qkv).unflatten(-1, (3, -1))
            query_RD, key_ND, value_ND = qkv_N3D.unbind(1)
        else:
            hidden_RD, queries = hidden_ND.index_select(0, batch.read_index_R), batch.read_pieces
            size = hidden_ND.shape[-1]
            query_RD = linear(hidden_RD, attention.qkv.rows(None, size))
            key_ND, value_ND = linear(hidden_ND, attention.qkv.rows(size, None)).chunk(2, -1)
        query_RHK, key_NHK, value_NHK = (x.unflatten(-1, (self.num_heads, -1)) for x in (query_RD, key_ND, value_ND))
        keys = self.layer_keys(batch, layer, queries)
        dropout = AttentionDropout(self.attention_dropout, keys.attention_B) if keys.attention_B is not None else None
        context_RD = attend(query_RHK, key_NHK, value_NHK, queries, pieces, dropout).flatten(1)
        if self.finish_layer is not finish_layer:
            for tensor in (hidden_RD, context_RD, keys.output_R, keys.ffn_R):
                if tensor is not None:
                    torch._dynamo.maybe_mark_dynamic(tensor, 0)
        tensors = hidden_RD, context_RD, attention, ffn, keys.output_R, keys.ffn_R
        return self.finish_layer(*tensors, self.hidden_dropout, self.hidden_act)

    def layer_keys(self, batch: MicroBatch, layer: int, queries: Packing) -> LayerKeys:
        first = layer * SITES_PER_LAYER
        hidden, attention = (self.training and probability > 0 for probability in (self.hidden_dropout, self.attention_dropout))
        return LayerKeys(
            attention_B=subkeys(batch.dropout_keys_B, ATTENTION_SITE + first) if attention else None,
            output_R=piece_keys(batch, OUTPUT_SITE + first, queries) if hidden else None,
            ffn_R=piece_keys(batch, FFN_SITE + first, queries) if hidden else None,
        )


def finish_layer(
    hidden_RD: Tensor,
    context_RD: Tensor,
    attention: AttentionWeights,
    ffn: FeedForwardWeights,
    output_keys_R: Tensor | None,
    ffn_keys_R: Tensor | None,
    dropout: float,
    hidden_act: Activation,
) -> Tensor:
    """What follows the attention: dense, residual, LayerNorm; dense to F, activation, dense to D, residual, LayerNorm."""
    attended_RD = drop(linear(context_RD, attention.output), dropout, output_keys_R)
    hidden_RD = layer_norm(hidden_RD + attended_RD, attention.norm, attention.norm_bias)
    inner_RF = activate(linear(hidden_RD, ffn.up), hidden_act)
    outer_RD = drop(linear(inner_RF, ffn.down), dropout, ffn_keys_R)
    return layer_norm(hidden_RD + outer_RD, ffn.norm, ffn.norm_bias)


def activate(x: Tensor, hidden_act: Activation) -> Tensor:
    return F.relu(x) if hidden_act == "relu" else F.gelu(x, approximate="tanh" if hidden_act == "gelu_new" else "none")


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, LAYER_NORM_EPS)


def drop(x: Tensor, probability: float, keys: Tensor | None) -> Tensor:
    return x if keys is None else keyed_dropout(x, probability, keys)


def piece_keys(batch: MicroBatch, site: int, pieces: Packing) -> Tensor:
    """Keys (N,), int32, of these pieces at one place of the network."""
    at_site_B = subkeys(batch.dropout_keys_B, site)
    at_site_N = at_site_B.repeat_interleave(pieces.starts_B1.diff(), output_size=len(pieces.position_ids_N))
    return subkeys(at_site_N, pieces.position_ids_N)


def block_of_layer(config: ModelConfig, *, shared: bool) -> list[int]:
    """Number of the block that each layer uses."""
    layers = range(config.num_hidden_layers)
    return [layer * config.num_hidden_groups // config.num_hidden_layers for layer in layers] if shared else list(layers)


class Attention(nn.Module):
    """Parameters of multi-head self-attention and the LayerNorm behind it."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)

    def weights(self, num_rows: int, num_calls: int) -> AttentionWeights:
        """num_rows: pieces that it will be called with, num_calls times."""
        qkv = join([self.query, self.key, self.value], num_rows, num_calls)
        output = join([self.output], num_rows, num_calls)
        return AttentionWeights(qkv, output, self.layer_norm.weight, self.layer_norm.bias)


class FeedForward(nn.Module):
    """Parameters of the feed-forward block and the LayerNorm behind it."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=LAYER_NORM_EPS)

    def weights(self, num_rows: int, num_calls: int) -> FeedForwardWeights:
        """As `Attention.weights`."""
        up, down = (join([each], num_rows, num_calls) for each in (self.up, self.down))
        return FeedForwardWeights(up, down, self.layer_norm.weight, self.layer_norm.bias)


class MaskedLMHead(nn.Module):
    """Dense to E, activation, LayerNorm; the decoder is the piece embeddings, with a bias for each piece (`pretrain/head.py`)."""

    def __init__(self, config: ModelConfig, vocab_size: int):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.embedding_size)
        self.layer_norm = nn.LayerNorm(config.embedding_size, eps=LAYER_NORM_EPS)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.hidden_act = config.hidden_act

    def forward(self, masked_MD: Tensor) -> Tensor:
        return self.layer_norm(activate(self.dense(masked_MD), self.hidden_act))
