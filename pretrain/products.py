"""Products of pieces with a matrix that several layers share.

On a CPU in fp32 PyTorch's linear layer takes MKL, which lays out the matrix anew in each call. oneDNN takes it laid out beforehand:
that is done once in a forward pass, for all layers, forwards and backwards (benchmarks/train.md has what it brings).
"""

import os
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PAYS_FROM_CALLS, PAYS_FROM_SIZE = 4, 1 << 28
"""Calls with the same matrix, and multiplications of a call, from which laying it out beforehand takes less time than it saves. A
row count that is new to oneDNN costs about a millisecond a product (measured from 200 rows by 32 x 64 to 1,800 by 768 x 3072)."""


def bound_cache() -> None:
    """To be called before the first product: oneDNN keeps some memory for each number of rows that it has met, the newest thousand
    if it is not told otherwise."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")


class Packed:
    """A matrix in the layout of oneDNN, for products with it and, where gradients are wanted, with its transpose. No tuple:
    torch.compile must not look inside."""

    def __init__(self, weight: Tensor, num_rows: int):
        """num_rows: of what it will be multiplied with; the layout is chosen for it."""
        matrix = weight.detach()
        self.forward = torch.ops.mkldnn._reorder_linear_weight(matrix.contiguous(), num_rows)
        if torch.is_grad_enabled():
            self.backward = torch.ops.mkldnn._reorder_linear_weight(matrix.t().contiguous(), num_rows)


class Matrix(NamedTuple):
    """Weight (out, in) and bias (out) in the dtype of the products."""

    weight: Tensor
    bias: Tensor
    packed: Packed | None = None

    def rows(self, start: int | None, end: int | None) -> "Matrix":
        return Matrix(self.weight[start:end], self.bias[start:end])


def join(linears: list[nn.Linear], num_rows: int, num_calls: int) -> Matrix:
    """Several layers with the same input as one matrix. num_rows, num_calls: of the products that it is for."""
    weight, bias = (
        cast(tensors[0] if len(tensors) == 1 else torch.cat(tensors))
        for tensors in ([linear.weight for linear in linears], [linear.bias for linear in linears])
    )
    pays = num_calls >= PAYS_FROM_CALLS and num_rows * weight.numel() >= PAYS_FROM_SIZE
    return Matrix(weight, bias, Packed(weight, num_rows) if pays and can_pack(weight) else None)


def cast(x: Tensor) -> Tensor:
    """To the dtype of autocast, where that is on."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def can_pack(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()


def linear(x: Tensor, matrix: Matrix) -> Tensor:
    """(rows, in) -> (rows, out)."""
    return F.linear(x, matrix.weight, matrix.bias) if matrix.packed is None else packed_linear(x, matrix)


@torch.compiler.disable
def packed_linear(x: Tensor, matrix: Matrix) -> Tensor:
    """What is compiled around it falls into parts, for any number of rows each."""
    output = PackedLinear.apply(x, *matrix)
    torch._dynamo.maybe_mark_dynamic(output, 0)
    return output


class PackedLinear(torch.autograd.Function):
    """`F.linear`; the gradient of the weight, in which it takes no part, goes through PyTorch's own product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, packed: Packed) -> Tensor:
        ctx.save_for_backward(x)
        ctx.packed = packed
        return product(x, packed.forward, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (x,) = ctx.saved_tensors
        grad = grad.contiguous()
        return product(grad, ctx.packed.backward, None), grad.t() @ x, grad.sum(0), None


def product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
