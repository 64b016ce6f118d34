"""LAMB against an independent float64 restatement, the clip, the exclusions, and the schedule."""

import numpy as np
import pytest
import torch

from pretrain.config import ModelConfig, OptimizerConfig, ScheduleConfig
from pretrain.model import Albert
from pretrain.optimizer import build_optimizer, set_lr
from pretrain.schedule import lr_at

CONFIG = OptimizerConfig(lr=0.01)


class Toy(torch.nn.Module):
    """Tensors of each kind: matrices, a zero matrix, LayerNorm and bias."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.dense = torch.nn.Linear(7, 5)
        self.layer_norm = torch.nn.LayerNorm(5)
        self.zero = torch.nn.Linear(5, 3, bias=False)
        self.tiny = torch.nn.Linear(5, 2, bias=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            self.zero.weight.zero_()
            self.tiny.weight.mul_(1e-4)
        self.to(dtype)


def gradients(step: int) -> dict[str, np.ndarray]:
    """Gradients of a step, some small and some that the clip must shrink; those of `tiny` stay zero in the first steps."""
    generator = np.random.default_rng(step)
    scale = 10.0 if step % 3 == 0 else 0.01
    result = {name: scale * generator.standard_normal(tuple(p.shape)) for name, p in Toy().named_parameters()}
    if step < 5:
        result["tiny.weight"][:] = 0.0
    return {name: grad.astype(np.float32).astype(np.float64) for name, grad in result.items()}


def lamb_reference(weights: dict[str, np.ndarray], steps: int, lrs: list[float], config: OptimizerConfig) -> dict[str, np.ndarray]:
    """`lamb_optimizer.py` of google-research/albert, after `tf.clip_by_global_norm`, restated in float64."""
    m = {name: np.zeros_like(w) for name, w in weights.items()}
    v = {name: np.zeros_like(w) for name, w in weights.items()}
    for step in range(steps):
        grads = gradients(step)
        norm = np.sqrt(sum((grad**2).sum() for grad in grads.values()))
        for name, w in weights.items():
            grad = grads[name] * config.max_grad_norm / max(norm, config.max_grad_norm)
            m[name] = config.beta1 * m[name] + (1 - config.beta1) * grad
            v[name] = config.beta2 * v[name] + (1 - config.beta2) * grad**2
            update = m[name] / (np.sqrt(v[name]) + config.eps)
            ratio = 1.0
            if not any(word in name for word in ("layer_norm", "bias")):
                update = update + config.weight_decay * w
                w_norm, update_norm = np.sqrt((w**2).sum()), np.sqrt((update**2).sum())
                ratio = w_norm / update_norm if w_norm > 0 and update_norm > 0 else 1.0
            weights[name] = w - lrs[step] * ratio * update
    return weights


@pytest.mark.parametrize("compiled", [False, True])
def test_lamb_equals_a_float64_restatement_over_50_steps(compiled):
    model, steps = Toy(), 50
    schedule = ScheduleConfig(warmup_steps=10, total_steps=60)
    lrs = [lr_at(step, peak_lr=CONFIG.lr, schedule=schedule) for step in range(steps)]
    expected = {name: p.detach().double().numpy().copy() for name, p in model.named_parameters()}
    expected = lamb_reference(expected, steps, lrs, CONFIG)
    optimizer = build_optimizer(model, CONFIG)
    if compiled:
        optimizer.compile()
    for step in range(steps):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.from_numpy(gradients(step)[name]).float()
        set_lr(optimizer, lrs[step])
        optimizer.step()
    for name, parameter in model.named_parameters():
        # fp32 rounding (6e-8) in some ten operations over 50 steps
        np.testing.assert_allclose(parameter.detach().numpy(), expected[name], rtol=2e-5, atol=1e-7, err_msg=name)


def test_a_zero_tensor_moves_with_ratio_one_and_a_tensor_without_gradient_stays():
    model = Toy()
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.1, weight_decay=0.0))
    for parameter in model.parameters():
        parameter.grad = None
    model.zero.weight.grad = torch.full_like(model.zero.weight, 0.01)
    before = model.dense.weight.detach().clone()
    optimizer.step()
    update = (1 - 0.9) * 0.01 / ((1 - 0.999) ** 0.5 * 0.01 + 1e-6)
    torch.testing.assert_close(model.zero.weight, torch.full_like(model.zero.weight, -0.1 * update))
    assert torch.equal(model.dense.weight, before)


def test_layer_norm_and_bias_tensors_of_the_model_are_excluded_and_nothing_else():
    model = Albert(ModelConfig(embedding_size=8, hidden_size=16, num_attention_heads=2, intermediate_size=16), 40)
    adapted, plain = build_optimizer(model, CONFIG).param_groups
    assert all(parameter.dim() == 2 for parameter in adapted["params"])
    assert all(parameter.dim() == 1 for parameter in plain["params"])
    assert len(adapted["params"]) + len(plain["params"]) == len(list(model.parameters()))
    assert (adapted["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)


@pytest.mark.parametrize("scale", [0.001, 100.0])
def test_the_clip_is_by_the_global_norm_before(scale):
    model = torch.nn.Linear(4, 3)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, scale)
    optimizer = build_optimizer(model, CONFIG)
    assert optimizer.clip_factor().item() == pytest.approx(1.0 if scale < 1 else 1 / (scale * 15**0.5))
    assert optimizer.grad_norm.item() == pytest.approx(scale * 15**0.5)


def test_adamw_clips_and_then_does_what_torch_does():
    model, twin = Toy(), Toy()
    optimizer = build_optimizer(model, OptimizerConfig(name="adamw", lr=0.01))
    reference = torch.optim.AdamW(twin.parameters(), lr=0.01, eps=1e-6, weight_decay=0.0)
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    for step in range(3):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.from_numpy(gradients(step)[name]).float()
            twin.get_parameter(name).grad = parameter.grad.clone()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
        optimizer.step()
        reference.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, twin.get_parameter(name), rtol=1e-4, atol=1e-5)  # torch's clip adds 1e-6 to the norm


def test_schedule_is_linear_up_linear_down_and_continuous_at_the_join():
    schedule = ScheduleConfig(warmup_steps=3125, total_steps=125_000)
    lrs = np.array([lr_at(step, peak_lr=0.00176, schedule=schedule) for step in range(125_001)])
    assert lrs[0] == 0.0
    assert lrs[3125] == 0.00176 == lrs.max()
    assert lrs[125_000] == 0.0
    np.testing.assert_allclose(np.diff(lrs[:3126]), 0.00176 / 3125, rtol=1e-9)
    np.testing.assert_allclose(np.diff(lrs[3125:]), -0.00176 / 121_875, rtol=1e-6)
    assert np.abs(np.diff(lrs)).max() < 0.00176 / 3000  # no jump


def test_schedule_without_warmup_starts_at_the_peak():
    assert lr_at(0, peak_lr=1.0, schedule=ScheduleConfig(warmup_steps=0, total_steps=10)) == 1.0


def test_the_learning_rate_is_at_most_the_share_of_the_hours_that_is_left():
    schedule = ScheduleConfig(warmup_steps=10, total_steps=110)
    shares = {(5, 1.0): 0.5, (5, 0.9): 0.5, (5, 0.2): 0.2, (10, 0.9): 0.9, (60, 0.9): 0.5, (60, 0.1): 0.1, (60, 0.0): 0.0}
    for (step, time_left), share in shares.items():
        assert lr_at(step, peak_lr=2.0, schedule=schedule, time_left=time_left) == 2.0 * share
