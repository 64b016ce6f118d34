"""LAMB as google-research/albert codes it, and AdamW; both clip by the global norm inside `step`, LAMB without a host sync.

Source of LAMB: You et al. (arXiv 1904.00962), algorithm 2, in the form of google-research/albert `lamb_optimizer.py`: no bias
correction, no clamp on the trust ratio; LayerNorm and bias tensors get neither weight decay nor trust ratio.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.config import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> "Lamb | AdamW":
    """Two parameter groups: matrices (weight decay, and LAMB's trust ratio), and LayerNorm and bias tensors (neither)."""
    adapted, plain = [], []
    for name, parameter in model.named_parameters():
        (plain if is_excluded(name) else adapted).append(parameter)
    groups = [
        {"params": adapted, "weight_decay": config.weight_decay, "adapt": True},
        {"params": plain, "weight_decay": 0.0, "adapt": False},
    ]
    betas = (config.beta1, config.beta2)
    kind = {"lamb": Lamb, "adamw": AdamW}[config.name]
    return kind(groups, lr=config.lr, betas=betas, eps=config.eps, max_grad_norm=config.max_grad_norm)


def is_excluded(name: str) -> bool:
    """Whether a parameter of this name gets neither weight decay nor trust ratio (`exclude_from_weight_decay` of the original)."""
    return "layer_norm" in name or "bias" in name


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def global_norm(tensors: list[Tensor]) -> Tensor:
    """Norm of all tensors as one vector (scalar on the device)."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))


class ClippingOptimizer(torch.optim.Optimizer):
    """What both optimizers share: a global clip within the step, no step at all where the gradient is no finite number, and what
    the metrics say of the last step."""

    max_grad_norm: float
    grad_norm: Tensor | None = None
    """Global gradient norm before clipping of the last step; None if an fp16 overflow kept it from being taken."""

    def clip_factor(self) -> Tensor:
        """What gradients are to be multiplied by: max_grad_norm / max(norm, max_grad_norm), as `tf.clip_by_global_norm` has it.

        Scalar on the device; NaN or 0 where the norm, which is kept as `grad_norm`, is no finite number.
        """
        self.grad_norm = global_norm(self.grads())
        return self.max_grad_norm / self.grad_norm.clamp(min=self.max_grad_norm)

    def compile(self) -> None:
        """Make fewer kernels of `step`, where that helps."""

    def grads(self) -> list[Tensor]:
        return [parameter.grad for group in self.param_groups for parameter in group["params"] if parameter.grad is not None]

    def statistics(self) -> dict[str, float]:
        """Figures of the last step beside the gradient norm; waits for the device."""
        return {}


class Lamb(ClippingOptimizer):
    """Per tensor: m, v without bias correction; u = m / (sqrt(v) + eps) + decay * w; w -= lr * (|w| / |u|) * u.

    The ratio is 1 where |w| or |u| is 0, and in groups with `adapt` false. State: `exp_avg`, `exp_avg_sq`, like the parameter.
    `step` uses the gradients up: each is written over by its update.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        max_grad_norm: float = 1.0,
    ):
        self.max_grad_norm = max_grad_norm
        self.norms: tuple[Tensor, Tensor]
        self.write_update, self.apply_update = write_update, apply_update
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapt": True})

    def compile(self) -> None:
        """Make each of the two passes over a tensor one kernel, compiled once for tensors of any size."""
        self.write_update, self.apply_update = torch.compile(write_update), torch.compile(apply_update)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        if closure is not None:
            raise ValueError("Lamb.step takes no closure")
        factor = self.clip_factor()
        for group in self.param_groups:
            self.update(group, factor, self.grad_norm.isfinite())

    def update(self, group: dict[str, Any], factor: Tensor, finite: Tensor) -> None:
        """One step over the tensors of a group that have a gradient; where `finite` is false, all stays bit for bit as it was."""
        weights = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not weights:
            return
        for weight in weights:
            state = self.state[weight]
            if not state:
                state |= {"exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
            tensors = (self.flat(tensor) for tensor in (weight, weight.grad, state["exp_avg"], state["exp_avg_sq"]))
            self.write_update(*tensors, factor, finite, *group["betas"], group["eps"], group["weight_decay"])
        updates = [weight.grad for weight in weights]
        step_sizes = torch.where(finite, group["lr"], 0.0).expand(len(weights))
        if group["adapt"]:
            self.norms = torch.stack(torch._foreach_norm(weights)), torch.stack(torch._foreach_norm(updates))
            step_sizes = step_sizes * trust_ratios(*self.norms)
        for weight, update, step_size in zip(weights, updates, step_sizes.unbind(), strict=True):
            self.apply_update(self.flat(weight), self.flat(update), step_size)

    def flat(self, tensor: Tensor) -> Tensor:
        """The tensor as a vector; of any length, where it is compiled for."""
        vector = tensor.view(-1)
        if self.write_update is not write_update:
            torch._dynamo.maybe_mark_dynamic(vector, 0)
        return vector

    def statistics(self) -> dict[str, float]:
        """Of the tensors that the trust ratio scales: the least, the median and the largest ratio, and the norm of all weights and
        of all updates before the ratio.

        A tensor whose gradient has died comes to 100 with a weight decay of 0.01; one that is small against its updates comes near
        0 and hardly moves.
        """
        weight_norms, update_norms = self.norms
        ratios = trust_ratios(weight_norms, update_norms)
        return {
            "trust_ratio_min": ratios.min().item(),
            "trust_ratio_median": ratios.median().item(),
            "trust_ratio_max": ratios.max().item(),
            "weight_norm": weight_norms.norm().item(),
            "update_norm": update_norms.norm().item(),
        }


def write_update(
    weight: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    factor: Tensor,
    finite: Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """Update the moments by the gradient times `factor`, and write u over the gradient: one pass, in place.

    Where `finite` is false the moments stay as they are, and the gradient becomes finite.
    """
    grad.mul_(factor).masked_fill_(~finite, 0.0)
    exp_avg.mul_(torch.where(finite, beta1, 1.0)).add_(grad, alpha=1 - beta1)
    exp_avg_sq.mul_(torch.where(finite, beta2, 1.0)).addcmul_(grad, grad, value=1 - beta2)
    grad.copy_(exp_avg).div_(exp_avg_sq.sqrt().add_(eps)).add_(weight, alpha=weight_decay)


def apply_update(weight: Tensor, update: Tensor, step_size: Tensor) -> None:
    weight.addcmul_(update, step_size, value=-1)


def trust_ratios(weight_norms: Tensor, update_norms: Tensor) -> Tensor:
    """|w| / |u| per tensor, 1 where either norm is 0; fp32, on the device."""
    both_positive = (weight_norms > 0) & (update_norms > 0)
    return torch.where(both_positive, weight_norms / update_norms, 1.0)


class AdamW(torch.optim.AdamW, ClippingOptimizer):
    """`torch.optim.AdamW` behind the same clip; it waits for the device to know whether the gradient is finite."""

    def __init__(self, params: Iterable[dict[str, Any]], *, max_grad_norm: float = 1.0, **options: Any):
        self.max_grad_norm = max_grad_norm
        super().__init__(params, foreach=True, **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        if closure is not None:
            raise ValueError("AdamW.step takes no closure")
        factor = self.clip_factor()
        if self.grad_norm.isfinite():
            torch._foreach_mul_(self.grads(), factor)
            super().step()
