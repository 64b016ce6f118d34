"""LAMB as google-research/albert codes it, and AdamW; both clip by the global norm inside `step`, without a host sync.

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


@torch.no_grad()
def clip_by_global_norm_(grads: list[Tensor], max_norm: float) -> Tensor:
    """Scale `grads` in place so that their global norm is at most `max_norm`; return the norm before (fp32 scalar, on the device).

    As `tf.clip_by_global_norm`: the factor is max_norm / max(norm, max_norm).
    """
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    torch._foreach_mul_(grads, max_norm / norm.clamp(min=max_norm))
    return norm


class ClippingOptimizer(torch.optim.Optimizer):
    """What both optimizers share: a global clip before the step, no step at all where the gradient is no finite number, and what
    the metrics say of the last step."""

    max_grad_norm: float
    grad_norm: Tensor | None = None
    """Global gradient norm before clipping of the last step; None if an fp16 overflow kept it from being taken."""

    def clip(self) -> Tensor:
        """Clip all gradients in place, to 0 where their norm is not finite; return whether it is (bool scalar on the device)."""
        grads = [parameter.grad for group in self.param_groups for parameter in group["params"] if parameter.grad is not None]
        self.grad_norm = clip_by_global_norm_(grads, self.max_grad_norm)
        finite = self.grad_norm.isfinite()
        for grad in grads:
            grad.masked_fill_(~finite, 0.0)
        return finite

    def statistics(self) -> dict[str, float]:
        """Figures of the last step beside the gradient norm; waits for the device."""
        return {}


class Lamb(ClippingOptimizer):
    """Per tensor: m, v without bias correction; u = m / (sqrt(v) + eps) + decay * w; w -= lr * (|w| / |u|) * u.

    The ratio is 1 where |w| or |u| is 0, and in groups with `adapt` false. State: `exp_avg`, `exp_avg_sq`, like the parameter.
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
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "adapt": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        if closure is not None:
            raise ValueError("Lamb.step takes no closure")
        finite = self.clip()
        for group in self.param_groups:
            self.update(group, finite)

    def update(self, group: dict[str, Any], finite: Tensor) -> None:
        """One step over the tensors of a group that have a gradient; where `finite` is false, all stays bit for bit as it was."""
        weights = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not weights:
            return
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {"exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
        grads = [weight.grad for weight in weights]
        exp_avgs = [self.state[weight]["exp_avg"] for weight in weights]
        exp_avg_sqs = [self.state[weight]["exp_avg_sq"] for weight in weights]
        beta1, beta2 = group["betas"]

        torch._foreach_mul_(exp_avgs, torch.where(finite, beta1, 1.0))
        torch._foreach_add_(exp_avgs, grads, alpha=1 - beta1)
        torch._foreach_mul_(exp_avg_sqs, torch.where(finite, beta2, 1.0))
        torch._foreach_addcmul_(exp_avg_sqs, grads, grads, 1 - beta2)

        denominators = torch._foreach_sqrt(exp_avg_sqs)
        torch._foreach_add_(denominators, group["eps"])
        updates = torch._foreach_div(exp_avgs, denominators)
        if group["weight_decay"]:
            torch._foreach_add_(updates, weights, alpha=group["weight_decay"])
        step_size = torch.where(finite, group["lr"], 0.0)
        if group["adapt"]:
            self.norms = torch.stack(torch._foreach_norm(weights)), torch.stack(torch._foreach_norm(updates))
            torch._foreach_mul_(updates, (trust_ratios(*self.norms) * step_size).unbind())
        else:
            torch._foreach_mul_(updates, step_size)
        torch._foreach_sub_(weights, updates)

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
        if self.clip():
            super().step()
