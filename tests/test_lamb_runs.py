"""LAMB as it runs: each of 50 steps of `albert launch`, read from its checkpoints, against a restatement in float64."""

import numpy as np
import pytest
import torch
import yaml
from runs import CONFIG, records, tensors
from synthetic import VOCAB_SIZE

from data_prep.schema import read_manifest
from pretrain.config import ModelConfig
from pretrain.data import collate, open_split
from pretrain.model import Albert
from pretrain.sample_order import sample_rows

STEPS, WARMUP, TOTAL, PEAK, BATCH = 50, 5, 100, 0.01, 8
OPTIONS = ["--training.steps", STEPS, "--schedule.warmup_steps", WARMUP, "--schedule.total_steps", TOTAL, "--optimizer.lr", PEAK]
OPTIONS += ["--checkpoint.every_n_steps", 1, "--checkpoint.keep_last", STEPS, "--training.validate_every_n_steps", STEPS]
OPTIONS += ["--model.hidden_dropout", 0, "--model.attention_dropout", 0]

# Of the gradient's norm: fp32 rounds at 6e-8 over some hundred additions; bf16 keeps 8 bits and fp16 11, back and forth.
GRADIENT_ERROR = {"fp32": 1e-5, "bf16": 0.1, "fp16": 0.02}


@pytest.mark.parametrize("num_procs", [1, 2])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_fifty_steps_are_lamb_in_float64(dtype, num_procs, launch, synthetic, tmp_path):
    run_folder = tmp_path / "run"
    launch(run_folder, *OPTIONS, "--precision.dtype", dtype, num_procs=num_procs)
    figures = {record["step"]: record for record in records(run_folder)}
    assert len(figures) == STEPS if dtype != "fp16" else len(figures) >= STEPS - 5
    for step in range(2, STEPS + 1):
        before, after = (split_by_kind(run_folder, at) for at in (step - 1, step))
        if step not in figures:  # fp16 has lowered its scale
            assert all(np.array_equal(before["w"][name], after["w"][name]) for name in before["w"])
            continue
        grads = float64_gradients(synthetic, before["w"], step)
        assert abs(figures[step]["grad_norm"] / global_norm(grads) - 1) < GRADIENT_ERROR[dtype]
        check_moments(before, after, grads, GRADIENT_ERROR[dtype])
        assert figures[step]["lr"] == pytest.approx(lr_of(step), rel=1e-12)
        check_weights_and_metrics(before["w"], after, lr_of(step), figures[step])
    if dtype == "fp32":
        check_free_run(synthetic, split_by_kind(run_folder, 1), split_by_kind(run_folder, STEPS)["w"])


def check_moments(before, after, grads, tolerance: float) -> None:
    expected = moments(before, grads)
    for kind, beta, power in (("m", 0.9, 1), ("v", 0.999, 2)):
        error = global_norm({name: after[kind][name] - expected[kind][name] for name in grads})
        news = global_norm({name: expected[kind][name] - beta * before[kind][name] for name in grads})
        assert error < power * tolerance * news, kind


def check_weights_and_metrics(weights, after, lr: float, figures: dict) -> None:
    """The step from the moments it left behind, and what the metrics say of it."""
    wanted, norms = lamb_step(weights, after, lr)
    for name, w in weights.items():
        # a weight is rounded at 6e-8 of itself, an update of ten operations at 1e-6 of itself
        atol = 1e-6 * abs(wanted[name] - w).max()
        np.testing.assert_allclose(after["w"][name], wanted[name], rtol=2e-7, atol=atol, err_msg=name)
    ratios = sorted(norm / update for norm, update in norms)
    told = [figures[f"trust_ratio_{which}"] for which in ("min", "median", "max")]
    np.testing.assert_allclose(told, [ratios[0], ratios[(len(ratios) - 1) // 2], ratios[-1]], rtol=1e-5)
    told = [figures["weight_norm"], figures["update_norm"]]
    np.testing.assert_allclose(told, np.linalg.norm(norms, axis=0), rtol=1e-5)


def check_free_run(data, state, reached) -> None:
    """All steps in float64 from the state after the first, without another look at the run."""
    first = state["w"]
    for step in range(2, STEPS + 1):
        state |= moments(state, float64_gradients(data, state["w"], step))
        state["w"], _ = lamb_step(state["w"], state, lr_of(step))
    for name, w in state["w"].items():
        if "key.bias" in name:  # the softmax takes it away: its gradient is rounding alone
            continue
        # rounding of 1e-7 a step, carried on; a wrong ratio, moment or mean is off by a good part of the way
        assert np.linalg.norm(reached[name] - w) < 1e-3 * np.linalg.norm(w - first[name]), name


def lr_of(step: int) -> float:
    """Learning rate of a step, counted from 1."""
    return PEAK * (step - 1) / WARMUP if step - 1 < WARMUP else PEAK * (TOTAL - step + 1) / (TOTAL - WARMUP)


def moments(before, grads) -> dict[str, dict[str, np.ndarray]]:
    """m and v after the clip to a global norm of 1 (`lamb_optimizer.py` of google-research/albert: no bias correction)."""
    norm = global_norm(grads)
    clipped = {name: grad / max(norm, 1.0) for name, grad in grads.items()}
    return {
        "m": {name: 0.9 * before["m"][name] + 0.1 * grad for name, grad in clipped.items()},
        "v": {name: 0.999 * before["v"][name] + 0.001 * grad**2 for name, grad in clipped.items()},
    }


def lamb_step(weights, state, lr: float) -> tuple[dict[str, np.ndarray], list[tuple[float, float]]]:
    """New weights, and (|w|, |u|) of each tensor that has a trust ratio."""
    new, norms = {}, []
    for name, w in weights.items():
        update = state["m"][name] / (np.sqrt(state["v"][name]) + 1e-6)
        ratio = 1.0
        if not any(word in name for word in ("layer_norm", "bias")):
            update = update + 0.01 * w
            norms.append((np.linalg.norm(w), np.linalg.norm(update)))
            ratio = norms[-1][0] / norms[-1][1]
        new[name] = w - lr * ratio * update
    return new, norms


def split_by_kind(run_folder, step) -> dict[str, dict[str, np.ndarray]]:
    """Weights and moments of a checkpoint, in float64."""
    kinds = {"w": {}, "m": {}, "v": {}}
    for name, tensor in tensors(run_folder, step).items():
        kind, _, rest = name.partition("/")
        of = {"exp_avg": "m", "exp_avg_sq": "v"}.get(kind, "w")
        kinds[of][rest if of != "w" else name] = tensor.double().numpy()
    return kinds


def float64_gradients(data, weights, step) -> dict[str, np.ndarray]:
    """Gradients of the mean losses over the whole batch of a step (from 1), computed in float64."""
    split = open_split(data, read_manifest(data), "train")
    rows = sample_rows((step - 1) * BATCH + np.arange(BATCH), split.shard_rows, 0, 8)
    batch = collate(split.read(rows))
    model = Albert(
        ModelConfig(**yaml.safe_load(CONFIG)["model"] | {"hidden_dropout": 0, "attention_dropout": 0}), VOCAB_SIZE
    ).double()
    model.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
    mlm_logits, sop_logits = model.logits(batch)
    loss = torch.nn.functional.cross_entropy(mlm_logits, batch.mlm_labels_M)
    if (batch.sop_labels_B >= 0).any():
        loss = loss + torch.nn.functional.cross_entropy(sop_logits, batch.sop_labels_B, ignore_index=-100)
    loss.backward()
    return {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}


def global_norm(arrays: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum((array**2).sum() for array in arrays.values())))
