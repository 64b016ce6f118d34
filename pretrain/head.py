"""The masked-LM decoder and its loss, a chunk of the masked pieces at a time: logits never exist for all of them.

The gradients of a chunk are taken while its logits are there, in the forward pass; backward only scales them. So nothing is
computed twice, and what is kept is as large as the inputs.

Shape suffixes as in pretrain/model.py; C masked pieces of a chunk.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CHUNK_ELEMENTS = 1 << 23
"""Logits of a chunk: 32 MB in fp32."""


def masked_lm_loss(hidden_ME: Tensor, decoder_VE: Tensor, bias_V: Tensor, labels_M: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropies of `hidden @ decoder.T + bias` with the labels (int64), and number of correct predictions.

    Both scalars, and softmax and sums, in the dtype of the weights; the products in the dtype of autocast where that is on.
    """
    device = hidden_ME.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ME.dtype
    with torch.autocast(device, enabled=False):
        return MaskedLMLoss.apply(hidden_ME.to(dtype), decoder_VE, bias_V, labels_M, torch.is_grad_enabled())


def masked_lm_scores(hidden_ME: Tensor, decoder_VE: Tensor, bias_V: Tensor, labels_M: Tensor) -> tuple[Tensor, Tensor]:
    """Of each masked piece its cross-entropy (M), in the dtype of the weights, and whether the best guess is right (M), bool."""
    losses, correct = [], []
    chunk = chunk_size(len(bias_V))
    for start in range(0, len(labels_M), chunk):
        labels_C = labels_M[start : start + chunk]
        logits_CV = F.linear(hidden_ME[start : start + chunk], decoder_VE, bias_V)
        losses.append(F.cross_entropy(logits_CV, labels_C, reduction="none"))
        correct.append(logits_CV.argmax(-1) == labels_C)
    return torch.cat(losses), torch.cat(correct)


def chunk_size(vocab_size: int) -> int:
    """Masked pieces whose logits exist at a time."""
    return max(1, CHUNK_ELEMENTS // vocab_size)


class MaskedLMLoss(torch.autograd.Function):
    """See `masked_lm_loss`; cannot be differentiated twice."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ME: Tensor, decoder_VE: Tensor, bias_V: Tensor, labels_M: Tensor, needs_grad: bool
    ) -> tuple[Tensor, Tensor]:
        loss, correct = bias_V.new_zeros(()), bias_V.new_zeros(())
        if needs_grad:
            grad_hidden_ME, grad_decoder_VE, grad_bias_V = (
                torch.zeros_like(hidden_ME),
                torch.zeros_like(decoder_VE),
                torch.zeros_like(bias_V),
            )
        weight_VE = decoder_VE.to(hidden_ME.dtype)
        chunk = chunk_size(len(bias_V))
        for start in range(0, len(labels_M), chunk):
            hidden_CE, labels_C1 = hidden_ME[start : start + chunk], labels_M[start : start + chunk, None]
            logits_CV = F.linear(hidden_CE, weight_VE).to(bias_V.dtype).add_(bias_V)
            correct += (logits_CV.argmax(-1, keepdim=True) == labels_C1).sum()
            log_probs_CV = logits_CV.log_softmax(-1)
            loss -= log_probs_CV.gather(1, labels_C1).sum()
            if needs_grad:
                grad_CV = log_probs_CV.exp_()
                grad_CV.scatter_add_(1, labels_C1, grad_CV.new_full(labels_C1.shape, -1.0))
                grad_bias_V += grad_CV.sum(0)
                grad_CV = grad_CV.to(hidden_ME.dtype)
                grad_hidden_ME[start : start + chunk] = grad_CV @ weight_VE
                grad_decoder_VE += grad_CV.T @ hidden_CE
        if needs_grad:
            ctx.save_for_backward(grad_hidden_ME, grad_decoder_VE, grad_bias_V)
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden_ME, grad_decoder_VE, grad_bias_V = ctx.saved_tensors
        scaled_ME = (grad_hidden_ME * grad_loss.view(1, 1)).to(grad_hidden_ME.dtype)  # in fp32: a rounded factor is off for all
        return scaled_ME, grad_decoder_VE * grad_loss, grad_bias_V * grad_loss, None, None
